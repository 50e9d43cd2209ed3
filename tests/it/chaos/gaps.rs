//! Faults that lose changes for good. Each reader is told so, once, reads the tables again, and is right from there on.

use rustix::process::{Signal, kill_process};
use tokio_postgres::Client;

use super::world::{PATIENCE, World, assert_gaps, slot};
use crate::support::{connect, database, eventually, new_cluster};

/// Readers that come before something, and as many behind it.
const BEFORE: usize = 4;

/// PostgreSQL throws the slot's WAL away: first while walclock is gone, then under a stream that stands.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_lost_under_load_is_told_to_every_reader() {
    let small = [("max_wal_size", "32MB"), ("min_wal_size", "32MB"), ("max_slot_wal_keep_size", "16MB")];
    let cluster = tokio::task::spawn_blocking(move || new_cluster(&small)).await.unwrap();
    let database = cluster.url("postgres");
    let mut world = World::start(&database, &database).await;
    let sql = connect(&database).await;
    sql.batch_execute("create table unpublished (n int)").await.unwrap();
    world.progress(20).await;
    world.kill().await;
    lose(&sql, &world).await;
    world.restart();
    world.anew(1).await;
    world.progress(20).await;

    let pid = world.server().pid();
    kill_process(pid, Signal::STOP).unwrap();
    lose(&sql, &world).await;
    kill_process(pid, Signal::CONT).unwrap();
    world.anew(2).await;
    world.progress(20).await;
    assert_gaps(&world.finish().await, 2);
}

/// Writes until the slot is lost, and until the load has committed what nobody will be told.
async fn lose(sql: &Client, world: &World) {
    let lost = async || {
        let fill = "insert into unpublished select generate_series(1, 200000); checkpoint";
        for statement in fill.split("; ") {
            sql.batch_execute(statement).await.unwrap();
        }
        let query = "select wal_status from pg_replication_slots where slot_name = $1";
        let status: String = sql.query_one(query, &[&world.slot()]).await.unwrap().get(0);
        (status == "lost").then_some(())
    };
    world.commits(20, lost).await;
}

/// The name and the plugin are right, and it can even be read from: only the position betrays it.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_somebody_made_anew_under_load_is_told_to_every_reader() {
    let database = database().await;
    let mut world = World::start(&database, &database).await;
    world.progress(20).await;
    world.kill().await;
    let sql = connect(&database).await;
    let drop = "select pg_drop_replication_slot($1)";
    sql.execute(drop, &[&world.slot()]).await.unwrap();
    world.commits(20, async || Some(())).await;
    let make = "select pg_create_logical_replication_slot($1::text, 'pgoutput')::text";
    sql.query_one(make, &[&world.slot()]).await.unwrap();
    assert!(slot(&sql, world.slot()).await.is_some());
    world.restart();
    world.anew(1).await;
    world.progress(20).await;
    assert_gaps(&world.finish().await, 1);
}

/// What is written while it is gone is in no stream, whatever is published again.
#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_is_gone_for_a_while_under_load_is_told_to_every_reader() {
    let database = database().await;
    let mut world = World::start(&database, &database).await;
    let sql = connect(&database).await;
    for gaps in 1..=2 {
        world.progress(20).await;
        sql.batch_execute("drop publication walclock").await.unwrap();
        world.commits(20, async || Some(())).await;
        let restore = "create publication walclock for table plain, tagged, brief with (publish_via_partition_root)";
        sql.batch_execute(restore).await.unwrap();
        world.anew(gaps).await;
    }
    world.progress(20).await;
    assert_gaps(&world.finish().await, 2);
}

/// What began before the slot did comes in no stream. Who read the tables without it can never be told of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_older_than_the_slot_is_told_of_to_who_has_not_seen_it() {
    let database = database().await;
    let mut world = World::loaded(&database, 4).await;
    let held = world.hold().await;
    world.restart();
    let sql = connect(&database).await;
    let waits = async || {
        let query = "select from pg_stat_activity where wait_event = 'transactionid' and datname = current_database()";
        sql.query(query, &[]).await.unwrap().first().map(drop)
    };
    eventually(PATIENCE, "the slot waits for it", waits).await;
    for _ in 0..BEFORE {
        assert!(world.join().await, "it is open");
    }
    held.commit().await;
    world.anew(1).await;
    for _ in 0..BEFORE {
        world.join().await;
    }
    world.progress(20).await;
    let histories = world.finish().await;
    let (before, behind) = histories.split_at(BEFORE);
    assert_gaps(before, 1);
    assert_gaps(behind, 0);
}
