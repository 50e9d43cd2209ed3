//! A disk that is full, and memory that is short, under the whole server.

use serde_json::Value;

use super::support::server::{Server, folder};
use super::support::{PATIENCE, connect, database, eventually};

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
            let (status, page) = server.get(&path).await;
            assert_eq!(status, 200, "{page}");
            page["lastSequence"].as_str().unwrap().clone_into(&mut self.since);
            let changes = page["changes"].as_array().unwrap();
            self.ids.extend(changes.iter().map(id));
            if changes.is_empty() {
                return;
            }
        }
    }
}

fn id(change: &Value) -> i64 {
    change["newRow"]["id"]["value"].as_str().unwrap().parse().unwrap()
}

/// Rows of 4 KB, a hundred in each transaction.
async fn insert(sql: &tokio_postgres::Client, ids: std::ops::Range<i32>) {
    for first in ids.clone().step_by(100) {
        let insert = "insert into notes select n, repeat('x', 4000), 's' from generate_series($1::int, $2::int - 1) n";
        sql.execute(insert, &[&first, &(first + 100).min(ids.end)]).await.unwrap();
    }
}

async fn confirmed(sql: &tokio_postgres::Client, slot: &str) -> String {
    let query = "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = $1";
    sql.query_one(query, &[&slot]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stderr, reason = "who runs the tests should see that one was skipped")]
async fn a_full_disk_stops_nothing_but_the_way_in_and_heals_without_a_restart() {
    let (url, folder) = (database().await, folder());
    let Some(server) = Server::spawn_on_disk(&url, &folder, 64 << 20, 48 << 20) else {
        eprintln!("SKIPPED: this machine does not permit a disk for a test");
        return;
    };
    server.until_ready().await;
    let slot = folder.file_name().unwrap().to_str().unwrap();
    let sql = connect(&url).await;
    sql.batch_execute(TABLE).await.unwrap();
    let mut reader = Reader::new("s");
    insert(&sql, 0..4000).await;
    let full = async || {
        reader.catch_up(&server).await;
        server.ready().await.filter(|(status, reason)| *status == 503 && reason.starts_with(b"feed: disk full"))
    };
    eventually(PATIENCE, "it says that the disk is full", full).await;
    assert!(server.get("/health").await.0 == 200, "a restart would not help");

    // Nothing more is acknowledged, and nothing more is held in memory either.
    let (stuck, memory, read) = (confirmed(&sql, slot).await, server.memory_peak(), reader.ids.len());
    assert!(read > 0 && read < 4000, "{read} of 4000");
    insert(&sql, 4000..8000).await;
    reader.catch_up(&server).await;
    assert_eq!((confirmed(&sql, slot).await, reader.ids.len()), (stuck.clone(), read));
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

/// PostgreSQL sends a transaction when it commits, all of it at once. With `SOAK=n` it has a million rows.
#[tokio::test(flavor = "multi_thread")]
async fn a_huge_transaction_is_never_held_in_memory() {
    let soaks = super::chaos::soak() > 1;
    let (rows, patience) = if soaks { (1_000_000, PATIENCE * 5) } else { (300_000, PATIENCE) };
    let (url, folder) = (database().await, folder());
    let server = Server::start(&url, &folder).await;
    let sql = connect(&url).await;
    sql.batch_execute(TABLE).await.unwrap();
    let (mut small, mut huge) = (Reader::new("s"), Reader::new("huge"));
    insert(&sql, 0..100).await;
    let warm = async || {
        small.catch_up(&server).await;
        (small.ids.len() == 100).then_some(())
    };
    eventually(PATIENCE, "it is warm", warm).await;
    let memory = server.memory_peak();

    let beside = connect(&url).await;
    let insert_huge =
        "insert into notes select n, repeat('x', 250), 'huge' from generate_series(1000000, 999999 + $1::int) n";
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&rows];
    let (inserted, ()) = tokio::join!(sql.execute(insert_huge, &parameters), insert(&beside, 100..2000));
    inserted.unwrap();
    insert(&beside, 2000..2100).await;
    let beside = async || {
        small.catch_up(&server).await;
        (small.ids.len() == 2100).then_some(())
    };
    eventually(patience, "the small ones beside it", beside).await;
    assert_eq!(small.ids, (0..2100).collect::<Vec<_>>());
    let stored: u64 =
        std::fs::read_dir(folder.join("journal")).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    let grown = server.memory_peak().saturating_sub(memory);
    assert!(stored > u64::try_from(rows).unwrap() * 500, "{stored} bytes");
    // What is kept in memory by design: the newest 32 MiB, the index of a segment or two, the buffers.
    assert!(grown < 100 << 20, "{grown} bytes more, for {stored}");

    huge.catch_up(&server).await;
    assert_eq!(huge.ids, (1_000_000..1_000_000 + i64::from(rows)).collect::<Vec<_>>());
}
