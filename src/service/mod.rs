//! What the server can do, without HTTP and without SQL. Every face calls these, and has one match over [`Error`].

pub mod changes;
pub mod health;
pub mod schedules;
pub mod snapshots;
pub mod timers;

use crate::domain::invalid::{Field, Invalid};
use crate::domain::run::State;
use crate::domain::timer::TimerKey;
use crate::store;

/// Why the server did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request breaks a rule.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A check of the database that this server does not know forbids it.
    #[error("the database's check {constraint} forbids it")]
    Refused {
        /// The name of the check constraint.
        constraint: String,
    },
    /// Only a pending timer can be changed.
    #[error("timer {key} is not pending, it is {}", state.as_str())]
    NotPending {
        /// The timer.
        key: TimerKey,
        /// How its run stands.
        state: State,
    },
    /// There is no such timer, and no run of one.
    #[error("there is no timer {key}")]
    NotFound {
        /// The timer.
        key: TimerKey,
    },
    /// Others kept changing the timer at the very moment: nothing was done, and asking again may help.
    #[error("timer {key} is being changed by others at this moment, try again")]
    Contended {
        /// The timer.
        key: TimerKey,
    },
    /// The database did not answer. What was asked for may or may not have happened.
    #[error("the database is unavailable")]
    Unavailable(#[from] store::Error),
}

impl Error {
    /// The word that metrics count it under.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Invalid(_) | Self::Refused { .. } => "invalid",
            Self::NotPending { .. } => "not_pending",
            Self::NotFound { .. } => "not_found",
            Self::Contended { .. } => "contended",
            Self::Unavailable(_) => "unavailable",
        }
    }
}

/// The error of a namespace that is not there, and is not to be made.
fn unknown_namespace(name: &str) -> Invalid {
    Invalid::new(Field::Namespace, name, format!("one that exists, and {name:?} does not"))
}
