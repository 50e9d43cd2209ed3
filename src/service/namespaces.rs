//! Namespaces: create, get, list, rotate and retire their secrets, delete. What is in one is its timers, schedules and runs.

use crate::domain::invalid::Invalid;
use crate::domain::webhook::{Secret, SecretLengthError};
use crate::domain::{limits, namespace};
use crate::store::namespaces::{self as rows};
pub use crate::store::namespaces::{Contents, Namespace};
use crate::store::timers::Written;
use crate::store::{self, Lent, Store};

/// How often a namespace is emptied that others keep filling meanwhile, before that is told.
const EMPTYINGS_MAX: usize = 3;

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request breaks a rule.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The secret is too short or too long.
    #[error("the secret {0}")]
    SecretLength(#[from] SecretLengthError),
    /// A check of the database that this server does not know forbids it.
    #[error("the database's check {constraint} forbids it")]
    Refused {
        /// The name of the check constraint.
        constraint: String,
    },
    /// There is no such namespace.
    #[error("there is no namespace {name}")]
    NotFound {
        /// Its name.
        name: String,
    },
    /// There is one of that name.
    #[error("namespace {name} is there already")]
    Exists {
        /// Its name.
        name: String,
    },
    /// It has two secrets, as many as it may: which receivers know only the older one, nobody but the user can say.
    #[error("namespace {name} has two secrets already: retire the older one first")]
    TwoSecrets {
        /// Its name.
        name: String,
    },
    /// Another secret would be the same.
    #[error("namespace {name} has this secret already")]
    SameSecret {
        /// Its name.
        name: String,
    },
    /// It has no older secret that could go.
    #[error("namespace {name} has {}: there is no older one to retire", secrets(*.count))]
    NoOlderSecret {
        /// Its name.
        name: String,
        /// How many secrets it has.
        count: u32,
    },
    /// Something in it is pending or under way.
    #[error("namespace {name} has {}", listed(.contents))]
    InUse {
        /// Its name.
        name: String,
        /// What is there.
        contents: Contents,
    },
    /// Another transaction holds a row: asking again may help.
    #[error("namespace {name} is being changed by others at this moment, try again")]
    Contended {
        /// Its name.
        name: String,
    },
    /// The database did not answer. What was asked for may or may not have happened.
    #[error("the database is unavailable")]
    Unavailable(#[from] store::Error),
}

/// The namespaces. Cheap to clone.
#[derive(Clone)]
pub struct Namespaces {
    store: Store,
}

impl Namespaces {
    /// The namespaces of this database.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// At most `limit` namespaces behind the name `after`, in the order of their names.
    pub async fn list(&self, after: &str, limit: u32) -> Result<Vec<Namespace>, Error> {
        let client = self.store.client().await?;
        Ok(rows::list(&client, after, limit.min(limits::LIST_LIMIT_MAX)).await?)
    }

    /// The namespace of that name, and what is in it.
    pub async fn get(&self, name: &str) -> Result<(Namespace, Contents), Error> {
        let client = self.client(name).await?;
        Ok((find(&client, name).await?, rows::contents(&client, name).await?))
    }

    /// Makes a namespace, whose callbacks are signed where it has a secret.
    pub async fn create(&self, name: &str, secret: Option<&Secret>) -> Result<Namespace, Error> {
        namespace::check(name)?;
        secret.map_or(Ok(()), Secret::check_length)?;
        let client = self.store.client().await?;
        match done(name, rows::create(&client, name, secret).await?)? {
            Some(()) => find(&client, name).await,
            None => Err(Error::Exists { name: name.to_owned() }),
        }
    }

    /// Puts a new secret in front of the one that there is: callbacks claimed from now on are signed by both.
    pub async fn rotate(&self, name: &str, secret: &Secret) -> Result<Namespace, Error> {
        namespace::check(name)?;
        secret.check_length()?;
        let client = self.store.client().await?;
        let is_done = done(name, rows::rotate(&client, name, secret).await?)?.is_some();
        let found = find(&client, name).await?;
        let name = name.to_owned();
        match found.secrets {
            _ if is_done => Ok(found),
            2.. => Err(Error::TwoSecrets { name }),
            _ => Err(Error::SameSecret { name }),
        }
    }

    /// Drops the older of two secrets: callbacks claimed from now on are signed by the newer one alone.
    pub async fn retire(&self, name: &str) -> Result<Namespace, Error> {
        let client = self.client(name).await?;
        let is_done = done(name, rows::retire(&client, name).await?)?.is_some();
        let found = find(&client, name).await?;
        match is_done {
            true => Ok(found),
            false => Err(Error::NoOlderSecret { name: found.name, count: found.secrets }),
        }
    }

    /// Deletes a namespace. Where something in it is pending or under way, nothing is done; with `cascade` its schedules are
    /// deleted and its timers cancelled first, and only runs under way keep it from being done.
    pub async fn delete(&self, name: &str, cascade: bool) -> Result<(), Error> {
        let client = self.client(name).await?;
        find(&client, name).await?;
        for _ in 0..EMPTYINGS_MAX {
            if cascade {
                empty(&client, name).await?;
            }
            if done(name, rows::delete(&client, name).await?)?.is_some() {
                return Ok(());
            }
            let contents = rows::contents(&client, name).await?;
            // A run that has failed meanwhile is a timer again.
            if !cascade && contents != Contents::default() || contents.runs > 0 {
                return Err(Error::InUse { name: name.to_owned(), contents });
            }
        }
        Err(Error::Contended { name: name.to_owned() })
    }

    /// A connection for all that is asked about a namespace, once it is certain that there may be one of that name.
    async fn client(&self, name: &str) -> Result<Lent, Error> {
        namespace::check(name)?;
        Ok(self.store.client().await?)
    }
}

/// Deletes all schedules, which would make timers, then cancels all timers: some at a time.
async fn empty(client: &Lent, name: &str) -> Result<(), Error> {
    let most = limits::DELETED_ROWS_MAX;
    while done(name, rows::delete_schedules(client, name, most).await?)?.is_some_and(|count| count == most) {}
    while done(name, rows::cancel_timers(client, name, most).await?)?.is_some_and(|count| count == most) {}
    Ok(())
}

async fn find(client: &Lent, name: &str) -> Result<Namespace, Error> {
    rows::get(client, name).await?.ok_or_else(|| Error::NotFound { name: name.to_owned() })
}

/// What a write has done, none where it found nothing that it may write.
fn done<T>(name: &str, written: Written<T>) -> Result<Option<T>, Error> {
    match written {
        Written::Done(done) => Ok(Some(done)),
        Written::Missing => Ok(None),
        Written::Refused(constraint) => Err(Error::Refused { constraint }),
        Written::Untimely(invalid) => Err(invalid.into()),
        Written::Locked => Err(Error::Contended { name: name.to_owned() }),
    }
}

fn secrets(count: u32) -> &'static str {
    match count {
        0 => "no secret",
        1 => "one secret",
        _ => "two secrets",
    }
}

/// What there is, in words.
fn listed(contents: &Contents) -> String {
    let said = |count: u32, one: &str, more: &str| match count {
        0 => None,
        1 => Some(format!("1 {one}")),
        limits::NAMESPACE_COUNT_MAX.. => Some(format!("{count} {more} or more")),
        _ => Some(format!("{count} {more}")),
    };
    let parts = [
        said(contents.timers, "pending timer", "pending timers"),
        said(contents.schedules, "schedule", "schedules"),
        said(contents.runs, "run under way", "runs under way"),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    match parts.split_last() {
        None => "nothing".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_told_in_numbers() {
        for ((timers, schedules, runs), said) in [
            ((0, 0, 0), "nothing"),
            ((1, 0, 0), "1 pending timer"),
            ((2, 1, 0), "2 pending timers and 1 schedule"),
            ((1, 2, 1), "1 pending timer, 2 schedules and 1 run under way"),
            ((limits::NAMESPACE_COUNT_MAX, 0, 3), "100000 pending timers or more and 3 runs under way"),
        ] {
            assert_eq!(listed(&Contents { timers, schedules, runs }), said);
        }
    }
}
