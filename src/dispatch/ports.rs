//! What the dispatcher needs from outside: the rows, the callbacks and the feed. `store`, `delivery` and `app` implement
//! these; the simulation puts a model in their place, and one contract suite runs against both.

use std::future::Future;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::domain::causes;
use crate::domain::lease::{Epoch, Lease, Owner};
use crate::domain::run::{Attempt, Run, Settlement};
use crate::domain::schedule::{Plan, Schedule};
use crate::domain::sequence::Sequence;
use crate::domain::shard::Shard;
use crate::domain::timer::TimerKey;

/// A hint that this timer may be due at this moment. The row decides.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// When it may be due. First, so that entries sort by it.
    pub due_at: Timestamp,
    /// The timer.
    pub key: TimerKey,
}

/// The store, or the feed, did not answer. What was asked for may or may not have happened.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct Unavailable {
    /// What was being done, "claiming timers".
    pub doing: &'static str,
    /// Why it failed.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl Unavailable {
    /// The innermost reason, which is the one that tells most, in one line.
    pub fn cause(&self) -> String {
        causes::innermost(&*self.source)
    }
}

/// One round of a dispatcher with the lease table.
#[derive(Clone, Debug)]
pub struct LeaseRequest {
    /// Who asks.
    pub owner: Owner,
    /// How long what is granted lasts, from the moment the statement runs.
    pub ttl: Duration,
    /// Held shards to give up now. They are free at once for others. One for which a write under this lease is under way
    /// is not: it stays held, in its epoch, and is to be asked for again.
    pub release: Vec<Lease>,
    /// Leases to give up whose shards are to be held on, in a new epoch, without another owner between: no write under the
    /// old one happens any more. Where one is under way, the same holds as for `release`.
    pub anew: Vec<Lease>,
    /// How many shards this owner wants to hold, after the release. It keeps all its own unexpired ones, even where they
    /// are more, and is granted free or expired ones up to this number. Who wants none is not counted as alive: it leaves.
    pub shards_max: usize,
}

/// What the lease table said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseGrant {
    /// All that this owner holds now, renewed for the whole `ttl`.
    pub held: Vec<Lease>,
    /// How many dispatchers are alive, this one included.
    pub owners_alive: usize,
    /// How many of these began before this one. Every owner has another rank, and an owner that joins changes no rank.
    pub rank: usize,
    /// How long it takes, by PostgreSQL's clock, until the first of the others that are alive is not so any more unless it asks
    /// again before; at most the `ttl` asked for. None where there are no others.
    pub others_left: Option<Duration>,
    /// PostgreSQL's clock when the statement ran.
    pub now: Timestamp,
}

/// What became of one of several settlements: whether it was written, false where the epoch is stale or the run has been settled
/// before; or why it was not, for its own sake only: a row that it writes is held or refused. Then it is to be tried again.
pub type Written = Result<bool, Unavailable>;

/// Which timers a load is to return, in the order of their entries.
#[derive(Clone, Debug)]
pub struct LoadRequest {
    /// The shards to look in.
    pub shards: Vec<Shard>,
    /// Only entries behind this one; none begins at the oldest.
    pub after: Option<Entry>,
    /// Only timers due at or before this moment.
    pub until: Timestamp,
    /// At most so many.
    pub limit: usize,
}

/// Which timers to claim.
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    /// Who claims.
    pub owner: Owner,
    /// The timers, each with the epoch in which its shard is held.
    pub timers: Vec<(TimerKey, Epoch)>,
    /// Only those due at or before this moment are taken.
    pub until: Timestamp,
}

/// What a claim found.
#[derive(Debug, Default)]
pub struct Claimed {
    /// The timers that were really there and that near: they are runs now.
    pub runs: Vec<Run>,
    /// Timers that are there but were not taken: another transaction holds the row, or it is due later (its true due
    /// moment is given). Those in neither list are gone, or not yet visible.
    pub left: Vec<Entry>,
}

