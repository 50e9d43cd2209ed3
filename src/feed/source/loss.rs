//! Why a slot is of no more use, and what would have kept it. Pure.

use std::fmt;

/// Why PostgreSQL took a slot out of use. It never takes it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It kept more WAL than `max_slot_wal_keep_size` allows. The only reason before PostgreSQL 16, which names none.
    WalRemoved,
    /// Nobody streamed from it for `idle_replication_slot_timeout` (PostgreSQL 18).
    Idle,
    /// On a standby: its primary removed rows of the catalog that decoding needs.
    RowsRemoved,
    /// On a standby: its primary wrote too little into its WAL for a while.
    WalLevel,
    /// What only a newer PostgreSQL knows.
    Other,
}

impl Loss {
    /// Reads the `invalidation_reason` of a slot that is lost; there is none before PostgreSQL 17.
    pub(super) fn parse(reason: Option<&str>) -> Self {
        match reason {
            None | Some("wal_removed") => Self::WalRemoved,
            Some("idle_timeout") => Self::Idle,
            Some("rows_removed") => Self::RowsRemoved,
            Some("wal_level_insufficient") => Self::WalLevel,
            Some(_) => Self::Other,
        }
    }
}

impl fmt::Display for Loss {
    /// What happened and what to change.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WalRemoved => "lost its WAL: raise max_slot_wal_keep_size, or stop for a shorter time",
            Self::Idle => {
                "was given up since nobody streamed from it: raise idle_replication_slot_timeout, or stop for a shorter time"
            }
            Self::RowsRemoved => {
                "was given up since the primary removed what the standby needs: set hot_standby_feedback = on on the standby"
            }
            Self::WalLevel => "was given up since the primary's wal_level was not logical: set it to logical",
            Self::Other => "was given up by PostgreSQL: see invalidation_reason in pg_replication_slots",
        })
    }
}
