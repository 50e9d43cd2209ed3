//! Why the database did not do what was asked.

use std::error::Error as Cause;

use tokio_postgres::error::SqlState;

use crate::dispatch::ports;

/// Why the database did not do what was asked. What a caller must tell apart (a taken id, say) its query's function
/// returns; this is the rest.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no answer, or it is an error. What was asked for may or may not have happened.
    #[error("{doing}")]
    Unavailable {
        /// What was being done, "inserting a timer".
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: Box<dyn Cause + Send + Sync>,
    },
}

impl Error {
    /// PostgreSQL's code of the error, where it gave one.
    pub fn sql_state(&self) -> Option<&SqlState> {
        self.postgres()?.code()
    }

    /// The constraint that forbids it, where PostgreSQL named one.
    pub fn constraint(&self) -> Option<&str> {
        self.postgres()?.as_db_error()?.constraint()
    }

    fn postgres(&self) -> Option<&tokio_postgres::Error> {
        let Self::Unavailable { source, .. } = self;
        source.downcast_ref()
    }

    /// Whether the rows themselves are to blame, so that others may fare better without the one that is: its data is out of
    /// bounds (class 22) or forbidden (23), a trigger of somebody's refuses it (P0), or its pages are damaged (XX).
    pub fn is_about_rows(&self) -> bool {
        let class = self.sql_state().and_then(|state| state.code().get(..2));
        class.is_some_and(|class| ["22", "23", "P0", "XX"].contains(&class))
    }

    /// Whether others of a batch may be written without the row that is to blame: it is [about rows](Self::is_about_rows), or
    /// another transaction holds one.
    pub fn is_about_one(&self) -> bool {
        let locked = [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED];
        self.is_about_rows() || self.sql_state().is_some_and(|state| locked.contains(state))
    }

    /// For `map_err`: this failed while `doing`.
    pub fn unavailable<E: Into<Box<dyn Cause + Send + Sync>>>(doing: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Unavailable { doing, source: source.into() }
    }
}

impl From<Error> for ports::Unavailable {
    fn from(error: Error) -> Self {
        match error {
            Error::Unavailable { doing, source } => Self { doing, source },
        }
    }
}
