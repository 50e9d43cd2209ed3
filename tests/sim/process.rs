//! One simulated dispatcher: the two machines and what the runner keeps beside them. It has the runner's order of things,
//! the leases first, and can be told to leave a defence out.

use std::collections::BTreeSet;
use std::time::Duration;

use walclock::clock::Timestamp;
use walclock::dispatch::engine::{self, Engine};
use walclock::dispatch::ports::{Claimed, Entry, LeaseRequest, Unavailable};
use walclock::dispatch::shards::{self, Shards};
use walclock::domain::lease::{Lease, Owner};
use walclock::domain::run::Run;
use walclock::domain::shard::Shard;
use walclock::domain::timer::TimerKey;

use crate::plan::Plan;
use crate::watch::Watch;

/// A defence that the simulated process, or the store, goes without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// None: everything is as it should be.
    Nothing,
    /// The store does not fence writes.
    StoreIgnoresEpochs,
    /// The store's claims still find cancelled timers.
    StoreIgnoresCancels,
    /// The clock runs ahead of PostgreSQL's.
    ClockAhead,
    /// Timers that a claim had to leave are forgotten.
    ForgetsLeft,
    /// Runs of earlier epochs are not looked for.
    NoAdoption,
    /// Leases are trusted for ever.
    TrustsLeases,
    /// A claim without an answer is taken for one that found nothing.
    ForgetsLostClaims,
    /// An adoption without an answer is taken for one that found nothing.
    ForgetsLostAdoptions,
    /// A settle without an answer is taken for written.
    ForgetsLostSettles,
    /// What stands in a line is sent without another look at its lease.
    LinesTrustLeases,
    /// Leases in doubt are released for anybody, and asked for anew afterwards.
    ReleasesDoubted,
    /// Shards are handed over to who joins whatever is under way for them.
    HandsOverBusy,
    /// Leases are counted by a clock that stops while the machine is suspended.
    SleepingClock,
    /// Rows are not loaded.
    NoLoads,
    /// A gap of the feed goes unnoticed.
    IgnoresGaps,
    /// All clients are in one namespace.
    OneNamespace,
    /// Hosts are called as often at once as there is room.
    NoHostBound,
    /// Hosts are called as fast as can be.
    NoHostRate,
    /// Hosts that are down are called all the same.
    NoBreaker,
    /// Timers that are deferred stay claimed.
    ForgetsDeferrals,
    /// What the feed tells is not heard; only the sweep finds it.
    DeafToNews,
    /// Leases are asked for a time far longer than what they are trusted for.
    LeasesOutlast,
}

/// What comes to a process.
#[derive(Debug)]
pub enum Message {
    Engine(engine::Event),
    Shards(shards::Event),
    /// Finish what is under way, and leave.
    Stop,
}

/// What a process wants done.
#[derive(Debug)]
pub enum Wish {
    Engine(engine::Effect),
    Lease(LeaseRequest),
}

/// The process.
#[derive(Debug)]
pub struct Process {
    pub owner: Owner,
    pub engine: Engine,
    pub shards: Shards,
    /// Shards whose news it follows, in order.
    followed: Vec<Shard>,
    /// Those that it began to follow, since the world last looked.
    pub taken: Vec<Shard>,
    /// Where in the feed it stands; none while it has no position.
    pub feed_at: Option<usize>,
    /// Its clock minus PostgreSQL's, in microseconds.
    pub clock_offset: i64,
    /// It does nothing before this moment.
    pub paused_until: Timestamp,
    /// The moment of its next wake-up in the world's calendar.
    pub wake: Option<(Timestamp, u64)>,
    pub found: u64,
    /// Timers of runs that it gave up, since the world last looked.
    pub abandoned: Vec<TimerKey>,
    pub stale: u64,
    pub watch: Watch,
    stopping: bool,
    started_at: Timestamp,
    /// How long it has stood still since.
    asleep: Duration,
    planted: Planted,
}

