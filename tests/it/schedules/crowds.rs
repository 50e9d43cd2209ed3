//! Very many schedules that share a moment: what a look at them costs is bounded, and none waits for the others for ever.
//!
//! The expensive part of a look is whether a schedule's callback is not over. Here a counter stands in its place.

use walclock::dispatch::ports::{DueRequest, ScheduleStore};
use walclock::domain::shard::Shard;

use super::rows::World;

/// How many schedules a look asks for here.
const LIMIT: usize = 10;

/// Adds 100 schedules `s1`, `s2` and so on whose moment is minute 1, and counts who asks whether one of them is active; those
/// are of which `active` is true.
async fn crowd(active: &str) -> World {
    let world = World::new().await;
    let fill = format!(
        "insert into walclock.schedules (namespace, id, cron, callback_url)
         select 'n', 's' || g, '* * * * *', 'http://127.0.0.1:9/' from generate_series(1, 100) g;
         create sequence public.asked;
         create or replace function walclock.schedule_is_active(namespace text, id text) returns boolean
             language sql as $$ select case when nextval('public.asked') > 0 then {active} end $$"
    );
    world.sql.batch_execute(&fill).await.unwrap();
    let minute = world.minute(1).await;
    world.sql.execute("update walclock.schedules set next_at = $1", &[&minute]).await.unwrap();
    world
}

/// The ids that a look at this many seconds before minute 1 finds, and how often it asked.
async fn look(world: &World, seconds_before: u64) -> (Vec<String>, i64) {
    let span = std::time::Duration::from_secs;
    let now = world.minute(1).await.before(span(seconds_before));
    let shards = Shard::all().collect();
    let request = DueRequest { shards, now, until: now.after(span(2)), overdue: now.before(span(2)), limit: LIMIT };
    let reset = "select setval('public.asked', 1, false)";
    world.sql.batch_execute(reset).await.unwrap();
    let due = world.store.due(request).await.unwrap();
    let asked = "select case when is_called then last_value else 0 end from public.asked";
    let asked = world.sql.query_one(asked, &[]).await.unwrap().get(0);
    (due.schedules.iter().map(|schedule| schedule.key.id.to_string()).collect(), asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_those_whose_moment_has_come_no_more_are_looked_at_than_are_wanted() {
    for active in ["false", "true"] {
        let (found, asked) = look(&crowd(active).await, 0).await;
        assert_eq!((found.len(), asked), (LIMIT, 10), "active: {active}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ahead_of_their_moment_few_are_looked_at_in_vain() {
    let (found, asked) = look(&crowd("false").await, 1).await;
    assert_eq!((found.len(), asked), (LIMIT, 10));
    let (found, asked) = look(&crowd("true").await, 1).await;
    assert_eq!((found.len(), asked), (0, 40));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_those_that_wait_for_a_callback_each_comes_in_its_turn() {
    let world = crowd("id <> 's77'").await;
    let wait = "update walclock.schedules set buffered_at = next_at - interval '1 minute', next_at = 'infinity'";
    world.sql.batch_execute(wait).await.unwrap();
    let mut looks = 0;
    loop {
        let (found, asked) = look(&world, 0).await;
        assert_eq!(asked, 40);
        if found == ["s77"] {
            return;
        }
        // That it is passed over so often by chance would be a wonder.
        looks += 1;
        assert!(looks < 200, "it was never looked at");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn those_that_a_transaction_holds_hide_none_behind_them() {
    let mut world = crowd("false").await;
    let store = world.store.clone();
    let now = world.minute(1).await;
    let holding = world.sql.transaction().await.unwrap();
    let hold = "update walclock.schedules set payload = '{}' where id <> 's77'";
    holding.batch_execute(hold).await.unwrap();
    let shards = Shard::all().collect();
    let request = DueRequest { shards, now, until: now, overdue: now, limit: LIMIT };
    let found = store.due(request).await.unwrap().schedules;
    let ids: Vec<&str> = found.iter().map(|schedule| &*schedule.key.id).collect();
    assert_eq!(ids, ["s77"]);
}
