//! Every policy on the tables: what overlaps, what was missed, what is paused.

use super::rows::World;
use crate::support::connect;

#[tokio::test(flavor = "multi_thread")]
async fn skip_leaves_out_what_overlaps() {
    let world = World::new().await;
    world.add("report", "overlap = 'skip', catch_up = 'none'").await;
    world.look(world.minute(0).await).await;
    world.look(world.minute(1).await).await;
    world.claim_all().await;
    world.look(world.minute(2).await).await;
    world.finish_all().await;
    world.look(world.minute(3).await).await;
    assert_eq!(world.states("report").await, ["fired", "skipped", "skipped", "fired (pending)"]);
    assert_eq!(world.count("walclock.occurrences where reason = 'the last callback is not over'").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn allow_fires_whatever_is_not_over() {
    let world = World::new().await;
    world.add("report", "overlap = 'allow', catch_up = 'none'").await;
    for minute in 0..3 {
        world.look(world.minute(minute).await).await;
    }
    assert_eq!(world.states("report").await, ["fired (pending)"; 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn buffer_one_keeps_one_until_the_last_is_over() {
    let world = World::new().await;
    world.add("report", "overlap = 'buffer_one', catch_up = 'none'").await;
    world.look(world.minute(0).await).await;
    world.claim_all().await;
    world.look(world.minute(1).await).await;
    world.look(world.minute(2).await).await;
    assert_eq!(world.states("report").await, ["fired", "buffered", "skipped"]);
    assert_eq!(world.look(world.minute(2).await).await, 0, "it waits");
    world.finish_all().await;
    assert_eq!(world.look(world.minute(2).await).await, 1);
    assert_eq!(world.states("report").await, ["fired", "fired (pending)", "skipped"]);
    // The one that has waited counts as the last one from here on.
    world.look(world.minute(3).await).await;
    assert_eq!(world.states("report").await, ["fired", "fired (pending)", "skipped", "buffered"]);
    let id = format!("report@{}", world.minute(1).await);
    assert_eq!(world.count(&format!("walclock.timers where id = '{id}'")).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_let_go_what_waits_one_does() {
    let world = World::new().await;
    world.add("report", "overlap = 'buffer_one', catch_up = 'none'").await;
    world.look(world.minute(0).await).await;
    world.look(world.minute(1).await).await;
    world.sql.batch_execute("delete from walclock.timers").await.unwrap();
    let now = world.minute(1).await;
    let (one, other) = (world.planned(now).await, world.planned(now).await);
    use walclock::dispatch::ports::ScheduleStore;
    assert_eq!(world.store.settle(&one).await.unwrap(), [Some(0)]);
    assert_eq!(world.store.settle(&other).await.unwrap(), [None]);
    assert_eq!(world.count("walclock.timers").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_somebody_holds_hold_up_their_own_schedules_only() {
    let world = World::new().await;
    for (id, policy) in [("ends", "cancel_other"), ("makes", "allow"), ("free", "cancel_other")] {
        world.add(id, &format!("overlap = '{policy}', catch_up = 'none'")).await;
    }
    assert_eq!(world.look(world.minute(0).await).await, 3);
    let now = world.minute(1).await;
    let holder = connect(&world.url).await;
    let hold = format!(
        "begin;
         update walclock.timers set payload = '1' where id like 'ends@%';
         insert into walclock.timers (namespace, id, execute_at, callback_url)
         values ('n', 'makes@{now}', now(), 'http://127.0.0.1:9/')"
    );
    holder.batch_execute(&hold).await.unwrap();
    assert_eq!(world.look(now).await, 1);
    assert_eq!(world.states("free").await, ["cancelled", "fired (pending)"]);
    for id in ["ends", "makes"] {
        assert_eq!(world.states(id).await, ["fired (pending)"], "{id}");
    }
    holder.batch_execute("rollback").await.unwrap();
    // Nothing is wrong with them: they are not at rest.
    assert_eq!(world.look(now).await, 2);
    assert_eq!(world.states("ends").await, ["cancelled", "fired (pending)"]);
    assert_eq!(world.states("makes").await, ["fired (pending)", "fired (pending)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_other_ends_the_last_one() {
    let world = World::new().await;
    world.add("report", "overlap = 'cancel_other', catch_up = 'none'").await;
    world.add("other", "overlap = 'allow', catch_up = 'none'").await;
    world.look(world.minute(0).await).await;
    world.look(world.minute(1).await).await;
    assert_eq!(world.states("report").await, ["cancelled", "fired (pending)"]);
    world.claim_all().await;
    world.look(world.minute(2).await).await;
    assert_eq!(world.states("report").await, ["cancelled", "cancelled", "fired (pending)"]);
    let cancelled = world.count("walclock.runs where cancelled and id like 'report@%'").await;
    assert_eq!((cancelled, world.count("walclock.runs where cancelled").await), (1, 1));
    world.claim_all().await;
    world.finish_all().await;
    world.look(world.minute(3).await).await;
    assert_eq!(world.states("report").await, ["cancelled", "cancelled", "fired", "fired (pending)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_goes_by_the_catch_up_policy() {
    let world = World::new().await;
    for (id, rule) in [
        ("none", "catch_up = 'none'"),
        ("last", "catch_up = 'last'"),
        ("late", "catch_up = 'last', catch_up_window = '10 seconds'"),
        ("all", "catch_up = 'all', catch_up_max = 3"),
        ("window", "catch_up = 'all', catch_up_window = '150 seconds'"),
    ] {
        world.add(id, &format!("overlap = 'allow', {rule}")).await;
    }
    // Half a minute and more behind the last moment of an outage that began when they were made.
    let end = world.minute(10).await.after(std::time::Duration::from_secs(45));
    assert_eq!(world.look(end).await, 5);
    for (id, fired) in [("none", 0), ("last", 1), ("late", 0), ("all", 3), ("window", 2)] {
        assert_eq!(world.states(id).await.len(), fired, "{id}");
    }
    let missed = "walclock.occurrences where reason = 'missed' and through_at > scheduled_for + interval '1 hour'";
    assert_eq!(world.count(missed).await, 5, "however many were missed: a row");
    assert_eq!(world.look(end).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_makes_nothing_and_is_caught_up_like_an_outage() {
    let world = World::new().await;
    for (id, catch_up) in [("none", "none"), ("last", "last")] {
        world.add(id, &format!("overlap = 'allow', catch_up = '{catch_up}'")).await;
    }
    world.look(world.minute(0).await).await;
    world.claim_all().await;
    world.sql.batch_execute("update walclock.schedules set paused = true").await.unwrap();
    let late = world.minute(5).await.after(std::time::Duration::from_secs(45));
    assert_eq!(world.look(late).await, 0);
    world.sql.batch_execute("update walclock.schedules set paused = false").await.unwrap();
    assert_eq!(world.look(late).await, 2);
    assert_eq!(world.states("none").await, ["fired"]);
    assert_eq!(world.states("last").await, ["fired", "fired (pending)"]);
    let last = format!("last@{}", world.minute(5).await);
    assert_eq!(world.count(&format!("walclock.timers where id = '{last}'")).await, 1);
}