impl Process {
    pub fn start(owner: Owner, plan: &Plan, planted: Planted, now: Timestamp) -> Self {
        let leases = shards::Config::with_ttl(owner.clone(), plan.ttl);
        Self {
            owner,
            engine: Engine::new(without(planted, plan.engine.clone())),
            shards: Shards::new(leases),
            followed: Vec::new(),
            taken: Vec::new(),
            feed_at: None,
            clock_offset: 0,
            paused_until: Timestamp::MIN,
            wake: None,
            found: 0,
            abandoned: Vec::new(),
            stale: 0,
            watch: Watch::new(plan.engine.clone(), plan.clock_steps == 0, plan.gateway),
            stopping: false,
            started_at: now,
            asleep: Duration::ZERO,
            planted,
        }
    }

    /// What its clock reads.
    pub fn reads(&self, now: Timestamp) -> Timestamp {
        Timestamp::from_micros(now.micros() + self.clock_offset)
    }

    /// It stands still from `now` until `until`.
    pub fn pause(&mut self, now: Timestamp, until: Timestamp) {
        self.asleep += until.since(now.max(self.paused_until));
        self.paused_until = self.paused_until.max(until);
    }

    /// The moment from which its leases are counted.
    fn leases_since(&self) -> Timestamp {
        match self.planted {
            Planted::SleepingClock => self.started_at.after(self.asleep),
            _ => self.started_at,
        }
    }

    /// Whether it follows the news of this shard.
    pub fn follows(&self, shard: Shard) -> bool {
        self.followed.binary_search(&shard).is_ok()
    }

    /// Whether this run may be sent now that its turn has come.
    pub fn may_send(&self, now: Timestamp, run: &Run) -> bool {
        let lease = Lease { shard: run.key.timer.shard(), epoch: run.epoch };
        self.planted == Planted::LinesTrustLeases || self.shards.is_sure(now.since(self.leases_since()), lease)
    }

    /// Takes in a message, the leases first, and returns what it wants done.
    pub fn step(&mut self, now: Timestamp, message: Option<Message>) -> Vec<Wish> {
        let mut wishes = Vec::new();
        let mut events = Vec::new();
        let event = match message {
            Some(Message::Shards(event)) => Some(event),
            Some(Message::Stop) => {
                self.stopping = true;
                events.push(engine::Event::Drain);
                Some(shards::Event::Drain)
            }
            Some(Message::Engine(event)) => {
                self.watch.told(&event);
                events.extend(self.leave_out(event));
                None
            }
            None => None,
        };
        for event in event.into_iter().chain([shards::Event::Tick]) {
            self.step_shards(now, event, &mut events, &mut wishes);
        }
        loop {
            let mut effects = Vec::new();
            self.engine.step(self.reads(now), events.drain(..), &mut effects);
            self.engine.assert_invariants();
            for effect in effects {
                self.watch.wanted(self.reads(now), &effect);
                match effect {
                    engine::Effect::GiveUp(leases) => {
                        self.step_shards(now, shards::Event::GiveUp(leases), &mut events, &mut wishes);
                    }
                    engine::Effect::Stale(count) => self.stale += count,
                    engine::Effect::Found(_) => self.found += 1,
                    engine::Effect::Spared(..) | engine::Effect::Back(_) => {}
                    engine::Effect::Abandoned(key) => self.abandoned.push(key),
                    effect => wishes.push(Wish::Engine(effect)),
                }
            }
            self.watch.stepped(self.reads(now));
            if self.shards.asks_busy() {
                let busy = self.busy_shards();
                self.step_shards(now, shards::Event::Busy(busy), &mut events, &mut wishes);
            }
            if events.is_empty() {
                return wishes;
            }
        }
    }

    fn busy_shards(&self) -> BTreeSet<Shard> {
        match self.planted {
            Planted::HandsOverBusy if !self.stopping => BTreeSet::new(),
            _ => self.engine.busy_shards(),
        }
    }