/// Timers, runs and leases at rest. Every write is fenced: it changes nothing where the epoch is not the current one of
/// an unexpired lease of that owner.
pub trait Store: Send + Sync + 'static {
    /// PostgreSQL's clock.
    fn now(&self) -> impl Future<Output = Result<Timestamp, Unavailable>> + Send;

    /// Announces the owner as alive, releases, renews and acquires leases. The epoch of a shard grows whenever its owner
    /// changes, and whenever it is acquired anew.
    fn lease(&self, request: LeaseRequest) -> impl Future<Output = Result<LeaseGrant, Unavailable>> + Send;

    /// The timers of some shards by due moment.
    fn load(&self, request: LoadRequest) -> impl Future<Output = Result<Vec<Entry>, Unavailable>> + Send;

    /// Moves timers to runs. The claim counts the attempt and need not be durable when it answers.
    fn claim(&self, request: ClaimRequest) -> impl Future<Output = Result<Claimed, Unavailable>> + Send;

    /// Takes over runs of the held shards that an older epoch left running, at most `limit` of them; they are the
    /// caller's to deliver, under the same attempt number, in the new epoch.
    fn adopt(
        &self,
        owner: &Owner,
        leases: &[Lease],
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Run>, Unavailable>> + Send;

    /// Writes back how runs ended, durably. Returns what became of each, in their order.
    fn settle(
        &self,
        owner: &Owner,
        settlements: &[Settlement],
    ) -> impl Future<Output = Result<Vec<Written>, Unavailable>> + Send;

    /// Gives up every lease and the announcement of this owner: it is going away.
    fn leave(&self, owner: &Owner) -> impl Future<Output = Result<(), Unavailable>> + Send;
}

/// No attempt was made, because this process itself was short of something. It says nothing of the receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmade {
    /// Of what, in a few words, for `last_error`.
    pub reason: String,
}

/// Outgoing callbacks.
pub trait Delivery: Send + Sync + 'static {
    /// Makes one attempt, within the callback's time-out. What goes wrong with it is its verdict, and never an error.
    fn attempt(&self, run: &Run) -> impl Future<Output = Result<Attempt, Unmade>> + Send;
}

/// News of the timers table, from the change feed.
#[derive(Debug, PartialEq, Eq)]
pub struct News {
    /// Timers that were inserted or updated.
    pub entries: Vec<Entry>,
    /// Where to follow on.
    pub last: Sequence,
}

/// Why the feed gave no news.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The feed cannot continue from this position without a hole: read everything anew.
    #[error("the feed no longer reaches back to the position")]
    Gap,
    /// The feed did not answer.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// The change feed, as far as the dispatcher needs it.
pub trait Feed: Send + Sync + 'static {
    /// The position of the newest change.
    fn position(&self) -> impl Future<Output = Result<Sequence, FeedError>> + Send;

    /// News of these shards behind `since`; waits for some at most `wait`, then answers with none.
    fn follow(
        &self,
        shards: &[Shard],
        since: Sequence,
        wait: Duration,
    ) -> impl Future<Output = Result<News, FeedError>> + Send;
}

/// Which schedules to look for.
#[derive(Clone, Debug)]
pub struct DueRequest {
    /// Those of these shards.
    pub shards: Vec<Shard>,
    /// The moment.
    pub now: Timestamp,
    /// Those with a moment up to here, as far as it is certain what becomes of it.
    pub until: Timestamp,
    /// Of other shards those that should have been settled by this moment.
    pub overdue: Timestamp,
    /// At most so many, and as many again of which a moment has waited for a callback that is over.
    pub limit: usize,
}

/// Schedules with something to settle.
#[derive(Debug, Default)]
pub struct Due {
    /// The schedules, each once: those whose moment has come, the most urgent first, then those whose moment is near, then
    /// those of which one has waited.
    pub schedules: Vec<Schedule>,
    /// The first moment up to `until` that is to be settled only when it has come.
    pub next_at: Option<Timestamp>,
}

/// A schedule as it was read, and what was decided about it.
#[derive(Clone, Debug)]
pub struct Planned {
    /// As it was read.
    pub schedule: Schedule,
    /// What was decided.
    pub plan: Plan,
}

/// Schedules at rest.
pub trait ScheduleStore: Send + Sync + 'static {
    /// The schedules with something to settle.
    fn due(&self, request: DueRequest) -> impl Future<Output = Result<Due, Unavailable>> + Send;

    /// Settles what was decided, durably: for each schedule whole or not at all, and not at all where the row has changed since
    /// it was read, or somebody holds it. Returns for each how many of the moments that were to fire did not, because another
    /// timer has the id; none where it was not settled. A moment fires at most once, whoever settles it how often. One whose
    /// timers are refused is told why in its row, rests until it is changed, and holds up no other.
    fn settle(&self, planned: &[Planned]) -> impl Future<Output = Result<Vec<Option<u64>>, Unavailable>> + Send;
}
