//! What a reader of the feed asks, and what it is answered. The faces translate to and from it.

use std::time::Duration;

use bytes::Bytes;

use super::room::Taken;
use crate::domain::scope::Scope;
use crate::domain::sequence::Sequence;
use crate::domain::snapshot::Snapshot;

/// One call for changes.
#[derive(Clone, Debug)]
pub struct Query {
    /// The scopes asked for, OR; sorted, without duplicates, never empty ([`Scope::empty`] where none was named).
    pub scopes: Vec<Scope>,
    /// Only changes behind it; [`Sequence::ZERO`] begins at the oldest.
    pub since: Sequence,
    /// At most so many changes, and fewer where they are large; 0 asks for the bounds alone.
    pub limit: usize,
    /// How long to wait for a change where there is none.
    pub block: Duration,
    /// Hides the changes that it already shows.
    pub snapshot: Option<Snapshot>,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The oldest sequence still there, over all scopes.
    pub first: Sequence,
    /// Where to follow on: the contract's `lastSequence`. Zero to who asked from zero while nothing was ever stored.
    pub last: Sequence,
    /// What it continues from: `since`, or where the feed begins or has been purged to, if that is higher.
    pub from: Sequence,
    /// It ends before the newest change, since it has as many as it may have: what is behind it will not change any more.
    pub is_full: bool,
    /// The changes in commit order.
    pub changes: Vec<Change>,
    /// What it takes of the memory that all answers share: to be kept until it has been sent.
    pub taken: Taken,
}

impl Page {
    /// How much its changes are together, in bytes.
    pub fn bytes(&self) -> usize {
        self.changes.iter().map(|change| change.body.len()).sum()
    }

    /// Where to look on: never zero once the feed has begun. From zero on a gap could not be told.
    pub fn position(&self) -> Sequence {
        self.last.max(self.from)
    }
}

/// One change of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where it stands.
    pub sequence: Sequence,
    /// Its JSON text, shared among all its readers.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not known yet where the feed begins: an answer would promise changes that nobody keeps.
    #[error("the feed has not begun yet")]
    NotBegun,
    /// The journal cannot continue from `since`, or complete `snapshot`, without a hole.
    #[error("the feed no longer reaches back that far")]
    TooOld,
    /// A change is large by itself, and the memory of all answers is with slow readers for too long.
    #[error("slow readers hold the memory of all large answers")]
    Busy,
    /// The journal could not be read.
    #[error("reading the journal")]
    Journal(#[source] std::io::Error),
}
