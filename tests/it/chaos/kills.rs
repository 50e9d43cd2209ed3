//! Processes that die under load, again and again.

use super::world::{PATIENCE, World, assert_no_gap, slot, soak};
use crate::support::{connect, database, eventually, new_cluster};

/// Kills of one test. A long run has at least 50, with 20 readers: each of the four kinds then reads five times over.
const CYCLES: usize = 12;
const READERS_MORE: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn walclock_is_killed_again_and_again() {
    let database = database().await;
    let mut world = World::start(&database, &database).await;
    crowd(&mut world);
    for _ in 0..CYCLES * soak() {
        // The moment is the test: before it is ready, while it catches up, or in the middle of the stream.
        tokio::time::sleep(world.span(50..1500)).await;
        world.kill().await;
        world.restart();
    }
    world.server().until_ready().await;
    world.progress(20).await;
    assert_no_gap(&world.finish().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_crashes_again_and_again() {
    let settings = [("fsync", "on"), ("wal_sender_timeout", "3s")];
    let mut cluster = tokio::task::spawn_blocking(move || new_cluster(&settings)).await.unwrap();
    let database = cluster.url("postgres");
    let mut world = World::start(&database, &database).await;
    crowd(&mut world);
    for _ in 0..CYCLES / 3 * soak() {
        world.progress(10).await;
        tokio::time::sleep(world.span(0..400)).await;
        let crash = tokio::task::spawn_blocking(move || {
            cluster.crash();
            cluster.restart().unwrap();
            cluster
        });
        cluster = crash.await.unwrap();
    }
    world.progress(20).await;
    assert_no_gap(&world.finish().await);
}

fn crowd(world: &mut World) {
    if soak() > 1 {
        world.more_readers(READERS_MORE);
    }
}

/// Without changes, too, the slot moves on, and only as far as the journal has noted it.
#[tokio::test(flavor = "multi_thread")]
async fn killed_while_idle_it_has_acknowledged_nothing_that_it_has_not_noted() {
    let database = database().await;
    let mut world = World::start(&database, &database).await;
    world.progress(20).await;
    assert_no_gap(&world.finish().await);
    let sql = connect(&database).await;
    for _ in 0..2 * soak() {
        let before = slot(&sql, world.slot()).await.unwrap().0;
        sql.batch_execute("create table unpublished as select generate_series(1, 100) n; drop table unpublished")
            .await
            .unwrap();
        let moved = async || slot(&sql, world.slot()).await.filter(|(confirmed, _)| *confirmed > before);
        eventually(PATIENCE, "an idle slot moves", moved).await;
        world.kill().await;
        world.restart();
        world.server().until_ready().await;
    }
}
