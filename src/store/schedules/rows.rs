//! Rows of `walclock.schedules` as words of the domain.

use std::time::Duration;

use serde_json::value::RawValue;
use tokio_postgres::Row;
use tokio_postgres::types::Json;

use crate::domain::schedule::{CatchUp, Definition, Overlap, Rule, Schedule, When};
use crate::domain::timer::TimerKey;
use crate::store::rows;
use crate::store::time::Span;

/// A schedule in a row that has what its moments need. The words that the schema allows are known; one that a later schema
/// has is taken for the usual one.
pub fn schedule(row: &Row) -> Result<Schedule, tokio_postgres::Error> {
    Ok(Schedule {
        key: TimerKey::new(row.try_get("namespace")?, row.try_get("id")?),
        rule: rule(row)?,
        created_at: row.try_get("created_at")?,
        changed_at: row.try_get("changed_at")?,
        next_at: row.try_get("next_at")?,
        buffered_at: row.try_get("buffered_at")?,
        active: row.try_get("active")?,
        revision: row.try_get("revision")?,
    })
}

fn rule(row: &Row) -> Result<Rule, tokio_postgres::Error> {
    let when = match row.try_get::<_, Option<String>>("cron")? {
        Some(cron) => When::Cron(cron),
        None => When::Every(row.try_get::<_, Option<Span>>("every")?.map_or(Duration::ZERO, |span| span.0)),
    };
    let catch_up_max: i32 = row.try_get("catch_up_max")?;
    Ok(Rule {
        when,
        time_zone: row.try_get("time_zone")?,
        start_at: row.try_get("start_at")?,
        end_at: row.try_get("end_at")?,
        jitter: row.try_get::<_, Span>("jitter")?.0,
        overlap: Overlap::parse(row.try_get("overlap")?).unwrap_or_default(),
        catch_up: CatchUp::parse(row.try_get("catch_up")?).unwrap_or_default(),
        catch_up_window: row.try_get::<_, Span>("catch_up_window")?.0,
        catch_up_max: u32::try_from(catch_up_max).unwrap_or(1),
    })
}

/// The definition in a row that has all columns.
pub fn definition(row: &Row) -> Result<Definition, tokio_postgres::Error> {
    Ok(Definition {
        key: TimerKey::new(row.try_get("namespace")?, row.try_get("id")?),
        rule: rule(row)?,
        paused: row.try_get("paused")?,
        callback: rows::callback(row)?,
        payload: row.try_get::<_, Option<Json<Box<RawValue>>>>("payload")?.map(|Json(payload)| payload),
        retry: rows::retry(row)?,
    })
}
