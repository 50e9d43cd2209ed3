//! From rows to the words of the dispatcher's port.

use std::sync::Arc;

use tokio_postgres::Row;

use crate::dispatch::ports::Entry;
use crate::domain::callback::Callback;
use crate::domain::lease::Epoch;
use crate::domain::retry::RetryPolicy;
use crate::domain::run::{Run, RunKey};
use crate::domain::timer::{Definition, Timer, TimerKey};
use crate::domain::webhook::Secret;
use crate::store::rows;

/// A run, from a row with the columns of `walclock.runs`. Its secrets stand elsewhere.
///
/// It is claimed already, so one whose timer cannot be read must end all the same, and not hold up those beside it: it
/// gets a callback that nobody sends, and fails.
pub fn run(row: &Row) -> Result<Run, tokio_postgres::Error> {
    let key = RunKey {
        timer: TimerKey::new(row.try_get("namespace")?, row.try_get("id")?),
        claimed_at: row.try_get("claimed_at")?,
    };
    let timer = rows::timer(row).unwrap_or_else(|error| {
        tracing::error!(timer = %key.timer, %error, "a timer cannot be read, so it fails");
        unreadable(&key)
    });
    let adoptions = u32::try_from(row.try_get::<_, i32>("adoptions")?).unwrap_or(0);
    Ok(Run { key, timer, epoch: Epoch(row.try_get("epoch")?), secrets: Arc::default(), adoptions, unwanted: false })
}

/// Stands for a timer that cannot be read. Its callback has no URL, which is a failure for good.
fn unreadable(key: &RunKey) -> Timer {
    let callback = Callback::new("");
    let definition = Definition {
        key: key.timer.clone(),
        execute_at: key.claimed_at,
        callback,
        payload: None,
        retry: RetryPolicy::default(),
    };
    Timer { attempts: 1, ..Timer::new(definition, key.claimed_at) }
}

/// An entry, from due_at, namespace and id.
pub fn entry(row: &Row) -> Entry {
    Entry { due_at: row.get(0), key: TimerKey::new(row.get(1), row.get(2)) }
}

/// The secrets of a namespace, from the column of that name. It may be null.
pub fn secrets(row: &Row, column: &str) -> Arc<[Secret]> {
    // Check constraints keep out what cannot be read; were they dropped, it would be passed over.
    let texts: Option<Vec<Option<&str>>> = row.try_get(column).unwrap_or_default();
    texts.unwrap_or_default().iter().flatten().filter_map(|text| text.parse().ok()).collect()
}
