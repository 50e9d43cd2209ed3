//! A change: one row of one committed transaction, as the feed shows it.

/// What happened to the row. The numbers are the contract's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Operation {
    /// A new row.
    Insert = 1,
    /// A changed row.
    Update = 2,
    /// A row that is gone, or left the reader's scopes.
    Delete = 3,
    /// All rows of the table are gone.
    Truncate = 4,
}
