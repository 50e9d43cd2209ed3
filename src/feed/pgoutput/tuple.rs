//! The values of one row.

use super::Error;
use super::input::Input;

/// The values of one row, in the order of its relation's columns. Checked when it was parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple<'a> {
    count: u16,
    bytes: &'a [u8],
}

impl<'a> Tuple<'a> {
    pub(super) fn parse(input: &mut Input<'a>) -> Result<Self, Error> {
        let count = input.u16()?;
        let bytes = input.rest();
        for _ in 0..count {
            Column::parse(input)?;
        }
        let length = bytes.len().saturating_sub(input.rest().len());
        Ok(Self { count, bytes: bytes.get(..length).ok_or(Error::Truncated)? })
    }

    /// How many columns it has.
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether it has none: a table may have no columns.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Its values.
    pub fn columns(&self) -> Columns<'a> {
        Columns { count: self.count, bytes: self.bytes }
    }

    /// The value at `place`, counted from 0; none beyond the last. Walks over those before it.
    pub fn get(&self, place: usize) -> Option<Column<'a>> {
        self.columns().nth(place)
    }
}

/// The values of a row, one after the other.
#[derive(Clone, Debug)]
pub struct Columns<'a> {
    count: u16,
    bytes: &'a [u8],
}

impl<'a> Iterator for Columns<'a> {
    type Item = Column<'a>;

    #[inline]
    fn next(&mut self) -> Option<Column<'a>> {
        let mut input = Input::new(self.bytes);
        let column = Column::parse(&mut input).ok()?;
        self.count = self.count.saturating_sub(1);
        self.bytes = input.rest();
        Some(column)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::from(self.count), Some(usize::from(self.count)))
    }
}

impl ExactSizeIterator for Columns<'_> {}

/// One value. Null and "not told" are different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column<'a> {
    /// SQL's null; in an old row of [`super::OldKind::Key`] also every column that is not in the key.
    Null,
    /// A large value that the update did not touch. PostgreSQL does not say what it is.
    Unchanged,
    /// PostgreSQL's text output, in the client's encoding.
    Text(&'a [u8]),
    /// PostgreSQL's binary output; sent only where it was asked for.
    Binary(&'a [u8]),
}

impl<'a> Column<'a> {
    #[inline]
    fn parse(input: &mut Input<'a>) -> Result<Self, Error> {
        match input.u8()? {
            b't' => Ok(Self::Text(input.sized()?)),
            b'n' => Ok(Self::Null),
            b'u' => Ok(Self::Unchanged),
            b'b' => Ok(Self::Binary(input.sized()?)),
            value => Err(Error::UnknownValue { field: "kind of value", value }),
        }
    }
}
