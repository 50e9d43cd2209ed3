//! `GET /snapshots` on a real database: what it holds, how it fits the feed, and what readers and tables may do to it.

mod bounds;
mod contents;
mod face;
mod seam;

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message;
use serde_json::Value;
use tokio::net::TcpListener;
use walclock::feed::snapshots::{Config, Snapshots};
use walclock::http::common::protobuf::{SnapshotHeaderPb, StreamField, StreamMessagePb, TableHeaderPb, ValuePb};
use walclock::http::{server, snapshots};
use walclock::{pg, service};

use crate::changes::feed::{Feed, PATIENCE};
use crate::support::http;

const PROTOBUF: &str = "application/transicator+protobuf";
const SELECTORS: [&str; 2] = ["_change_selector", "_apid_scope"];

/// How the snapshots of a feed are taken.
fn config(feed: &Feed) -> Config {
    let selectors = SELECTORS.map(str::to_owned).to_vec();
    Config::new(pg::Settings::parse(&feed.database).unwrap(), vec!["walclock".to_owned()], selectors)
}

/// The face on a socket of its own, until the test is over; returns its URL.
async fn serve(feed: &Feed) -> String {
    serve_as(feed, config(feed), PATIENCE).await
}

async fn serve_as(feed: &Feed, config: Config, stall_max: Duration) -> String {
    let snapshots = service::snapshots::Snapshots::new(Snapshots::new(config, feed.journal.clone()));
    let router = snapshots::routes(snapshots.with_stall_max(stall_max));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let config =
        server::Config { connections_max: 64, head_max: PATIENCE, stall_max: PATIENCE, drain_max: Duration::ZERO };
    tokio::spawn(server::Server::new(config, listener, router).run(tokio_util::sync::CancellationToken::new()));
    url
}

/// The status and the JSON of `GET /snapshots` with this query string.
async fn get(url: &str, query: &str) -> (u16, Value) {
    let answer = http::get(url, &format!("/snapshots?{query}"), &[]).await;
    (answer.status, serde_json::from_slice(&answer.body).unwrap())
}

/// A whole snapshot.
async fn take(url: &str, query: &str) -> Value {
    let (status, body) = get(url, query).await;
    assert_eq!(status, 200, "{query}: {body}");
    body
}

/// The rows of a table.
fn rows<'a>(snapshot: &'a Value, table: &str) -> &'a [Value] {
    let tables = snapshot["tables"].as_array().unwrap();
    let found = tables.iter().find(|found| found["name"] == table);
    found.unwrap_or_else(|| panic!("{table} in {snapshot}"))["rows"].as_array().unwrap()
}

/// The values of a column, sorted.
fn column<'a>(snapshot: &'a Value, table: &str, name: &str) -> Vec<&'a str> {
    let mut values: Vec<&str> =
        rows(snapshot, table).iter().map(|row| row[name]["value"].as_str().unwrap_or("null")).collect();
    values.sort_unstable();
    values
}

/// The names of the tables.
fn tables(snapshot: &Value) -> Vec<&str> {
    snapshot["tables"].as_array().unwrap().iter().map(|table| table["name"].as_str().unwrap()).collect()
}

/// How many sessions of snapshots the database has.
async fn sessions(feed: &Feed) -> i64 {
    let sql = "select count(*) from pg_stat_activity
               where datname = current_database() and application_name = 'walclock snapshot'";
    feed.client.query_one(sql, &[]).await.unwrap().get(0)
}

/// A snapshot in protobuf, read.
struct Frames {
    header: SnapshotHeaderPb,
    tables: Vec<(TableHeaderPb, Vec<Vec<ValuePb>>)>,
}

impl Frames {
    fn read(mut bytes: &[u8]) -> Self {
        let mut frame = || {
            let (length, rest) = bytes.split_first_chunk::<4>()?;
            let (frame, rest) = rest.split_at(u32::from_be_bytes(*length).try_into().unwrap());
            bytes = rest;
            Some(frame)
        };
        let header = SnapshotHeaderPb::decode(frame().unwrap()).unwrap();
        let mut tables: Vec<(TableHeaderPb, Vec<Vec<ValuePb>>)> = Vec::new();
        while let Some(frame) = frame() {
            match StreamMessagePb::decode(frame).unwrap().message.unwrap() {
                StreamField::Table(table) => tables.push((table, Vec::new())),
                StreamField::Row(row) => tables.last_mut().unwrap().1.push(row.values),
            }
        }
        Self { header, tables }
    }
}

/// The rows of the table `items` by id, folded from a snapshot and changes. Whatever is told twice, or misses what it
/// changes, is wrong.
#[derive(Debug, Default, PartialEq)]
struct Fold(BTreeMap<String, Value>);

impl Fold {
    fn of(snapshot: &Value) -> Self {
        let mut fold = Self::default();
        for row in rows(snapshot, "public.items") {
            assert!(fold.0.insert(id(row), row.clone()).is_none(), "twice: {row}");
        }
        fold
    }

    fn apply(&mut self, change: &Value) {
        let (new, old) = (&change["newRow"], &change["oldRow"]);
        if change["operation"] != 1 {
            assert_eq!(self.0.remove(&id(old)).as_ref(), Some(old), "{change}");
        }
        if change["operation"] != 3 {
            assert!(self.0.insert(id(new), new.clone()).is_none(), "already there: {change}");
        }
    }
}

fn id(row: &Value) -> String {
    row["id"]["value"].as_str().unwrap().to_owned()
}
