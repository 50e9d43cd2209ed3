//! Runs under way: sent at their due moment or deferred where their host may not be called, then settled; and those that an
//! earlier owner left, adopted.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::collections::btree_map::Entry;
use std::time::Duration;

use super::holds::Hold;
use super::hosts::{Admission, Turn};
use super::queue::Hint;
use super::{Effect, Engine, Target, invariants};
use crate::clock::Timestamp;
use crate::dispatch::ports::{Unavailable, Written};
use crate::domain::callback::Verdict;
use crate::domain::callback_url;
use crate::domain::duration;
use crate::domain::lease::{Epoch, Lease};
use crate::domain::limits::ADOPTIONS_MAX;
use crate::domain::retry::AfterFailure;
use crate::domain::run::{Attempt, Ending, Run, RunKey, Settlement};
use crate::domain::shard::Shard;

/// The pause after a settle that failed.
const REPEAT_PAUSE: Duration = Duration::from_millis(100);
/// How long outcomes wait at most for runs that are due and have not left yet. What they wait for is repeated after a crash.
const SETTLE_WAIT_MAX: Duration = Duration::from_millis(200);
/// How long they wait at most for more of them, where a batch of runs is under way besides: each of many in one statement costs
/// PostgreSQL less.
const SETTLE_GATHER_MAX: Duration = Duration::from_millis(20);

