//! What is to become of a schedule's moments. The database's row decides whether it comes to that: what was planned on an
//! older revision of it changes nothing.

use std::time::Duration;

use super::{CatchUp, Overlap, Schedule};
use crate::clock::Timestamp;
use crate::domain::limits;
use crate::domain::recurrence::Recurrence;

const INSTANT: Duration = Duration::from_micros(1);

/// What becomes of a moment, or of several in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A timer is made for it.
    Fire,
    /// It waits for the last callback to be over.
    Buffer,
    /// It is left out.
    Skip(Reason),
}

/// Why a moment is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The last callback is not over.
    Overlap,
    /// Another moment waits already for the last callback to be over.
    Waiting,
    /// A later moment of the same plan takes its place.
    Overtaken,
    /// It was missed, and is not made up for.
    Missed,
    /// A timer that somebody else made has the id that its own would have. Known once it is settled, and never planned.
    Taken,
}

impl Reason {
    /// The words that the database uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Overlap => "the last callback is not over",
            Self::Waiting => "another occurrence waits already",
            Self::Overtaken => "a later occurrence takes its place",
            Self::Missed => "missed",
            Self::Taken => "another timer has its id",
        }
    }
}

/// A moment, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occurrence {
    /// The moment.
    pub scheduled_for: Timestamp,
    /// The last moment of those that it stands for, where it is the first of several that are left out.
    pub through: Option<Timestamp>,
    /// When its callback leaves, if it fires.
    pub execute_at: Timestamp,
    /// What becomes of it.
    pub outcome: Outcome,
}

/// All that is decided about a schedule at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What becomes of which moments, in their order.
    pub occurrences: Vec<Occurrence>,
    /// The first moment that is not settled then; [`Timestamp::MAX`] where there is none.
    pub next_at: Timestamp,
    /// The moment that waits then.
    pub buffered_at: Option<Timestamp>,
    /// When the callback leaves of the moment that has waited until now.
    pub release_at: Option<Timestamp>,
    /// Whether the callbacks before are ended.
    pub cancel: bool,
    /// Why nothing can be made of the schedule until it is changed.
    pub error: Option<String>,
}

/// Decides what becomes of the moments up to `now`, and of those within `lead` after it of which it is certain already.
///
/// A moment is missed once it is `limits::SCHEDULE_MISSED_AFTER` ago; a pause makes no difference to an outage.
pub fn plan(schedule: &Schedule, now: Timestamp, lead: Duration) -> Plan {
    let recurrence = match schedule.rule.recurrence(schedule.created_at) {
        Ok(recurrence) => recurrence,
        Err(error) => {
            // The value comes last: one that is long must not hide what is wrong with it.
            let error = format!("{error}, not {:?}", error.value);
            let buffered_at = schedule.buffered_at;
            return Plan { next_at: schedule.next_at, buffered_at, error: Some(error), ..Plan::default() };
        }
    };
    let planner = Planner {
        schedule,
        recurrence,
        active: schedule.active,
        plan: Plan { buffered_at: schedule.buffered_at, ..Plan::default() },
    };
    planner.plan(now, lead)
}

struct Planner<'a> {
    schedule: &'a Schedule,
    recurrence: Recurrence,
    /// Whether a callback is not over, what is planned so far counted.
    active: bool,
    plan: Plan,
}

