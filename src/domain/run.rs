//! A run: what became of a timer once its moment had come. It stands in `walclock.runs`.

use std::sync::Arc;

use super::callback::Verdict;
use super::lease::Epoch;
use super::timer::{Timer, TimerKey};
use super::webhook::Secret;
use crate::clock::Timestamp;

/// What names a run: the timer's key and the moment it was claimed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunKey {
    /// The timer that was claimed.
    pub timer: TimerKey,
    /// When the claim took it, by PostgreSQL's clock; also what the table is partitioned by.
    pub claimed_at: Timestamp,
}

/// A claimed timer under way: all that delivery and settling need.
#[derive(Clone, Debug)]
pub struct Run {
    /// Names the row in `walclock.runs`.
    pub key: RunKey,
    /// The timer as it was when it was claimed. `attempts` counts this attempt too, so it is at least 1.
    pub timer: Timer,
    /// The epoch of the shard's lease under which it was claimed: the fence of every later write.
    pub epoch: Epoch,
    /// What signs its callback: the secrets of its namespace, two while one replaces the other, none for no signature.
    pub secrets: Arc<[Secret]>,
    /// How many dispatchers have taken it over, one after the other: all but the last one were gone before it was over.
    pub adoptions: u32,
    /// Set by an adoption where nobody wants it any more: it is cancelled, or a newer timer has its id. What its last
    /// dispatcher made of it is unknown, and it is not sent again.
    pub unwanted: bool,
}

/// The state of a timer as its readers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// In `walclock.timers`: it can still be changed and cancelled.
    Pending,
    /// Claimed; its callback is under way.
    Running,
    /// The receiver took it.
    Succeeded,
    /// Refused, or the policy was exhausted.
    Failed,
}

impl State {
    /// The word that the database and the API use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }
}

/// One attempt, as delivery saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// When the request left.
    pub sent_at: Timestamp,
    /// When the answer was there, or the attempt was given up.
    pub answered_at: Timestamp,
    /// False where the host could not be connected to, which is so whatever is called there. A time-out of the timer's own that is
    /// over before says nothing of the kind.
    pub connected: bool,
    /// The HTTP status, where there was an answer.
    pub status: Option<u16>,
    /// The first bytes of the answer, at most `limits::REPLY_HEAD_BYTES_MAX`.
    pub reply_head: String,
    /// What the answer, or its absence, means.
    pub verdict: Verdict,
}

impl Attempt {
    /// One that failed without an answer, and is to be made again.
    pub fn unanswered(sent_at: Timestamp, answered_at: Timestamp, error: String) -> Self {
        let verdict = Verdict::Retry { not_before: None, error };
        Self { sent_at, answered_at, connected: true, status: None, reply_head: String::new(), verdict }
    }

    /// What counts as the attempt of a run that one dispatcher after the other left without an outcome, given up at `at`:
    /// it may be the callback that ends them, so it is neither repeated at once nor for ever.
    pub fn abandoned(adoptions: u32, at: Timestamp) -> Self {
        let error = format!("no outcome: its dispatcher was gone {adoptions} times before the callback was over");
        Self::unanswered(at, at, error)
    }

    /// Stands for the attempt of a run that was deferred or ended at this moment: none was made, for this reason.
    pub fn unmade(at: Timestamp, reason: String) -> Self {
        Self::unanswered(at, at, reason)
    }
}

/// How an attempt of the past went, or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It failed, and another one followed or will.
    Retried,
    /// The receiver asked for another moment.
    Rescheduled,
    /// It is under way.
    Running,
    /// The receiver took it.
    Succeeded,
    /// It failed, and was the last.
    Failed,
}

impl Outcome {
    /// The word that the database uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retried => "retried",
            Self::Rescheduled => "rescheduled",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }
}

/// An attempt as the history of its timer has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastAttempt {
    /// Its number, 1 for the first of a firing.
    pub number: u32,
    /// How it went.
    pub outcome: Outcome,
    /// When it was to leave.
    pub due_at: Timestamp,
    /// When its timer was claimed for it.
    pub claimed_at: Timestamp,
    /// When the request left; none while it is under way.
    pub sent_at: Option<Timestamp>,
    /// When the answer was there, or the attempt was given up.
    pub answered_at: Option<Timestamp>,
    /// The HTTP status, where there was an answer.
    pub status: Option<u16>,
    /// Why it failed.
    pub error: Option<String>,
    /// The first bytes of the answer.
    pub reply: Option<String>,
}

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Over: the receiver took it.
    Succeeded,
    /// Over: refused, or the policy was exhausted.
    Failed,
    /// Over without this attempt, which could not be made within the policy: it is not counted, and there was one before it.
    GivenUp,
    /// Back to `walclock.timers` for another attempt at this moment; the failed attempt goes into `walclock.attempts`.
    RetryAt(Timestamp),
    /// Back to `walclock.timers` with a new `execute_at` and no attempts, as the receiver asked; this one goes into
    /// `walclock.attempts`, too.
    Reschedule(Timestamp),
    /// Back to `walclock.timers` until this moment, with as many attempts as before its claim: none was made.
    Defer(Timestamp),
}

impl Ending {
    /// When the timer is pending again; none where it is over.
    pub fn again_at(self) -> Option<Timestamp> {
        match self {
            Self::RetryAt(at) | Self::Reschedule(at) | Self::Defer(at) => Some(at),
            Self::Succeeded | Self::Failed | Self::GivenUp => None,
        }
    }
}

/// What is written back about a run.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The run, with its epoch.
    pub run: Run,
    /// The attempt that ends it; [`Attempt::unmade`] where none was made.
    pub attempt: Attempt,
    /// What becomes of it.
    pub ending: Ending,
}
