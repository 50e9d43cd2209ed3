//! When the clock is not trusted, so that nothing is fired by it.

use std::fmt;
use std::time::Duration;

/// What is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long ago the database's clock may have been read. It may have been set since.
    pub age_max: Duration,
    /// By how much the database's clock may be misjudged. Timers wait for as long, so that none is early.
    pub error_max: Duration,
    /// By how much the database's clock and this machine's may be apart. Beyond it one of them is wrong, and what was fired by
    /// a wrong one cannot be taken back.
    pub offset_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            age_max: Duration::from_secs(30),
            error_max: Duration::from_millis(500),
            offset_max: Duration::from_secs(86_400),
        }
    }
}

/// Why the clock is not trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// The database's clock was never read.
    Unread,
    /// It was read too long ago.
    Old {
        /// How long ago it may have been.
        limit: Duration,
    },
    /// Its answers take too long to tell the time by.
    Vague {
        /// How wrong it may be.
        limit: Duration,
    },
    /// It is too far from this machine's.
    Far {
        /// How far.
        offset: Duration,
        /// How far it may be.
        limit: Duration,
    },
}

impl Doubt {
    /// Whether both are doubts of the same kind, whatever their figures.
    pub fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unread => write!(f, "the database has not told its time yet"),
            Self::Old { limit } => {
                write!(f, "the database has not told its time for more than {limit:?} (clock-age-max)")
            }
            Self::Vague { limit } => {
                write!(f, "the database's answers are too slow to tell its time to within {limit:?} (clock-error-max)")
            }
            Self::Far { offset, limit } => write!(
                f,
                "the database's clock and this machine's are {} s apart, more than {limit:?} (clock-offset-max): one is wrong",
                offset.as_secs()
            ),
        }
    }
}
