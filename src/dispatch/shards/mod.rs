//! Which shards this dispatcher may work for, as a pure machine: a fair share, leased and renewed in one statement.
//! "Unsure" means "not owner": a lease counts only until the moment at which the request for it was sent, plus its time
//! to live, minus a margin, by the monotonic clock. It must never trust a lease for longer.
//!
//! Moments here are spans since any fixed instant of the monotonic clock.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use super::ports::{LeaseGrant, LeaseRequest, Unavailable};
use crate::domain::lease::{Epoch, Lease, Owner};
use crate::domain::shard::Shard;

/// Most surplus shards released in one round, so that others take them over gradually.
const RELEASE_MAX: usize = Shard::COUNT / 4;

/// Who leases, and for how long.
#[derive(Clone, Debug)]
pub struct Config {
    /// This process, and this start of it.
    pub owner: Owner,
    /// How long a lease lasts; it is renewed after a third of it. At least 100 ms.
    pub ttl: Duration,
    /// By how much earlier than PostgreSQL this side considers it over: what clocks drift apart within `ttl`, and a
    /// pause between looking at the lease and using it. Less than half of `ttl`.
    pub margin: Duration,
}

impl Config {
    /// The settings of a server: 10 s, and a fifth of it as the margin.
    pub fn new(owner: Owner) -> Self {
        Self::with_ttl(owner, Duration::from_secs(10))
    }

    /// Leases that last `ttl`, and a fifth of it as the margin.
    pub fn with_ttl(owner: Owner, ttl: Duration) -> Self {
        Self { owner, ttl, margin: ttl / 5 }
    }

    /// Checks the bounds; says what is wrong otherwise.
    pub fn validate(&self) -> Result<(), &'static str> {
        if self.ttl < Duration::from_millis(100) {
            return Err("ttl must be at least 100 ms");
        }
        if self.margin >= self.ttl / 2 {
            return Err("margin must be less than half of ttl");
        }
        Ok(())
    }
}

/// What may be worked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// Surely held, in order of the shards.
    pub held: Vec<Lease>,
    /// Perhaps still held, or soon again: not to be worked for, but not to be forgotten either.
    pub unsure: Vec<Shard>,
}

impl Holding {
    /// The shards of both kinds: those whose news are worth following.
    pub fn shards(&self) -> Vec<Shard> {
        let mut shards: Vec<Shard> =
            self.held.iter().map(|lease| lease.shard).chain(self.unsure.iter().copied()).collect();
        shards.sort_unstable();
        shards.dedup();
        shards
    }
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The answer to [`Effect::Ask`]. When it is an error, what was asked for may have happened.
    Answered(Result<LeaseGrant, Unavailable>),
    /// These leases are to be released and acquired anew.
    GiveUp(Vec<Lease>),
    /// These leases are to be released for others: nothing is under way for their shards.
    Release(Vec<Lease>),
    /// Acquire nothing any more.
    Drain,
    /// Time has passed.
    Tick,
}

/// What to do.
#[derive(Debug)]
pub enum Effect {
    /// Ask the lease table; at most one question is under way.
    Ask(LeaseRequest),
    /// What may be worked for has changed.
    Hold(Holding),
}

/// A lease that is to be released.
#[derive(Clone, Copy, Debug)]
struct Release {
    lease: Lease,
    /// The shard is wanted again, in a new epoch.
    wanted: bool,
}

/// A question under way.
#[derive(Debug)]
struct Question {
    asked_at: Duration,
    release: Vec<Lease>,
}

/// The machine. See the module.
#[derive(Debug)]
pub struct Shards {
    config: Config,
    held: BTreeMap<Shard, Epoch>,
    /// Until when `held` may be trusted.
    held_until: Duration,
    /// Whether that moment has passed.
    lapsed: bool,
    releases: Vec<Release>,
    question: Option<Question>,
    ask_at: Duration,
    owners_alive: usize,
    draining: bool,
}

impl Shards {
    /// A machine that holds nothing yet. Panics where [`Config::validate`] fails.
    pub fn new(config: Config) -> Self {
        assert_eq!(config.validate(), Ok(()), "a configuration that was validated");
        Self {
            config,
            held: BTreeMap::new(),
            held_until: Duration::ZERO,
            lapsed: false,
            releases: Vec::new(),
            question: None,
            ask_at: Duration::ZERO,
            owners_alive: 1,
            draining: false,
        }
    }