    /// Whether it was stopped and nothing is under way any more.
    pub fn may_leave(&self) -> bool {
        self.stopping && self.engine.is_idle() && !self.shards.is_asking()
    }

    fn step_shards(
        &mut self,
        now: Timestamp,
        event: shards::Event,
        events: &mut Vec<engine::Event>,
        wishes: &mut Vec<Wish>,
    ) {
        let mut effects = Vec::new();
        self.shards.step(now.since(self.leases_since()), event, &mut effects);
        for effect in effects {
            match effect {
                shards::Effect::Ask(mut request) => {
                    match self.planted {
                        Planted::ReleasesDoubted => request.release.append(&mut request.anew),
                        Planted::LeasesOutlast => request.ttl *= 10,
                        _ => {}
                    }
                    wishes.push(Wish::Lease(request));
                }
                shards::Effect::Hold(holding) if self.planted == Planted::TrustsLeases && holding.held.is_empty() => {}
                shards::Effect::Hold(holding) => {
                    let followed = holding.shards();
                    let is_new = |shard: &&Shard| self.followed.binary_search(shard).is_err();
                    self.taken.extend(followed.iter().filter(is_new));
                    self.followed = followed;
                    events.push(engine::Event::Holding(holding));
                }
            }
        }
    }

    /// When it wants to be woken, by PostgreSQL's clock.
    pub fn wake_at(&self, now: Timestamp) -> Timestamp {
        let tick = now.after(Duration::from_secs(1));
        let engine = self.engine.next_wake();
        assert!(engine.is_none_or(|at| at > self.reads(now)), "{} would spin", self.owner.0);
        let engine = engine.map(|at| Timestamp::from_micros(at.micros().saturating_sub(self.clock_offset)));
        let shards = self.shards.next_wake().map(|at| self.leases_since().after(at));
        engine.into_iter().chain(shards).fold(tick, Timestamp::min).max(Timestamp::from_micros(now.micros() + 1))
    }

    /// Leaves out the defence that is to be missing.
    fn leave_out(&self, event: engine::Event) -> Option<engine::Event> {
        use engine::Event;
        match (self.planted, event) {
            (Planted::ForgetsLeft, Event::Claimed { id, answer: Ok(claimed) }) => {
                let far = |entry: Entry| Entry { due_at: Timestamp::MAX, ..entry };
                let left = claimed.left.into_iter().map(far).collect();
                Some(Event::Claimed { id, answer: Ok(Claimed { runs: claimed.runs, left }) })
            }
            (Planted::ForgetsLostClaims, Event::Claimed { id, answer: Err(_) }) => {
                Some(Event::Claimed { id, answer: Ok(Claimed::default()) })
            }
            (Planted::ForgetsLostAdoptions, Event::Adopted(Err(_))) => Some(Event::Adopted(Ok(Vec::new()))),
            (Planted::ForgetsLostSettles, Event::Settled { settlements, written: Err(_) }) => {
                let written = Ok(settlements.iter().map(|_| Ok(true)).collect());
                Some(Event::Settled { settlements, written })
            }
            (Planted::NoLoads, Event::Loaded(_)) => Some(Event::Loaded(Ok(Vec::new()))),
            (Planted::IgnoresGaps, Event::Gap) | (Planted::DeafToNews, Event::Noted(_)) => None,
            (_, event) => Some(event),
        }
    }
}

/// The settings without the bound that is to be missing.
fn without(planted: Planted, config: engine::Config) -> engine::Config {
    match planted {
        Planted::NoHostBound => engine::Config { host_inflight_max: usize::MAX, ..config },
        Planted::NoHostRate => engine::Config { host_rate_max: None, ..config },
        Planted::NoBreaker => engine::Config { host_failures_max: 0, ..config },
        _ => config,
    }
}

/// An answer that was lost.
pub fn lost() -> Unavailable {
    Unavailable { doing: "a simulated call", source: "the answer was lost".into() }
}
