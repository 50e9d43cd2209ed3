//! What a change of `walclock.timers` tells the dispatcher: which timer may be due, and when.

use std::borrow::Cow;

use serde::Deserialize;

use super::timestamptz;
use crate::dispatch::ports::Entry;
use crate::domain::causes;
use crate::domain::timer::TimerKey;

/// The table, as the feed names it.
const TABLE: &str = "walclock.timers";
/// The contract's numbers of what makes a timer known: insert and update.
const TELLING: [u8; 2] = [1, 2];

/// The feed says something else than its contract.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// It is not the JSON of a change.
    #[error("a change cannot be read")]
    Json(#[source] serde_json::Error),
    /// A field is missing or has no such value.
    #[error("a change has no good {0}")]
    Field(&'static str),
}

/// A change, as far as it matters here. Everything is optional that only the timers table has: rows of other tables may
/// be in the scopes of the shards too.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Change<'a> {
    operation: u8,
    #[serde(borrow)]
    table: Cow<'a, str>,
    #[serde(borrow, default)]
    new_row: Option<Row<'a>>,
}

#[derive(Deserialize)]
struct Row<'a> {
    #[serde(borrow, default)]
    namespace: Column<'a>,
    #[serde(borrow, default)]
    id: Column<'a>,
    #[serde(borrow, default)]
    execute_at: Column<'a>,
    #[serde(borrow, default)]
    retry_at: Column<'a>,
}

/// A column that is not there is like one that is null.
#[derive(Default, Deserialize)]
struct Column<'a> {
    #[serde(borrow)]
    value: Option<Text<'a>>,
}

/// Borrows where nothing is escaped; a bare `Option<Cow>` would copy always.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The timers that these changes, each as its JSON text, insert or update.
///
/// A change that cannot be read is counted and passed over: it would be read again and again, and no news after it
/// would come through. The sweep finds its timer.
pub fn entries<'a>(changes: impl IntoIterator<Item = &'a [u8]>) -> Vec<Entry> {
    changes.into_iter().filter_map(|change| read(change).unwrap_or_else(passed_over)).collect()
}

fn read(change: &[u8]) -> Result<Option<Entry>, Malformed> {
    entry(&serde_json::from_slice(change).map_err(Malformed::Json)?)
}

fn passed_over(malformed: Malformed) -> Option<Entry> {
    metrics::counter!("walclock_feed_malformed_total").increment(1);
    tracing::debug!(error = causes::chain(&malformed), "a change that cannot be read is passed over");
    None
}

fn entry(change: &Change<'_>) -> Result<Option<Entry>, Malformed> {
    if change.table != TABLE || !TELLING.contains(&change.operation) {
        return Ok(None);
    }
    let row = change.new_row.as_ref().ok_or(Malformed::Field("newRow"))?;
    let namespace = row.namespace.text().ok_or(Malformed::Field("namespace"))?;
    let id = row.id.text().ok_or(Malformed::Field("id"))?;
    // due_at itself is a generated column, which the feed of most versions of PostgreSQL leaves out.
    let due_at = row.retry_at.text().or(row.execute_at.text()).ok_or(Malformed::Field("execute_at"))?;
    let due_at = timestamptz::parse(due_at).ok_or(Malformed::Field("execute_at or retry_at"))?;
    Ok(Some(Entry { due_at, key: TimerKey::new(namespace, id) }))
}

impl Column<'_> {
    fn text(&self) -> Option<&str> {
        self.value.as_ref().map(|text| text.0.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use proptest::prelude::*;

    fn read(change: &str) -> Result<Vec<Entry>, Malformed> {
        super::read(change.as_bytes()).map(Vec::from_iter)
    }

    fn change(operation: u8, table: &str, rows: &str) -> String {
        format!(
            r#"{{"operation":{operation},"table":"{table}","sequence":"0.1390d838.0","commitSequence":328259640,"commitIndex":0,"txid":731{rows}}}"#
        )
    }

    const ROW: &str = concat!(
        r#","newRow":{"namespace":{"value":"shop","type":25},"id":{"value":"order \"7\"","type":25},"#,
        r#""execute_at":{"value":"1970-01-01 00:00:01+00","type":1184},"retry_at":{"value":null,"type":1184},"#,
        r#""payload":{"value":"{\"namespace\": {\"value\": 1}}","type":114}}"#
    );

    #[test]
    fn an_insert_and_an_update_tell_of_a_timer() {
        let expected = Entry { due_at: Timestamp::from_micros(1_000_000), key: TimerKey::new("shop", "order \"7\"") };
        for operation in [1, 2] {
            assert_eq!(read(&change(operation, TABLE, ROW)).unwrap(), std::slice::from_ref(&expected));
        }
        let later = ROW.replace(r#""retry_at":{"value":null"#, r#""retry_at":{"value":"1970-01-01 00:00:02.5+00""#);
        assert_eq!(read(&change(2, TABLE, &later)).unwrap()[0].due_at, Timestamp::from_micros(2_500_000));
        let absent = ROW.replace(r#""retry_at":{"value":null,"type":1184},"#, "");
        assert_eq!(read(&change(2, TABLE, &absent)).unwrap(), [expected]);
    }

    #[test]
    fn other_changes_tell_nothing() {
        for change in [
            change(3, TABLE, &ROW.replace("newRow", "oldRow")),
            change(4, TABLE, ""),
            change(1, "public.orders", r#","newRow":{"id":{"value":"7","type":23}}"#),
            change(1, "public.orders", r#","newRow":{}"#),
            change(1, r#"walclock.\"timers\""#, ROW),
        ] {
            assert_eq!(read(&change).unwrap(), [], "{change}");
        }
    }

    #[test]
    fn a_timer_that_cannot_be_read_is_an_error() {
        for change in [
            "".to_owned(),
            "[]".to_owned(),
            change(1, TABLE, ""),
            change(1, TABLE, &ROW.replace("\"namespace\":{\"value\":\"shop\"", "\"namespace\":{\"value\":null")),
            change(1, TABLE, &ROW.replace(",\"id\":", ",\"di\":")),
            change(1, TABLE, &ROW.replace("execute_at", "execute")),
            change(1, TABLE, &ROW.replace("1970-01-01 ", "soon")),
        ] {
            assert!(read(&change).is_err(), "{change}");
            // It does not keep back the one behind it.
            let good = super::tests::change(1, TABLE, ROW);
            assert_eq!(entries([change.as_bytes(), good.as_bytes()]).len(), 1, "{change}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(change: String, rows in "[,:{}\"a-z_]{0,60}") {
            let _ = read(&change);
            let _ = read(&super::tests::change(1, TABLE, &rows));
        }
    }
}
