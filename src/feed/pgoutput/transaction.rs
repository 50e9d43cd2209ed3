//! Begin, Commit and Origin: the frame around the rows of a transaction.

use super::Error;
use super::input::Input;
use crate::clock::Timestamp;
use crate::domain::sequence::Lsn;

/// PostgreSQL counts from 2000-01-01, a [`Timestamp`] from 1970-01-01: the microseconds between them.
const EPOCH_OFFSET_MICROS: i64 = 946_684_800_000_000;

/// A transaction begins. It is told only after it has committed, so its end is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// The LSN of the commit record.
    pub final_lsn: Lsn,
    /// When it committed, by PostgreSQL's clock.
    pub committed_at: Timestamp,
    /// The lower 32 bits of its transaction id.
    pub xid: u32,
}

impl Begin {
    pub(super) fn parse(input: &mut Input<'_>) -> Result<Self, Error> {
        Ok(Self { final_lsn: Lsn(input.u64()?), committed_at: timestamp(input.i64()?), xid: input.u32()? })
    }
}

/// A transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The LSN of the commit record: `final_lsn` of its Begin.
    pub commit_lsn: Lsn,
    /// The position behind the commit record: the one to acknowledge.
    pub end_lsn: Lsn,
    /// When it committed, by PostgreSQL's clock.
    pub committed_at: Timestamp,
}

impl Commit {
    pub(super) fn parse(input: &mut Input<'_>) -> Result<Self, Error> {
        // Flags, of which protocol 1 has none.
        input.u8()?;
        Ok(Self { commit_lsn: Lsn(input.u64()?), end_lsn: Lsn(input.u64()?), committed_at: timestamp(input.i64()?) })
    }
}

/// The transaction was replicated to this server from another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// Its commit on the server that it came from.
    pub commit_lsn: Lsn,
    /// The name of that server, as replication origins know it.
    pub name: &'a [u8],
}

impl<'a> Origin<'a> {
    pub(super) fn parse(input: &mut Input<'a>) -> Result<Self, Error> {
        Ok(Self { commit_lsn: Lsn(input.u64()?), name: input.string()? })
    }
}

fn timestamp(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros.saturating_add(EPOCH_OFFSET_MICROS))
}
