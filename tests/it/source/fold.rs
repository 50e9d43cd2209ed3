//! A reader that keeps a table of its own by the changes alone, as those who follow the feed do.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio_postgres::Client;
use walclock::domain::scope::Scope;
use walclock::domain::sequence::Sequence;
use walclock::feed::query::{self, Query};
use walclock::feed::reader::Reader;

/// A row, column by column, as PostgreSQL's own text.
pub type Row = Map<String, Value>;

/// What a table must look like if the feed is right.
pub struct Fold {
    reader: Reader,
    since: Sequence,
    pub rows: BTreeMap<i64, Row>,
    /// How often the feed said that it cannot go on from where we were.
    pub gaps: u32,
}

impl Fold {
    pub fn new(reader: Reader) -> Self {
        Self { reader, since: Sequence::ZERO, rows: BTreeMap::new(), gaps: 0 }
    }

    /// Takes what is new.
    pub async fn follow(&mut self) {
        // Without an old row, a delete belongs to the empty scope.
        let scopes = || vec![Scope::empty(), Scope::parse("s").unwrap()];
        loop {
            let query =
                Query { scopes: scopes(), since: self.since, limit: 10_000, block: Duration::ZERO, snapshot: None };
            let page = match self.reader.changes(query).await {
                Ok(page) => page,
                Err(query::Error::TooOld) => {
                    (self.since, self.gaps) = (Sequence::ZERO, self.gaps + 1);
                    self.rows.clear();
                    continue;
                }
                Err(error) => panic!("{error}"),
            };
            assert!(page.last >= self.since, "{} after {}", page.last, self.since);
            self.since = page.last;
            if page.changes.is_empty() {
                return;
            }
            page.changes.iter().for_each(|change| self.apply(&serde_json::from_slice(&change.body).unwrap()));
        }
    }

    fn apply(&mut self, change: &Value) {
        let new = row(&change["newRow"]);
        match (change["operation"].as_u64().unwrap(), new) {
            (1 | 2, Some(new)) => {
                let before = row(&change["oldRow"]);
                if let Some(before) = before.filter(|before| id(before) != id(&new)) {
                    self.rows.remove(&id(&before));
                }
                self.rows.insert(id(&new), new);
            }
            (3, None) => {
                self.rows.remove(&id(&row(&change["oldRow"]).unwrap()));
            }
            (4, None) => self.rows.clear(),
            _ => panic!("{change}"),
        }
    }
}

fn row(shown: &Value) -> Option<Row> {
    let columns = shown.as_object()?;
    Some(columns.iter().map(|(name, column)| (name.clone(), column["value"].clone())).collect())
}

fn id(row: &Row) -> i64 {
    row["id"].as_str().unwrap().parse().unwrap()
}

/// The rows of a table, read from itself.
pub async fn rows(client: &Client, table: &str) -> BTreeMap<i64, Row> {
    let sql = format!(
        "select t.id::int8, (select json_object_agg(key, value) from json_each_text(to_json(t))) from {table} t order by id"
    );
    let rows = client.query(&sql, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), serde_json::from_value(row.get(1)).unwrap())).collect()
}
