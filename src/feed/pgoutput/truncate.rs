//! Truncate: tables that one statement emptied.

use super::Error;
use super::input::Input;

/// Tables that one statement emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncate<'a> {
    /// Whether the statement said CASCADE.
    pub cascade: bool,
    /// Whether it said RESTART IDENTITY.
    pub restart_identity: bool,
    relations: &'a [[u8; 4]],
}

impl<'a> Truncate<'a> {
    pub(super) fn parse(input: &mut Input<'a>) -> Result<Self, Error> {
        let count = usize::try_from(input.u32()?).map_err(|_| Error::Truncated)?;
        let options = input.u8()?;
        let bytes = input.take(count.checked_mul(4).ok_or(Error::Truncated)?)?;
        let (relations, _) = bytes.as_chunks();
        Ok(Self { cascade: options & 1 != 0, restart_identity: options & 2 != 0, relations })
    }

    /// The ids of the relations.
    pub fn relations(&self) -> impl ExactSizeIterator<Item = u32> + use<'a> {
        self.relations.iter().map(|id| u32::from_be_bytes(*id))
    }
}
