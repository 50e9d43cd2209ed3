//! The durable clock's core as a pure machine: what happened goes in, what to do comes out. It knows no clock, no SQL
//! and no HTTP, and it must never trust its memory over the row.
//!
//! A timer's way through it: a hint from the feed or a load (`horizon`) waits in the due-queue (`queue`); a moment
//! before it is due it is claimed (`claims`), which makes it a run; the run is sent at its due moment, if its host may be
//! called (`hosts`), and its outcome settled (`runs`). `holds` says which shards all this may be done for, `invariants`
//! what must never happen.

mod claims;
mod cuts;
mod deferrals;
mod holds;
mod horizon;
mod hosts;
pub mod invariants;
mod queue;
mod random;
mod runs;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::ports::{Claimed, Entry, LoadRequest, Unavailable, Unmade, Written};
use super::shards::Holding;
use crate::clock::Timestamp;
use crate::domain::lease::{Epoch, Lease};
use crate::domain::limits::BATCH_ROWS_MAX;
use crate::domain::run::{Attempt, Run, RunKey, Settlement};
use crate::domain::shard::Shard;
use crate::domain::timer::TimerKey;
use claims::{Claim, Crowd};
use holds::Holds;
use horizon::Loader;
use hosts::Hosts;
use queue::{Hint, Queue};
use random::Random;
use runs::{Adoption, Record};

/// The engine's bounds and paces.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long before its due moment a timer is claimed: time for the claim's round trip.
    pub lead: Duration,
    /// How much earlier the timers of a crowd are claimed, at most: time for the round trips of very many.
    pub crowd_lead_max: Duration,
    /// From so many timers within that span on, they are a crowd; ten times as many are claimed earlier by all of it.
    pub crowd_min: usize,
    /// How far ahead timers are kept in memory.
    pub horizon: Duration,
    /// By how much the horizon moves at a time. News up to one step behind the horizon is kept too, so that a timer
    /// committed while the horizon moves is not missed by both the feed and the load.
    pub horizon_step: Duration,
    /// Most hints in memory. Beyond it, those of the namespace with the most give way, and are read again once it has room.
    pub queue_max: usize,
    /// Overdue hints in memory above which no more of them are loaded until some are claimed. Those of a namespace with a
    /// large part of them do not count from then on: it is cut off, and read on when some of its own are claimed.
    pub backlog_max: usize,
    /// Most runs claimed and not finished, those being claimed included. As many again may be over but for the writing,
    /// while it is unsure who owns their shards.
    pub inflight_max: usize,
    /// Most requests under way to one host.
    pub host_inflight_max: usize,
    /// Most requests a second to one host; none for any number.
    pub host_rate_max: Option<u32>,
    /// Failures of one host in a row for one namespace, or to connect to it for any, after which it is spared for a while; 0
    /// never spares.
    pub host_failures_max: u32,
    /// Most rows of one statement; at most `limits::BATCH_ROWS_MAX`.
    pub batch_max: usize,
    /// Most claims under way at the same time.
    pub claims_max: usize,
    /// Most settle statements under way at the same time; one more repeats those that failed.
    pub settles_max: usize,
    /// How often overdue timers that nobody knows of are looked for.
    pub sweep_every: Duration,
    /// How long a timer must be overdue before the sweep looks at it.
    pub sweep_grace: Duration,
    /// How often runs of older epochs are looked for, besides at each take-over.
    pub adopt_every: Duration,
    /// What the jitter of retries follows from.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lead: Duration::from_millis(50),
            crowd_lead_max: Duration::from_millis(300),
            // Two claims take fewer within the usual lead. Each timer of a crowd has 30 µs: what its claim takes of one core.
            crowd_min: 1_000,
            horizon: Duration::from_secs(60),
            horizon_step: Duration::from_secs(15),
            queue_max: 1_000_000,
            backlog_max: 50_000,
            inflight_max: 16_384,
            host_inflight_max: 1_024,
            host_rate_max: None,
            host_failures_max: 20,
            batch_max: BATCH_ROWS_MAX,
            claims_max: 3,
            settles_max: 2,
            sweep_every: Duration::from_secs(5),
            sweep_grace: Duration::from_secs(3),
            adopt_every: Duration::from_secs(15),
            seed: 0,
        }
    }
}

