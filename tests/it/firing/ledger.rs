//! What clients did to timers, noted before and after each call, what receivers were called with, and what the database
//! wrote meanwhile. Plain data.

use std::time::Duration;

use walclock::clock::Timestamp;

/// The namespace of all timers here.
pub const NAMESPACE: &str = "default";
/// The retry policy of all timers here: the first wait, and what none goes beyond. Each wait is twice the one before.
pub const RETRY_FIRST: Duration = Duration::from_millis(100);
pub const RETRY_MAX: Duration = Duration::from_millis(400);
/// The attempts of that policy.
pub const ATTEMPTS_MAX: u32 = 4;
/// What a busy receiver asks for with `Retry-After`.
pub const BUSY: Duration = Duration::from_secs(1);
/// How far apart the firings of a timer are that reschedules itself.
pub const AGAIN: Duration = Duration::from_millis(200);

/// How an attempt fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// 500.
    Error,
    /// 429, with `Retry-After`.
    Busy,
    /// 200, and a body that says that it is not done.
    NotDone,
    /// The connection is closed without an answer, at the latest when the caller leaves.
    Hang,
    /// An answer that never ends, byte by byte.
    Drip,
    /// An answer far beyond what is read of one.
    Huge,
    /// A redirect to where the call would be taken.
    Redirect,
    /// The connection is reset in the middle of the answer.
    Reset,
    /// Ten thousand headers.
    Headers,
}

/// How a receiver treats a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    Takes,
    /// Taken, once its receiver is up; tried for as long as that takes.
    Outlasts,
    /// So many attempts fail, the next one is taken.
    Fails(Failure, u32),
    /// 400, which is final.
    Refuses,
    /// Taken, and asked for once more, so many times.
    Again(u32),
}

impl Script {
    /// How a timer ends that nobody changes any more, after how many attempts.
    pub fn end(self) -> (&'static str, u32) {
        match self {
            Self::Takes | Self::Outlasts | Self::Again(_) => ("succeeded", 1),
            Self::Refuses => ("failed", 1),
            Self::Fails(_, times) if times >= ATTEMPTS_MAX => ("failed", ATTEMPTS_MAX),
            Self::Fails(_, times) => ("succeeded", times + 1),
        }
    }

    /// When its last firing is due, if the first one is due at `due`.
    pub fn last_due(self, due: Timestamp) -> Timestamp {
        match self {
            Self::Again(times) => due.after(AGAIN * times),
            Self::Takes | Self::Outlasts | Self::Fails(..) | Self::Refuses => due,
        }
    }
}

/// A timer as a client wants it. Each want has a number of its own, which its calls carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    pub number: i64,
    pub due: Timestamp,
    pub script: Script,
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// A plain insert, which fails where the timer is pending.
    Insert(Want),
    /// The API's create, which overwrites.
    Create(Want),
    Move(Want),
    Cancel,
}

impl Deed {
    pub fn want(self) -> Option<Want> {
        match self {
            Self::Insert(want) | Self::Create(want) | Self::Move(want) => Some(want),
            Self::Cancel => None,
        }
    }
}

/// What became of a deed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// It was told that this timer is not pending, or is, or that the moment has passed.
    Refused,
    /// There was no answer.
    Unknown,
}

/// One deed. A timer has one client, which does one thing at a time, and nothing more after an unknown outcome.
#[derive(Clone, Debug)]
pub struct Act {
    pub timer: String,
    pub deed: Deed,
    /// When the answer was there.
    pub answered_at: Timestamp,
    pub outcome: Outcome,
}

/// A callback as the receiver saw it.
#[derive(Clone, Debug)]
pub struct Call {
    pub timer: String,
    /// The want that it carries.
    pub number: i64,
    /// When the want's first firing is due, as its payload says.
    pub first_due: Timestamp,
    pub execute_at: Timestamp,
    pub scheduled_for: Timestamp,
    pub webhook_id: String,
    pub fence: i64,
    pub attempt: u32,
    /// When it was read whole.
    pub at: Timestamp,
}

/// A row of `walclock.runs` in the end.
#[derive(Clone, Debug)]
pub struct Run {
    pub timer: String,
    pub number: i64,
    pub execute_at: Timestamp,
    pub state: String,
    pub attempts: u32,
    /// What went wrong last.
    pub error: Option<String>,
}

/// One attempt as the database has it: of `walclock.attempts`, or the last one, of `walclock.runs`.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub timer: String,
    pub claimed_at: Timestamp,
    pub attempt: u32,
    pub due_at: Timestamp,
    pub answered_at: Option<Timestamp>,
    /// The status of the answer, if there was one.
    pub status: Option<i16>,
}

/// A write to `walclock.runs`, as a trigger saw it.
#[derive(Clone, Debug)]
pub struct Write {
    pub timer: String,
    /// The want that the run carries; none where it carries none.
    pub number: Option<i64>,
    pub execute_at: Timestamp,
    pub attempt: u32,
    /// The epoch that it was made under, and the one of the shard's lease at that moment.
    pub epoch: i64,
    pub lease: i64,
    /// It was the outcome: from then on nobody has to make the attempt.
    pub is_end: bool,
}

/// A change of a lease's owner, in the order in which they were committed.
#[derive(Clone, Debug)]
pub struct Lease {
    pub at: Timestamp,
    pub shard: i16,
    pub epoch: i64,
    pub owner: Option<String>,
    /// The one before it had run out, without having been given up.
    pub lapsed: bool,
}

/// What is left when all is quiet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Residue {
    /// Timers that are due.
    pub overdue: i64,
    /// Runs under way.
    pub running: i64,
    /// Shards that nobody holds although a dispatcher lives.
    pub ownerless: i64,
    /// Transactions that walclock has left open.
    pub open: i64,
}

/// A span in which something was broken.
#[derive(Clone, Debug)]
pub struct Fault {
    pub what: String,
    /// PostgreSQL crashes, and forgets claims: what is made under the same epoch again is explained, too.
    pub forgets: bool,
    pub from: Timestamp,
    /// When the leases were where they belong again. A change of owner after that has to have another reason.
    pub until: Timestamp,
}

impl Fault {
    /// Whether it was there at this moment.
    pub fn covers(&self, at: Timestamp) -> bool {
        self.overlaps(at, at)
    }

    /// Whether it was there within this span.
    pub fn overlaps(&self, from: Timestamp, to: Timestamp) -> bool {
        self.from <= to && self.until >= from
    }
}

/// All that is known of a run.
#[derive(Clone, Debug)]
pub struct Evidence {
    pub acts: Vec<Act>,
    pub calls: Vec<Call>,
    pub runs: Vec<Run>,
    pub attempts: Vec<Attempt>,
    pub writes: Vec<Write>,
    pub leases: Vec<Lease>,
    pub faults: Vec<Fault>,
    pub residue: Residue,
    /// What was due by then has had its chance.
    pub quiet_at: Timestamp,
    /// How late a first call may be, counted from the end of the last fault on its way.
    pub late_max: Duration,
}