/// What is known of a run that is claimed and not finished.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) shard: Shard,
    /// The epoch it stands under. An adoption by this engine itself makes it grow.
    pub(super) epoch: Epoch,
    /// Its settlement was written once already, with an unknown outcome.
    pub(super) doubtful: bool,
    /// What its timer brings along.
    pub(super) bytes: usize,
    /// Its timer is being put back, or may be.
    putting_back: bool,
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
        if self.admit(&run) {
            self.make_ready(Box::new(run));
        }
    }

    /// Notes a run as under way, if its shard is still held in its epoch; says whether it is.
    fn admit(&mut self, run: &Run) -> bool {
        let shard = run.key.timer.shard();
        let current = self.holds.get(shard).epoch() == Some(run.epoch);
        if current {
            let bytes = run.timer.definition.bytes();
            let record = Record { shard, epoch: run.epoch, doubtful: false, bytes, putting_back: false };
            self.queue.began(&run.key.timer.namespace, bytes);
            match self.records.insert(run.key.clone(), record) {
                Some(old) => self.queue.ended(&run.key.timer.namespace, old.bytes),
                None => *self.records_of.entry(shard).or_default() += 1,
            }
        }
        current
    }

    /// Ends a run that was left without an outcome too often, as a failed attempt. It says nothing of the host.
    fn abandon(&mut self, now: Timestamp, run: Run, effects: &mut Vec<Effect>) {
        if self.admit(&run) {
            effects.push(Effect::Abandoned(run.key.timer.clone()));
            let mut attempt = Attempt::abandoned(run.adoptions, now);
            let ending = ending(&run, &mut attempt, self.random.fraction());
            self.settlements.push_back(Settlement { run, attempt, ending });
        }
    }

    /// Ends a run that nobody wants any more, instead of sending it once more: put back, it finds its place taken.
    fn drop_unwanted(&mut self, now: Timestamp, run: Run) {
        if self.admit(&run) {
            self.defer(now, now, run, "not sent again: nobody wants it any more".to_owned());
        }
    }

    /// A run is not under way any more.
    pub(super) fn forget(&mut self, run: &RunKey) -> Option<Record> {
        let record = self.records.remove(run)?;
        self.queue.ended(&run.timer.namespace, record.bytes);
        if let Entry::Occupied(mut count) = self.records_of.entry(record.shard) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        if record.putting_back
            && let Some(count) = self.putting_back.get_mut(&run.timer)
        {
            *count -= 1;
            if *count == 0 {
                self.putting_back.remove(&run.timer);
            }
        }
        Some(record)
    }

    /// Notes that the timer of this run is about to be put back.
    fn begin_put_back(&mut self, run: &RunKey) {
        let record = self.records.get_mut(run).filter(|record| !record.putting_back);
        if let Some(record) = record {
            record.putting_back = true;
            *self.putting_back.entry(run.timer.clone()).or_default() += 1;
        }
    }

    pub(super) fn make_ready(&mut self, run: Box<Run>) {
        self.ready_count += 1;
        self.ready.insert((run.timer.due_at(), self.ready_count), run);
    }

    /// Sends the runs that are due, as far as their hosts may be called.
    pub(super) fn send(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        while let Some((run, admission)) = self.hosts.release(now) {
            // The clock may have been set back while it waited.
            let is_due = run.timer.due_at() <= now;
            let epoch = self.sure_epoch(&run);
            if admission == Admission::Send && (!is_due || epoch.is_none()) {
                self.hosts.unsent(now, &origin(&run), &run.key);
            }
            match epoch {
                _ if !is_due => self.make_ready(run),
                None => self.parked_runs.push(run),
                Some(epoch) => self.launch(now, run, epoch, admission, effects),
            }
        }
        while let Some(first) = self.ready.first_entry().filter(|first| first.key().0 <= now) {
            let run = first.remove();
            let Some(epoch) = self.sure_epoch(&run) else {
                self.parked_runs.push(run);
                continue;
            };
            let admission = self.hosts.admit(now, &origin(&run), &run);
            self.launch(now, run, epoch, admission, effects);
        }
    }

    fn sure_epoch(&self, run: &Run) -> Option<Epoch> {
        self.records.get(&run.key).and_then(|record| self.holds.sure(record.shard))
    }

    /// Does with a due run what its host allows.
    fn launch(&mut self, now: Timestamp, run: Box<Run>, epoch: Epoch, admission: Admission, effects: &mut Vec<Effect>) {
        match admission {
            Admission::Send => {
                invariants::assert_sendable(now, &run, epoch);
                effects.push(Effect::Deliver(run));
            }
            // Whoever is to have the shard need not wait for it.
            Admission::Wait if self.draining || self.holds.open(run.key.timer.shard()).is_none() => {
                self.defer(now, now, *run, "not sent: its shard was handed over".to_owned());
            }
            Admission::Wait => {
                let origin = origin(&run).into_owned();
                self.hosts.wait(now, &origin, run);
            }
            Admission::Defer(from, until) => {
                let reason = format!("not sent: {} fails, and is spared for a while", origin(&run));
                self.put_off(now, from, until, *run, reason);
            }
        }
    }

    /// Takes in how an attempt went.
    pub(super) fn attempted(&mut self, now: Timestamp, run: Box<Run>, mut attempt: Attempt, effects: &mut Vec<Effect>) {
        let jitter = self.random.fraction();
        let origin = origin(&run);
        for news in self.hosts.answered(now, &origin, &run.key, &attempt, jitter) {
            let target = Target { host: (*origin).into(), namespace: news.namespace };
            effects.push(match news.turn {
                Turn::Spared(until) => Effect::Spared(target, until),
                Turn::Back => Effect::Back(target),
            });
        }
        let ending = ending(&run, &mut attempt, jitter);
        self.settlements.push_back(Settlement { run: *run, attempt, ending });
    }

    /// Takes a run back whose request has not left.
    pub(super) fn unsent(&mut self, now: Timestamp, mut run: Box<Run>) {
        self.hosts.unsent(now, &origin(&run), &run.key);
        let Some(record) = self.records.get(&run.key) else { return };
        if self.holds.get(record.shard).epoch() == Some(record.epoch) {
            // An adoption of our own may have moved it to this epoch meanwhile.
            run.epoch = record.epoch;
            self.make_ready(run);
        } else {
            // Its next owner finds it, be it this engine in a later epoch.
            self.forget(&run.key);
        }
    }

    /// Writes outcomes: at once while nothing is being written and few runs are under way, in full batches otherwise. Where all
    /// that is due has been claimed, they let what has not left yet go first, for a while: the database would only take the
    /// cores from it.
    pub(super) fn settle(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        match self.settlements.is_empty() {
            true => self.unsettled_since = None,
            false if self.unsettled_since.is_none() => self.unsettled_since = Some(now),
            false => {}
        }
        if self.next_settle().is_some() {
            return;
        }
        while self.settling < self.config.settles_max
            && (self.settling == 0 || self.settlements.len() >= self.config.batch_max)
        {
            let batch = self.take_settlements(|engine| &mut engine.settlements, effects);
            if batch.is_empty() {
                return;
            }
            // What is left has come later.
            self.unsettled_since = (!self.settlements.is_empty()).then_some(now);
            self.settling += 1;
            effects.push(Effect::Settle(batch));
        }
    }

    /// Until when outcomes that are there may wait, for runs that are due and have not left yet or for more outcomes; none where
    /// they are to be written.
    pub(super) fn next_settle(&self) -> Option<Timestamp> {
        let since = self.unsettled_since.filter(|_| !self.draining)?;
        let (outcomes, batch) = (self.settlements.len(), self.config.batch_max);
        let wait_max = if self.hosts.waiting() > 0 && !self.queue.has_due(self.stepped_at) {
            SETTLE_WAIT_MAX
        } else if outcomes < batch && self.records.len() >= outcomes + batch {
            SETTLE_GATHER_MAX
        } else {
            return None;
        };
        Some(since.after(wait_max)).filter(|at| *at > self.stepped_at)
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
                Way::Write(_)
                    if settlement.ending.again_at().is_some() && self.is_claimed(&settlement.run.key.timer) =>
                {
                    self.held_back.push(settlement);
                }
                Way::Write(epoch) => {
                    if settlement.ending.again_at().is_some() {
                        self.begin_put_back(&settlement.run.key);
                    }
                    settlement.run.epoch = epoch;
                    batch.push(settlement);
                }
                Way::Wait if self.parked_settlements.len() < self.config.inflight_max => {
                    self.parked_settlements.push(settlement);
                }
                // Too many wait already: an adoption finds the run, and repeats it.
                Way::Wait | Way::Drop => {
                    let record = self.forget(&settlement.run.key);
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
        written: Result<Vec<Written>, Unavailable>,
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
            let Ok(written) = written else {
                // It was not written, for its own sake: the others need not wait for it.
                self.repeat_at = now.after(REPEAT_PAUSE);
                self.repeats.push_back(settlement);
                continue;
            };
            let again = match self.way(&settlement) {
                Way::Write(epoch) => epoch > settlement.run.epoch,
                Way::Wait => true,
                Way::Drop => false,
            };
            if !written && again {
                self.settlements.push_back(settlement);
            } else {
                let known = self.forget(&settlement.run.key).is_some_and(|record| !record.doubtful);
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
        let Some(due_at) = settlement.ending.again_at() else { return };
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

    /// Asks for the runs that older epochs left: at once for shards just taken over, now and then for all. However large they
    /// are, and whosever: they are under way already, and nobody else goes on with them.
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
    pub(super) fn adopted(&mut self, now: Timestamp, runs: Result<Vec<Run>, Unavailable>, effects: &mut Vec<Effect>) {
        let Some(adoption) = self.adopting.take() else { return };
        let Ok(runs) = runs else {
            // They may be ours by now, under an epoch that no adoption looks for.
            return self.give_up(adoption.leases.into_iter().collect(), effects);
        };
        let complete = runs.len() < adoption.limit;
        for run in runs {
            match self.records.get_mut(&run.key) {
                Some(record) => record.epoch = record.epoch.max(run.epoch),
                None if run.unwanted => self.drop_unwanted(now, run),
                None if run.adoptions >= ADOPTIONS_MAX => self.abandon(now, run, effects),
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

/// The host that a run calls.
pub(super) fn origin(run: &Run) -> Cow<'_, str> {
    callback_url::origin(&run.timer.definition.callback.url)
}

/// When its policy allows the last retry. A timer that was never tried is tried once, however late that is.
pub(super) fn last_retry(run: &Run) -> Timestamp {
    let first_at = run.timer.first_attempt_at.filter(|_| run.timer.attempts > 1);
    first_at.map_or(Timestamp::MAX, |first_at| run.timer.definition.retry.last_at(first_at))
}

/// How a run ends whose attempt went like this. `jitter` is from 0 to 1. Where it is the receiver's wish that ends it, the
/// attempt's error says so from then on.
fn ending(run: &Run, attempt: &mut Attempt, jitter: f64) -> Ending {
    match &mut attempt.verdict {
        Verdict::Succeeded => Ending::Succeeded,
        Verdict::Failed { .. } => Ending::Failed,
        Verdict::Reschedule(at) => Ending::Reschedule(*at),
        Verdict::Retry { not_before, error } => {
            let first_at = run.timer.first_attempt_at.unwrap_or(attempt.sent_at);
            let policy = &run.timer.definition.retry;
            match policy.after_failure(run.timer.attempts.max(1), first_at, attempt.answered_at, *not_before, jitter) {
                AfterFailure::RetryAt(at) => Ending::RetryAt(at),
                AfterFailure::GiveUp => Ending::Failed,
                AfterFailure::AskedTooLate => {
                    let longest = duration::format(policy.attempts_duration);
                    error
                        .push_str(&format!("; not tried again: its Retry-After is beyond the {longest} of the policy"));
                    Ending::Failed
                }
            }
        }
    }
}