impl Config {
    /// Checks that the engine can work with it; says what is wrong otherwise.
    pub fn validate(&self) -> Result<(), &'static str> {
        if self.horizon_step.is_zero() {
            return Err("horizon_step must be longer than nothing");
        }
        if self.lead.saturating_add(self.crowd_lead_max) > self.horizon {
            return Err("lead and crowd_lead_max together must not be longer than horizon");
        }
        if self.sweep_every.is_zero() || self.adopt_every.is_zero() {
            return Err("sweep_every and adopt_every must be longer than nothing");
        }
        if !(1..=BATCH_ROWS_MAX).contains(&self.batch_max) {
            return Err("batch_max must be from 1 to 1,000");
        }
        let counts = [self.queue_max, self.backlog_max, self.inflight_max, self.claims_max, self.settles_max];
        if counts.contains(&0) {
            return Err("queue_max, backlog_max, inflight_max, claims_max and settles_max must be at least 1");
        }
        if self.host_inflight_max == 0 || self.host_rate_max == Some(0) {
            return Err("host_inflight_max and host_rate_max must be at least 1");
        }
        Ok(())
    }
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The leases are these now.
    Holding(Holding),
    /// The feed told of timers that were inserted or updated, in commit order.
    Noted(Vec<Entry>),
    /// The feed begins anew, at a position from which it is followed from now on: what came before must be read.
    Gap,
    /// The answer to [`Effect::Load`].
    Loaded(Result<Vec<Entry>, Unavailable>),
    /// The answer to [`Effect::Claim`].
    Claimed {
        /// The claim's number.
        id: u64,
        /// What it found. When this is an error the claim may have happened.
        answer: Result<Claimed, Unavailable>,
    },
    /// The answer to [`Effect::Adopt`].
    Adopted(Result<Vec<Run>, Unavailable>),
    /// The answer to [`Effect::Deliver`].
    Attempted {
        /// What was delivered.
        run: Box<Run>,
        /// How it went.
        attempt: Attempt,
    },
    /// What was to be delivered has not been sent: when its turn came, its lease was not sure any more.
    Unsent(Box<Run>),
    /// What was to be delivered has not been sent: the process was short of something.
    Unmade(Box<Run>, Unmade),
    /// The answer to [`Effect::Settle`].
    Settled {
        /// What was to be written.
        settlements: Vec<Settlement>,
        /// What became of each. When this is an error they may have been written.
        written: Result<Vec<Written>, Unavailable>,
    },
    /// Whether the clock is trusted. As long as it is not, nothing is claimed and nothing leaves; the rest goes on.
    Trust(bool),
    /// Take nothing new any more; finish what is under way.
    Drain,
    /// Time has passed.
    Tick,
}

/// What to do.
#[derive(Debug)]
pub enum Effect {
    /// Load hints; at most one load is under way.
    Load(LoadRequest),
    /// Claim these timers.
    Claim {
        /// Names the claim in its answer.
        id: u64,
        /// The timers, each with the epoch of its shard.
        timers: Vec<(TimerKey, Epoch)>,
        /// Only those due at or before this moment.
        until: Timestamp,
    },
    /// Take over what older epochs left running; at most one adoption is under way.
    Adopt {
        /// The leases of the shards to look in.
        leases: Vec<Lease>,
        /// At most so many runs.
        limit: usize,
    },
    /// Send the callback now.
    Deliver(Box<Run>),
    /// Write these outcomes.
    Settle(Vec<Settlement>),
    /// Hold the shards of these leases on in a new epoch: a write under them has an unknown outcome.
    GiveUp(Vec<Lease>),
    /// This host fails: it is spared until this moment.
    Spared(Target, Timestamp),
    /// This host answers again.
    Back(Target),
    /// So many writes were refused because another owner has taken over.
    Stale(u64),
    /// The sweep found this timer; neither the feed nor a load had told of it. A bug, or a fault of the feed.
    Found(TimerKey),
    /// One dispatcher after the other left the run of this timer without an outcome: it counts as a failed attempt.
    Abandoned(TimerKey),
}

/// A host, as far as it is spared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Scheme, name and port.
    pub host: Arc<str>,
    /// The namespace whose callbacks it answers like that; none where it is so for all of them, because there is no connection.
    pub namespace: Option<Arc<str>>,
}

