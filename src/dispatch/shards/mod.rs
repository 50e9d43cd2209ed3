//! Which shards this dispatcher may work for, as a pure machine: a fair share, leased and renewed in one statement.
//! "Unsure" means "not owner": a lease counts only until the moment at which the request for it was sent, plus its time
//! to live, minus a margin, by a clock that never stops. It must never trust a lease for longer.
//!
//! What is more than the share goes to others while nothing is under way for it, so that a change of owner repeats no
//! callback. Only a shard that stays busy is first kept from new work, and in the end given away all the same: the whole
//! hand-over, from who joins to who works, takes no longer than a lease lasts.
//!
//! A lease under which a write may have happened unseen is given up for a new epoch of the same shard, without anybody's
//! having it between: until then the shard is unsure, so that the outcome of what is under way for it is kept and written
//! afterwards, and no callback is made twice for it. The lease table gives up no lease under which a write is still under
//! way, be it of a question that was given up here long ago. It goes on renewing that lease, and is asked again and again:
//! left to run out, its shard could go to another owner, who would have to repeat what is under way.
//!
//! Moments here are spans since any fixed instant of a clock that goes on while the machine is suspended.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
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
    /// Within what time the shards of one that dies are with the others. A lease is renewed after a third of it. In PostgreSQL
    /// it lasts a twentieth less, in which the others notice and take them. At least 100 ms.
    pub ttl: Duration,
    /// By how much earlier than after `ttl` this side considers a lease over: what PostgreSQL's lease is shorter, what clocks
    /// drift apart within `ttl`, and a pause between looking at the lease and using it. More than a tenth of `ttl`, and less
    /// than half of it.
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
        if self.margin <= self.ttl / 10 || self.margin >= self.ttl / 2 {
            return Err("margin must be more than a tenth and less than half of ttl");
        }
        Ok(())
    }

    /// How long a lease lasts in PostgreSQL.
    fn life(&self) -> Duration {
        self.ttl - self.ttl / 20
    }
}

/// What may be worked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// Surely held, in order of the shards.
    pub held: Vec<Lease>,
    /// Those of the held shards for which nothing new may be begun: they go to another owner once they are idle.
    pub leaving: Vec<Shard>,
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
    /// These leases are to be given up, and their shards held on in a new epoch.
    GiveUp(Vec<Lease>),
    /// For these shards something is under way, and for no other; told where [`Shards::asks_busy`].
    Busy(BTreeSet<Shard>),
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

/// A lease that is to be given up.
#[derive(Clone, Copy, Debug)]
struct Release {
    lease: Lease,
    /// The shard is to be held on in a new epoch, not to be released for others.
    anew: bool,
}

