//! Pending timers and their runs, as the API writes and reads them: each call one statement.

mod create;

use serde_json::value::RawValue;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{Json, ToSql};

pub use self::create::{Many, create, create_many};
use super::pool::Lent;
use super::time::Span;
use super::{Error, rows};
use crate::clock::Timestamp;
use crate::domain::invalid::Invalid;
use crate::domain::limits;
use crate::domain::run::{Outcome, PastAttempt, State};
use crate::domain::timer::{self, Status, Timer, TimerKey, Update};

const UPDATE: &str = include_str!("../../sql/queries/timers/update.sql");
const DELETE: &str = include_str!("../../sql/queries/timers/delete.sql");
const GET: &str = include_str!("../../sql/queries/timers/get.sql");
const LIST_ATTEMPTS: &str = include_str!("../../sql/queries/timers/list_attempts.sql");
const LIST: &str = include_str!("../../sql/queries/timers/list.sql");

/// What became of a write.
#[derive(Clone, Debug, PartialEq)]
pub enum Written<T> {
    /// It is done.
    Done(T),
    /// Nothing has changed: there is no such row to begin with (to create: no such namespace).
    Missing,
    /// Nothing has changed: by PostgreSQL's clock the timer may not be set to that moment.
    Untimely(Invalid),
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

/// Changes a pending timer and returns it as it is then. `now` is PostgreSQL's unless it is given.
pub async fn update(
    client: &Lent,
    key: &TimerKey,
    update: &Update,
    now: Option<Timestamp>,
) -> Result<Written<Timer>, Error> {
    let retry = &update.retry;
    let parameters: [&(dyn ToSql + Sync); 17] = [
        &&*key.namespace,
        &&*key.id,
        &update.execute_at,
        &update.callback_url,
        &update.callback_timeout.map(seconds),
        &update.payload.is_some(),
        &update.payload.as_ref().and_then(|payload| payload.as_deref()).map(Json::<&RawValue>),
        &retry.attempts_max.is_some(),
        &retry.attempts_max.flatten().map(attempts),
        &retry.attempts_duration.map(Span),
        &retry.interval_first.map(Span),
        &retry.multiplier,
        &retry.interval_max.map(Span),
        &Span(limits::EXECUTE_AT_AHEAD_MAX),
        &now,
        &update.callback_method,
        &update.callback_headers.as_ref().map(Json),
    ];
    let written = client.ask("updating a timer", async {
        let statement = client.prepare_cached(UPDATE).await?;
        let row = client.query_one(&statement, &parameters).await?;
        let now = row.try_get("now")?;
        let untimely = update.execute_at.and_then(|at| timer::check_execute_at(at, now).err());
        match (untimely, row.try_get::<_, Option<&str>>("namespace")?) {
            (Some(invalid), _) => Ok(Written::Untimely(invalid)),
            (None, None) => Ok(Written::Missing),
            (None, Some(_)) => rows::timer(&row).map(Written::Done),
        }
    });
    written.await.or_else(refused)
}

/// Cancels a pending timer.
pub async fn delete(client: &Lent, key: &TimerKey) -> Result<Written<()>, Error> {
    write(client, "deleting a timer", DELETE, &[&&*key.namespace, &&*key.id], |_| Ok(())).await
}

/// The pending timer of that name, else its latest run.
pub async fn get(client: &Lent, key: &TimerKey) -> Result<Option<Status>, Error> {
    let found = client.ask("reading a timer", async {
        let statement = client.prepare_cached(GET).await?;
        let row = client.query_opt(&statement, &[&&*key.namespace, &&*key.id]).await?;
        row.as_ref().map(status).transpose()
    });
    found.await
}

/// One page of the timers of a namespace, in the order of their ids.
pub async fn list(client: &Lent, request: &ListRequest) -> Result<Vec<Status>, Error> {
    let state = request.state.map(State::as_str);
    let listed = client.ask("listing timers", async {
        let statement = client.prepare_cached(LIST).await?;
        let page: [&(dyn ToSql + Sync); 4] = [&request.namespace, &request.after, &i64::from(request.limit), &state];
        client.query(&statement, &page).await?.iter().map(status).collect()
    });
    listed.await
}

/// The latest attempts of a timer, oldest first.
pub async fn history(client: &Lent, key: &TimerKey, limit: u32) -> Result<Vec<PastAttempt>, Error> {
    let attempts = client.ask("reading the attempts of a timer", async {
        let statement = client.prepare_cached(LIST_ATTEMPTS).await?;
        let rows = client.query(&statement, &[&&*key.namespace, &&*key.id, &i64::from(limit)]).await?;
        rows.iter().rev().map(attempt).collect()
    });
    attempts.await
}

fn attempt(row: &Row) -> Result<PastAttempt, tokio_postgres::Error> {
    let outcome = match row.try_get("outcome")? {
        "running" => Outcome::Running,
        "succeeded" => Outcome::Succeeded,
        "failed" => Outcome::Failed,
        "rescheduled" => Outcome::Rescheduled,
        _ => Outcome::Retried,
    };
    Ok(PastAttempt {
        number: u32::try_from(row.try_get::<_, i32>("attempt")?).unwrap_or(0),
        outcome,
        due_at: row.try_get("due_at")?,
        claimed_at: row.try_get("claimed_at")?,
        sent_at: row.try_get("sent_at")?,
        answered_at: row.try_get("answered_at")?,
        status: row.try_get::<_, Option<i16>>("http_status")?.and_then(|status| u16::try_from(status).ok()),
        error: row.try_get("error")?,
        reply: row.try_get("reply")?,
    })
}

/// A write that returns a row where it finds something to change.
pub(super) async fn write<T>(
    client: &Lent,
    doing: &'static str,
    statement: &str,
    parameters: &[&(dyn ToSql + Sync)],
    read: impl FnOnce(&Row) -> Result<T, tokio_postgres::Error>,
) -> Result<Written<T>, Error> {
    let written = client.ask(doing, async {
        let statement = client.prepare_cached(statement).await?;
        let row = client.query_opt(&statement, parameters).await?;
        row.as_ref().map_or(Ok(Written::Missing), |row| read(row).map(Written::Done))
    });
    written.await.or_else(refused)
}

/// Tells a row that cannot be written from a database that does not answer.
pub(super) fn refused<T>(error: Error) -> Result<Written<T>, Error> {
    match error.sql_state() {
        // Which of two that wait for each other gives way is chance: it may be tried again.
        Some(&(SqlState::LOCK_NOT_AVAILABLE | SqlState::T_R_DEADLOCK_DETECTED)) => Ok(Written::Locked),
        Some(&SqlState::CHECK_VIOLATION) => Ok(Written::Refused(error.constraint().unwrap_or_default().to_owned())),
        Some(_) | None => Err(error),
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
pub(super) fn seconds(timeout: std::time::Duration) -> i16 {
    i16::try_from(timeout.as_secs()).unwrap_or(i16::MAX)
}

/// The domain's bound is the column's.
pub(super) fn attempts(max: u32) -> i32 {
    i32::try_from(max).unwrap_or(i32::MAX)
}