/// The machine. See the module.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    random: Random,
    draining: bool,
    /// The clock is trusted.
    trusts: bool,
    /// The moment of the last step.
    stepped_at: Timestamp,
    holds: Holds,
    queue: Queue,
    /// Due hints of shards that are unsure or leaving at the moment.
    parked: Vec<Hint>,
    loader: Loader,
    claims: HashMap<u64, Claim>,
    /// Of the timers in `claims` those that a sweep found, and the feed has not told of since.
    sweeping: HashSet<TimerKey>,
    claims_count: u64,
    /// Timers in `claims`.
    claiming: usize,
    crowd: Crowd,
    /// Claimed and not sent, by the due moment, then first in first out.
    ready: BTreeMap<(Timestamp, u64), Box<Run>>,
    ready_count: u64,
    /// Due runs of shards that are unsure at the moment.
    #[expect(clippy::vec_box, reason = "they go back to `ready` as they are")]
    parked_runs: Vec<Box<Run>>,
    hosts: Hosts,
    /// Runs that were put back without an attempt, since the beginning.
    deferred: u64,
    /// When the last run is due again of those that were put back because this process was short of something.
    short_until: Timestamp,
    /// Every run that is claimed and not finished.
    records: HashMap<RunKey, Record>,
    /// How many of them each shard has, where it has any: it may be asked for after each step.
    records_of: BTreeMap<Shard, usize>,
    /// Timers that are being put back, and how many runs of each.
    putting_back: HashMap<TimerKey, usize>,
    settlements: VecDeque<Settlement>,
    /// Settlements that wait for their shard to be sure again, or for its adoption.
    parked_settlements: Vec<Settlement>,
    /// Settlements that would put a timer back whose newer one is being claimed at the moment.
    held_back: Vec<Settlement>,
    settling: usize,
    /// Since when outcomes wait to be written, while some do.
    unsettled_since: Option<Timestamp>,
    /// Settlements whose writing failed. They are repeated apart from the others, so that whatever one of them meets
    /// holds up none but those that failed with it.
    repeats: VecDeque<Settlement>,
    /// The first of those that are being repeated.
    repeating: Option<RunKey>,
    repeat_at: Timestamp,
    adopting: Option<Adoption>,
    adopt_again_at: Timestamp,
}

impl Engine {
    /// A machine that holds nothing yet. Panics where [`Config::validate`] fails.
    pub fn new(config: Config) -> Self {
        assert_eq!(config.validate(), Ok(()), "a configuration that was validated");
        Self {
            random: Random::new(config.seed),
            hosts: Hosts::new(hosts::Bounds {
                inflight_max: config.host_inflight_max,
                rate_max: config.host_rate_max,
                failures_max: config.host_failures_max,
            }),
            config,
            draining: false,
            trusts: true,
            stepped_at: Timestamp::MIN,
            holds: Holds::default(),
            queue: Queue::default(),
            parked: Vec::new(),
            loader: Loader::default(),
            claims: HashMap::new(),
            sweeping: HashSet::new(),
            claims_count: 0,
            claiming: 0,
            crowd: Crowd::default(),
            ready: BTreeMap::new(),
            ready_count: 0,
            parked_runs: Vec::new(),
            deferred: 0,
            short_until: Timestamp::MIN,
            records: HashMap::new(),
            records_of: BTreeMap::new(),
            putting_back: HashMap::new(),
            settlements: VecDeque::new(),
            parked_settlements: Vec::new(),
            held_back: Vec::new(),
            settling: 0,
            unsettled_since: None,
            repeats: VecDeque::new(),
            repeating: None,
            repeat_at: Timestamp::MIN,
            adopting: None,
            adopt_again_at: Timestamp::MIN,
        }
    }

    /// Takes in what happened, in order, and appends what is to be done now. `now` must not be ahead of PostgreSQL's
    /// clock; it may step back.
    pub fn step(&mut self, now: Timestamp, events: impl IntoIterator<Item = Event>, effects: &mut Vec<Effect>) {
        if now < self.stepped_at {
            self.set_back(now);
        }
        self.stepped_at = now;
        for event in events {
            self.apply(now, event, effects);
        }
        if self.trusts {
            self.send(now, effects);
        }
        self.settle(now, effects);
        self.repeat(now, effects);
        if !self.draining {
            self.adopt(now, effects);
            if self.trusts {
                self.claim(now, effects);
            }
            self.load(now, effects);
        }
    }

