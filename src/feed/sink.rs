//! Where assembled transactions go: the seam between decoding and the journal.

use crate::clock::Timestamp;
use crate::domain::sequence::{Lsn, Sequence};

/// A transaction, as its Begin announces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The timeline that it committed on.
    pub timeline: u32,
    /// The LSN of its commit record: `final_lsn` of Begin.
    pub commit_lsn: Lsn,
    /// Its 64-bit transaction id, epoch included.
    pub txid: u64,
    /// When it committed, by PostgreSQL's clock.
    pub committed_at: Timestamp,
}

impl Head {
    /// The sequence of the change at `index`.
    pub fn sequence(&self, index: u32) -> Sequence {
        Sequence::new(self.timeline, self.commit_lsn, index)
    }
}

/// How a row belongs to a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Before and after the change, or it is an insert or a delete: its readers get the change as it is.
    Stays,
    /// Only before it: readers of such scopes alone get a delete.
    Left,
    /// Only after it: readers of such scopes alone get an insert.
    Entered,
}

/// One change, rendered once for all its readers.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// 0-based over all published rows of the transaction.
    pub index: u32,
    /// The scopes it belongs to; the empty scope is the empty text. A reader who follows both a left and an entered
    /// scope, or any that stays, gets `body`.
    pub scopes: &'a [(Side, &'a str)],
    /// Told to the readers of every scope (TRUNCATE); `scopes` is empty then.
    pub to_everyone: bool,
    /// The change as JSON.
    pub body: &'a [u8],
    /// The change as a delete, for readers of left scopes alone; empty where no scope was left.
    pub left_body: &'a [u8],
    /// The change as an insert, for readers of entered scopes alone; empty where none was entered.
    pub entered_body: &'a [u8],
}

/// Whether a sink wants a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// It does: rows and a commit follow.
    Take,
    /// It has it already: nothing follows.
    Skip,
}

/// Takes transactions, one at a time, in commit order.
pub trait Sink {
    /// Why it could not take something.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Begins a transaction that has at least one row. One that was begun and not committed must be abandoned first.
    fn begin(&mut self, head: &Head) -> Result<Accept, Self::Error>;

    /// Adds a row, in the order of `index`. Nobody sees it yet.
    fn push(&mut self, row: &Row<'_>) -> Result<(), Self::Error>;

    /// Ends the transaction: all of it becomes visible at once, at the latest with the next flush. `end_lsn` is the
    /// position behind it, which may be acknowledged once it is durable.
    fn commit(&mut self, end_lsn: Lsn) -> Result<(), Self::Error>;

    /// Forgets the open transaction, if there is one: the connection broke in its middle.
    fn abandon(&mut self);
}
