//! Logical messages: what `pg_logical_emit_message` wrote.

use super::Error;
use super::input::Input;
use crate::domain::sequence::Lsn;

/// What `pg_logical_emit_message` wrote: not a row of any table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logical<'a> {
    /// Whether it belongs to the transaction around it; else it stands for itself, between transactions.
    pub transactional: bool,
    /// Where it stands in the log.
    pub lsn: Lsn,
    /// Whose it is.
    pub prefix: &'a [u8],
    /// What it says.
    pub content: &'a [u8],
}

impl<'a> Logical<'a> {
    pub(super) fn parse(input: &mut Input<'a>) -> Result<Self, Error> {
        Ok(Self {
            transactional: input.u8()? & 1 == 1,
            lsn: Lsn(input.u64()?),
            prefix: input.string()?,
            content: input.sized()?,
        })
    }
}
