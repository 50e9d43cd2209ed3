//! What the server can do, without HTTP and without SQL. Every face calls these, and has one match over [`Error`].

pub mod changes;
pub mod health;
pub mod namespaces;
pub mod schedules;
pub mod snapshots;
pub mod timers;

use crate::domain::invalid::{Field, Invalid};
use crate::domain::run::State;
use crate::domain::timer::TimerKey;
use crate::store;
use crate::store::timers::Written;

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
    /// There is no such thing; of a timer, no run either.
    #[error("there is no {what} {key}")]
    NotFound {
        /// What kind of thing, "timer".
        what: &'static str,
        /// What it is called.
        key: TimerKey,
    },
    /// Others kept changing the thing at the very moment: nothing was done, and asking again may help.
    #[error("{what} {key} is being changed by others at this moment, try again")]
    Contended {
        /// What kind of thing, "timer".
        what: &'static str,
        /// What it is called.
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

/// What a write to a thing of this name has done, none where it found nothing; or why it never will.
fn done<T>(what: &'static str, key: &TimerKey, written: Written<T>) -> Result<Option<T>, Error> {
    match written {
        Written::Done(done) => Ok(Some(done)),
        Written::Missing => Ok(None),
        Written::Untimely(invalid) => Err(invalid.into()),
        Written::Refused(constraint) => Err(Error::Refused { constraint }),
        Written::Locked => Err(Error::Contended { what, key: key.clone() }),
    }
}

/// The error of a namespace that is not there, and is not to be made.
fn unknown_namespace(name: &str) -> Invalid {
    Invalid::new(Field::Namespace, name, format!("one that exists, and {name:?} does not"))
}
