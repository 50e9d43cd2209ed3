//! Relation and Type: what the bytes of the following rows mean.

use super::Error;
use super::input::Input;

/// The columns of a table, told before its first row of a connection and again after they have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relation<'a> {
    /// What the row messages call it: the table's oid.
    pub id: u32,
    /// Its schema; empty for `pg_catalog`.
    pub schema: &'a [u8],
    /// Its name. A partition appears under its own name or its root's, as the publication says.
    pub name: &'a [u8],
    /// What an old row carries.
    pub identity: ReplicaIdentity,
    /// Its published columns, in the order of every row.
    pub attributes: Attributes<'a>,
}

impl<'a> Relation<'a> {
    pub(super) fn parse(input: &mut Input<'a>) -> Result<Self, Error> {
        Ok(Self {
            id: input.u32()?,
            schema: input.string()?,
            name: input.string()?,
            identity: ReplicaIdentity::parse(input.u8()?)?,
            attributes: Attributes::parse(input)?,
        })
    }
}

/// Which columns of an old row PostgreSQL writes to its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaIdentity {
    /// The primary key.
    Default,
    /// None.
    Nothing,
    /// All.
    Full,
    /// Those of one unique index.
    Index,
}

impl ReplicaIdentity {
    fn parse(value: u8) -> Result<Self, Error> {
        match value {
            b'd' => Ok(Self::Default),
            b'n' => Ok(Self::Nothing),
            b'f' => Ok(Self::Full),
            b'i' => Ok(Self::Index),
            value => Err(Error::UnknownValue { field: "replica identity", value }),
        }
    }
}

/// The published columns of a table. An iterator over checked bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes<'a> {
    count: u16,
    bytes: &'a [u8],
}

impl<'a> Attributes<'a> {
    fn parse(input: &mut Input<'a>) -> Result<Self, Error> {
        let count = input.u16()?;
        let bytes = input.rest();
        for _ in 0..count {
            Attribute::parse(input)?;
        }
        let length = bytes.len().saturating_sub(input.rest().len());
        Ok(Self { count, bytes: bytes.get(..length).ok_or(Error::Truncated)? })
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let mut input = Input::new(self.bytes);
        let attribute = Attribute::parse(&mut input).ok()?;
        self.count = self.count.saturating_sub(1);
        self.bytes = input.rest();
        Some(attribute)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::from(self.count), Some(usize::from(self.count)))
    }
}

impl ExactSizeIterator for Attributes<'_> {}

/// One published column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Whether it belongs to the replica identity.
    pub is_key: bool,
    /// Its name.
    pub name: &'a [u8],
    /// The oid of its type.
    pub type_id: u32,
    /// The type's modifier (`atttypmod`), -1 where it has none.
    pub type_modifier: i32,
}

impl<'a> Attribute<'a> {
    fn parse(input: &mut Input<'a>) -> Result<Self, Error> {
        Ok(Self {
            is_key: input.u8()? & 1 == 1,
            name: input.string()?,
            type_id: input.u32()?,
            type_modifier: input.i32()?,
        })
    }
}

/// The name of a type that is not built in, told before the Relation that uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Type<'a> {
    /// Its oid.
    pub id: u32,
    /// Its schema; empty for `pg_catalog`.
    pub schema: &'a [u8],
    /// Its name.
    pub name: &'a [u8],
}

impl<'a> Type<'a> {
    pub(super) fn parse(input: &mut Input<'a>) -> Result<Self, Error> {
        Ok(Self { id: input.u32()?, schema: input.string()?, name: input.string()? })
    }
}
