//! Runs under way: sent at their due moment, then settled; and those that an earlier owner left, adopted.

use std::collections::VecDeque;
use std::time::Duration;

use super::holds::Hold;
use super::queue::Hint;
use super::{Effect, Engine, invariants};
use crate::clock::Timestamp;
use crate::dispatch::ports::Unavailable;
use crate::domain::callback::Verdict;
use crate::domain::lease::{Epoch, Lease};
use crate::domain::retry::AfterFailure;
use crate::domain::run::{Attempt, Ending, Run, Settlement};
use crate::domain::shard::Shard;

/// The pause after a settle that failed.
const REPEAT_PAUSE: Duration = Duration::from_millis(100);

/// What is known of a run that is claimed and not finished.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) shard: Shard,
    /// The epoch it stands under. An adoption by this engine itself makes it grow.
    pub(super) epoch: Epoch,
    /// Its settlement was written once already, with an unknown outcome.
    pub(super) doubtful: bool,
}

/// An adoption that is under way.
#[derive(Debug)]
pub(super) struct Adoption {
    leases: Vec<Lease>,
    pub(super) limit: usize,
}

/// What is to be done with a settlement.
enum Way {
    Write(Epoch),
    /// It is not yet known under which epoch.
    Wait,
    /// It belongs to another owner now.
    Drop,
}

impl Engine {
    /// Takes up a claimed or adopted run, if its shard is still held in its epoch. Otherwise an adoption finds it.
    pub(super) fn take_run(&mut self, run: Run) {
        let shard = run.key.timer.shard();
        let current = match self.holds.get(shard) {
            Hold::Sure(epoch) | Hold::Unsure(epoch) => epoch == run.epoch,
            Hold::Lost => false,
        };
        if current {
            self.records.insert(run.key.clone(), Record { shard, epoch: run.epoch, doubtful: false });
            self.make_ready(Box::new(run));
        }
    }

    pub(super) fn make_ready(&mut self, run: Box<Run>) {
        self.ready_count += 1;
        self.ready.insert((run.timer.due_at(), self.ready_count), run);
    }

    /// Sends the runs that are due.
    pub(super) fn send(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        while let Some(first) = self.ready.first_entry().filter(|first| first.key().0 <= now) {
            let run = first.remove();
            let shard = self.records.get(&run.key).map(|record| record.shard);
            match shard.and_then(|shard| self.holds.sure(shard)) {
                None => self.parked_runs.push(run),
                Some(epoch) => {
                    invariants::assert_sendable(now, &run, epoch);
                    effects.push(Effect::Deliver(run));
                }
            }
        }
    }

    /// Takes in how an attempt went.
    pub(super) fn attempted(&mut self, run: Box<Run>, attempt: Attempt) {
        let ending = ending(&run, &attempt, self.random.fraction());
        self.settlements.push_back(Settlement { run: *run, attempt, ending });
    }

    /// Writes outcomes: at once while nothing is being written, in full batches otherwise.
    pub(super) fn settle(&mut self, effects: &mut Vec<Effect>) {
        while self.settling < self.config.settles_max
            && (self.settling == 0 || self.settlements.len() >= self.config.batch_max)
        {
            let batch = self.take_settlements(|engine| &mut engine.settlements, effects);
            if batch.is_empty() {
                return;
            }
            self.settling += 1;
            effects.push(Effect::Settle(batch));
        }
    }

    /// Writes once more what failed.
    pub(super) fn repeat(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.repeating.is_some() || now < self.repeat_at {
            return;
        }
        let batch = self.take_settlements(|engine| &mut engine.repeats, effects);
        if let Some(first) = batch.first() {
            self.repeating = Some(first.run.key.clone());
            effects.push(Effect::Settle(batch));
        }
    }

    /// Takes a batch out of one of the queues.
    fn take_settlements(
        &mut self,
        queue: fn(&mut Self) -> &mut VecDeque<Settlement>,
        effects: &mut Vec<Effect>,
    ) -> Vec<Settlement> {
        let mut batch = Vec::new();
        let mut stale = 0;
        while batch.len() < self.config.batch_max
            && let Some(mut settlement) = queue(self).pop_front()
        {
            match self.way(&settlement) {
                Way::Write(epoch) => {
                    settlement.run.epoch = epoch;
                    batch.push(settlement);
                }
                Way::Wait if self.parked_settlements.len() < self.config.inflight_max => {
                    self.parked_settlements.push(settlement);
                }
                // Too many wait already: an adoption finds the run, and repeats it.
                Way::Wait | Way::Drop => {
                    let record = self.records.remove(&settlement.run.key);
                    stale += u64::from(!record.is_some_and(|record| record.doubtful));
                }
            }
        }
        if stale > 0 {
            effects.push(Effect::Stale(stale));
        }
        batch
    }

    fn way(&self, settlement: &Settlement) -> Way {
        let Some(record) = self.records.get(&settlement.run.key) else { return Way::Drop };
        match self.holds.get(record.shard) {
            Hold::Lost => Way::Drop,
            Hold::Unsure(_) => Way::Wait,
            Hold::Sure(epoch) if epoch == record.epoch => Way::Write(epoch),
            Hold::Sure(_) if self.holds.is_adopted(record.shard) => Way::Drop,
            Hold::Sure(_) => Way::Wait,
        }
    }