/// A question under way.
#[derive(Debug)]
struct Question {
    asked_at: Duration,
    given_up: Vec<Lease>,
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
    /// How many shards are this owner's to hold.
    share: usize,
    /// When the share has become smaller last.
    shrunk_at: Duration,
    /// Of `held`, what nothing new is begun for, and since when.
    leaving: BTreeMap<Shard, Duration>,
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
            // As if there were no others.
            share: Shard::COUNT,
            shrunk_at: Duration::ZERO,
            leaving: BTreeMap::new(),
            draining: false,
        }
    }

    /// Takes in what happened at `at` and appends what is to be done. To be called before every use of a lease.
    pub fn step(&mut self, at: Duration, event: Event, effects: &mut Vec<Effect>) {
        let changed = match event {
            Event::Answered(answer) => self.answered(at, answer),
            Event::GiveUp(leases) => self.give_up(at, &leases),
            Event::Busy(busy) => self.give_way(at, &busy),
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
        let stop_at = (self.leaving.len() < self.surplus()).then(|| self.stop_at());
        let gone_at = self.leaving.values().min().map(|since| self.gone_at(*since));
        let leave_at = stop_at.into_iter().chain(gone_at).min().filter(|_| !self.draining && self.surplus() > 0);
        // What is to leave waits for the question that is under way, not for a moment.
        let leave_at = leave_at.filter(|_| self.releases.len() < RELEASE_MAX);
        ask_at.into_iter().chain(lapse_at).chain(leave_at).min()
    }

    /// Whether it wants to be told after each step of the engine for which shards something is under way: it has some to
    /// give away. Whoever tells it must begin nothing between looking and telling.
    pub fn asks_busy(&self) -> bool {
        !self.held.is_empty() && !self.lapsed && (self.draining || self.surplus() > 0)
    }

    /// Whether a question is under way: what it asks for may still happen.
    pub fn is_asking(&self) -> bool {
        self.question.is_some()
    }

    /// Whether this lease is surely held at `at`, for whoever uses it between two steps.
    pub fn is_sure(&self, at: Duration, lease: Lease) -> bool {
        at < self.held_until && self.held.get(&lease.shard) == Some(&lease.epoch)
    }

    /// What may be worked for, as of the last step.
    pub fn holding(&self) -> Holding {
        let leases = self.held.iter().map(|(shard, epoch)| Lease { shard: *shard, epoch: *epoch });
        let wanted = self.releases.iter().filter(|release| release.anew).map(|release| release.lease.shard);
        match self.lapsed {
            true => {
                let unsure = self.held.keys().copied().chain(wanted).collect();
                Holding { held: Vec::new(), leaving: Vec::new(), unsure }
            }
            false => Holding {
                held: leases.collect(),
                leaving: self.leaving.keys().copied().collect(),
                unsure: wanted.collect(),
            },
        }
    }

    fn ask(&mut self, at: Duration) -> LeaseRequest {
        let given_up = self.releases.iter().map(|release| release.lease).collect();
        self.question = Some(Question { asked_at: at, given_up });
        let leases = |anew: bool| {
            self.releases.iter().filter(|release| release.anew == anew).map(|release| release.lease).collect()
        };
        let (release, anew) = (leases(false), leases(true));
        // What is held is kept all the same.
        let shards_max = if self.draining { 0 } else { self.share };
        LeaseRequest { owner: self.config.owner.clone(), ttl: self.config.life(), release, anew, shards_max }
    }

    /// How many shards are held beyond the share.
    fn surplus(&self) -> usize {
        if self.lapsed { 0 } else { self.held.len().saturating_sub(self.share) }
    }

    /// From when on nothing new is begun for what is to leave. Another owner that joins has it counted anew, for what is to
    /// leave besides.
    fn stop_at(&self) -> Duration {
        self.shrunk_at + self.config.ttl / 5
    }

    /// When a shard goes that is leaving since then, whatever is under way for it. Others were told of by a renewal, a third
    /// of a lease's life after they came at the latest, so that everything is where it belongs within one life.
    fn gone_at(&self, leaving_since: Duration) -> Duration {
        leaving_since + self.config.ttl * 2 / 5
    }

    /// Takes in a grant; says whether something may have changed.
    fn answered(&mut self, at: Duration, answer: Result<LeaseGrant, Unavailable>) -> bool {
        let Some(question) = self.question.take() else { return false };
        let Ok(grant) = answer else {
            self.ask_at = at + self.config.ttl / 20;
            return false;
        };
        let before = self.holding();
        // One that is still held in its epoch could not be given up yet, and is asked for once more.
        self.releases
            .retain(|release| !question.given_up.contains(&release.lease) || grant.held.contains(&release.lease));
        let over = |lease: &Lease| self.releases.iter().any(|release| release.lease == *lease);
        self.held = grant.held.iter().filter(|lease| !over(lease)).map(|lease| (lease.shard, lease.epoch)).collect();
        self.held_until = question.asked_at + self.config.ttl - self.config.margin;
        self.lapsed = false;
        let share_before = self.share;
        self.share = share(grant.owners_alive, grant.rank);
        self.plan_next(at, question.asked_at, share_before);
        if let Some(left) = grant.others_left {
            // Who dies is asked after when it does not count any more, not at the next renewal. Others that are alive have
            // asked again long before this one's next renewal. PostgreSQL looked at its clock before `at`.
            let dead_at = at + left + self.config.ttl / 100;
            self.ask_at = self.ask_at.min(dead_at.max(at + self.config.ttl / 20));
        }
        if self.share < share_before {
            self.shrunk_at = at;
        }
        // Others may have gone again, and what was to leave may stay.
        let (held, surplus) = (&self.held, self.surplus());
        self.leaving.retain(|shard, _| held.contains_key(shard));
        while self.leaving.len() > surplus {
            self.leaving.pop_first();
        }
        self.holding() != before
    }

    /// Plans the next question: soon where something is to be released, or shards that are due to this owner are with
    /// others still.
    fn plan_next(&mut self, at: Duration, asked_at: Duration, share_before: usize) {
        let soon = self.config.ttl / 20;
        self.ask_at = asked_at + self.config.ttl / 3;
        if !self.releases.is_empty() {
            self.ask_at = self.ask_at.min(at + soon);
        }
        if !self.draining && self.held.len() < self.share {
            // An owner less was found in this answer: what it held may be free already.
            let pause = if self.share > share_before { Duration::ZERO } else { soon };
            self.ask_at = self.ask_at.min(at + pause);
        }
    }

    /// Plans to release what is idle of the surplus, or in a drain all that is idle; and of what has been in the way of
    /// others for too long, whatever is under way. Says whether something changed.
    fn give_way(&mut self, at: Duration, busy: &BTreeSet<Shard>) -> bool {
        if !self.asks_busy() {
            return false;
        }
        let idle = |shard: &Shard| !busy.contains(shard);
        if self.draining {
            let idle: Vec<Shard> = self.held.keys().copied().filter(idle).collect();
            return self.plan_leaves(at, &idle);
        }
        let leaving_before = self.leaving.clone();
        if at >= self.stop_at() {
            // Of those that are busy the last ones; the others may turn out to be idle first all the same.
            let missing = self.surplus().saturating_sub(self.leaving.len());
            let more = self.held.keys().rev().filter(|shard| !self.leaving.contains_key(shard)).take(missing);
            let more: Vec<Shard> = more.copied().collect();
            self.leaving.extend(more.into_iter().map(|shard| (shard, at)));
        }
        let room = RELEASE_MAX.saturating_sub(self.releases.len()).min(self.surplus());
        let goes = |(shard, since): &(&Shard, &Duration)| idle(shard) || at >= self.gone_at(**since);
        let leaving = self.leaving.iter().filter(goes).map(|(shard, _)| *shard);
        let others = self.held.keys().rev().copied().filter(|shard| !self.leaving.contains_key(shard) && idle(shard));
        let gone: Vec<Shard> = leaving.chain(others).take(room).collect();
        let released = self.plan_leaves(at, &gone);
        while self.leaving.len() > self.surplus() {
            self.leaving.pop_first();
        }
        released || self.leaving != leaving_before
    }

    /// Plans to release these shards for others.
    fn plan_leaves(&mut self, at: Duration, shards: &[Shard]) -> bool {
        let lease = |shard: &Shard| Some(Lease { shard: *shard, epoch: *self.held.get(shard)? });
        let leases: Vec<Lease> = shards.iter().filter_map(lease).collect();
        if !leases.is_empty() {
            self.plan_releases(&leases, false);
            self.ask_at = self.ask_at.min(at);
        }
        !leases.is_empty()
    }

    /// Plans to hold the shards of these leases on in a new epoch; not faster than a few times within `ttl`, for a
    /// store that fails needs no more questions.
    fn give_up(&mut self, at: Duration, leases: &[Lease]) -> bool {
        let before = self.releases.len();
        self.plan_releases(leases, true);
        self.ask_at = self.ask_at.min(at + self.config.ttl / 20);
        self.releases.len() > before
    }

    fn plan_releases(&mut self, leases: &[Lease], anew: bool) {
        for lease in leases {
            if self.held.get(&lease.shard) == Some(&lease.epoch) {
                self.held.remove(&lease.shard);
                self.leaving.remove(&lease.shard);
                self.releases.push(Release { lease: *lease, anew });
            }
        }
    }
}

/// How many shards are due to the owner of this rank, counted from 0, among so many: all add up to the ring, and no two
/// differ by more than one.
fn share(owners_alive: usize, rank: usize) -> usize {
    let owners = owners_alive.max(1);
    Shard::COUNT / owners + usize::from(rank < Shard::COUNT % owners)
}
