//! A disk that is full or fails, and memory that is short, under the whole server.

mod failing;
mod huge;
mod larger;

use std::path::PathBuf;

use serde::Deserialize;
use walclock::domain::sequence::{Lsn, Sequence};

use super::support::server::{Server, folder};
use super::support::{PATIENCE, connect, database, eventually, http, say_skipped};

const TABLE: &str = "create table notes (id int primary key, body text, _change_selector text);
                     alter publication walclock add table notes";

/// A reader of one scope, who follows on from page to page.
struct Reader {
    scope: &'static str,
    since: String,
    ids: Vec<i64>,
}

impl Reader {
    fn new(scope: &'static str) -> Self {
        Self { scope, since: String::new(), ids: Vec::new() }
    }

    /// Reads what is there now.
    async fn catch_up(&mut self, server: &Server) {
        loop {
            let path = format!("/changes?scope={}&limit=10000&since={}", self.scope, self.since);
            let answer = http::get(&server.url(), &path, &[]).await;
            let text = std::str::from_utf8(&answer.body).unwrap();
            assert_eq!(answer.status, 200, "{text}");
            let page: Page<'_> = serde_json::from_str(text).unwrap();
            page.last_sequence.clone_into(&mut self.since);
            let rows = page.changes.iter().filter_map(|change| change.new_row.as_ref());
            self.ids.extend(rows.map(|row| row.id.value.parse::<i64>().unwrap()));
            if page.changes.is_empty() {
                return;
            }
        }
    }
}

/// What counts here of an answer. Nothing of it is copied: there may be a million changes to read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page<'a> {
    last_sequence: &'a str,
    #[serde(borrow)]
    changes: Vec<Change<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Change<'a> {
    /// Not of a TRUNCATE, which is told in every scope.
    #[serde(borrow)]
    new_row: Option<Note<'a>>,
}

#[derive(Deserialize)]
struct Note<'a> {
    #[serde(borrow)]
    id: Cell<'a>,
}

#[derive(Deserialize)]
struct Cell<'a> {
    value: &'a str,
}

/// Rows of 4 KB, a hundred in each transaction.
async fn insert(sql: &tokio_postgres::Client, ids: std::ops::Range<i32>) {
    for first in ids.clone().step_by(100) {
        let insert = "insert into notes select n, repeat('x', 4000), 's' from generate_series($1::int, $2::int - 1) n";
        sql.execute(insert, &[&first, &(first + 100).min(ids.end)]).await.unwrap();
    }
}

/// A database, and a server whose folder is a disk of so many bytes, with a filler of which part is taken. None where this
/// machine does not permit such a disk: then it says that the test was skipped.
async fn on_disk(test: &str, bytes: u64, filler: u64, flags: &[&str]) -> Option<(String, PathBuf, Server)> {
    let (url, folder) = (database().await, folder());
    let server = Server::spawn_on_disk(&url, &folder, bytes, filler, flags);
    if server.is_none() {
        say_skipped(test, "this machine does not permit a disk for a test");
    }
    Some((url, folder, server?))
}

/// What was acknowledged.
async fn confirmed(sql: &tokio_postgres::Client, slot: &str) -> Lsn {
    let query = "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = $1";
    sql.query_one(query, &[&slot]).await.unwrap().get::<_, &str>(0).parse().unwrap()
}

/// Waits until all that a reader has read is acknowledged, and thus durable.
async fn until_acknowledged(sql: &tokio_postgres::Client, slot: &str, reader: &Reader) {
    let last: Sequence = reader.since.parse().unwrap();
    let acknowledged = async || (confirmed(sql, slot).await > last.lsn).then_some(());
    eventually(PATIENCE, "what was read is acknowledged", acknowledged).await;
}

/// Waits until the server says this of the way in and has given the connection up, and with it the last word on what may be
/// forgotten.
pub async fn until_given_up(sql: &tokio_postgres::Client, slot: &str, server: &Server, error: &str) {
    let given_up = async || {
        let ready = http::try_request("GET", &server.management_url(), "/ready?verbose", &[], "").await?;
        let says = String::from_utf8(ready.body.to_vec()).unwrap();
        let is_said = says.lines().any(|line| line.starts_with("feed: ") && line.contains(error));
        let query = "select from pg_replication_slots where slot_name = $1 and active_pid is null";
        let is_released = sql.query_opt(query, &[&slot]).await.unwrap().is_some();
        (is_said && is_released).then_some(())
    };
    eventually(PATIENCE, "it says why it takes no more", given_up).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_nothing_but_the_way_in_and_heals_without_a_restart() {
    let name = "a_full_disk_stops_nothing_but_the_way_in_and_heals_without_a_restart";
    let Some((url, folder, server)) = on_disk(name, 64 << 20, 48 << 20, &[]).await else { return };
    server.until_ready().await;
    let slot = folder.file_name().unwrap().to_str().unwrap();
    let sql = connect(&url).await;
    sql.batch_execute(TABLE).await.unwrap();
    let mut reader = Reader::new("s");
    insert(&sql, 0..4000).await;
    until_given_up(&sql, slot, &server, "disk full").await;
    let (status, reason) = server.ready().await.unwrap();
    assert!(status == 503 && reason.starts_with(b"feed: disk full"), "{status} {reason:?}");
    assert!(server.get("/health").await.0 == 200, "a restart would not help");

    // Nothing more is acknowledged, and nothing more is held in memory either.
    reader.catch_up(&server).await;
    let (stuck, memory, read) = (confirmed(&sql, slot).await, server.memory_peak(), reader.ids.len());
    assert!(read > 0 && read < 4000, "{read} of 4000");
    insert(&sql, 4000..8000).await;
    reader.catch_up(&server).await;
    assert_eq!((confirmed(&sql, slot).await, reader.ids.len()), (stuck, read));
    let grown = server.memory_peak().saturating_sub(memory);
    assert!(grown < 12 << 20, "{grown} bytes more, for 16 MB that cannot be stored");

    std::fs::remove_file(server.file(&folder.join("filler"))).unwrap();
    let all = async || {
        reader.catch_up(&server).await;
        (reader.ids.len() >= 8000).then_some(())
    };
    eventually(PATIENCE, "it takes changes again", all).await;
    assert_eq!(reader.ids, (0..8000).collect::<Vec<_>>(), "each once, and in order");
    server.until_ready().await;
    let acknowledged = async || (confirmed(&sql, slot).await != stuck).then_some(());
    eventually(PATIENCE, "the slot moves on", acknowledged).await;
}
