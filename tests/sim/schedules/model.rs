//! A model of what PostgreSQL does with schedules: one statement at a time, as `sql/queries/schedules` and the trigger on the
//! table do it; the contract suite holds it to what PostgreSQL does. Callbacks are no more here than pending or under way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use walclock::clock::Timestamp;
use walclock::dispatch::ports::{Due, DueRequest, Planned};
use walclock::domain::schedule::{Outcome, Overlap, Reason, Rule, Schedule};

use super::Planted;
use crate::contract::schedules as contract;
pub use crate::contract::schedules::{Callback, State};

/// So many of a schedule's last callbacks are looked at, to tell whether one is not over.
const LAST: usize = 16;
/// Of those whose moment lies ahead, so many times as many as are wanted are looked at.
const LOOKED_AT_AHEAD: usize = 4;

/// A schedule and one of its moments.
pub type Moment = (String, Timestamp);

/// A row of `walclock.schedules`.
#[derive(Clone, Debug)]
pub struct Row {
    pub schedule: Schedule,
    pub paused: bool,
    /// Why nothing is made of it.
    pub error: Option<String>,
}

/// A row of `walclock.occurrences`.
#[derive(Clone, Copy, Debug)]
pub struct Occurrence {
    pub state: State,
    pub reason: Option<&'static str>,
    pub through: Option<Timestamp>,
    pub made_at: Timestamp,
}

/// What a settled plan changed.
#[derive(Debug)]
pub struct Settled {
    /// The row before.
    pub before: Row,
    /// The callbacks that were not over before, of those that are looked at.
    pub active: Vec<Timestamp>,
    /// The timers that it made.
    pub made: Vec<(Timestamp, Timestamp)>,
}

/// The tables.
#[derive(Debug)]
pub struct Model {
    /// PostgreSQL's clock.
    pub now: Timestamp,
    pub planted: Planted,
    pub rows: BTreeMap<String, Row>,
    pub occurrences: BTreeMap<Moment, Occurrence>,
    /// Rows of `walclock.timers`, and of `walclock.runs` as long as they are not over.
    pub callbacks: BTreeMap<Moment, Callback>,
    /// Schedules whose rows another transaction has locked.
    pub held: BTreeSet<String>,
    /// Schedules whose timers are refused.
    pub refused: BTreeSet<String>,
}

impl Model {
    pub fn new(now: Timestamp, planted: Planted) -> Self {
        let (rows, occurrences, callbacks) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { now, planted, rows, occurrences, callbacks, held: BTreeSet::new(), refused: BTreeSet::new() }
    }

    /// The moments of the callbacks that are not over, newest first, as far as the last ones that were fired tell.
    pub fn active(&self, id: &str) -> Vec<Timestamp> {
        let fired = self.of(id).rev().filter(|(_, occurrence)| occurrence.state == State::Fired).take(LAST);
        fired.map(|(at, _)| at).filter(|at| self.callbacks.contains_key(&(id.to_owned(), *at))).collect()
    }

    /// The occurrences of a schedule, in the order of their moments.
    pub fn of(&self, id: &str) -> impl DoubleEndedIterator<Item = (Timestamp, &Occurrence)> {
        let range = (id.to_owned(), Timestamp::MIN)..=(id.to_owned(), Timestamp::MAX);
        self.occurrences.range(range).map(|((_, at), occurrence)| (*at, occurrence))
    }

    pub fn due(&self, request: &DueRequest) -> Due {
        let held = |row: &Row| request.shards.contains(&row.schedule.key.shard());
        let awake = || self.rows.values().filter(|row| !row.paused && row.error.is_none());
        let read = |row: &Row| {
            let active = row.schedule.rule.overlap != Overlap::Allow && !self.active(&row.schedule.key.id).is_empty();
            Schedule { active, ..row.schedule.clone() }
        };
        let mut near: Vec<&Row> = awake().filter(|row| row.schedule.next_at <= request.until).collect();
        near.retain(|row| held(row) || row.schedule.next_at <= request.overdue);
        near.sort_by_key(|row| row.schedule.next_at);
        let (come, ahead): (Vec<&Row>, Vec<&Row>) =
            near.into_iter().partition(|row| row.schedule.next_at <= request.now);
        let come = come.into_iter().filter(|row| !self.held.contains(&*row.schedule.key.id)).take(request.limit);
        let ahead = ahead.into_iter().take(LOOKED_AT_AHEAD * request.limit);
        let is_certain = |schedule: &Schedule| schedule.next_at <= request.now || !schedule.active;
        let mut due: Vec<Schedule> = come.chain(ahead).map(read).filter(is_certain).take(request.limit).collect();
        let released = awake().filter(|row| row.schedule.buffered_at.is_some() && held(row)).map(|row| {
            let active = !self.active(&row.schedule.key.id).is_empty() && self.planted != Planted::ReleasesAtOnce;
            Schedule { active, ..row.schedule.clone() }
        });
        for schedule in released.filter(|schedule| !schedule.active).take(request.limit) {
            if due.iter().all(|other| other.key != schedule.key) {
                due.push(schedule);
            }
        }
        let ahead = awake().filter(|row| held(row)).map(|row| row.schedule.next_at);
        let next_at = ahead.filter(|at| *at > request.now && *at <= request.until).min();
        Due { schedules: due, next_at }
    }

