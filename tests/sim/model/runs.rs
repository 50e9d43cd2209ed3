//! The model's runs: adopted by a new owner, and settled.

use std::ops::Bound;

use walclock::clock::Timestamp;
use walclock::domain::callback::Verdict;
use walclock::domain::lease::{Epoch, Lease, Owner};
use walclock::domain::run::{Attempt, Ending, Run, RunKey, Settlement, State};
use walclock::domain::shard::Shard;
use walclock::domain::timer::{Timer, TimerKey};

use super::Model;

/// What a run failed of whose id a client has used again meanwhile.
const SUPERSEDED: &str = "superseded by a newer timer of the same id";
const CANCELLED: &str = "cancelled: it was deleted, or a later occurrence of its schedule takes its place";

/// A row of `walclock.runs`.
#[derive(Clone, Debug)]
pub struct RunRow {
    pub run: Run,
    pub state: State,
    /// Who has claimed it, or taken it over last.
    adopted_by: Owner,
    /// The last attempt, once the run is over.
    pub answered: Option<Attempt>,
    /// That attempt was never made: the run was deferred, and superseded, or its policy ended meanwhile.
    pub unsent: bool,
    /// It is not to be tried again.
    pub cancelled: bool,
}

/// A row of `walclock.attempts`: one that was followed by another.
#[derive(Clone, Debug)]
pub struct AttemptRow {
    pub number: u32,
    pub due_at: Timestamp,
    pub attempt: Attempt,
}

impl Model {
    /// The runs of a key, oldest first.
    pub fn runs(&self, key: &TimerKey) -> impl Iterator<Item = &RunRow> {
        self.runs.values().filter(move |row| row.run.key.timer == *key)
    }

    /// The attempts of a key that were followed by another, oldest first.
    pub fn attempts(&self, key: &TimerKey) -> &[AttemptRow] {
        self.attempts.get(key).map_or(&[], Vec::as_slice)
    }

    pub(super) fn move_to_runs(&mut self, owner: &Owner, mut timer: Timer, epoch: Epoch) -> Run {
        let mut key = RunKey { timer: timer.definition.key.clone(), claimed_at: self.now };
        while self.runs.contains_key(&key) {
            key.claimed_at = Timestamp::from_micros(key.claimed_at.micros() + 1);
        }
        timer.attempts += 1;
        timer.first_attempt_at = timer.first_attempt_at.or(Some(key.claimed_at));
        let secrets = self.secrets.get(&key.timer.namespace).cloned().unwrap_or_default();
        let run = Run { key: key.clone(), timer, epoch, secrets, adoptions: 0, unwanted: false };
        let (state, adopted_by) = (State::Running, owner.clone());
        let row = RunRow { run: run.clone(), state, adopted_by, answered: None, unsent: false, cancelled: false };
        self.runs.insert(key, row);
        run
    }

    pub fn adopt(&mut self, owner: &Owner, leases: &[Lease], limit: usize) -> Vec<Run> {
        let mut epochs = [None; Shard::COUNT];
        for lease in leases {
            epochs[usize::from(lease.shard.0)] = Some(lease.epoch);
        }
        let running = self.runs.iter().filter(|(_, row)| row.state == State::Running);
        let left = running.filter_map(|(key, row)| {
            let shard = key.timer.shard();
            let epoch = epochs[usize::from(shard.0)].filter(|epoch| row.run.epoch < *epoch)?;
            Some((key.clone(), Lease { shard, epoch }))
        });
        let left: Vec<(RunKey, Lease)> = left.collect();
        let mut adopted = Vec::new();
        for (key, lease) in left {
            let unwanted = self.takes_its_place(&key).is_some();
            if adopted.len() < limit
                && self.may_write(owner, lease)
                && let Some(row) = self.runs.get_mut(&key)
            {
                row.run.epoch = lease.epoch;
                row.run.adoptions += u32::from(row.adopted_by != *owner);
                row.adopted_by = owner.clone();
                adopted.push(Run { unwanted, ..row.run.clone() });
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
        let error = match &settlement.attempt.verdict {
            Verdict::Succeeded | Verdict::Reschedule(_) => None,
            Verdict::Retry { error, .. } | Verdict::Failed { error } => Some(error.clone()),
        };
        match settlement.ending {
            Ending::Defer(_) if self.wrongs.forgets_deferrals => {}
            Ending::Succeeded => self.finish(settlement, State::Succeeded, error),
            Ending::Failed | Ending::GivenUp => self.finish(settlement, State::Failed, error),
            Ending::RetryAt(_) | Ending::Reschedule(_) | Ending::Defer(_)
                if let Some(error) = self.takes_its_place(key) =>
            {
                if matches!(settlement.ending, Ending::Defer(_)) {
                    self.superseded.push(settlement.run.timer.clone());
                }
                self.finish(settlement, State::Failed, Some(error.to_owned()));
            }
            Ending::RetryAt(at) => self.put_back(settlement, |timer, _| {
                (timer.retry_at, timer.last_error) = (Some(at), error);
            }),
            Ending::Defer(at) => self.put_back(settlement, |timer, _| {
                (timer.retry_at, timer.last_error) = (Some(at), error);
                timer.attempts -= 1;
                timer.first_attempt_at = timer.first_attempt_at.filter(|_| timer.attempts > 0);
            }),
            Ending::Reschedule(at) => self.put_back(settlement, |timer, now| {
                (timer.definition.execute_at, timer.updated_at) = (at, now);
                (timer.attempts, timer.retry_at) = (0, None);
                (timer.first_attempt_at, timer.last_error) = (None, None);
            }),
        }
        true
    }

    /// Why a run is not to be tried again: it is cancelled, or a client has put in a newer timer of the same key, which may
    /// have been claimed already.
    fn takes_its_place(&self, key: &RunKey) -> Option<&'static str> {
        if self.runs.get(key).is_some_and(|row| row.cancelled) {
            return Some(CANCELLED);
        }
        let next = self.runs.range((Bound::Excluded(key), Bound::Unbounded)).next();
        let is_newer = self.timers.contains_key(&key.timer) || next.is_some_and(|(newer, _)| newer.timer == key.timer);
        is_newer.then_some(SUPERSEDED)
    }

    fn finish(&mut self, settlement: &Settlement, state: State, error: Option<String>) {
        let Some(row) = self.runs.get_mut(&settlement.run.key) else { return };
        row.state = state;
        row.answered = Some(settlement.attempt.clone());
        row.unsent = matches!(settlement.ending, Ending::Defer(_) | Ending::GivenUp);
        row.run.timer.attempts -= u32::from(settlement.ending == Ending::GivenUp);
        row.run.timer.last_error = error.or_else(|| row.run.timer.last_error.take());
    }

    fn put_back(&mut self, settlement: &Settlement, change: impl FnOnce(&mut Timer, Timestamp)) {
        let Some(row) = self.runs.remove(&settlement.run.key) else { return };
        let (mut timer, now) = (row.run.timer, self.now);
        let (number, due_at) = (timer.attempts, timer.due_at());
        if matches!(settlement.ending, Ending::RetryAt(_) | Ending::Reschedule(_)) {
            let made = AttemptRow { number, due_at, attempt: settlement.attempt.clone() };
            self.attempts.entry(settlement.run.key.timer.clone()).or_default().push(made);
        }
        change(&mut timer, now);
        self.put(timer, now);
    }
}