impl Planner<'_> {
    fn plan(mut self, now: Timestamp, lead: Duration) -> Plan {
        if let Some(waiting) = self.schedule.buffered_at.filter(|_| !self.active) {
            self.plan.release_at = Some(self.schedule.execute_at(waiting));
            self.plan.buffered_at = None;
            self.active = true;
        }
        let mut next = self.catch_up(self.first(), now);
        while let Some(at) = next.filter(|at| *at <= now) {
            self.settle(at);
            next = self.after(at);
        }
        // Ahead of its moment only what is certain: nothing that is not over could be over by then.
        while let Some(at) = next.filter(|at| *at <= now.after(lead)) {
            if self.active && self.schedule.rule.overlap != Overlap::Allow {
                break;
            }
            self.settle(at);
            next = self.after(at);
        }
        self.plan.next_at = next.unwrap_or(Timestamp::MAX);
        self.plan
    }

    /// The first moment that is not settled.
    fn first(&self) -> Option<Timestamp> {
        match self.schedule.next_at {
            Timestamp::MIN => self.after(self.schedule.changed_at),
            Timestamp::MAX => None,
            known => Some(known),
        }
    }

    /// The first moment later than `at` within the schedule's time.
    fn after(&self, at: Timestamp) -> Option<Timestamp> {
        let start = self.schedule.rule.start_at.map(|start| start.before(INSTANT));
        self.recurrence.after(start.map_or(at, |start| at.max(start))).filter(|at| self.is_within(*at))
    }

    fn is_within(&self, at: Timestamp) -> bool {
        self.schedule.rule.end_at.is_none_or(|end| at <= end)
    }

    /// The last moment from `from` to `until` within the schedule's time.
    fn last(&self, from: Timestamp, until: Timestamp) -> Option<Timestamp> {
        let until = self.schedule.rule.end_at.map_or(until, |end| until.min(end));
        self.recurrence.last_within(from, until)
    }

    /// Settles the moments that were missed from `first` on, and returns the first one behind them.
    fn catch_up(&mut self, first: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
        let first = first?;
        let in_time = now.before(limits::SCHEDULE_MISSED_AFTER);
        let Some(last) = self.last(first, in_time.before(INSTANT)) else {
            return Some(first);
        };
        let made_up = self.made_up(first, last, now);
        let skipped = match made_up.first() {
            Some(oldest) if *oldest == first => None,
            Some(oldest) => self.last(first, oldest.before(INSTANT)),
            None => Some(last),
        };
        if let Some(through) = skipped {
            let through = Some(through).filter(|through| *through != first);
            self.push(first, through, Outcome::Skip(Reason::Missed));
        }
        for at in made_up {
            self.settle(at);
        }
        self.after(last)
    }

    /// Which of the missed moments from `first` to `last` are made up for, in their order.
    fn made_up(&self, first: Timestamp, last: Timestamp, now: Timestamp) -> Vec<Timestamp> {
        let rule = &self.schedule.rule;
        let from = first.max(now.before(rule.catch_up_window));
        let count = match rule.catch_up {
            CatchUp::None => 0,
            // Where one in time follows, that one is the last.
            CatchUp::Last if self.after(last).is_some_and(|next| next <= now) => 0,
            CatchUp::Last => 1,
            CatchUp::All => usize::try_from(rule.catch_up_max).unwrap_or(usize::MAX),
        };
        let newest = Some(last).filter(|last| *last >= from);
        let mut found: Vec<_> =
            std::iter::successors(newest, |at| self.last(from, at.before(INSTANT))).take(count).collect();
        found.reverse();
        found
    }

    /// Decides about a moment by what is not over.
    fn settle(&mut self, at: Timestamp) {
        let outcome = match self.schedule.rule.overlap {
            Overlap::Allow => Outcome::Fire,
            Overlap::CancelOther => {
                self.overtake();
                Outcome::Fire
            }
            Overlap::Skip | Overlap::BufferOne if !self.active => Outcome::Fire,
            Overlap::Skip => Outcome::Skip(Reason::Overlap),
            Overlap::BufferOne if self.plan.buffered_at.is_some() => Outcome::Skip(Reason::Waiting),
            Overlap::BufferOne => {
                self.plan.buffered_at = Some(at);
                Outcome::Buffer
            }
        };
        self.active |= outcome == Outcome::Fire;
        self.push(at, None, outcome);
    }

    /// Ends what was fired before: what stands in this plan only is left out of it.
    fn overtake(&mut self) {
        self.plan.cancel |= self.schedule.active || self.plan.release_at.is_some();
        for earlier in &mut self.plan.occurrences {
            if earlier.outcome == Outcome::Fire {
                earlier.outcome = Outcome::Skip(Reason::Overtaken);
            }
        }
    }

    fn push(&mut self, at: Timestamp, through: Option<Timestamp>, outcome: Outcome) {
        let execute_at = self.schedule.execute_at(at);
        self.plan.occurrences.push(Occurrence { scheduled_for: at, through, execute_at, outcome });
    }
}