    /// Settles one schedule, unless somebody has touched it since it was read.
    pub fn settle(&mut self, Planned { schedule, plan }: &Planned) -> Option<Settled> {
        let id = &schedule.key.id.to_string();
        let before = self.rows.get(id)?.clone();
        let row = &before.schedule;
        let is_read = row.revision == schedule.revision && row.next_at == schedule.next_at;
        let is_same = is_read && (row.changed_at == schedule.changed_at || self.planted == Planted::TakesSuccessors);
        if (!is_same || before.paused) && self.planted != Planted::SettlesStalePlans {
            return None;
        }
        if self.held.contains(id) {
            return None;
        }
        let fires = plan.occurrences.iter().any(|occurrence| occurrence.outcome == Outcome::Fire);
        let is_refused = self.refused.contains(id) && (fires || plan.release_at.is_some());
        let schedule = match is_refused {
            // All of it is taken back, and why is noted.
            true => Schedule { revision: row.revision + 1, ..row.clone() },
            false => Schedule {
                next_at: plan.next_at,
                buffered_at: plan.buffered_at,
                revision: row.revision + 1,
                ..row.clone()
            },
        };
        let error = if is_refused { Some("its timers are refused".to_owned()) } else { plan.error.clone() };
        let active = self.active(id);
        self.rows.insert(id.clone(), Row { schedule, error, paused: before.paused });
        if is_refused {
            return None;
        }
        let mut made = Vec::new();
        if let (Some(leaves_at), Some(waited)) = (plan.release_at, before.schedule.buffered_at)
            && let Some(occurrence) = self.occurrences.get_mut(&(id.clone(), waited))
            && occurrence.state == State::Buffered
        {
            occurrence.state = State::Fired;
            occurrence.made_at = self.now;
            made.push((waited, leaves_at));
        }
        for occurrence in &plan.occurrences {
            let moment = (id.clone(), occurrence.scheduled_for);
            if self.occurrences.contains_key(&moment) && self.planted != Planted::IgnoresKeys {
                continue;
            }
            let (state, reason) = match occurrence.outcome {
                Outcome::Fire => (State::Fired, None),
                Outcome::Buffer => (State::Buffered, None),
                Outcome::Skip(reason) => (State::Skipped, Some(reason.as_str())),
            };
            if state == State::Fired {
                made.push((occurrence.scheduled_for, occurrence.execute_at));
            }
            let (through, made_at) = (occurrence.through, self.now);
            self.occurrences.insert(moment, Occurrence { state, reason, through, made_at });
        }
        let planned = made.len();
        made.retain(|(at, due_at)| self.make((id.clone(), *at), *due_at));
        let clashes = made.len() < planned;
        let last = plan.occurrences.iter().rfind(|occurrence| occurrence.outcome == Outcome::Fire);
        if let Some(last) = last.filter(|_| plan.cancel && !clashes && self.planted != Planted::EndsNoOther) {
            // The statement runs twice, and the second time it looks behind those that the first one has ended.
            self.end_before(id, last.scheduled_for);
            self.end_before(id, last.scheduled_for);
        }
        Some(Settled { before, active, made })
    }

    /// Makes a timer, unless there is one of that id: then the moment is left out.
    fn make(&mut self, moment: Moment, due_at: Timestamp) -> bool {
        let is_free = !self.callbacks.contains_key(&moment) || self.planted == Planted::IgnoresKeys;
        if is_free {
            self.callbacks.insert(moment, new_callback(due_at));
        } else if let Some(occurrence) = self.occurrences.get_mut(&moment) {
            occurrence.state = State::Skipped;
            occurrence.reason = Some(Reason::Taken.as_str());
        }
        is_free
    }

    /// Ends the callbacks before a moment: what is pending goes, what is under way is not tried again.
    fn end_before(&mut self, id: &str, moment: Timestamp) {
        let fired = self.of(id).rev().filter(|(at, occurrence)| *at < moment && occurrence.state == State::Fired);
        let earlier: Vec<Timestamp> = fired.take(LAST).map(|(at, _)| at).collect();
        for key in earlier.into_iter().map(|at| (id.to_owned(), at)) {
            let Some(callback) = self.callbacks.get_mut(&key) else { continue };
            match callback.running {
                true => callback.cancelled = true,
                false => drop(self.callbacks.remove(&key)),
            }
            if let Some(occurrence) = self.occurrences.get_mut(&key) {
                occurrence.state = State::Cancelled;
                occurrence.reason = Some(Reason::Overtaken.as_str());
            }
        }
    }

