//! Pending timers and their runs, as the API writes and reads them: each call one statement.

use deadpool_postgres::GenericClient;
use serde_json::value::RawValue;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Json;

use super::time::Span;
use super::{Error, rows};
use crate::clock::Timestamp;
use crate::domain::run::State;
use crate::domain::timer::{Definition, Status, Timer, TimerKey, Update};

const CREATE: &str = include_str!("../../sql/queries/timers/create.sql");
const UPDATE: &str = include_str!("../../sql/queries/timers/update.sql");
const DELETE: &str = include_str!("../../sql/queries/timers/delete.sql");
const GET: &str = include_str!("../../sql/queries/timers/get.sql");
const LIST: &str = include_str!("../../sql/queries/timers/list.sql");

/// What became of a write.
#[derive(Clone, Debug, PartialEq)]
pub enum Written<T> {
    /// It is done.
    Done(T),
    /// Nothing has changed: there is no such row to begin with (to create: no such namespace).
    Missing,
    /// Nothing has changed: a check constraint of this name forbids it.
    Refused(String),
    /// Nothing has changed: another transaction has held the row for longer than a session waits.
    Locked,
}

/// Which timers to list.
#[derive(Clone, Debug)]
pub struct ListRequest {
    /// Of this namespace.
    pub namespace: String,
    /// Only ids behind this one, in the database's order; empty begins at the first.
    pub after: String,
    /// At most so many.
    pub limit: u32,
    /// Only those in this state.
    pub state: Option<State>,
}

/// Stores a timer whole, in place of the pending one of that name; returns the moment that counts as its creation.
/// A namespace that is not listed is made where `make_namespace` says so. `now` is PostgreSQL's unless it is given.
pub async fn create(
    client: &impl GenericClient,
    definition: &Definition,
    make_namespace: bool,
    now: Option<Timestamp>,
) -> Result<Written<Timestamp>, Error> {
    let doing = "creating a timer";
    let statement = client.prepare_cached(CREATE).await.map_err(Error::unavailable(doing))?;
    let Definition { key, execute_at, callback, payload, retry } = definition;
    let row = client
        .query_opt(
            &statement,
            &[
                &&*key.namespace,
                &&*key.id,
                execute_at,
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
                &now,
            ],
        )
        .await;
    written(row, doing, |row| row.try_get("created_at"))
}

/// Changes a pending timer and returns it as it is then.
pub async fn update(
    client: &impl GenericClient,
    key: &TimerKey,
    update: &Update,
    now: Option<Timestamp>,
) -> Result<Written<Timer>, Error> {
    let doing = "updating a timer";
    let statement = client.prepare_cached(UPDATE).await.map_err(Error::unavailable(doing))?;
    let retry = update.retry.as_ref();
    let row = client
        .query_opt(
            &statement,
            &[
                &&*key.namespace,
                &&*key.id,
                &update.execute_at,
                &update.callback_url,
                &update.callback_timeout.map(seconds),
                &update.payload.is_some(),
                &update.payload.as_ref().and_then(|payload| payload.as_deref()).map(Json::<&RawValue>),
                &retry.is_some(),
                &retry.and_then(|retry| retry.attempts_max).map(attempts),
                &retry.map(|retry| Span(retry.attempts_duration)),
                &retry.map(|retry| Span(retry.interval_first)),
                &retry.map(|retry| retry.multiplier),
                &retry.map(|retry| Span(retry.interval_max)),
                &now,
            ],
        )
        .await;
    written(row, doing, rows::timer)
}

/// Cancels a pending timer.
pub async fn delete(client: &impl GenericClient, key: &TimerKey) -> Result<Written<()>, Error> {
    let doing = "deleting a timer";
    let statement = client.prepare_cached(DELETE).await.map_err(Error::unavailable(doing))?;
    let row = client.query_opt(&statement, &[&&*key.namespace, &&*key.id]).await;
    written(row, doing, |_| Ok(()))
}

/// The pending timer of that name, else its latest run.
pub async fn get(client: &impl GenericClient, key: &TimerKey) -> Result<Option<Status>, Error> {
    let doing = "reading a timer";
    let statement = client.prepare_cached(GET).await.map_err(Error::unavailable(doing))?;
    let row = client.query_opt(&statement, &[&&*key.namespace, &&*key.id]).await.map_err(Error::unavailable(doing))?;
    row.as_ref().map(status).transpose().map_err(Error::unavailable(doing))
}

/// One page of the timers of a namespace, in the order of their ids.
pub async fn list(client: &impl GenericClient, request: &ListRequest) -> Result<Vec<Status>, Error> {
    let doing = "listing timers";
    let statement = client.prepare_cached(LIST).await.map_err(Error::unavailable(doing))?;
    let state = request.state.map(State::as_str);
    let rows = client
        .query(&statement, &[&request.namespace, &request.after, &i64::from(request.limit), &state])
        .await
        .map_err(Error::unavailable(doing))?;
    rows.iter().map(status).collect::<Result<_, _>>().map_err(Error::unavailable(doing))
}

/// Tells a row that cannot be written from a database that does not answer.
fn written<T>(
    row: Result<Option<Row>, tokio_postgres::Error>,
    doing: &'static str,
    read: impl FnOnce(&Row) -> Result<T, tokio_postgres::Error>,
) -> Result<Written<T>, Error> {
    let error = match row {
        Ok(Some(row)) => return read(&row).map(Written::Done).map_err(Error::unavailable(doing)),
        Ok(None) => return Ok(Written::Missing),
        Err(error) => error,
    };
    match error.code() {
        Some(&SqlState::LOCK_NOT_AVAILABLE) => Ok(Written::Locked),
        Some(&SqlState::CHECK_VIOLATION) => {
            let constraint = error.as_db_error().and_then(|error| error.constraint()).unwrap_or_default();
            Ok(Written::Refused(constraint.to_owned()))
        }
        Some(_) | None => Err(Error::unavailable(doing)(error)),
    }
}

fn status(row: &Row) -> Result<Status, tokio_postgres::Error> {
    let state = match row.try_get("state")? {
        "running" => State::Running,
        "succeeded" => State::Succeeded,
        "failed" => State::Failed,
        _ => State::Pending,
    };
    let executed_at = match state {
        State::Succeeded => row.try_get("answered_at")?,
        State::Pending | State::Running | State::Failed => None,
    };
    Ok(Status { timer: rows::timer(row)?, state, executed_at })
}

/// The domain's bound lies far below the column's.
fn seconds(timeout: std::time::Duration) -> i16 {
    i16::try_from(timeout.as_secs()).unwrap_or(i16::MAX)
}

/// The domain's bound is the column's.
fn attempts(max: u32) -> i32 {
    i32::try_from(max).unwrap_or(i32::MAX)
}
