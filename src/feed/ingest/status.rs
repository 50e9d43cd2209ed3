//! How the way in stands: for readiness, and for whoever waits for it.

use crate::domain::causes;
use crate::feed::journal;

/// How the way in stands. The reasons are for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// It has not streamed yet, or has not caught up since the journal began anew.
    Starting {
        /// What it is doing.
        why: String,
    },
    /// It streams, but the journal began anew and what PostgreSQL has kept is not all in yet.
    CatchingUp,
    /// It streams.
    Streaming,
    /// It streamed, and waits to be able to again. The journal serves what it has.
    Waiting {
        /// What went wrong.
        why: String,
    },
    /// It streamed, and now its slot is another's, who moves it on. The journal serves what it has, and waiting does not
    /// bring what it misses: so it is until this process streams again, whatever goes wrong meanwhile.
    Stale {
        /// Who has the slot, or what else went wrong since.
        why: String,
    },
    /// The journal cannot take more for now: the disk is full, or fails. It serves what it has.
    Blocked {
        /// What went wrong.
        why: String,
    },
    /// It takes nothing more until the process starts anew. The journal serves what it has.
    Failed {
        /// What went wrong.
        why: String,
    },
    /// It was told to stop, and has.
    Stopped,
}

/// What readers have of the feed while nothing streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Served {
    /// Not what they should: it has not streamed yet, or not caught up since the journal began anew.
    TooLittle,
    /// What had come before another one took the slot.
    Stale,
    /// All but what the present trouble keeps away.
    All,
}

impl Served {
    /// How the way in stands while it waits, for this reason.
    pub fn waiting(self, why: String) -> Status {
        match self {
            Self::TooLittle => Status::Starting { why },
            Self::Stale => Status::Stale { why },
            Self::All => Status::Waiting { why },
        }
    }
}

impl Status {
    /// What becomes of the way in after the journal failed.
    pub(super) fn after(failure: &journal::Error) -> Self {
        match (failure.may_heal(), failure.is_disk_full()) {
            (true, true) => Self::Blocked { why: format!("disk full: {}", causes::chain(failure)) },
            (true, false) => Self::Blocked { why: causes::chain(failure) },
            (false, _) => Self::Failed { why: causes::chain(failure) },
        }
    }

    /// Why it cannot serve correct answers now; none where it can. A connection lost is no such reason: what was
    /// received before is still right.
    pub fn not_ready(&self) -> Option<String> {
        match self {
            Self::Starting { why } => Some(format!("starting: {why}")),
            Self::CatchingUp => Some("catching up".to_owned()),
            Self::Streaming | Self::Waiting { .. } => None,
            Self::Stale { why } => Some(format!("stale: {why}")),
            Self::Blocked { why } | Self::Failed { why } => Some(why.clone()),
            Self::Stopped => Some("shutting down".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn failed(kind: io::ErrorKind) -> journal::Error {
        journal::Error::Io { doing: "writing a segment", source: kind.into() }
    }

    #[test]
    fn a_disk_may_heal_and_a_change_that_does_not_fit_does_not() {
        for (failure, blocked, why) in [
            (failed(io::ErrorKind::StorageFull), true, "disk full: writing a segment of the journal: no storage space"),
            (failed(io::ErrorKind::Other), true, "writing a segment of the journal: other error"),
            (
                journal::Error::Oversized { bytes: 1 << 32 },
                false,
                "a change of 4294967296 bytes does not fit into the journal",
            ),
        ] {
            let why = why.to_owned();
            let expected = if blocked { Status::Blocked { why } } else { Status::Failed { why } };
            assert_eq!(Status::after(&failure), expected);
        }
    }

    #[test]
    fn of_all_that_is_wrong_a_lost_connection_alone_leaves_it_ready() {
        let why = || "why".to_owned();
        for (status, reason) in [
            (Status::Starting { why: why() }, Some("starting: why")),
            (Status::CatchingUp, Some("catching up")),
            (Status::Streaming, None),
            (Status::Waiting { why: why() }, None),
            (Status::Stale { why: why() }, Some("stale: why")),
            (Status::Blocked { why: why() }, Some("why")),
            (Status::Failed { why: why() }, Some("why")),
            (Status::Stopped, Some("shutting down")),
        ] {
            assert_eq!(status.not_ready().as_deref(), reason, "{status:?}");
        }
    }
}
