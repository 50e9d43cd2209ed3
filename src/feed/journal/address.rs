//! Where a frame stands.

/// A segment and an offset in it. The order is the order of writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Address {
    /// The segment's number.
    pub segment: u32,
    /// Bytes from the start of its file.
    pub offset: u32,
}
