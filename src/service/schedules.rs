//! Schedules: create, get, list, pause, delete, trigger. The rules are the domain's, and the rows decide.

use super::unknown_namespace;
use crate::domain::invalid::Invalid;
use crate::domain::schedule::{Definition, check_key};
use crate::domain::timer::TimerKey;
use crate::domain::{limits, namespace};
pub use crate::store::schedules::Status;
use crate::store::schedules::{self as rows};
use crate::store::timers::Written;
use crate::store::{self, Store};

/// Why nothing was done.
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
    /// There is no such schedule.
    #[error("there is no schedule {key}")]
    NotFound {
        /// The schedule.
        key: TimerKey,
    },
    /// Another transaction holds the row: asking again may help.
    #[error("schedule {key} is being changed by others at this moment, try again")]
    Contended {
        /// The schedule.
        key: TimerKey,
    },
    /// The database did not answer. What was asked for may or may not have happened.
    #[error("the database is unavailable")]
    Unavailable(#[from] store::Error),
}

/// The schedules. Cheap to clone.
#[derive(Clone)]
pub struct Schedules {
    store: Store,
    auto_create: bool,
}

impl Schedules {
    /// The schedules of this database. `auto_create` is whether the first one of an unknown namespace makes it; else it is
    /// refused.
    pub fn new(store: Store, auto_create: bool) -> Self {
        Self { store, auto_create }
    }

    /// Stores a schedule, in place of the one of that name.
    pub async fn create(&self, definition: &Definition) -> Result<(), Error> {
        definition.check()?;
        let client = self.store.client().await?;
        match rows::create(&client, definition, self.auto_create).await? {
            Written::Missing => Err(unknown_namespace(&definition.key.namespace).into()),
            written => done(&definition.key, written),
        }
    }

    /// The schedule of that name.
    pub async fn get(&self, key: &TimerKey) -> Result<Status, Error> {
        check_key(key)?;
        let client = self.store.client().await?;
        rows::get(&client, key).await?.ok_or_else(|| Error::NotFound { key: key.clone() })
    }

    /// At most `limit` schedules of a namespace behind the id `after`, in the order of their ids.
    pub async fn list(&self, namespace: &str, after: &str, limit: u32) -> Result<Vec<Status>, Error> {
        namespace::check(namespace)?;
        let client = self.store.client().await?;
        Ok(rows::list(&client, namespace, after, limit.min(limits::LIST_LIMIT_MAX)).await?)
    }

    /// Pauses a schedule, or lets it go on.
    pub async fn pause(&self, key: &TimerKey, paused: bool) -> Result<(), Error> {
        check_key(key)?;
        let client = self.store.client().await?;
        done(key, rows::pause(&client, key, paused).await?)
    }

    /// Deletes a schedule. What it has fired goes on.
    pub async fn delete(&self, key: &TimerKey) -> Result<(), Error> {
        check_key(key)?;
        let client = self.store.client().await?;
        done(key, rows::delete(&client, key).await?)
    }

    /// Fires a schedule now, and returns the id of the timer.
    pub async fn trigger(&self, key: &TimerKey) -> Result<String, Error> {
        check_key(key)?;
        let client = self.store.client().await?;
        done(key, rows::trigger(&client, key).await?)
    }
}

fn done<T>(key: &TimerKey, written: Written<T>) -> Result<T, Error> {
    match written {
        Written::Done(done) => Ok(done),
        Written::Missing => Err(Error::NotFound { key: key.clone() }),
        Written::Refused(constraint) => Err(Error::Refused { constraint }),
        Written::Untimely(_) => unreachable!("a schedule has no moment that could be too late"),
        Written::Locked => Err(Error::Contended { key: key.clone() }),
    }
}
