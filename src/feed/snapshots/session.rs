//! The connection of one snapshot: values look as in the stream, and whoever is gone holds up nobody.

use std::time::Duration;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, SimpleQueryStream};
use tokio_util::task::AbortOnDropHandle;

use super::Config;
use super::error::Error;
use super::table::Table;
use crate::domain::scope::Scope;
use crate::feed::source::{self, FORMATS, Server};
use crate::pg::Settings;

const CONFIGURE: &str = include_str!("../../../sql/queries/feed/configure_session.sql");
const IDENTIFY: &str = include_str!("../../../sql/queries/feed/identify_server.sql");
const LIST_TABLES: &str = include_str!("../../../sql/queries/feed/list_snapshot_tables.sql");
const LIST_LOCKED: &str = include_str!("../../../sql/queries/feed/list_locked_tables.sql");
const BEGIN: &str = include_str!("../../../sql/queries/feed/begin_snapshot.sql");
const TAKE: &str = include_str!("../../../sql/queries/feed/take_snapshot.sql");

/// How often the server looks whether we are still there, while it searches for rows without sending any.
const GONE_INTERVAL: Duration = Duration::from_secs(2);
/// What lock_timeout gives, and what is left when a table is dropped before it could be locked.
const LOCK_NOT_AVAILABLE: &str = "55P03";
const UNDEFINED_TABLE: &str = "42P01";
const INVALID_SCHEMA: &str = "3F000";
/// What PostgreSQL 16 and later give for a table that was dropped while they looked at it.
const INTERNAL_ERROR: &str = "XX000";
const READING: &str = "reading a snapshot";

/// A connection on which nothing else happens. It ends when dropped, and whatever the server is doing on it.
pub(super) struct Session {
    client: Client,
    _connection: AbortOnDropHandle<()>,
}

/// What the transaction of a snapshot sees.
pub(super) struct Sight {
    /// As `pg_current_snapshot()` prints it.
    pub(super) info: String,
    /// When it was taken, by PostgreSQL's clock, as RFC 3339 has it.
    pub(super) taken_at: String,
}

