//! A model of the store: what PostgreSQL does with timers, runs and leases, in memory and one statement at a time. It
//! checks every write against the leases once more, beside the fence that it is asked to keep.

mod leases;
mod runs;

use std::collections::BTreeMap;
use std::sync::Arc;

use walclock::clock::Timestamp;
use walclock::dispatch::ports::{ClaimRequest, Claimed, Entry, LoadRequest};
use walclock::domain::lease::{Epoch, Lease, Owner};
use walclock::domain::run::{RunKey, State};
use walclock::domain::shard::Shard;
use walclock::domain::timer::{Timer, TimerKey};
use walclock::domain::webhook::Secret;

use leases::LeaseRow;
pub use runs::{AttemptRow, RunRow};

/// What the store does wrong on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wrongs {
    /// Writes are not fenced.
    pub ignores_epochs: bool,
    /// Claims still find timers that were cancelled.
    pub ignores_cancels: bool,
    /// Deferred timers stay claimed.
    pub forgets_deferrals: bool,
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
    /// Timers of runs that were deferred, and gave way to a newer one of the same id.
    pub superseded: Vec<Timer>,
    timers: BTreeMap<TimerKey, Row>,
    cancelled: BTreeMap<TimerKey, Timer>,
    runs: BTreeMap<RunKey, RunRow>,
    attempts: BTreeMap<TimerKey, Vec<AttemptRow>>,
    secrets: BTreeMap<Arc<str>, Arc<[Secret]>>,
    shards: Vec<LeaseRow>,
    /// Since and until when each owner is alive.
    owners: BTreeMap<Owner, (Timestamp, Timestamp)>,
}

impl Model {
    pub fn new(now: Timestamp) -> Self {
        Self {
            now,
            wrongs: Wrongs::default(),
            feed: Vec::new(),
            fence_broken: 0,
            superseded: Vec::new(),
            timers: BTreeMap::new(),
            cancelled: BTreeMap::new(),
            runs: BTreeMap::new(),
            attempts: BTreeMap::new(),
            secrets: BTreeMap::new(),
            shards: vec![LeaseRow::FREE; Shard::COUNT],
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

    /// A client deletes a timer; what was deleted, if it was there and free. Older ones of its key are not tried again.
    pub fn cancel(&mut self, key: &TimerKey) -> Option<Timer> {
        if self.timers.get(key)?.is_locked(self.now) {
            return None;
        }
        let row = self.timers.remove(key)?;
        self.cancelled.insert(key.clone(), row.timer.clone());
        let at = |claimed_at| RunKey { timer: key.clone(), claimed_at };
        let older = self.runs.range_mut(at(Timestamp::MIN)..=at(Timestamp::MAX));
        older.for_each(|(_, row)| row.cancelled = true);
        Some(row.timer)
    }

    /// A client holds a row in an open transaction.
    pub fn lock(&mut self, key: &TimerKey, until: Timestamp) {
        if let Some(row) = self.timers.get_mut(key) {
            row.locked_until = until;
        }
    }

    /// A namespace gets these secrets.
    pub fn set_secrets(&mut self, namespace: &str, secrets: Vec<Secret>) {
        self.secrets.insert(namespace.into(), secrets.into());
    }

    pub fn pending(&self, key: &TimerKey) -> Option<&Timer> {
        self.timers.get(key).map(|row| &row.timer)
    }

    /// Timers of this shard as clients have made them, where queries do not see that yet.
    pub fn hidden(&self, shard: Shard) -> impl Iterator<Item = &Timer> {
        let rows = self.timers.iter().filter(move |(key, row)| key.shard() == shard && row.visible_at > self.now);
        rows.map(|(_, row)| &row.timer)
    }

    /// Whether everything is over.
    pub fn is_over(&self) -> bool {
        self.timers.is_empty() && self.runs.values().all(|row| row.state != State::Running)
    }

    /// What is not over: pending timers and running runs.
    pub fn open(&self) -> Vec<String> {
        let running = self.runs.values().filter(|row| row.state == State::Running);
        let running = running.map(|row| format!("{} running in epoch {}", row.run.key.timer, row.run.epoch));
        self.timers.keys().map(|key| format!("{key} pending")).chain(running).collect()
    }

    pub fn load(&self, request: &LoadRequest) -> Vec<Entry> {
        let mut shards = [false; Shard::COUNT];
        for shard in &request.shards {
            shards[usize::from(shard.0)] = true;
        }
        let seen = self
            .timers
            .iter()
            .filter_map(|(key, row)| Some((row.seen_due_at(self.now)?, key)))
            .filter(|(due_at, key)| *due_at <= request.until && shards[usize::from(key.shard().0)])
            .map(|(due_at, key)| Entry { due_at, key: key.clone() });
        let mut entries: Vec<Entry> =
            seen.filter(|entry| request.after.as_ref().is_none_or(|after| entry > after)).collect();
        entries.sort_unstable();
        entries.truncate(request.limit);
        entries
    }

    pub fn claim(&mut self, request: &ClaimRequest) -> Claimed {
        let mut claimed = Claimed::default();
        // Each once, under the newest of its epochs.
        let mut wanted: BTreeMap<&TimerKey, Epoch> = BTreeMap::new();
        for (key, epoch) in &request.timers {
            let newest = wanted.entry(key).or_insert(*epoch);
            *newest = (*newest).max(*epoch);
        }
        for (key, epoch) in wanted {
            if !self.may_write(&request.owner, Lease { shard: key.shard(), epoch }) {
                continue;
            }
            if self.wrongs.ignores_cancels
                && let Some(timer) = self.cancelled.remove(key)
                && !self.timers.contains_key(key)
            {
                claimed.runs.push(self.move_to_runs(&request.owner, timer, epoch));
                continue;
            }
            let Some(row) = self.timers.get(key) else { continue };
            let Some(due_at) = row.seen_due_at(self.now) else { continue };
            if due_at > request.until || row.is_locked(self.now) {
                claimed.left.push(Entry { due_at, key: key.clone() });
            } else if let Some(row) = self.timers.remove(key) {
                claimed.runs.push(self.move_to_runs(&request.owner, row.timer, epoch));
            }
        }
        claimed
    }
}
