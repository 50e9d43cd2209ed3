//! What a seed decides before the world begins: the machines' settings, and which faults there are.

use std::time::Duration;

use fastrand::Rng;
use walclock::dispatch::engine;

use crate::ledger::Lateness;

/// The namespace whose callbacks fail where a gateway has one that fails.
pub const FAILING: &str = "n0";

/// What namespaces could hold each other up by at a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gateway {
    /// The callbacks of [`FAILING`] do nothing but fail.
    Failing,
    /// The crowd's are more than may be called at once.
    Crowded,
    /// The crowd's are as many, and take seconds.
    Hanging,
}

/// The plan of one world.
#[derive(Clone, Debug)]
pub struct Plan {
    pub processes: usize,
    pub ttl: Duration,
    pub engine: engine::Config,
    /// For how long clients and faults are active.
    pub busy: Duration,
    /// Operations of clients in that time.
    pub operations: usize,
    /// Ids that the clients use, in each namespace.
    pub ids: usize,
    /// Namespaces that the clients use.
    pub namespaces: usize,
    /// Hosts that are called.
    pub hosts: usize,
    /// How often a host is down for a while.
    pub host_outages: usize,
    /// Overdue timers that one more client has at the beginning, whose host does not answer for long.
    pub crowd: usize,
    /// What the namespaces have to share at the only host, behind which each has a receiver of its own; none where hosts are many.
    pub gateway: Option<Gateway>,
    /// Some callbacks take seconds.
    pub slow: bool,
    /// How late a timer that is not of the crowd may be; none where they wait for more than faults.
    pub lateness: Option<Lateness>,
    /// The longest time that a run stands in the line of its server before its request leaves.
    pub line_max: Duration,
    /// One call in so many loses its answer, or is never made; none where it is 0.
    pub lost_one_in: usize,
    /// How often a process crashes.
    pub crashes: usize,
    /// How often a process stands still.
    pub pauses: usize,
    /// How often a process is stopped and started anew.
    pub stops: usize,
    /// How often a process' clock is aligned anew.
    pub clock_steps: usize,
    /// How often the feed is away for a while.
    pub feed_outages: usize,
    /// How often the feed loses its past.
    pub feed_gaps: usize,
    /// The longest time by which the feed is ahead of what queries see, in microseconds.
    pub hidden_max: u64,
    /// The sweep has nothing to find: the feed tells of everything, or says that it does not.
    pub good_feed: bool,
    /// How long a callback may take.
    pub callback_max: Duration,
    /// Processes come and go, nothing else: no callback may be repeated that did not fail.
    pub is_orderly: bool,
    /// One attempt in so many does not succeed; none where it is 0.
    pub fails_one_in: usize,
    /// One request in so many does not leave, because its process is short of something; none where it is 0.
    pub short_one_in: usize,
}

impl Plan {
    /// A world with every fault.
    pub fn faulty(rng: &mut Rng) -> Self {
        let some = |rng: &mut Rng, max: usize| if rng.bool() { 0 } else { rng.usize(0..=max) };
        Self {
            processes: rng.usize(1..=3),
            ttl: Duration::from_millis(rng.u64(800..=2_000)),
            engine: engine_config(rng),
            busy: Duration::from_secs(8),
            operations: rng.usize(10..=80),
            ids: rng.usize(2..=40),
            namespaces: rng.usize(1..=4),
            hosts: rng.usize(1..=4),
            host_outages: some(rng, 3),
            crowd: 0,
            gateway: None,
            slow: true,
            lateness: None,
            line_max: Duration::ZERO,
            lost_one_in: if rng.bool() { 0 } else { rng.usize(4..=60) },
            crashes: some(rng, 3),
            pauses: some(rng, 4),
            stops: some(rng, 3),
            clock_steps: some(rng, 6),
            feed_outages: some(rng, 3),
            feed_gaps: some(rng, 3),
            hidden_max: if rng.bool() { 0 } else { rng.u64(1..=100_000) },
            good_feed: false,
            callback_max: Duration::from_secs(4),
            is_orderly: false,
            fails_one_in: if rng.bool() { 0 } else { rng.usize(2..=10) },
            short_one_in: if rng.bool() { 0 } else { rng.usize(4..=20) },
        }
    }

    /// A world in which the sweep has nothing to find: the feed is never away, though it may lose its past and say so.
    pub fn with_a_good_feed(rng: &mut Rng) -> Self {
        Self { feed_outages: 0, hidden_max: 0, good_feed: true, ..Self::faulty(rng) }
    }

