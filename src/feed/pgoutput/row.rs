//! Insert, Update and Delete.

use super::Error;
use super::input::Input;
use super::tuple::Tuple;

/// A new row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insert<'a> {
    /// The relation's id.
    pub relation: u32,
    /// The row.
    pub new: Tuple<'a>,
}

impl<'a> Insert<'a> {
    pub(super) fn parse(input: &mut Input<'a>) -> Result<Self, Error> {
        let relation = input.u32()?;
        match input.u8()? {
            b'N' => Ok(Self { relation, new: Tuple::parse(input)? }),
            value => Err(Error::UnknownValue { field: "kind of row", value }),
        }
    }
}

/// A changed row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update<'a> {
    /// The relation's id.
    pub relation: u32,
    /// The row before; told where the whole row is the replica identity, or a column of the identity has changed.
    pub old: Option<Old<'a>>,
    /// The row after.
    pub new: Tuple<'a>,
}

impl<'a> Update<'a> {
    pub(super) fn parse(input: &mut Input<'a>) -> Result<Self, Error> {
        let relation = input.u32()?;
        let mut mark = input.u8()?;
        let mut old = None;
        if let Some(kind) = OldKind::of(mark) {
            old = Some(Old { kind, tuple: Tuple::parse(input)? });
            mark = input.u8()?;
        }
        match mark {
            b'N' => Ok(Self { relation, old, new: Tuple::parse(input)? }),
            value => Err(Error::UnknownValue { field: "kind of row", value }),
        }
    }
}

/// A deleted row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delete<'a> {
    /// The relation's id.
    pub relation: u32,
    /// The row that is gone.
    pub old: Old<'a>,
}

impl<'a> Delete<'a> {
    pub(super) fn parse(input: &mut Input<'a>) -> Result<Self, Error> {
        let relation = input.u32()?;
        let mark = input.u8()?;
        let kind = OldKind::of(mark).ok_or(Error::UnknownValue { field: "kind of row", value: mark })?;
        Ok(Self { relation, old: Old { kind, tuple: Tuple::parse(input)? } })
    }
}

/// A row as it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Old<'a> {
    /// How much of it is told.
    pub kind: OldKind,
    /// Its values.
    pub tuple: Tuple<'a>,
}

/// How much of an old row is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldKind {
    /// The columns of the replica identity; the others look like nulls.
    Key,
    /// All columns.
    Full,
}

impl OldKind {
    fn of(mark: u8) -> Option<Self> {
        match mark {
            b'K' => Some(Self::Key),
            b'O' => Some(Self::Full),
            _ => None,
        }
    }
}
