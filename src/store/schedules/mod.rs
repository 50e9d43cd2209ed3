//! Schedules, as commands write and read them, and as the dispatcher settles their moments.

mod rows;
mod settle;

use std::time::Duration;

use serde_json::value::RawValue;
use tokio_postgres::Row;
use tokio_postgres::types::{Json, ToSql};

use super::pool::Lent;
use super::time::Span;
use super::timers::{Written, attempts, seconds, write};
use super::{Error, Store};
use crate::clock::Timestamp;
use crate::domain::schedule::{Definition, When};
use crate::domain::timer::TimerKey;

const CREATE: &str = include_str!("../../../sql/queries/schedules/create.sql");
const GET: &str = include_str!("../../../sql/queries/schedules/get.sql");
const LIST: &str = include_str!("../../../sql/queries/schedules/list.sql");
const PAUSE: &str = include_str!("../../../sql/queries/schedules/pause.sql");
const DELETE: &str = include_str!("../../../sql/queries/schedules/delete.sql");
const TRIGGER: &str = include_str!("../../../sql/queries/schedules/trigger.sql");
const PURGE: &str = include_str!("../../../sql/queries/schedules/purge_occurrences.sql");

/// How often [`purge`] is due.
pub const PURGE_INTERVAL: Duration = Duration::from_secs(3600);

/// Occurrences that one statement deletes: so many row locks, for some tens of milliseconds.
const PURGED_ROWS_MAX: i64 = 5_000;
/// Statements of one look: more wait for the next, so that the look ends.
const PURGES_MAX: usize = 2_000;

/// A schedule as its readers see it.
#[derive(Clone, Debug)]
pub struct Status {
    /// What was asked for.
    pub definition: Definition,
    /// The first moment that is not settled; [`Timestamp::MIN`] where that is not known yet, [`Timestamp::MAX`] for none.
    pub next_at: Timestamp,
    /// The last moment that fired.
    pub fired_at: Option<Timestamp>,
    /// The moment that waits for the last callback to be over.
    pub buffered_at: Option<Timestamp>,
    /// Why nothing is made of it.
    pub error: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When what is asked for last changed.
    pub updated_at: Timestamp,
}

/// Stores a schedule whole, in place of the one of that name. A namespace that is not listed is made where `make_namespace`
/// says so.
pub async fn create(client: &Lent, definition: &Definition, make_namespace: bool) -> Result<Written<()>, Error> {
    let Definition { key, rule, paused, callback, payload, retry } = definition;
    let (cron, every) = match &rule.when {
        When::Cron(cron) => (Some(cron), None),
        When::Every(every) => (None, Some(Span(*every))),
    };
    let parameters: [&(dyn ToSql + Sync); 24] = [
        &&*key.namespace,
        &&*key.id,
        &cron,
        &every,
        &rule.time_zone,
        &rule.start_at,
        &rule.end_at,
        &Span(rule.jitter),
        &rule.overlap.as_str(),
        &rule.catch_up.as_str(),
        &Span(rule.catch_up_window),
        &i32::try_from(rule.catch_up_max).unwrap_or(i32::MAX),
        paused,
        &callback.url,
        &callback.method,
        &Json(&callback.headers),
        &seconds(callback.timeout),
        &payload.as_deref().map(Json::<&RawValue>),
        &retry.attempts_max.map(attempts),
        &Span(retry.attempts_duration),
        &Span(retry.interval_first),
        &retry.multiplier,
        &Span(retry.interval_max),
        &make_namespace,
    ];
    write(client, "creating a schedule", CREATE, &parameters, |_| Ok(())).await
}

/// The schedule of that name.
pub async fn get(client: &Lent, key: &TimerKey) -> Result<Option<Status>, Error> {
    let found = client.ask("reading a schedule", async {
        let statement = client.prepare_cached(GET).await?;
        let row = client.query_opt(&statement, &[&&*key.namespace, &&*key.id]).await?;
        row.as_ref().map(status).transpose()
    });
    found.await
}

/// At most `limit` schedules of a namespace behind the id `after`, in the order of their ids.
pub async fn list(client: &Lent, namespace: &str, after: &str, limit: u32) -> Result<Vec<Status>, Error> {
    let listed = client.ask("listing schedules", async {
        let statement = client.prepare_cached(LIST).await?;
        client.query(&statement, &[&namespace, &after, &i64::from(limit)]).await?.iter().map(status).collect()
    });
    listed.await
}

/// Pauses a schedule, or lets it go on.
pub async fn pause(client: &Lent, key: &TimerKey, paused: bool) -> Result<Written<()>, Error> {
    write(client, "pausing a schedule", PAUSE, &[&&*key.namespace, &&*key.id, &paused], |_| Ok(())).await
}

/// Deletes a schedule. What it has fired goes on.
pub async fn delete(client: &Lent, key: &TimerKey) -> Result<Written<()>, Error> {
    write(client, "deleting a schedule", DELETE, &[&&*key.namespace, &&*key.id], |_| Ok(())).await
}

/// Fires a schedule now; returns the id of the timer.
pub async fn trigger(client: &Lent, key: &TimerKey) -> Result<Written<String>, Error> {
    write(client, "triggering a schedule", TRIGGER, &[&&*key.namespace, &&*key.id], |row| row.try_get(0)).await
}

/// Deletes the occurrences that `retention` has passed. Due every [`PURGE_INTERVAL`]; harmless at any time, by many at once.
pub async fn purge(store: &Store, retention: Duration) -> Result<(), Error> {
    let client = Lent::from(&store.general).await?;
    for _ in 0..PURGES_MAX {
        let row = client.ask("deleting occurrences", async {
            let statement = client.prepare_cached(PURGE).await?;
            client.query_one(&statement, &[&Span(retention), &PURGED_ROWS_MAX]).await
        });
        if row.await?.get::<_, i64>(0) < PURGED_ROWS_MAX {
            break;
        }
    }
    Ok(())
}

fn status(row: &Row) -> Result<Status, tokio_postgres::Error> {
    Ok(Status {
        definition: rows::definition(row)?,
        next_at: row.try_get("next_at")?,
        fired_at: row.try_get("fired_at")?,
        buffered_at: row.try_get("buffered_at")?,
        error: row.try_get("error")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}
