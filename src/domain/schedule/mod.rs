//! A schedule: a callback that recurs. What is to become of its moments is decided by [`plan`], and only there.

mod plan;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde_json::value::RawValue;
use url::Host;

use super::callback::Callback;
use super::invalid::{Field, Invalid};
use super::recurrence::Recurrence;
use super::retry::RetryPolicy;
use super::timer::{self, TimerKey};
use super::{duration, limits};
use crate::clock::Timestamp;
pub use plan::{Occurrence, Outcome, Plan, Reason, plan};

/// What a schedule does at a moment when its last callback is not over: pending for another attempt, or under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlap {
    /// Leaves the moment out.
    #[default]
    Skip,
    /// Fires all the same.
    Allow,
    /// Fires once the last one is over. One moment waits at most; further ones are left out.
    BufferOne,
    /// Fires, and ends the last one: what is pending is cancelled, what is under way may finish and is not tried again.
    CancelOther,
}

impl Overlap {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Skip, Self::Allow, Self::BufferOne, Self::CancelOther];

    /// The word that the database uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Allow => "allow",
            Self::BufferOne => "buffer_one",
            Self::CancelOther => "cancel_other",
        }
    }

    /// The one of that word.
    pub fn parse(word: &str) -> Result<Self, Invalid> {
        let found = Self::ALL.into_iter().find(|overlap| overlap.as_str() == word);
        found.ok_or_else(|| Invalid::new(Field::Overlap, word, "skip, allow, buffer_one or cancel_other"))
    }
}

/// What a schedule does about moments that nobody settled in time, because no server ran or it was paused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CatchUp {
    /// Leaves them out.
    None,
    /// Makes up for the last one.
    #[default]
    Last,
    /// Makes up for all, as far as the window and the largest number allow; the newest come first.
    All,
}

impl CatchUp {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::None, Self::Last, Self::All];

    /// The word that the database uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Last => "last",
            Self::All => "all",
        }
    }

    /// The one of that word.
    pub fn parse(word: &str) -> Result<Self, Invalid> {
        let found = Self::ALL.into_iter().find(|catch_up| catch_up.as_str() == word);
        found.ok_or_else(|| Invalid::new(Field::CatchUp, word, "none, last or all"))
    }
}

/// When a schedule recurs, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// By a cron expression.
    Cron(String),
    /// By a fixed interval.
    Every(Duration),
}

/// The rule for a schedule's moments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// When it recurs.
    pub when: When,
    /// The IANA name of the place whose clocks a cron expression goes by.
    pub time_zone: String,
    /// No moment is earlier; of an interval it is the first.
    pub start_at: Option<Timestamp>,
    /// No moment is later.
    pub end_at: Option<Timestamp>,
    /// By how much its callbacks are spread at most, each by a part of it that its moment alone decides.
    pub jitter: Duration,
    /// What it does while its last callback is not over.
    pub overlap: Overlap,
    /// What it does about moments that were missed.
    pub catch_up: CatchUp,
    /// How far back a missed moment still counts.
    pub catch_up_window: Duration,
    /// How many missed moments are made up for at once, 1 to 1000.
    pub catch_up_max: u32,
}

impl Rule {
    /// The rule with the usual rest.
    pub fn new(when: When) -> Self {
        Self {
            when,
            time_zone: "UTC".to_owned(),
            start_at: None,
            end_at: None,
            jitter: Duration::ZERO,
            overlap: Overlap::default(),
            catch_up: CatchUp::default(),
            catch_up_window: Duration::from_secs(86_400),
            catch_up_max: 100,
        }
    }

    /// Checks all of it.
    pub fn check(&self) -> Result<(), Invalid> {
        self.recurrence(Timestamp::default())?;
        if let Some(end) = self.end_at.filter(|end| self.start_at.is_some_and(|start| *end < start)) {
            return Err(Invalid::new(Field::EndAt, end, "no earlier than the start"));
        }
        for (field, span, most) in [
            (Field::Jitter, self.jitter, limits::SCHEDULE_JITTER_MAX),
            (Field::CatchUpWindow, self.catch_up_window, limits::RETRY_SPAN_MAX),
        ] {
            if span > most {
                let allowed = format!("a duration of at most {}", duration::format(most));
                return Err(Invalid::new(field, duration::format(span), allowed));
            }
        }
        match limits::CATCH_UP_MAX.contains(&self.catch_up_max) {
            true => Ok(()),
            false => {
                let (least, most) = (limits::CATCH_UP_MAX.start(), limits::CATCH_UP_MAX.end());
                let allowed = format!("a whole number from {least} to {most}");
                Err(Invalid::new(Field::CatchUpMax, self.catch_up_max, allowed))
            }
        }
    }

    /// Its moments; an interval without a start counts from `created_at`.
    pub fn recurrence(&self, created_at: Timestamp) -> Result<Recurrence, Invalid> {
        match &self.when {
            When::Cron(expression) => Recurrence::cron(expression, &self.time_zone),
            When::Every(span) => Recurrence::every(*span, self.start_at.unwrap_or(created_at)),
        }
    }
}

/// What a client asks for: everything of a schedule that is not the server's own bookkeeping.
#[derive(Clone, Debug)]
pub struct Definition {
    /// Namespace and id. A moment's timer has the id with `@` and the moment behind it.
    pub key: TimerKey,
    /// When it recurs.
    pub rule: Rule,
    /// Whether nothing is made of its moments for now.
    pub paused: bool,
    /// Whom to call and how.
    pub callback: Callback,
    /// The JSON that travels with each callback.
    pub payload: Option<Box<RawValue>>,
    /// What to do after a failed attempt.
    pub retry: RetryPolicy,
}

impl Definition {
    /// Checks all of it, and returns the host that is to be called.
    pub fn check(&self) -> Result<Host, Invalid> {
        check_key(&self.key)?;
        self.rule.check()?;
        self.payload.as_deref().map_or(Ok(()), timer::check_payload)?;
        self.retry.check()?;
        self.callback.check()
    }
}

/// Checks the names of a schedule.
pub fn check_key(key: &TimerKey) -> Result<(), Invalid> {
    let most = limits::SCHEDULE_ID_CHARS_MAX;
    if key.id.is_empty() || key.id.chars().count() > most {
        let allowed = format!("1 to {most} characters, none a control character");
        return Err(Invalid::new(Field::Id, &key.id, allowed));
    }
    key.check()
}

/// A schedule as it stands, as far as its moments need it.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Namespace and id.
    pub key: TimerKey,
    /// When it recurs. What SQL cannot check of it may be wrong.
    pub rule: Rule,
    /// When the row was made.
    pub created_at: Timestamp,
    /// When it was last said when it recurs: moments up to here are no concern of it.
    pub changed_at: Timestamp,
    /// The first moment that is not settled; [`Timestamp::MIN`] where that is not known yet.
    pub next_at: Timestamp,
    /// The moment that waits for the last callback to be over.
    pub buffered_at: Option<Timestamp>,
    /// Whether a callback of it is pending or under way.
    pub active: bool,
    /// Counts the changes of the row.
    pub revision: i64,
}

impl Schedule {
    /// When the callback of a moment is to leave: later by its jitter, the same in every process.
    pub fn execute_at(&self, scheduled_for: Timestamp) -> Timestamp {
        let jitter = u64::try_from(self.rule.jitter.as_micros()).unwrap_or(0);
        let text = format!("{}@{}", self.key, scheduled_for.micros());
        let part = super::hash::hash_text(text.as_bytes(), 0) % jitter.saturating_add(1);
        scheduled_for.after(Duration::from_micros(part))
    }
}
