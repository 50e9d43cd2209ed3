//! The decoder of pgoutput, protocol 1. Pure: bytes in, borrowing messages out, never a panic and never a copy.
//!
//! A message is checked to its last byte when it is parsed: what a view hands out later cannot fail any more. Bytes
//! behind the end of a message are as wrong as missing ones; both mean that the two sides disagree about the format.

mod input;
mod logical;
mod relation;
mod row;
mod transaction;
mod truncate;
mod tuple;

#[cfg(test)]
pub(crate) mod encode;
#[cfg(test)]
mod tests;

use input::Input;

pub use logical::Logical;
pub use relation::{Attribute, Attributes, Relation, ReplicaIdentity, Type};
pub use row::{Delete, Insert, Old, OldKind, Update};
pub use transaction::{Begin, Commit, Origin};
pub use truncate::Truncate;
pub use tuple::{Column, Columns, Tuple};

/// Why the bytes are not a message of pgoutput, protocol 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The message ends before its last field.
    #[error("the message ends too early")]
    Truncated,
    /// The message goes on behind its last field.
    #[error("{count} bytes too many behind the message")]
    Trailing {
        /// How many.
        count: usize,
    },
    /// A message that protocol 1 does not have.
    #[error("unknown message type {kind:#04x}")]
    UnknownMessage {
        /// Its first byte.
        kind: u8,
    },
    /// A field has a value that protocol 1 does not know.
    #[error("unknown {field} {value:#04x}")]
    UnknownValue {
        /// Which field.
        field: &'static str,
        /// What it holds.
        value: u8,
    },
}

/// One message of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A transaction begins; it has committed already.
    Begin(Begin),
    /// It ends.
    Commit(Commit),
    /// The transaction came here from another server.
    Origin(Origin<'a>),
    /// How the following rows of a table look.
    Relation(Relation<'a>),
    /// The name of a type that is not built in.
    Type(Type<'a>),
    /// A new row.
    Insert(Insert<'a>),
    /// A changed row.
    Update(Update<'a>),
    /// A deleted row.
    Delete(Delete<'a>),
    /// Emptied tables.
    Truncate(Truncate<'a>),
    /// What `pg_logical_emit_message` wrote.
    Logical(Logical<'a>),
}

impl<'a> Message<'a> {
    /// Reads one message: all of it, and nothing but it.
    pub fn parse(payload: &'a [u8]) -> Result<Self, Error> {
        let mut input = Input::new(payload);
        let message = match input.u8()? {
            b'I' => Self::Insert(Insert::parse(&mut input)?),
            b'U' => Self::Update(Update::parse(&mut input)?),
            b'D' => Self::Delete(Delete::parse(&mut input)?),
            b'B' => Self::Begin(Begin::parse(&mut input)?),
            b'C' => Self::Commit(Commit::parse(&mut input)?),
            b'R' => Self::Relation(Relation::parse(&mut input)?),
            b'T' => Self::Truncate(Truncate::parse(&mut input)?),
            b'M' => Self::Logical(Logical::parse(&mut input)?),
            b'O' => Self::Origin(Origin::parse(&mut input)?),
            b'Y' => Self::Type(Type::parse(&mut input)?),
            kind => return Err(Error::UnknownMessage { kind }),
        };
        input.end()?;
        Ok(message)
    }
}
