//! A huge transaction under the whole server: neither taking it nor serving it needs memory for it, and the small ones
//! beside it do not wait for it.

use std::path::Path;
use std::time::Duration;

use super::super::chaos::world::{Spawn, World, assert_no_gap};
use super::super::support::server::Server;
use super::super::support::{PATIENCE, connect, database, eventually};
use super::{Reader, TABLE};

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
/// Of what is stored of it, in bytes, when the server is killed.
const STORED_AMID: u64 = 100 << 20;

/// How long a million rows may take on a busy machine.
const LONG: Duration = PATIENCE.saturating_mul(5);

/// PostgreSQL sends a transaction when it commits, all of it at once. Its first rows are in the ledger of the load that
/// goes on beside it, and the server is killed when it has a part of it: what comes in the end is right to the checkers.
#[tokio::test(flavor = "multi_thread")]
async fn a_huge_transaction_is_never_held_in_memory() {
    let spawn: Spawn = Box::new(|url, folder, _| Some(Server::spawn_within_memory(MEMORY_MAX, url, folder)));
    let mut world = World::start_by(&database().await, spawn).await.expect("that is permitted");
    assert_eq!(world.server().memory_limit(), MEMORY_MAX);
    connect(&world.database).await.batch_execute(TABLE).await.unwrap();
    world.progress(20).await;
    let memory = world.server().memory_peak();

    let transaction = world.hold().await;
    for part in 0..PARTS {
        let (from, to) = (FIRST + ROWS / PARTS * part, FIRST + ROWS / PARTS * (part + 1) - 1);
        let insert =
            format!("insert into notes select n, repeat('x', 250), 'huge' from generate_series({from}, {to}) n");
        transaction.also(&insert).await;
        world.progress(5).await;
    }
    let mut huge = Reader::new("huge");
    huge.catch_up(world.server()).await;
    assert_eq!(huge.ids.len(), 0, "it has not committed");
    transaction.commit().await;
    let amid = async || (stored(&world.folder) > STORED_AMID).then_some(());
    eventually(LONG, "a part of it is stored", amid).await;
    let peak_amid = world.server().memory_peak();
    world.kill().await;
    world.restart();
    world.commits(20, async || Some(())).await;
    world.rest(true);
    let ready = async || world.server().ready().await.filter(|(status, _)| *status == 200).map(drop);
    eventually(LONG, "it takes up again", ready).await;
    let through = async || {
        huge.catch_up(world.server()).await;
        (!huge.ids.is_empty()).then_some(())
    };
    eventually(LONG, "it comes through", through).await;
    let first = i64::from(FIRST);
    assert_eq!(huge.ids, (first..first + i64::from(ROWS)).collect::<Vec<_>>(), "all of it at once");

    let stored = stored(&world.folder);
    assert!(stored > u64::try_from(ROWS).unwrap() * 500, "{stored} bytes");
    let peak = world.server().memory_peak().max(peak_amid);
    assert!(peak.saturating_sub(memory) < GROWN_MAX, "{peak} bytes for {stored}, and {memory} before");
    world.rest(false);
    world.progress(20).await;
    assert_no_gap(&world.finish().await);
}

/// Bytes in the journal. A file may be renamed meanwhile: a sidecar gets its name when it is whole.
fn stored(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder.join("journal")).unwrap().filter_map(|file| file.unwrap().metadata().ok());
    files.map(|file| file.len()).sum()
}