    /// A world in which processes join and leave in good order, and callbacks are over long before a hand-over must be.
    pub fn orderly(rng: &mut Rng) -> Self {
        let (processes, stops) = (rng.usize(2..=4), rng.usize(0..=4));
        Self {
            processes,
            stops,
            ttl: Duration::from_secs(4),
            callback_max: Duration::from_millis(600),
            operations: rng.usize(40..=160),
            lost_one_in: 0,
            crashes: 0,
            pauses: 0,
            is_orderly: true,
            ..Self::with_a_good_feed(rng)
        }
    }

    /// A world in which processes crash and answers are lost all the time.
    pub fn with_lost_answers(rng: &mut Rng) -> Self {
        let (crashes, lost_one_in) = (rng.usize(3..=6), rng.usize(4..=8));
        Self { crashes, lost_one_in, ..Self::faulty(rng) }
    }

    /// A world in which the horizon moves whenever the sweep is due, and the feed is far ahead of what queries see.
    pub fn in_step(rng: &mut Rng) -> Self {
        let config = engine_config(rng);
        let bounds = engine::Config { horizon_step: config.sweep_every, queue_max: 1_000, ..config };
        Self { engine: bounds, hidden_max: 200_000, ..Self::with_lost_answers(rng) }
    }

    /// A world in which runs stand in the lines of their servers for longer than a lease lasts.
    pub fn with_lines(rng: &mut Rng) -> Self {
        let line_max = Duration::from_millis(rng.u64(200..=4_000));
        // Many may wait at once, or the calm at the end would be too short for all.
        let bounds = engine::Config {
            inflight_max: rng.usize(20..=40),
            host_inflight_max: 1_000,
            host_failures_max: 0,
            ..engine_config(rng)
        };
        let (lost_one_in, pauses) = (rng.usize(4..=20), rng.usize(0..=6));
        Self { engine: bounds, line_max, lost_one_in, pauses, ..Self::faulty(rng) }
    }

    /// A world of one process that neither stops nor stands still, in which answers are lost, but not so many that its
    /// leases run out.
    pub fn alone(rng: &mut Rng) -> Self {
        let bounds = engine::Config { inflight_max: rng.usize(20..=40), ..engine_config(rng) };
        Self {
            processes: 1,
            engine: bounds,
            ttl: Duration::from_secs(4),
            lost_one_in: rng.usize(6..=20),
            crashes: 0,
            pauses: 0,
            stops: 0,
            is_orderly: true,
            ..Self::faulty(rng)
        }
    }

    /// A world in which all is well.
    pub fn punctual(rng: &mut Rng) -> Self {
        let processes = rng.usize(1..=3);
        let lateness = Lateness { max: Duration::from_secs(1), behind_fault_max: Duration::ZERO };
        // What only the sweep finds is late; that it should find nothing is another matter.
        Self { processes, lateness: Some(lateness), good_feed: false, ..Self::calm(rng).with_room(rng) }
    }

    /// A world with every fault, in which timers wait for nothing else.
    pub fn roomy(rng: &mut Rng) -> Self {
        let plan = Self::faulty(rng).with_room(rng);
        let behind_fault_max = plan.ttl + plan.engine.sweep_every + Duration::from_secs(2);
        let lateness = Lateness { max: Duration::from_secs(1), behind_fault_max };
        Self { lateness: Some(lateness), ..plan }
    }

    /// The same with room for all callbacks at once, and hosts that are called however they are.
    fn with_room(self, rng: &mut Rng) -> Self {
        let engine = engine::Config {
            queue_max: 1_000,
            backlog_max: 1_000,
            inflight_max: rng.usize(60..=100),
            host_inflight_max: 1_000,
            host_rate_max: None,
            host_failures_max: 0,
            ..self.engine
        };
        Self { engine, ..self }
    }

    /// A world in which all is well, but for one namespace with more timers than there is room, at a host that hangs.
    pub fn crowded(rng: &mut Rng) -> Self {
        let bounds = engine::Config {
            lead: Duration::from_millis(50),
            queue_max: 1_000,
            inflight_max: rng.usize(18..=40),
            batch_max: rng.usize(10..=50),
            backlog_max: rng.usize(5..=60),
            host_inflight_max: rng.usize(12..=100),
            host_rate_max: None,
            ..engine_config(rng)
        };
        Self {
            processes: 1,
            engine: bounds,
            operations: 40,
            ids: 200,
            namespaces: rng.usize(1..=3),
            crowd: rng.usize(40..=120),
            slow: false,
            lateness: Some(Lateness { max: Duration::from_millis(300), behind_fault_max: Duration::ZERO }),
            ..Self::calm(rng)
        }
    }

