//! A model of the store: what PostgreSQL does with timers, runs and leases, in memory and one statement at a time. It
//! checks every write against the leases once more, beside the fence that it is asked to keep.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use walclock::clock::Timestamp;
use walclock::dispatch::ports::{ClaimRequest, Claimed, Entry, LeaseGrant, LeaseRequest, LoadRequest};
use walclock::domain::lease::{Epoch, Lease, Owner};
use walclock::domain::run::{Ending, Run, RunKey, Settlement, State};
use walclock::domain::shard::Shard;
use walclock::domain::timer::{Timer, TimerKey};

/// What the store does wrong on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wrongs {
    /// Writes are not fenced.
    pub ignores_epochs: bool,
    /// Claims still find timers that were cancelled.
    pub ignores_cancels: bool,
}

/// A row of `walclock.timers`.
#[derive(Clone, Debug)]
struct Row {
    timer: Timer,
    /// When queries begin to see it; the feed may show it before.
    visible_at: Timestamp,
    /// What queries see until then.
    before: Option<Timestamp>,
    /// Another transaction holds the row until this moment.
    locked_until: Timestamp,
}

impl Row {
    fn is_locked(&self, now: Timestamp) -> bool {
        self.locked_until > now || self.visible_at > now
    }

    /// The due moment that a query sees, if it sees the row at all.
    fn seen_due_at(&self, now: Timestamp) -> Option<Timestamp> {
        if self.visible_at <= now { Some(self.timer.due_at()) } else { self.before }
    }
}

/// A row of `walclock.runs`.
#[derive(Clone, Debug)]
struct RunRow {
    run: Run,
    state: State,
}

/// A row of `walclock.shards`.
#[derive(Clone, Debug, Default)]
struct LeaseRow {
    owner: Option<Owner>,
    epoch: i64,
    expires_at: Timestamp,
}

/// The store.
#[derive(Debug)]
pub struct Model {
    /// PostgreSQL's clock.
    pub now: Timestamp,
    pub wrongs: Wrongs,
    /// What the feed shows, in commit order.
    pub feed: Vec<Entry>,
    /// Writes under a lease that was not current, each a broken promise.
    pub fence_broken: u64,
    /// Writes that were refused.
    pub refused: u64,
    timers: BTreeMap<TimerKey, Row>,
    cancelled: BTreeMap<TimerKey, Timer>,
    runs: BTreeMap<RunKey, RunRow>,
    shards: Vec<LeaseRow>,
    owners: BTreeMap<Owner, Timestamp>,
}

impl Model {
    pub fn new(now: Timestamp) -> Self {
        Self {
            now,
            wrongs: Wrongs::default(),
            feed: Vec::new(),
            fence_broken: 0,
            refused: 0,
            timers: BTreeMap::new(),
            cancelled: BTreeMap::new(),
            runs: BTreeMap::new(),
            shards: vec![LeaseRow { expires_at: Timestamp::MIN, ..LeaseRow::default() }; Shard::COUNT],
            owners: BTreeMap::new(),
        }
    }

    /// A client inserts or replaces a timer; queries see it `hidden_until`. False while another transaction holds it.
    pub fn put(&mut self, timer: Timer, hidden_until: Timestamp) -> bool {
        let key = timer.definition.key.clone();
        let old = self.timers.get(&key);
        if old.is_some_and(|row| row.is_locked(self.now)) {
            return false;
        }
        let before = old.map(|row| row.timer.due_at());
        self.feed.push(Entry { due_at: timer.due_at(), key: key.clone() });
        self.timers.insert(key, Row { timer, visible_at: hidden_until, before, locked_until: Timestamp::MIN });
        true
    }

    /// A client deletes a timer; what was deleted, if it was there and free.
    pub fn cancel(&mut self, key: &TimerKey) -> Option<Timer> {
        if self.timers.get(key)?.is_locked(self.now) {
            return None;
        }
        let row = self.timers.remove(key)?;
        self.cancelled.insert(key.clone(), row.timer.clone());
        Some(row.timer)
    }

    /// A client holds a row in an open transaction.
    pub fn lock(&mut self, key: &TimerKey, until: Timestamp) {
        if let Some(row) = self.timers.get_mut(key) {
            row.locked_until = until;
        }
    }

    pub fn pending(&self, key: &TimerKey) -> Option<&Timer> {
        self.timers.get(key).map(|row| &row.timer)
    }

    /// What is not over: pending timers and running runs.
    pub fn open(&self) -> Vec<String> {
        let running = self.runs.values().filter(|row| row.state == State::Running);
        let running = running.map(|row| format!("{} running in epoch {}", row.run.key.timer, row.run.epoch));
        self.timers.keys().map(|key| format!("{key} pending")).chain(running).collect()
    }

    /// Whether this lease is the current one.
    pub fn is_current(&self, owner: &Owner, lease: Lease) -> bool {
        let row = &self.shards[usize::from(lease.shard.0)];
        row.owner.as_ref() == Some(owner) && row.epoch == lease.epoch.0 && row.expires_at > self.now
    }

    /// The fence: whether a write under this lease may go ahead. Where the store is told to do wrong it always may, and
    /// that is noted.
    fn may_write(&mut self, owner: &Owner, lease: Lease) -> bool {
        let current = self.is_current(owner, lease);
        self.fence_broken += u64::from(!current && self.wrongs.ignores_epochs);
        self.refused += u64::from(!current && !self.wrongs.ignores_epochs);
        current || self.wrongs.ignores_epochs
    }