    /// Takes in what happened at `at` and appends what is to be done. To be called before every use of a lease.
    pub fn step(&mut self, at: Duration, event: Event, effects: &mut Vec<Effect>) {
        let changed = match event {
            Event::Answered(answer) => self.answered(at, answer),
            Event::GiveUp(leases) => self.give_up(at, &leases),
            Event::Release(leases) => self.release(at, &leases),
            Event::Drain => {
                self.draining = true;
                false
            }
            Event::Tick => false,
        };
        let lapses = !self.lapsed && !self.held.is_empty() && at >= self.held_until;
        self.lapsed |= lapses;
        if changed || lapses {
            effects.push(Effect::Hold(self.holding()));
        }
        if self.question.is_none() && at >= self.ask_at {
            effects.push(Effect::Ask(self.ask(at)));
        }
    }

    /// When `step` is to be called at the latest, though nothing happened until then.
    pub fn next_wake(&self) -> Option<Duration> {
        let ask_at = self.question.is_none().then_some(self.ask_at);
        let lapse_at = (!self.lapsed && !self.held.is_empty()).then_some(self.held_until);
        ask_at.into_iter().chain(lapse_at).min()
    }

    /// Whether a question is under way: what it asks for may still happen.
    pub fn is_asking(&self) -> bool {
        self.question.is_some()
    }

    /// What may be worked for, as of the last step.
    pub fn holding(&self) -> Holding {
        let leases = self.held.iter().map(|(shard, epoch)| Lease { shard: *shard, epoch: *epoch });
        let wanted = self.releases.iter().filter(|release| release.wanted).map(|release| release.lease.shard);
        match self.lapsed {
            true => Holding { held: Vec::new(), unsure: self.held.keys().copied().chain(wanted).collect() },
            false => Holding { held: leases.collect(), unsure: wanted.collect() },
        }
    }

    fn ask(&mut self, at: Duration) -> LeaseRequest {
        let release: Vec<Lease> = self.releases.iter().map(|release| release.lease).collect();
        self.question = Some(Question { asked_at: at, release: release.clone() });
        // What is held is kept all the same.
        let shards_max = if self.draining { 0 } else { self.fair_share() };
        LeaseRequest { owner: self.config.owner.clone(), ttl: self.config.ttl, release, shards_max }
    }

    fn fair_share(&self) -> usize {
        Shard::COUNT.div_ceil(self.owners_alive.max(1))
    }

    /// Takes in a grant; says whether something may have changed.
    fn answered(&mut self, at: Duration, answer: Result<LeaseGrant, Unavailable>) -> bool {
        let Some(question) = self.question.take() else { return false };
        let Ok(grant) = answer else {
            self.ask_at = at + self.config.ttl / 20;
            return false;
        };
        let before = self.holding();
        self.releases.retain(|release| !question.release.contains(&release.lease));
        let over = |lease: &Lease| {
            question.release.contains(lease) || self.releases.iter().any(|release| release.lease == *lease)
        };
        self.held = grant.held.iter().filter(|lease| !over(lease)).map(|lease| (lease.shard, lease.epoch)).collect();
        self.held_until = question.asked_at + self.config.ttl - self.config.margin;
        self.lapsed = false;
        self.owners_alive = grant.owners_alive;
        self.ask_at = question.asked_at + self.config.ttl / 3;
        if !self.releases.is_empty() {
            self.ask_at = self.ask_at.min(at + self.config.ttl / 20);
        }
        if !self.draining {
            self.shed_surplus(at);
        }
        self.holding() != before
    }

    /// Plans to release what is more than a fair share, some at a time.
    fn shed_surplus(&mut self, at: Duration) {
        let surplus = self.held.len().saturating_sub(self.fair_share());
        for _ in 0..surplus.min(RELEASE_MAX) {
            if let Some((shard, epoch)) = self.held.pop_last() {
                self.releases.push(Release { lease: Lease { shard, epoch }, wanted: false });
                self.ask_at = at;
            }
        }
    }

    /// Plans to release these leases, and not to acquire their shards anew.
    fn release(&mut self, at: Duration, leases: &[Lease]) -> bool {
        let before = self.releases.len();
        self.plan_releases(leases, false);
        self.ask_at = self.ask_at.min(at);
        self.releases.len() > before
    }

    /// Plans to release these leases and to acquire their shards anew; not faster than a few times within `ttl`, for a
    /// store that fails needs no more questions.
    fn give_up(&mut self, at: Duration, leases: &[Lease]) -> bool {
        let before = self.releases.len();
        self.plan_releases(leases, true);
        self.ask_at = self.ask_at.min(at + self.config.ttl / 20);
        self.releases.len() > before
    }

    fn plan_releases(&mut self, leases: &[Lease], wanted: bool) {
        for lease in leases {
            if self.held.get(&lease.shard) == Some(&lease.epoch) {
                self.held.remove(&lease.shard);
                self.releases.push(Release { lease: *lease, wanted });
            }
        }
    }
}
