//! Why there is no snapshot.

use std::time::Duration;

use crate::feed::source;

/// Why there is no snapshot, or no more of one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is perhaps no slot yet: nobody keeps the changes behind a snapshot that would be taken now.
    #[error("the feed has not begun yet")]
    NotBegun,
    /// As many as may be are being read at this moment.
    #[error("{running_max} snapshots are being read already")]
    Busy {
        /// How many may be.
        running_max: usize,
    },
    /// The server's role may not read all rows of a published table.
    #[error("the server's role may not read all of {table}: run `{fix_sql}`")]
    Denied {
        /// The table.
        table: String,
        /// What a superuser has to run.
        fix_sql: String,
    },
    /// Somebody has a table to himself.
    #[error("{table} is locked by another transaction, for more than {waited:?}")]
    Locked {
        /// The table, or those that it may be.
        table: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// Tables were published, altered or dropped at the very moment, again and again.
    #[error("the published tables are being changed at this moment")]
    Changing,
    /// A standby does not tell which transactions it does not see.
    #[error("the server is a standby, and a snapshot needs the primary")]
    Standby,
    /// It is not the server that the journal comes from.
    #[error("the server is another PostgreSQL cluster than the feed's")]
    OtherCluster,
    /// An old primary that came back: what it shows parted from what the feed tells.
    #[error("the server is on timeline {found}, which the feed has left for timeline {known}")]
    Behind {
        /// The server's.
        found: i64,
        /// The newest that the feed has followed.
        known: u32,
    },
    /// PostgreSQL did not answer, or not as it should.
    #[error("PostgreSQL is unavailable")]
    Unavailable(#[from] source::Error),
}
