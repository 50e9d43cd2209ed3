//! A model of what PostgreSQL does with schedules: one statement at a time, as `sql/queries/schedules` and the trigger on the
//! table do it. Callbacks are no more here than pending or under way.

use std::collections::BTreeMap;
use std::time::Duration;

use walclock::clock::Timestamp;
use walclock::dispatch::ports::{Due, DueRequest, Planned};
use walclock::domain::schedule::{Outcome, Overlap, Rule, Schedule};
use walclock::domain::shard::Shard;
use walclock::domain::timer::TimerKey;

use super::Planted;

/// So many of a schedule's last callbacks are looked at, to tell whether one is not over.
const LAST: usize = 16;

/// A schedule and one of its moments.
pub type Moment = (String, Timestamp);

/// A row of `walclock.schedules`.
#[derive(Clone, Debug)]
pub struct Row {
    pub schedule: Schedule,
    pub paused: bool,
}

/// What stands with a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Fired,
    Buffered,
    Skipped,
    Cancelled,
}

/// A row of `walclock.occurrences`.
#[derive(Clone, Copy, Debug)]
pub struct Occurrence {
    pub state: State,
    pub through: Timestamp,
}

/// A row of `walclock.timers`, or of `walclock.runs` as long as it is not over.
#[derive(Clone, Copy, Debug)]
pub struct Callback {
    pub due_at: Timestamp,
    pub attempts: u32,
    pub running: bool,
    /// It is not tried again.
    pub cancelled: bool,
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
    pub callbacks: BTreeMap<Moment, Callback>,
}

impl Model {
    pub fn new(now: Timestamp, planted: Planted) -> Self {
        let (rows, occurrences, callbacks) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { now, planted, rows, occurrences, callbacks }
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
        let held = |row: &Row| request.shards.contains(&shard_of(&row.schedule.key.id));
        let awake = || self.rows.values().filter(|row| !row.paused);
        let read = |row: &Row| {
            let active = row.schedule.rule.overlap != Overlap::Allow && !self.active(&row.schedule.key.id).is_empty();
            Schedule { active, ..row.schedule.clone() }
        };
        let near = awake().filter(|row| row.schedule.next_at <= request.until);
        let near = near.filter(|row| held(row) || row.schedule.next_at <= request.overdue).map(read);
        let mut due: Vec<Schedule> =
            near.filter(|schedule| schedule.next_at <= request.now || !schedule.active).collect();
        due.sort_by_key(|schedule| schedule.next_at);
        due.truncate(request.limit);
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
        let active = self.active(id);
        let schedule = Schedule {
            next_at: plan.next_at,
            buffered_at: plan.buffered_at,
            revision: row.revision + 1,
            ..row.clone()
        };
        self.rows.insert(id.clone(), Row { schedule, paused: before.paused });
        let mut made = Vec::new();
        if let (Some(leaves_at), Some(waited)) = (plan.release_at, before.schedule.buffered_at)
            && let Some(occurrence) = self.occurrences.get_mut(&(id.clone(), waited))
            && occurrence.state == State::Buffered
        {
            occurrence.state = State::Fired;
            made.push((waited, leaves_at));
        }
        for occurrence in &plan.occurrences {
            let moment = (id.clone(), occurrence.scheduled_for);
            if self.occurrences.contains_key(&moment) && self.planted != Planted::IgnoresKeys {
                continue;
            }
            let state = match occurrence.outcome {
                Outcome::Fire => State::Fired,
                Outcome::Buffer => State::Buffered,
                Outcome::Skip(_) => State::Skipped,
            };
            if state == State::Fired {
                made.push((occurrence.scheduled_for, occurrence.execute_at));
            }
            let through = occurrence.through.unwrap_or(occurrence.scheduled_for);
            self.occurrences.insert(moment, Occurrence { state, through });
        }
        for (at, due_at) in &made {
            self.callbacks.insert((id.clone(), *at), new_callback(*due_at));
        }
        let last = plan.occurrences.iter().rfind(|occurrence| occurrence.outcome == Outcome::Fire);
        if let Some(last) = last.filter(|_| plan.cancel && self.planted != Planted::EndsNoOther) {
            self.end_before(id, last.scheduled_for);
        }
        Some(Settled { before, active, made })
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
            key: TimerKey::new("n", id),
            rule,
            created_at: self.now,
            changed_at: self.now,
            next_at: Timestamp::MIN,
            buffered_at: None,
            active: false,
            revision: 0,
        };
        self.rows.insert(id.to_owned(), Row { schedule, paused });
    }

    /// What was made ahead is withdrawn, and what was planned is planned anew.
    fn change(&mut self, id: &str, row: &Row, rule: Rule, paused: bool) {
        let withdrawn = self.withdraw(id);
        let Schedule { rule: old, next_at, changed_at, .. } = &row.schedule;
        let recurs = |rule: &Rule| (rule.when.clone(), rule.start_at, rule.end_at);
        let (next_at, changed_at) = match recurs(&rule) == recurs(old) {
            true => (withdrawn.map_or(*next_at, |at| at.min(*next_at)), *changed_at),
            false => (Timestamp::MIN, self.now),
        };
        let revision = row.schedule.revision + 1;
        let schedule = Schedule { rule, next_at, changed_at, revision, ..row.schedule.clone() };
        self.rows.insert(id.to_owned(), Row { schedule, paused });
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
        self.occurrences.insert(key.clone(), Occurrence { state: State::Fired, through: self.now });
        self.callbacks.insert(key, new_callback(self.now));
        true
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

/// The shard of a schedule.
pub fn shard_of(id: &str) -> Shard {
    Shard::of("n", id)
}