impl Session {
    /// Connects to the primary of this cluster, on this timeline or a later one.
    pub(super) async fn open(config: &Config, system_id: u64, timeline: u32) -> Result<Self, Error> {
        let mut failure = Error::Unavailable(source::Error::Ended);
        for settings in config.settings.each_host() {
            match Self::open_at(&settings, config, system_id, timeline).await {
                Ok(session) => return Ok(session),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn open_at(settings: &Settings, config: &Config, system_id: u64, timeline: u32) -> Result<Self, Error> {
        let settings = settings.clone().with_application_name("walclock snapshot");
        let (client, connection) = Server::dial(&settings).await?;
        let session = Self { client, _connection: AbortOnDropHandle::new(tokio::spawn(connection)) };
        session.configure(config).await?;
        let row = session.one("asking which server this is", IDENTIFY, &[]).await?;
        let (found, is_standby): (i64, bool) = (get(&row, 0)?, get(&row, 1)?);
        if found.cast_unsigned() != system_id {
            return Err(Error::OtherCluster);
        }
        let found: Option<i64> = get(&row, 2)?;
        match found {
            _ if is_standby => Err(Error::Standby),
            Some(found) if found < i64::from(timeline) => Err(Error::Behind { found, known: timeline }),
            // Where it became a primary in between it is on a new one.
            Some(_) | None => Ok(session),
        }
    }

    async fn configure(&self, config: &Config) -> Result<(), Error> {
        let milliseconds = |span: Duration| span.as_millis().to_string();
        let longest = milliseconds(config.time_max);
        let own = [
            // A table that hides rows from our role is an error, never a smaller table.
            ("row_security", "off".to_owned()),
            // Two snapshots of the same look the same.
            ("synchronize_seqscans", "off".to_owned()),
            ("lock_timeout", milliseconds(config.lock_max)),
            ("statement_timeout", longest.clone()),
            ("transaction_timeout", longest.clone()),
            // Between two tables the transaction is idle for as long as the reader takes its time.
            ("idle_in_transaction_session_timeout", longest),
            ("client_connection_check_interval", milliseconds(GONE_INTERVAL)),
        ];
        let formats = FORMATS.map(|(name, value)| (name, value.to_owned()));
        let (names, values): (Vec<&str>, Vec<String>) = formats.into_iter().chain(own).unzip();
        self.all("setting up the session", CONFIGURE, &[&names, &values]).await?;
        Ok(())
    }

    /// The tables to read; fails where the role may not read one of them. None where one was dropped meanwhile.
    ///
    /// From PostgreSQL 16 on, to list what a publication has is to open each table, behind whoever has it to himself.
    pub(super) async fn tables(&self, config: &Config, scopes: &[Scope]) -> Result<Option<Vec<Table>>, Error> {
        const DOING: &str = "looking for the published tables";
        let scopes: Vec<&str> = scopes.iter().map(Scope::as_str).collect();
        let values: [&(dyn ToSql + Sync); 3] = [&config.publications, &config.selector_columns, &scopes];
        match self.all(DOING, LIST_TABLES, &values).await {
            Ok(rows) => rows.iter().map(table).collect::<Result<_, _>>().map(Some),
            Err(error) => match error.code() {
                Some(LOCK_NOT_AVAILABLE) => Err(self.locked(config).await?),
                Some(UNDEFINED_TABLE | INVALID_SCHEMA | INTERNAL_ERROR) => Ok(None),
                _ => Err(error.into()),
            },
        }
    }

    /// Who waited for a lock, without a word of whose table it is, learns which ones others have to themselves.
    async fn locked(&self, config: &Config) -> Result<Error, Error> {
        self.end().await?;
        let rows = self.all("looking for locked tables", LIST_LOCKED, &[]).await?;
        let names = rows.iter().map(|row| get(row, 0)).collect::<Result<Vec<String>, _>>()?;
        let table = if names.is_empty() { "a published table".to_owned() } else { names.join(" or ") };
        Ok(Error::Locked { table, waited: config.lock_max })
    }

    /// Begins the transaction and locks the tables against whoever would alter them; then what it sees is settled. None
    /// where a table is no longer there.
    pub(super) async fn begin(&self, config: &Config, tables: &[Table]) -> Result<Option<Sight>, Error> {
        self.batch("beginning a snapshot", BEGIN).await?;
        for table in tables {
            match self.batch("locking a table", &table.lock_sql).await {
                Ok(()) => {}
                Err(error) => match error.code() {
                    Some(LOCK_NOT_AVAILABLE) => {
                        return Err(Error::Locked { table: table.name.clone(), waited: config.lock_max });
                    }
                    Some(UNDEFINED_TABLE | INVALID_SCHEMA) => return Ok(None),
                    _ => return Err(error.into()),
                },
            }
        }
        let row = self.one("taking a snapshot", TAKE, &[]).await?;
        Ok(Some(Sight { info: get(&row, 0)?, taken_at: get(&row, 1)? }))
    }

    /// Ends the transaction, whatever came of it.
    pub(super) async fn end(&self) -> Result<(), Error> {
        Ok(self.batch("ending a snapshot", "rollback").await?)
    }

    /// The rows of a table, as the server sends them and no faster than they are taken.
    pub(super) async fn rows(&self, table: &Table) -> Result<SimpleQueryStream, Error> {
        self.client.simple_query_raw(&table.read_sql).await.map_err(broken)
    }

    async fn batch(&self, doing: &'static str, sql: &str) -> Result<(), source::Error> {
        self.client.batch_execute(sql).await.map_err(|e| source::Error::query(doing, e))
    }

    async fn one(&self, doing: &'static str, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Row, Error> {
        Ok(self.client.query_one(sql, values).await.map_err(|e| source::Error::query(doing, e))?)
    }

    async fn all(
        &self,
        doing: &'static str,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, source::Error> {
        self.client.query(sql, values).await.map_err(|e| source::Error::query(doing, e))
    }
}

/// What went wrong while rows were read.
pub(super) fn broken(error: tokio_postgres::Error) -> Error {
    Error::Unavailable(source::Error::query(READING, error))
}

fn table(row: &Row) -> Result<Table, Error> {
    let (schema, name): (&str, &str) = (get(row, 0)?, get(row, 1)?);
    let (columns, types): (Vec<&str>, Vec<u32>) = (get(row, 2)?, get(row, 3)?);
    let (lock_sql, read_sql): (String, String) = (get(row, 4)?, get(row, 5)?);
    let missing: Option<String> = get(row, 6)?;
    let table = Table::new(schema, name, columns.into_iter().zip(types), lock_sql, read_sql);
    match missing {
        Some(fix_sql) => Err(Error::Denied { table: table.name, fix_sql }),
        None => Ok(table),
    }
}

fn get<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, at: usize) -> Result<T, Error> {
    row.try_get(at).map_err(broken)
}