    /// A world in which all is well, but for hosts that are down for a while.
    pub fn with_hosts_down(rng: &mut Rng) -> Self {
        let bounds = engine::Config {
            inflight_max: rng.usize(2..=6),
            batch_max: rng.usize(2..=6),
            host_failures_max: rng.u32(1..=5),
            host_rate_max: None,
            ..engine_config(rng)
        };
        Self {
            processes: rng.usize(1..=2),
            engine: bounds,
            operations: 80,
            ids: 60,
            hosts: rng.usize(1..=2),
            host_outages: rng.usize(1..=2),
            slow: false,
            ..Self::calm(rng)
        }
    }

    /// A world in which all is well, but for one namespace whose receiver fails behind the gateway that all of them call.
    pub fn with_a_failing_receiver(rng: &mut Rng) -> Self {
        let host_failures_max = rng.u32(1..=4);
        Self { gateway: Some(Gateway::Failing), ..Self::at_a_gateway(rng, host_failures_max) }
    }

    /// A world in which all is well, but for one namespace with far more timers than the gateway that all of them call may be
    /// called with.
    pub fn with_a_crowded_gateway(rng: &mut Rng) -> Self {
        let crowd = rng.usize(40..=120);
        Self { gateway: Some(Gateway::Crowded), crowd, ..Self::at_a_gateway(rng, 0) }
    }

    /// The same where that namespace's callbacks take seconds, and the others' must be called nevertheless.
    pub fn with_a_hanging_receiver(rng: &mut Rng) -> Self {
        let crowd = rng.usize(80..=120);
        let plan = Self::at_a_gateway(rng, 0);
        let bounds = engine::Config {
            // As much as the others have at once, in what the crowd leaves of each.
            inflight_max: rng.usize(150..=200),
            host_inflight_max: rng.usize(70..=80),
            host_rate_max: None,
            lead: Duration::from_millis(50),
            batch_max: rng.usize(20..=50),
            backlog_max: 1_000,
            ..plan.engine
        };
        let lateness = Some(Lateness { max: Duration::from_millis(300), behind_fault_max: Duration::ZERO });
        Self { gateway: Some(Gateway::Hanging), crowd, engine: bounds, operations: 40, lateness, ..plan }
    }

    fn at_a_gateway(rng: &mut Rng, host_failures_max: u32) -> Self {
        let bounds = engine::Config {
            queue_max: 1_000,
            inflight_max: rng.usize(18..=60),
            host_inflight_max: rng.usize(1..=5),
            host_rate_max: if rng.bool() { None } else { Some(rng.u32(10..=50)) },
            host_failures_max,
            ..engine_config(rng)
        };
        let (namespaces, slow) = (rng.usize(2..=4), false);
        Self { processes: 1, engine: bounds, operations: 80, ids: 60, hosts: 1, namespaces, slow, ..Self::calm(rng) }
    }

    /// A world without faults.
    fn calm(rng: &mut Rng) -> Self {
        Self {
            lost_one_in: 0,
            crashes: 0,
            pauses: 0,
            stops: 0,
            clock_steps: 0,
            feed_gaps: 0,
            host_outages: 0,
            fails_one_in: 0,
            short_one_in: 0,
            ..Self::with_a_good_feed(rng)
        }
    }
}

fn engine_config(rng: &mut Rng) -> engine::Config {
    engine::Config {
        lead: Duration::from_millis(rng.u64(0..=100)),
        crowd_lead_max: Duration::from_millis(rng.u64(0..=400)),
        crowd_min: rng.usize(1..=10),
        horizon: Duration::from_millis(rng.u64(500..=4_000)),
        horizon_step: Duration::from_millis(rng.u64(200..=1_000)),
        queue_max: if rng.bool() { 1_000 } else { rng.usize(3..=20) },
        backlog_max: rng.usize(2..=30),
        inflight_max: rng.usize(2..=20),
        host_inflight_max: if rng.bool() { 1_000 } else { rng.usize(1..=5) },
        host_rate_max: if rng.bool() { None } else { Some(rng.u32(5..=50)) },
        host_failures_max: if rng.bool() { 0 } else { rng.u32(1..=5) },
        batch_max: rng.usize(1..=6),
        claims_max: rng.usize(1..=3),
        settles_max: rng.usize(1..=2),
        sweep_every: Duration::from_millis(700),
        sweep_grace: Duration::from_millis(300),
        adopt_every: Duration::from_secs(3),
        seed: rng.u64(..),
    }
}
