//! Schedules: create, get, list, pause, delete, trigger. The rules are the domain's, and the rows decide.

use super::{Error, unknown_namespace};
use crate::domain::schedule::{Definition, check_key};
use crate::domain::timer::TimerKey;
use crate::domain::{limits, namespace};
use crate::store::Store;
use crate::store::schedules as rows;
pub use crate::store::schedules::Status;
use crate::store::timers::Written;

/// What they are called where one is missing or held.
const WHAT: &str = "schedule";

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
        let written = rows::create(&client, definition, self.auto_create).await?;
        let created = super::done(WHAT, &definition.key, written)?;
        created.ok_or_else(|| unknown_namespace(&definition.key.namespace).into())
    }

    /// The schedule of that name.
    pub async fn get(&self, key: &TimerKey) -> Result<Status, Error> {
        check_key(key)?;
        let client = self.store.client().await?;
        rows::get(&client, key).await?.ok_or_else(|| absent(key))
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
    super::done(WHAT, key, written)?.ok_or_else(|| absent(key))
}

fn absent(key: &TimerKey) -> Error {
    Error::NotFound { what: WHAT, key: key.clone() }
}