    pub fn lease(&mut self, request: &LeaseRequest) -> LeaseGrant {
        let (now, owner) = (self.now, &request.owner);
        let expires_at = now.after(request.ttl);
        self.owners.insert(owner.clone(), expires_at);
        self.owners.retain(|_, until| *until > now);
        for lease in &request.release {
            let row = &mut self.shards[usize::from(lease.shard.0)];
            if row.owner.as_ref() == Some(owner) && row.epoch == lease.epoch.0 {
                row.owner = None;
                row.expires_at = now;
            }
        }
        let mut held = Vec::new();
        for own in [true, false] {
            for (shard, row) in Shard::all().zip(&mut self.shards) {
                let is_own = row.owner.as_ref() == Some(owner) && row.expires_at > now;
                let is_free = row.owner.is_none() || row.expires_at <= now;
                if held.len() >= request.shards_max || (own && !is_own) || (!own && !is_free) {
                    continue;
                }
                row.epoch += i64::from(!own);
                row.owner = Some(owner.clone());
                row.expires_at = expires_at;
                held.push(Lease { shard, epoch: Epoch(row.epoch) });
            }
        }
        held.sort_unstable();
        LeaseGrant { held, owners_alive: self.owners.len(), now }
    }

    pub fn load(&self, request: &LoadRequest) -> Vec<Entry> {
        let shards: BTreeSet<Shard> = request.shards.iter().copied().collect();
        let seen = self
            .timers
            .iter()
            .filter(|(key, _)| shards.contains(&key.shard()))
            .filter_map(|(key, row)| Some(Entry { due_at: row.seen_due_at(self.now)?, key: key.clone() }));
        let mut entries: Vec<Entry> = seen
            .filter(|entry| entry.due_at <= request.until && request.after.as_ref().is_none_or(|after| entry > after))
            .collect();
        entries.sort_unstable();
        entries.truncate(request.limit);
        entries
    }

    pub fn claim(&mut self, request: &ClaimRequest) -> Claimed {
        let mut claimed = Claimed::default();
        let wanted: BTreeMap<&TimerKey, Epoch> = request.timers.iter().map(|(key, epoch)| (key, *epoch)).collect();
        for (key, epoch) in wanted {
            if !self.may_write(&request.owner, Lease { shard: key.shard(), epoch }) {
                continue;
            }
            if self.wrongs.ignores_cancels
                && let Some(timer) = self.cancelled.remove(key)
                && !self.timers.contains_key(key)
            {
                claimed.runs.push(self.move_to_runs(timer, epoch));
                continue;
            }
            let Some(row) = self.timers.get(key) else { continue };
            let Some(due_at) = row.seen_due_at(self.now) else { continue };
            if due_at > request.until || row.is_locked(self.now) {
                claimed.left.push(Entry { due_at, key: key.clone() });
            } else if let Some(row) = self.timers.remove(key) {
                claimed.runs.push(self.move_to_runs(row.timer, epoch));
            }
        }
        claimed
    }

    fn move_to_runs(&mut self, mut timer: Timer, epoch: Epoch) -> Run {
        timer.attempts += 1;
        let mut key = RunKey { timer: timer.definition.key.clone(), claimed_at: self.now };
        while self.runs.contains_key(&key) {
            key.claimed_at = Timestamp::from_micros(key.claimed_at.micros() + 1);
        }
        let run = Run { key: key.clone(), timer, epoch, secrets: Arc::from([]) };
        self.runs.insert(key, RunRow { run: run.clone(), state: State::Running });
        run
    }

    pub fn adopt(&mut self, owner: &Owner, leases: &[Lease], limit: usize) -> Vec<Run> {
        let mut adopted = Vec::new();
        for lease in leases {
            let left = |row: &RunRow| {
                row.state == State::Running && row.run.key.timer.shard() == lease.shard && row.run.epoch < lease.epoch
            };
            let keys: Vec<RunKey> = self.runs.values().filter(|row| left(row)).map(|row| row.run.key.clone()).collect();
            for key in keys {
                if adopted.len() < limit
                    && self.may_write(owner, *lease)
                    && let Some(row) = self.runs.get_mut(&key)
                {
                    row.run.epoch = lease.epoch;
                    adopted.push(row.run.clone());
                }
            }
        }
        adopted
    }

    pub fn settle(&mut self, owner: &Owner, settlements: &[Settlement]) -> Vec<bool> {
        settlements.iter().map(|settlement| self.settle_one(owner, settlement)).collect()
    }

    fn settle_one(&mut self, owner: &Owner, settlement: &Settlement) -> bool {
        let (key, epoch) = (&settlement.run.key, settlement.run.epoch);
        let fenced = !self.wrongs.ignores_epochs;
        let running =
            self.runs.get(key).is_some_and(|row| row.state == State::Running && (row.run.epoch == epoch || !fenced));
        if !running || !self.may_write(owner, Lease { shard: key.timer.shard(), epoch }) {
            return false;
        }
        let Some(row) = self.runs.get_mut(key) else { return false };
        let mut timer = row.run.timer.clone();
        timer.first_attempt_at = timer.first_attempt_at.or(Some(settlement.attempt.sent_at));
        match settlement.ending {
            Ending::Succeeded => row.state = State::Succeeded,
            Ending::Failed => row.state = State::Failed,
            Ending::RetryAt(at) => timer.retry_at = Some(at),
            Ending::Reschedule(at) => {
                timer.definition.execute_at = at;
                (timer.attempts, timer.retry_at, timer.first_attempt_at) = (0, None, None);
            }
        }
        match settlement.ending {
            Ending::Succeeded | Ending::Failed => {}
            // The newer timer of the same key wins.
            Ending::RetryAt(_) | Ending::Reschedule(_) if self.timers.contains_key(&key.timer) => {
                row.state = State::Failed;
            }
            Ending::RetryAt(_) | Ending::Reschedule(_) => {
                self.runs.remove(key);
                let now = self.now;
                self.put(timer, now);
            }
        }
        true
    }
}
