//! A standby takes the place of its primary under load.

use super::world::{World, assert_gaps, assert_no_gap};
use crate::source::failover::{commit_on_both, either, hold_back, lacks_failover_slots, until_slot, with_standby};
use crate::support::{connect, new_cluster};

/// The primary is stopped in good order, so that its standby has all that was committed, but for the slot: that is on neither
/// side of the promotion what it was. The gap is told once, and what is told behind it is right.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_promoted_under_load_and_every_reader_is_told() {
    let primary = tokio::task::spawn_blocking(|| new_cluster(&[])).await.unwrap();
    let (mut primary, standby) = with_standby(primary, false).await;
    let database = either(&primary, &standby);
    let mut world = World::start(&database, &database).await;
    world.progress(20).await;
    let _primary = tokio::task::spawn_blocking(move || {
        primary.stop();
        primary
    })
    .await
    .unwrap();
    let sql = connect(&standby.url("postgres")).await;
    assert!(sql.query_one("select pg_promote(true, 60)", &[]).await.unwrap().get::<_, bool>(0));
    world.anew(1).await;
    world.progress(20).await;
    let histories = world.finish().await;
    assert_gaps(&histories, 1);
    for history in histories {
        let timelines: Vec<u32> =
            history.lives.iter().filter_map(|life| Some(life.changes().last()?.sequence.timeline)).collect();
        assert_eq!(timelines, [1, 2], "reader {}", history.name);
    }
}

/// The primary dies amid the load. What it has told anybody of, its standby has too, and the slot: nobody is sent back.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_has_the_slot_is_promoted_under_load_and_nothing_is_lost() {
    if lacks_failover_slots("a_standby_that_has_the_slot_is_promoted_under_load_and_nothing_is_lost").await {
        return;
    }
    let primary = tokio::task::spawn_blocking(|| new_cluster(&[])).await.unwrap();
    let (mut primary, standby) = with_standby(primary, true).await;
    let sql = connect(&primary.url("postgres")).await;
    hold_back(&sql).await;
    commit_on_both(&sql).await;
    let database = either(&primary, &standby);
    let mut world = World::start(&database, &database).await;
    until_slot(&sql, &standby, world.slot(), false).await;
    world.progress(20).await;
    tokio::task::spawn_blocking(move || primary.crash()).await.unwrap();
    let sql = connect(&standby.url("postgres")).await;
    assert!(sql.query_one("select pg_promote(true, 60)", &[]).await.unwrap().get::<_, bool>(0));
    world.progress(20).await;
    world.kill().await;
    world.restart();
    world.progress(20).await;
    let histories = world.finish().await;
    assert_no_gap(&histories);
    for history in histories {
        let timelines: Vec<u32> = history.lives[0].changes().map(|told| told.sequence.timeline).collect();
        let ends = (timelines.first(), timelines.last());
        assert_eq!(ends, (Some(&1), Some(&2)), "reader {}", history.name);
    }
}
