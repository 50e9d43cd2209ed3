//! What goes on in a database while the feed runs, and is no fault: nobody is sent back for it.

use walclock::domain::sequence::Lsn;

use super::world::{PATIENCE, World, assert_no_gap};
use crate::support::{connect, database, eventually};

/// Such as leave the writers and the readers their columns.
const STEPS: [&str; 14] = [
    "alter table plain add column extra int default 7",
    "alter table tagged add column extra int",
    "alter table plain rename column extra to more",
    "alter table plain alter column more type text using more::text || 'x'",
    "create type mood as enum ('a')",
    "alter table plain add column m mood default 'a'",
    "alter type mood add value 'b'",
    "alter table plain alter column m set default 'b'",
    "alter table plain drop column m",
    "drop type mood",
    "alter table tagged alter column body type varchar",
    "vacuum full plain",
    "alter table plain drop column more",
    "create index on tagged (n)",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_changes_under_load_and_between_kills_and_nothing_is_lost() {
    let database = database().await;
    let mut world = World::start(&database, &database).await;
    let sql = connect(&database).await;
    for (at, step) in STEPS.iter().enumerate() {
        world.progress(5).await;
        sql.batch_execute(step).await.unwrap_or_else(|error| panic!("{step}: {error}"));
        match at % 4 {
            1 => {
                // What was written in the old shape comes again behind the new one.
                world.kill().await;
                world.restart();
            }
            3 => drop(world.join().await),
            _ => {}
        }
    }
    world.progress(20).await;
    assert_no_gap(&world.finish().await);
}

/// Its rows lie before many that were told and acknowledged long ago.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_stays_open_over_kills_is_told_when_it_commits() {
    let database = database().await;
    let mut world = World::start(&database, &database).await;
    let held = world.hold().await;
    assert!(world.join().await, "it is open while a reader takes the tables over");
    for _ in 0..3 {
        world.progress(10).await;
        world.kill().await;
        world.restart();
    }
    world.progress(10).await;
    held.commit().await;
    world.progress(10).await;
    assert_no_gap(&world.finish().await);
}

/// The WAL is one for all databases of a server.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_database_beside_a_busy_one_lets_go_of_its_wal_and_loses_nothing() {
    let (database, neighbour) = (database().await, database().await);
    let mut world = World::start(&database, &database).await;
    world.progress(20).await;
    world.rest(true);
    let (sql, busy) = (connect(&database).await, connect(&neighbour).await);
    busy.batch_execute("create table busy as select generate_series(1, 100000) n").await.unwrap();
    let end: String = busy.query_one("select pg_current_wal_lsn()::text", &[]).await.unwrap().get(0);
    let end: Lsn = end.parse().unwrap();
    eventually(PATIENCE, "PostgreSQL may remove the neighbour's WAL", async || {
        // Each describes the transactions under way, without which a slot does not let go of the WAL.
        sql.batch_execute("checkpoint").await.unwrap();
        let query = "select restart_lsn::text from pg_replication_slots where slot_name = $1";
        let restart: Lsn = sql.query_one(query, &[&world.slot()]).await.unwrap().get::<_, String>(0).parse().unwrap();
        (restart >= end).then_some(())
    })
    .await;
    world.kill().await;
    busy.batch_execute("insert into busy select generate_series(1, 100000)").await.unwrap();
    world.restart();
    world.rest(false);
    world.progress(20).await;
    assert_no_gap(&world.finish().await);
}
