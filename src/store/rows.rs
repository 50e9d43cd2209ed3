//! Rows of `walclock.timers` and `walclock.runs` as words of the domain, by the columns that both tables have.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio_postgres::Row;
use tokio_postgres::types::Json;

use super::time::Span;
use crate::domain::callback::Callback;
use crate::domain::retry::RetryPolicy;
use crate::domain::timer::{Definition, Timer, TimerKey};

/// Reads the timer in a row that has all its columns under their own names.
///
/// What a client has written by plain SQL and no rule of the schema forbids must be readable: a row that cannot be
/// read would hold up every other timer that is read with it.
pub fn timer(row: &Row) -> Result<Timer, tokio_postgres::Error> {
    let attempts: i32 = row.try_get("attempts")?;
    Ok(Timer {
        definition: Definition {
            key: TimerKey::new(row.try_get("namespace")?, row.try_get("id")?),
            execute_at: row.try_get("execute_at")?,
            callback: callback(row)?,
            payload: row.try_get::<_, Option<Json<Box<RawValue>>>>("payload")?.map(|Json(payload)| payload),
            retry: retry(row)?,
        },
        retry_at: row.try_get("retry_at")?,
        attempts: u32::try_from(attempts).unwrap_or(0),
        first_attempt_at: row.try_get("first_attempt_at")?,
        last_error: row.try_get("last_error")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

pub fn callback(row: &Row) -> Result<Callback, tokio_postgres::Error> {
    let Json(headers) = row.try_get::<_, Json<BTreeMap<String, String>>>("callback_headers")?;
    let seconds: i16 = row.try_get("callback_timeout_seconds")?;
    Ok(Callback {
        url: row.try_get("callback_url")?,
        method: row.try_get("callback_method")?,
        headers,
        timeout: Duration::from_secs(u64::try_from(seconds).unwrap_or(0)),
    })
}

pub fn retry(row: &Row) -> Result<RetryPolicy, tokio_postgres::Error> {
    let attempts_max: Option<i32> = row.try_get("retry_attempts_max")?;
    Ok(RetryPolicy {
        attempts_max: attempts_max.and_then(|max| u32::try_from(max).ok()),
        attempts_duration: row.try_get::<_, Span>("retry_duration")?.0,
        interval_first: row.try_get::<_, Span>("retry_interval_first")?.0,
        multiplier: row.try_get("retry_multiplier")?,
        interval_max: row.try_get::<_, Span>("retry_interval_max")?.0,
    })
}
