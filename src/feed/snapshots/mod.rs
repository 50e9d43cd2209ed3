//! Snapshots: the rows that some scopes have at one moment, for a reader that begins.
//!
//! A snapshot says which transactions it shows; the feed tells the others. So nothing is missed between the two as long
//! as the slot is older than the snapshot, and nothing is told twice to who asks for changes with the snapshot's text.
//! Rows go through as they come: the memory that a snapshot takes does not depend on its size.

mod error;
mod session;
mod table;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::{SimpleQueryMessage, SimpleQueryStream};

use crate::domain::limits;
use crate::domain::scope::Scope;
use crate::feed::journal::Journal;
use crate::feed::source;
use crate::pg::Settings;
use session::{Session, Sight};

pub use error::Error;
pub use table::{Column, Row, Table};

/// How often a snapshot is begun anew because the tables were being changed.
const ATTEMPTS_MAX: usize = 5;

/// How snapshots are taken.
#[derive(Clone, Debug)]
pub struct Config {
    /// How to reach PostgreSQL.
    pub settings: Settings,
    /// The publications that the feed reads.
    pub publications: Vec<String>,
    /// The columns that may name a row's scope; the first that a table has counts.
    pub selector_columns: Vec<String>,
    /// How many are read at once.
    pub running_max: usize,
    /// How long one waits for a table that somebody has to himself.
    pub lock_max: Duration,
    /// How long it may take until it is settled what one sees.
    pub begin_max: Duration,
    /// How long the server lets one go on, should nobody here end it before.
    pub time_max: Duration,
}

impl Config {
    /// The usual bounds.
    pub fn new(settings: Settings, publications: Vec<String>, selector_columns: Vec<String>) -> Self {
        Self {
            settings,
            publications,
            selector_columns,
            running_max: limits::SNAPSHOTS_RUNNING_MAX,
            lock_max: limits::SNAPSHOT_LOCK_WAIT_MAX,
            begin_max: limits::SNAPSHOT_BEGIN_MAX,
            time_max: limits::SNAPSHOT_TIME_MAX,
        }
    }
}

/// Takes snapshots. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Snapshots {
    config: Arc<Config>,
    journal: Journal,
    places: Arc<Semaphore>,
}

impl Snapshots {
    /// Snapshots that the feed of this journal completes.
    pub fn new(config: Config, journal: Journal) -> Self {
        let places = Arc::new(Semaphore::new(config.running_max));
        Self { config: Arc::new(config), journal, places }
    }

    /// Begins a snapshot of the rows in these scopes, at least one and none of them the empty scope.
    ///
    /// # Errors
    ///
    /// See [`Error`]; nothing is held then.
    pub async fn take(&self, scopes: &[Scope]) -> Result<Snapshot, Error> {
        // Before that there may be no slot, and a snapshot that no feed completes.
        let identity = self.journal.identity().filter(|_| self.journal.has_begun()).ok_or(Error::NotBegun)?;
        let running_max = self.config.running_max;
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Error::Busy { running_max })?;
        let waited = self.config.begin_max;
        let begin = async {
            let timeline = self.journal.history().current();
            let session = Session::open(&self.config, identity.system_id, timeline).await?;
            self.begin(session, scopes, Place::new(place)).await
        };
        match tokio::time::timeout(waited, begin).await {
            Ok(begun) => begun,
            Err(_) => Err(source::Error::Unanswered { doing: "beginning a snapshot", waited }.into()),
        }
    }

    async fn begin(&self, session: Session, scopes: &[Scope], place: Place) -> Result<Snapshot, Error> {
        for _ in 0..ATTEMPTS_MAX {
            let Some(tables) = session.tables(&self.config, scopes).await? else { continue };
            // What was locked may have been altered between the look and the lock. Only what looks the same afterwards,
            // and in the transaction itself, is what will be read: a table rewritten behind the snapshot's back has no
            // row for it.
            if let Some(Sight { info, taken_at }) = session.begin(&self.config, &tables).await?
                && session.tables(&self.config, scopes).await?.as_ref() == Some(&tables)
            {
                let tables = tables.into_iter();
                return Ok(Snapshot { info, taken_at, table: None, rows: None, tables, session, _place: place });
            }
            session.end().await?;
        }
        Err(Error::Changing)
    }
}

/// A snapshot that is being read. Dropping it ends its transaction.
pub struct Snapshot {
    info: String,
    taken_at: String,
    /// The table that is being read.
    table: Option<Table>,
    rows: Option<Pin<Box<SimpleQueryStream>>>,
    /// Those behind it.
    tables: std::vec::IntoIter<Table>,
    session: Session,
    _place: Place,
}

/// A part of a snapshot.
#[derive(Debug)]
pub enum Piece<'a> {
    /// A table begins.
    Table(&'a Table),
    /// A row of it.
    Row(Row<'a>),
}

impl Snapshot {
    /// Which transactions it shows: what `/changes` takes as `snapshot`.
    pub fn info(&self) -> &str {
        &self.info
    }

    /// When it was taken, by PostgreSQL's clock, as RFC 3339 has it.
    pub fn taken_at(&self) -> &str {
        &self.taken_at
    }

    /// The next part; none at the end, and only where everything was read. After an error it is of no more use.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`].
    pub async fn next(&mut self) -> Result<Option<Piece<'_>>, Error> {
        if let Some(values) = self.next_row().await? {
            // Rows come from the table's own stream alone.
            return Ok(self.table.as_ref().map(|table| Piece::Row(Row { table, values })));
        }
        self.table = self.tables.next();
        match &self.table {
            Some(table) => {
                self.rows = Some(Box::pin(self.session.rows(table).await?));
                Ok(Some(Piece::Table(table)))
            }
            None => {
                self.session.end().await?;
                Ok(None)
            }
        }
    }

    async fn next_row(&mut self) -> Result<Option<tokio_postgres::SimpleQueryRow>, Error> {
        let Some(rows) = &mut self.rows else { return Ok(None) };
        while let Some(message) = rows.next().await {
            if let SimpleQueryMessage::Row(row) = message.map_err(session::broken)? {
                return Ok(Some(row));
            }
        }
        self.rows = None;
        Ok(None)
    }
}

/// One of the places among the snapshots that are being read.
struct Place(#[expect(dead_code, reason = "it is given back when dropped")] OwnedSemaphorePermit);

impl Place {
    fn new(permit: OwnedSemaphorePermit) -> Self {
        metrics::gauge!("walclock_snapshots_running").increment(1.0);
        Self(permit)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        metrics::gauge!("walclock_snapshots_running").decrement(1.0);
    }
}
