//! From rows to the words of the dispatcher's port.

use std::sync::Arc;

use tokio_postgres::Row;

use crate::dispatch::ports::Entry;
use crate::domain::lease::Epoch;
use crate::domain::run::{Run, RunKey};
use crate::domain::timer::TimerKey;
use crate::domain::webhook::Secret;
use crate::store::rows;

/// A run, from a row with the columns of `walclock.runs`. Its secrets stand elsewhere.
pub fn run(row: &Row) -> Result<Run, tokio_postgres::Error> {
    let timer = rows::timer(row)?;
    let key = RunKey { timer: timer.definition.key.clone(), claimed_at: row.try_get("claimed_at")? };
    Ok(Run { key, timer, epoch: Epoch(row.try_get("epoch")?), secrets: Arc::default() })
}

/// An entry, from due_at, namespace and id.
pub fn entry(row: &Row) -> Entry {
    Entry { due_at: row.get(0), key: TimerKey::new(row.get(1), row.get(2)) }
}

/// The secrets of a namespace, from its name and its secrets.
pub fn secrets(row: &Row) -> (&str, Arc<[Secret]>) {
    let texts: Vec<&str> = row.get(1);
    // A check constraint keeps out what cannot be read.
    (row.get(0), texts.iter().filter_map(|text| text.parse().ok()).collect())
}