    /// Takes in what a settle wrote.
    pub(super) fn settled(
        &mut self,
        now: Timestamp,
        settlements: Vec<Settlement>,
        written: Result<Vec<bool>, Unavailable>,
        effects: &mut Vec<Effect>,
    ) {
        match settlements.first().is_some_and(|first| self.repeating.as_ref() == Some(&first.run.key)) {
            true => self.repeating = None,
            false => self.settling -= 1,
        }
        let Ok(written) = written else {
            // Written or not: the same once more does no harm.
            self.repeat_at = now.after(REPEAT_PAUSE);
            for settlement in settlements {
                if let Some(record) = self.records.get_mut(&settlement.run.key) {
                    record.doubtful = true;
                }
                self.repeats.push_back(settlement);
            }
            return;
        };
        let mut stale = 0;
        for (settlement, written) in settlements.into_iter().zip(written) {
            let again = match self.way(&settlement) {
                Way::Write(epoch) => epoch > settlement.run.epoch,
                Way::Wait => true,
                Way::Drop => false,
            };
            if !written && again {
                self.settlements.push_back(settlement);
            } else {
                let known = self.records.remove(&settlement.run.key).is_some_and(|record| !record.doubtful);
                stale += u64::from(!written && known);
                self.expect_again(&settlement);
            }
        }
        if stale > 0 {
            effects.push(Effect::Stale(stale));
        }
    }

    /// Puts a hint in the queue where the timer is pending again. The row decides, so it does no harm where not.
    fn expect_again(&mut self, settlement: &Settlement) {
        let due_at = match settlement.ending {
            Ending::RetryAt(at) | Ending::Reschedule(at) | Ending::Defer(at) => at,
            Ending::Succeeded | Ending::Failed => return,
        };
        let hint = Hint::stored(settlement.run.key.timer.clone(), due_at);
        if !self.draining && due_at <= self.loader_near() && self.is_kept(hint.shard) {
            self.offer(hint);
        }
    }

    pub(super) fn next_adoption(&self) -> Option<Timestamp> {
        (self.adopting.is_none() && self.adoption_room() > 0).then_some(self.adopt_again_at)
    }

    /// How many runs may be adopted. Settlements that wait for an adoption take no room, or both would wait for ever.
    fn adoption_room(&self) -> usize {
        (self.config.inflight_max + self.parked_settlements.len()).saturating_sub(self.inflight())
    }

    /// Asks for the runs that older epochs left: at once for shards just taken over, now and then for all.
    pub(super) fn adopt(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let limit = self.config.batch_max.min(self.adoption_room());
        if self.adopting.is_some() || limit == 0 {
            return;
        }
        let mut leases = self.holds.unadopted();
        if leases.is_empty() && now >= self.adopt_again_at {
            leases = self.holds.leases();
            self.adopt_again_at = now.after(self.config.adopt_every);
        }
        if !leases.is_empty() {
            self.adopt_again_at = now.after(self.config.adopt_every);
            effects.push(Effect::Adopt { leases: leases.clone(), limit });
            self.adopting = Some(Adoption { leases, limit });
        }
    }

    /// Takes in adopted runs. One that this engine itself has sent is not sent again: only its epoch is new.
    pub(super) fn adopted(&mut self, runs: Result<Vec<Run>, Unavailable>, effects: &mut Vec<Effect>) {
        let Some(adoption) = self.adopting.take() else { return };
        let Ok(runs) = runs else {
            // They may be ours by now, under an epoch that no adoption looks for.
            return self.give_up(adoption.leases.into_iter().collect(), effects);
        };
        let complete = runs.len() < adoption.limit;
        for run in runs {
            match self.records.get_mut(&run.key) {
                Some(record) => record.epoch = record.epoch.max(run.epoch),
                None => self.take_run(run),
            }
        }
        if complete {
            for lease in adoption.leases {
                self.holds.adopted(lease);
            }
            self.settlements.extend(self.parked_settlements.drain(..));
        }
    }
}

/// How a run ends whose attempt went like this. `jitter` is from 0 to 1.
fn ending(run: &Run, attempt: &Attempt, jitter: f64) -> Ending {
    match attempt.verdict {
        Verdict::Succeeded => Ending::Succeeded,
        Verdict::Failed { .. } => Ending::Failed,
        Verdict::Reschedule(at) => Ending::Reschedule(at),
        Verdict::Retry { not_before, .. } => {
            let first_at = run.timer.first_attempt_at.unwrap_or(attempt.sent_at);
            let policy = &run.timer.definition.retry;
            match policy.after_failure(run.timer.attempts.max(1), first_at, attempt.answered_at, not_before, jitter) {
                AfterFailure::RetryAt(at) => Ending::RetryAt(at),
                AfterFailure::GiveUp => Ending::Failed,
            }
        }
    }
}
