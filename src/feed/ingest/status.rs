//! How the way in stands: for readiness, and for whoever waits for it.

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
    /// The journal cannot take more for now: the disk is full, or fails. It serves what it has.
    Blocked {
        /// What went wrong.
        why: String,
    },
    /// It takes nothing more until the process starts anew. The journal serves what it has.
    Stopped {
        /// Why.
        why: String,
    },
}

impl Status {
    /// There is no stream now; `serves` says whether there was one, and all that it had to catch up with is in.
    pub(super) fn without_stream(serves: bool, why: String) -> Self {
        match serves {
            true => Self::Waiting { why },
            false => Self::Starting { why },
        }
    }

    /// Why it cannot serve correct answers now; none where it can. A connection lost is no such reason: what was
    /// received before is still right.
    pub fn not_ready(&self) -> Option<String> {
        match self {
            Self::Starting { why } => Some(format!("starting: {why}")),
            Self::CatchingUp => Some("catching up".to_owned()),
            Self::Streaming | Self::Waiting { .. } => None,
            Self::Blocked { why } | Self::Stopped { why } => Some(why.clone()),
        }
    }
}
