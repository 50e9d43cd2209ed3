//! From rows to the domain's words. Check constraints keep out of the tables what these could not read, so nothing here
//! fails: one odd row must not keep a whole batch from being fired.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Json};

use crate::clock::Timestamp;
use crate::dispatch::ports::Entry;
use crate::domain::callback::Callback;
use crate::domain::lease::Epoch;
use crate::domain::retry::RetryPolicy;
use crate::domain::run::{Run, RunKey};
use crate::domain::timer::{Definition, Timer, TimerKey};
use crate::domain::webhook::Secret;
use crate::store::time::Span;

/// Reads a row's columns one after the other, in the order in which the statement lists them.
struct Columns<'a> {
    row: &'a Row,
    next: usize,
}

impl<'a> Columns<'a> {
    fn next<T: FromSql<'a>>(&mut self) -> T {
        let index = self.next;
        self.next += 1;
        self.row.get(index)
    }

    fn duration(&mut self) -> Duration {
        self.next::<Span>().0
    }

    /// Names and values, which a check constraint keeps to texts.
    fn headers(&mut self) -> BTreeMap<String, String> {
        let index = self.next;
        self.next += 1;
        self.row.try_get(index).map(|Json(headers)| headers).unwrap_or_default()
    }

    /// A number that a check constraint keeps from being negative.
    fn count(&mut self) -> u32 {
        u32::try_from(self.next::<i32>()).unwrap_or(0)
    }
}

/// A run from the columns that `claim.sql` and `adopt.sql` return. The secrets stand elsewhere.
pub fn run(row: &Row) -> Run {
    let columns = &mut Columns { row, next: 0 };
    let key = TimerKey::new(columns.next(), columns.next());
    let claimed_at = columns.next();
    let epoch = Epoch(columns.next());
    let timer = timer(&key, columns);
    Run { key: RunKey { timer: key, claimed_at }, timer, epoch, secrets: Arc::default() }
}

fn timer(key: &TimerKey, columns: &mut Columns<'_>) -> Timer {
    let execute_at = columns.next();
    let retry_at = columns.next();
    let callback = Callback {
        url: columns.next(),
        method: columns.next(),
        headers: columns.headers(),
        timeout: Duration::from_secs(u64::try_from(columns.next::<i16>()).unwrap_or(1)),
    };
    let payload = columns.next::<Option<String>>().and_then(|text| RawValue::from_string(text).ok());
    let retry = RetryPolicy {
        attempts_max: columns.next::<Option<i32>>().and_then(|attempts| u32::try_from(attempts).ok()),
        attempts_duration: columns.duration(),
        interval_first: columns.duration(),
        multiplier: columns.next(),
        interval_max: columns.duration(),
    };
    Timer {
        definition: Definition { key: key.clone(), execute_at, callback, payload, retry },
        retry_at,
        attempts: columns.count(),
        first_attempt_at: columns.next(),
        last_error: columns.next(),
        created_at: columns.next(),
        updated_at: columns.next(),
    }
}

/// An entry from due_at, namespace and id.
pub fn entry(row: &Row) -> Entry {
    let due_at: Timestamp = row.get(0);
    Entry { due_at, key: TimerKey::new(row.get(1), row.get(2)) }
}

/// The secrets of a namespace, from name and secrets.
pub fn secrets(row: &Row) -> (&str, Arc<[Secret]>) {
    let texts: Vec<&str> = row.get(1);
    (row.get(0), texts.iter().filter_map(|text| text.parse().ok()).collect())
}
