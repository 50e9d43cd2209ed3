//! Brings the schema to what this binary needs. Safe to run twice, and by several processes at once.

use refinery::{Migration, Runner};
use tokio_postgres::Client;

use super::{Error as StoreError, pool};
use crate::pg;

/// Every migration, oldest first. One that was released is never edited.
const MIGRATIONS: &[(&str, &str)] = &[
    ("V1__schema", include_str!("../../sql/migrations/0001_schema.sql")),
    ("V2__schedules", include_str!("../../sql/migrations/0002_schedules.sql")),
    ("V3__deferrals", include_str!("../../sql/migrations/0003_deferrals.sql")),
    ("V4__ring", include_str!("../../sql/migrations/0004_ring.sql")),
    ("V5__moves", include_str!("../../sql/migrations/0005_moves.sql")),
    ("V6__partitions", include_str!("../../sql/migrations/0006_partitions.sql")),
    ("V7__callbacks", include_str!("../../sql/migrations/0007_callbacks.sql")),
    ("V8__publish", include_str!("../../sql/migrations/0008_publish.sql")),
    ("V9__history", include_str!("../../sql/migrations/0009_history.sql")),
    ("V10__header_bytes", include_str!("../../sql/migrations/0010_header_bytes.sql")),
    ("V11__claims", include_str!("../../sql/migrations/0011_claims.sql")),
    ("V12__checks", include_str!("../../sql/migrations/0012_checks.sql")),
];
/// The table with what was run, in the schema that the migrations make.
const HISTORY: &str = "walclock.walclock_migrations";

const READ_SERVER: &str = include_str!("../../sql/queries/migrations/read_server.sql");
const FIND_HISTORY: &str = include_str!("../../sql/queries/migrations/find_history.sql");
const LIST_APPLIED: &str = include_str!("../../sql/queries/migrations/list_applied.sql");
const LOCK_HISTORY: &str = include_str!("../../sql/queries/migrations/lock_history.sql");
const BOUND_WAITS: &str = include_str!("../../sql/queries/migrations/bound_waits.sql");
const CREATE_SCHEMA: &str = include_str!("../../sql/queries/migrations/create_schema.sql");

/// The oldest PostgreSQL that is supported, as `server_version_num` writes it.
pub(super) const SERVER_VERSION_MIN: i32 = 140_000;

/// Why the schema was not brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server is too old.
    #[error("this is PostgreSQL {version}, and walclock needs 14 or newer")]
    ServerTooOld {
        /// As the server says it.
        version: String,
    },
    /// Texts would not be what they are elsewhere.
    #[error("the database's encoding is {encoding}, and walclock needs UTF8: create one with `encoding 'UTF8'`")]
    WrongEncoding {
        /// As the server says it.
        encoding: String,
    },
    /// The database has had a migration that this binary does not know.
    #[error(
        "the database has migration {version} ({name}), which this walclock does not know: a newer one was here; run that one"
    )]
    Ahead {
        /// The unknown migration.
        version: i32,
        /// Its name.
        name: String,
    },
    /// The database has had another migration of the same number.
    #[error("migration {version} of this database is not this walclock's: it has {applied}, this walclock {known}")]
    Different {
        /// The migration.
        version: i32,
        /// What the database has, name and checksum.
        applied: String,
        /// What this binary has.
        known: String,
    },
    /// A migration failed; it left nothing behind.
    #[error("a migration failed")]
    Failed(#[source] Box<refinery::Error>),
    /// The database did not answer.
    #[error(transparent)]
    Unavailable(#[from] StoreError),
}

/// Runs what is missing, and returns the names of what was run, oldest first.
pub async fn run(settings: &pg::Settings) -> Result<Vec<String>, Error> {
    let mut client = pool::connect(settings).await?;
    check_server(&client).await?;
    // A session lock: it ends with the connection, however that ends.
    client.batch_execute(LOCK_HISTORY).await.map_err(StoreError::unavailable("waiting for another migration"))?;
    let missing = missing(&client).await?;
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    client.batch_execute(BOUND_WAITS).await.map_err(StoreError::unavailable("preparing the migrations"))?;
    client.batch_execute(CREATE_SCHEMA).await.map_err(StoreError::unavailable("creating the schema walclock"))?;
    let mut runner = Runner::new(&migrations());
    runner.set_migration_table_name(HISTORY);
    let report = runner.run_async(&mut client).await.map_err(|error| Error::Failed(Box::new(error)))?;
    Ok(report.applied_migrations().iter().map(ToString::to_string).collect())
}

/// The names of what [`run`] would run, oldest first. Changes nothing.
pub async fn dry_run(settings: &pg::Settings) -> Result<Vec<String>, Error> {
    let client = pool::connect(settings).await?;
    check_server(&client).await?;
    Ok(missing(&client).await?.iter().map(ToString::to_string).collect())
}

async fn check_server(client: &Client) -> Result<(), Error> {
    let asking = "asking for the server's version";
    let row = client.query_one(READ_SERVER, &[]).await.map_err(StoreError::unavailable(asking))?;
    let (number, version, encoding): (i32, String, String) = (row.get(0), row.get(1), row.get(2));
    if number < SERVER_VERSION_MIN {
        return Err(Error::ServerTooOld { version });
    }
    match encoding.as_str() {
        "UTF8" => Ok(()),
        _ => Err(Error::WrongEncoding { encoding }),
    }
}

/// The migrations that the database has not had, after a check that it has had no others.
pub(super) async fn missing(client: &Client) -> Result<Vec<Migration>, Error> {
    let reading = "reading the history of migrations";
    let known = migrations();
    let exists = client.query_one(FIND_HISTORY, &[]).await.map_err(StoreError::unavailable(reading))?;
    if !exists.get::<_, bool>(0) {
        return Ok(known);
    }
    let applied = client.query(LIST_APPLIED, &[]).await.map_err(StoreError::unavailable(reading))?;
    for row in &applied {
        let (version, name, checksum): (i32, String, String) = (row.get(0), row.get(1), row.get(2));
        let Some(own) = known.iter().find(|migration| migration.version() == version) else {
            return Err(Error::Ahead { version, name });
        };
        if own.name() != name || own.checksum().to_string() != checksum {
            return Err(Error::Different {
                version,
                applied: format!("{name} {checksum}"),
                known: format!("{} {}", own.name(), own.checksum()),
            });
        }
    }
    let is_missing = |migration: &Migration| applied.iter().all(|row| row.get::<_, i32>(0) != migration.version());
    Ok(known.into_iter().filter(is_missing).collect())
}

fn migrations() -> Vec<Migration> {
    let parse = |(name, sql): &(&str, &str)| Migration::unapplied(name, sql).expect("the names are well formed");
    MIGRATIONS.iter().map(parse).collect()
}