    fn apply(&mut self, now: Timestamp, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Holding(holding) => self.hold(&holding),
            Event::Noted(entries) => self.note(now, entries),
            Event::Gap => self.reload(),
            Event::Loaded(page) => self.loaded(now, page),
            Event::Claimed { id, answer } => self.claimed(now, id, answer, effects),
            Event::Adopted(runs) => self.adopted(now, runs, effects),
            Event::Attempted { run, attempt } => self.attempted(now, run, attempt, effects),
            Event::Unsent(run) => self.unsent(now, run),
            Event::Unmade(run, unmade) => self.unmade(now, run, unmade),
            Event::Settled { settlements, written } => self.settled(now, settlements, written, effects),
            Event::Trust(trusts) => self.trusts = trusts,
            Event::Drain => self.drain(),
            Event::Tick => {}
        }
    }

    /// When `step` is to be called at the latest, though nothing happened until then; none while only an answer can
    /// bring new work.
    pub fn next_wake(&self) -> Option<Timestamp> {
        let send_at = self.ready.first_key_value().map(|((due_at, _), _)| *due_at).filter(|_| self.trusts);
        let host_at = self.hosts.next_wake().filter(|_| self.trusts);
        let repeat_at = (!self.repeats.is_empty() && self.repeating.is_none()).then_some(self.repeat_at);
        let work = match self.draining {
            true => [None, None, None],
            false => [self.next_claim().filter(|_| self.trusts), self.next_load(), self.next_adoption()],
        };
        work.into_iter().chain([send_at, host_at, repeat_at, self.next_settle()]).flatten().min()
    }

    /// Whether nothing is under way that a drain would wait for.
    pub fn is_idle(&self) -> bool {
        self.claims.is_empty() && self.records.len() == self.parked_settlements.len() + self.parked_runs.len()
    }

    /// The shards for which something is under way: a run, or a claim that may make one.
    pub fn busy_shards(&self) -> BTreeSet<Shard> {
        let claiming = self.claims.values().flatten().map(|(hint, _)| hint.shard);
        claiming.chain(self.records_of.keys().copied()).collect()
    }

    /// Hints in memory.
    pub fn queue_len(&self) -> usize {
        self.queue.len() + self.parked.len()
    }

    /// Runs claimed or being claimed or adopted, and not finished. At most `inflight_max`, and as many again whose
    /// outcome waits for a lease.
    pub fn inflight(&self) -> usize {
        self.claiming + self.records.len() + self.adopting.as_ref().map_or(0, |adoption| adoption.limit)
    }

    /// Runs that are due and wait for others of their host.
    pub fn waiting(&self) -> usize {
        self.hosts.waiting()
    }

    /// Requests under way.
    pub fn requests(&self) -> usize {
        self.hosts.inflight()
    }

    /// Hosts that are spared at the moment, each counted for itself and for each namespace that alone finds it failing.
    pub fn hosts_spared(&self) -> usize {
        self.hosts.spared()
    }

    /// Runs that were put back without an attempt, since the beginning.
    pub fn deferred(&self) -> u64 {
        self.deferred
    }

    /// How many more runs may be taken.
    fn room(&self) -> usize {
        self.config.inflight_max.saturating_sub(self.inflight())
    }

    /// The clock was set back. What waits for a moment that had been reckoned by the old time would wait for as long as it
    /// was set back by; so it is reckoned anew.
    fn set_back(&mut self, now: Timestamp) {
        self.repeat_at = self.repeat_at.min(now);
        self.crowd.set_back(now);
        self.unsettled_since = self.unsettled_since.map(|since| since.min(now));
        self.adopt_again_at = self.adopt_again_at.min(now.after(self.config.adopt_every));
        self.loader.set_back(now, self.config.sweep_every);
        let late = self.queue.set_back(now, |due_at| claims::claim_at(due_at, self.config.lead));
        for hint in late {
            self.enqueue(self.claim_at(hint.due_at), hint);
        }
    }

    /// Takes nothing new any more.
    fn drain(&mut self) {
        self.draining = true;
        self.queue.clear();
        self.parked.clear();
        // What waits for its host is put back instead.
        for run in self.hosts.take_waiting() {
            self.make_ready(run);
        }
        self.loader = Loader::default();
    }

    /// Whether the shard's timers are this engine's to keep: held, or not surely lost.
    fn is_kept(&self, shard: Shard) -> bool {
        self.holds.is_kept(shard)
    }
}