    /// A client writes a schedule; none where there was none of that name.
    pub fn put(&mut self, id: &str, rule: Rule, paused: bool) {
        if let Some(row) = self.rows.get(id) {
            let row = row.clone();
            self.change(id, &row, rule, paused);
            return;
        }
        let schedule = Schedule {
            key: contract::key(id),
            rule,
            created_at: self.now,
            changed_at: self.now,
            next_at: Timestamp::MIN,
            buffered_at: None,
            active: false,
            revision: 0,
        };
        self.rows.insert(id.to_owned(), Row { schedule, paused, error: None });
    }

    /// What was made ahead is withdrawn, and what was planned is planned anew.
    fn change(&mut self, id: &str, row: &Row, rule: Rule, paused: bool) {
        let withdrawn = self.withdraw(id);
        let Schedule { rule: old, next_at, changed_at, .. } = &row.schedule;
        let recurs = |rule: &Rule| (rule.when.clone(), rule.time_zone.clone(), rule.start_at, rule.end_at);
        let (next_at, changed_at) = match recurs(&rule) == recurs(old) {
            true => (withdrawn.map_or(*next_at, |at| at.min(*next_at)), *changed_at),
            false => (Timestamp::MIN, self.now),
        };
        let revision = row.schedule.revision + 1;
        let schedule = Schedule { rule, next_at, changed_at, revision, ..row.schedule.clone() };
        self.rows.insert(id.to_owned(), Row { schedule, paused, error: None });
    }

    fn withdraw(&mut self, id: &str) -> Option<Timestamp> {
        if self.planted == Planted::WithdrawsNothing {
            return None;
        }
        let ahead = self.of(id).filter(|(at, occurrence)| *at > self.now && occurrence.state == State::Fired);
        let ahead: Vec<Moment> = ahead.map(|(at, _)| (id.to_owned(), at)).collect();
        let mut first = None;
        for key in ahead {
            let waits = |callback: &Callback| !callback.running && callback.attempts == 0;
            if self.callbacks.get(&key).is_some_and(waits) {
                self.callbacks.remove(&key);
                self.occurrences.remove(&key);
                first = first.or(Some(key.1));
            }
        }
        first
    }

    /// A client deletes a schedule.
    pub fn delete(&mut self, id: &str) {
        self.withdraw(id);
        self.rows.remove(id);
    }

    /// A client fires a schedule now, besides its moments; false where the key is taken.
    pub fn trigger(&mut self, id: &str) -> bool {
        let key = (id.to_owned(), self.now);
        if self.occurrences.contains_key(&key) {
            return false;
        }
        let Some(row) = self.rows.get_mut(id) else { return false };
        row.schedule.revision += 1;
        let fired = Occurrence { state: State::Fired, reason: Some("triggered"), through: None, made_at: self.now };
        self.occurrences.insert(key.clone(), fired);
        self.callbacks.insert(key, new_callback(self.now));
        true
    }

    /// Deletes what became of moments where the retention has passed it.
    pub fn purge(&mut self, retention: Duration) {
        let old = self.now.before(retention);
        let rows = &self.rows;
        self.occurrences.retain(|(id, at), occurrence| {
            let waits = rows.get(id).is_some_and(|row| row.schedule.buffered_at == Some(*at));
            *at >= old || occurrence.made_at >= old || (occurrence.state == State::Buffered && waits)
        });
    }

    /// A dispatcher claims the timer of a moment, up to `until`: the number of its attempt and when it is due, if it is there.
    pub fn claim(&mut self, moment: &Moment, until: Timestamp) -> Option<(u32, Timestamp)> {
        let callback =
            self.callbacks.get_mut(moment).filter(|callback| !callback.running && callback.due_at <= until)?;
        callback.running = true;
        callback.attempts += 1;
        Some((callback.attempts, callback.due_at))
    }

    /// A callback is answered: it is over, or put back for another attempt after `wait`, if it may have one; when that is.
    pub fn answer(&mut self, moment: &Moment, wait: Option<Duration>) -> Option<Timestamp> {
        let callback = self.callbacks.get_mut(moment)?;
        match wait.filter(|_| !callback.cancelled || self.planted == Planted::RetriesWhatIsEnded) {
            None => {
                self.callbacks.remove(moment);
                None
            }
            Some(wait) => {
                callback.running = false;
                callback.due_at = self.now.after(wait);
                Some(callback.due_at)
            }
        }
    }
}

fn new_callback(due_at: Timestamp) -> Callback {
    Callback { due_at, attempts: 0, running: false, cancelled: false }
}
