//! A huge transaction under the whole server: neither taking it nor serving it needs memory for it, and the small ones
//! beside it do not wait for it.

use std::time::Duration;

use super::super::support::server::{Server, folder};
use super::super::support::{PATIENCE, connect, database, eventually};
use super::{Reader, TABLE, insert};

/// What the whole process can have of memory, in bytes. The rows of the transaction alone would be more.
const MEMORY_MAX: u64 = 256 << 20;
/// What it may have more than before, in bytes, by design: the newest 32 MiB, the index of a segment or two, the buffers,
/// the pages under way.
const GROWN_MAX: u64 = 100 << 20;
/// Rows of the transaction.
const ROWS: i32 = 1_000_000;
/// It is made in so many statements.
const PARTS: i32 = 10;
const FIRST: i32 = 1_000_000;

/// How long a million rows may take on a busy machine.
const LONG: Duration = PATIENCE.saturating_mul(5);

/// PostgreSQL sends a transaction when it commits, all of it at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_huge_transaction_is_never_held_in_memory() {
    let (url, folder) = (database().await, folder());
    let server = Server::spawn_within_memory(MEMORY_MAX, &url, &folder);
    server.until_ready().await;
    assert_eq!(server.memory_limit(), MEMORY_MAX);
    let sql = connect(&url).await;
    sql.batch_execute(TABLE).await.unwrap();
    let (mut small, mut huge) = (Reader::new("s"), Reader::new("huge"));
    small_ones(&sql, &server, &mut small, 0).await;
    let memory = server.memory_peak();

    let loader = connect(&url).await;
    loader.batch_execute("begin").await.unwrap();
    for part in 0..PARTS {
        let insert_part =
            "insert into notes select n, repeat('x', 250), 'huge' from generate_series($1::int, $2::int) n";
        let (from, to) = (FIRST + ROWS / PARTS * part, FIRST + ROWS / PARTS * (part + 1) - 1);
        loader.execute(insert_part, &[&from, &to]).await.unwrap();
        small_ones(&sql, &server, &mut small, part + 1).await;
    }
    huge.catch_up(&server).await;
    assert_eq!(huge.ids.len(), 0, "it has not committed");
    let (committed, ()) = tokio::join!(loader.batch_execute("commit"), insert(&sql, 1100..3000));
    committed.unwrap();
    insert(&sql, 3000..3100).await;
    let beside = async || {
        small.catch_up(&server).await;
        (small.ids.len() == 3100).then_some(())
    };
    eventually(LONG, "the small ones beside it", beside).await;
    assert_eq!(small.ids, (0..3100).collect::<Vec<_>>());
    let through = async || {
        huge.catch_up(&server).await;
        (!huge.ids.is_empty()).then_some(())
    };
    eventually(LONG, "it comes through", through).await;
    let first = i64::from(FIRST);
    assert_eq!(huge.ids, (first..first + i64::from(ROWS)).collect::<Vec<_>>(), "all of it at once");

    // A file may be renamed meanwhile: a sidecar gets its name when it is whole.
    let files = std::fs::read_dir(folder.join("journal")).unwrap().filter_map(|file| file.unwrap().metadata().ok());
    let stored: u64 = files.map(|file| file.len()).sum();
    assert!(stored > u64::try_from(ROWS).unwrap() * 500, "{stored} bytes");
    let peak = server.memory_peak();
    assert!(peak.saturating_sub(memory) < GROWN_MAX, "{peak} bytes for {stored}, and {memory} before");
}

/// A hundred small ones, and waits until they are told.
async fn small_ones(sql: &tokio_postgres::Client, server: &Server, reader: &mut Reader, number: i32) {
    insert(sql, number * 100..(number + 1) * 100).await;
    let told = async || {
        reader.catch_up(server).await;
        (reader.ids.len() >= usize::try_from(number + 1).unwrap() * 100).then_some(())
    };
    eventually(PATIENCE, "the small ones are told", told).await;
}
