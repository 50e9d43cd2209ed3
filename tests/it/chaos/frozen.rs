//! A walclock that is stopped for longer than PostgreSQL waits, and goes on when its slot is another's.

use rustix::process::{Signal, kill_process};
use std::time::Duration;

use super::links::behind_proxy;
use super::world::{PATIENCE, World, serve, slot};
use crate::support::{connect, eventually, scratch};

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_walclock_whose_slot_was_taken_serves_what_it_had_and_leaves_the_slot_alone() {
    let (database, _proxy) = behind_proxy(Duration::from_secs(3)).await;
    let mut world = World::start(&database, &database).await;
    world.progress(20).await;
    let sql = connect(&database).await;
    let zombie = world.server().pid();
    kill_process(zombie, Signal::STOP).unwrap();
    let given_up = async || slot(&sql, world.slot()).await?.1.is_none().then_some(());
    eventually(PATIENCE, "PostgreSQL gives the frozen one up", given_up).await;

    // PostgreSQL ends the session that holds its claim too, after 20 seconds: that is not waited for here.
    let end = "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory'
               and database = (select oid from pg_database where datname = current_database())";
    sql.execute(end, &[]).await.unwrap();
    let before = slot(&sql, world.slot()).await.unwrap().0;
    // The second one is not to be given up only because the machine is busy.
    sql.batch_execute(&format!("alter database {} reset wal_sender_timeout", database.rsplit_once('/').unwrap().1))
        .await
        .unwrap();
    let other = scratch().join("other").join(world.slot());
    let second = serve(&database, &other);
    second.until_ready().await;
    let moved = async || slot(&sql, world.slot()).await.filter(|(confirmed, _)| confirmed.0 > before.0 + 4096);
    let (_, owner) = eventually(PATIENCE, "the second moves the slot", moved).await;
    assert!(owner.is_some());

    kill_process(zombie, Signal::CONT).unwrap();
    let verbose = format!("{}/ready?verbose", world.server().management_url());
    let knows = async || {
        let (status, body) = super::rude::text(&verbose).await?;
        // No new readers for one that tells nothing new.
        (status == 503 && body.contains("stale: another walclock has claimed")).then_some(())
    };
    eventually(PATIENCE, "the frozen one notices that its slot is another's, and is not ready", knows).await;
    let last = async || world.server().get("/changes?limit=1&scope=nobody").await.1["lastSequence"].clone();
    let (stale, confirmed) = (last().await, slot(&sql, world.slot()).await.unwrap().0);
    let on = async || slot(&sql, world.slot()).await.filter(|(now, _)| now.0 > confirmed.0 + 4096);
    let (_, still) = eventually(PATIENCE, "the second moves on", on).await;
    assert_eq!(still, owner, "the slot is the second's, without a break");
    assert_eq!(last().await, stale, "the frozen one tells nothing new");
    let (ready, _) = world.server().ready().await.unwrap();
    assert_eq!((ready, world.server().get("/health").await.0), (503, 200), "it is out of service, and it works");
    assert_eq!(second.terminate().await, 0);

    // The slot is beyond what the first has: it says so to its readers, and they begin anew.
    world.anew(1).await;
    world.progress(20).await;
    let histories = world.finish().await;
    assert!(histories.iter().all(|history| history.lives.len() == 2), "each reader is told of the gap, once");
}
