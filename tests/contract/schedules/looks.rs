//! Which schedules a look finds.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

pub async fn a_look_returns_the_whole_schedule(world: &impl World) {
    let before = world.now().await;
    // Nothing is as it is by default.
    let cron = Rule {
        time_zone: "Europe/Berlin".to_owned(),
        start_at: Some(minute(world, -60).await),
        end_at: Some(minute(world, 600).await),
        jitter: Duration::from_micros(1_500_001),
        overlap: Overlap::BufferOne,
        catch_up: walclock::domain::schedule::CatchUp::All,
        catch_up_window: Duration::from_secs(5_000),
        catch_up_max: 7,
        ..Rule::new(When::Cron("*/5 3 * * MON".to_owned()))
    };
    let every = Rule { start_at: None, end_at: None, ..minutely(Overlap::CancelOther) };
    for (id, rule) in [("cron", cron), ("every", every)] {
        world.put(id, &rule, false).await;
        // As soon as it is there: nobody knows its first moment yet.
        let found = read(world, id).await;
        assert_eq!((&found.key, &found.rule), (&key(id), &rule));
        assert_eq!((found.next_at, found.buffered_at, found.active), (Timestamp::MIN, None, false));
        for at in [found.created_at, found.changed_at] {
            assert!(at >= before && at <= world.now().await);
        }
        let row = world.row(id).await.unwrap();
        assert_eq!((found.revision, found.changed_at), (row.revision, row.changed_at));
        assert_eq!((row.paused, row.next_at, row.error), (false, Timestamp::MIN, None));
    }
}

/// Adds schedules whose first moments that are not settled are these.
async fn put_all(world: &impl World, overlap: Overlap, moments: &[(&str, Timestamp)]) {
    for (id, at) in moments {
        world.put(id, &minutely(overlap), false).await;
        assert!(settle(world, id, go_on(*at, Vec::new())).await);
    }
}

pub async fn what_has_come_is_found_in_its_order_and_what_lies_ahead_behind_it(world: &impl World) {
    let now = minute(world, 10).await;
    let at = |seconds: u64| now.after(SECOND * u32::try_from(seconds).unwrap());
    let moments = [("ahead", at(2)), ("near", at(1)), ("now", now), ("far", at(3)), ("old", now.before(SECOND))];
    put_all(world, Overlap::Skip, &moments).await;
    world.put("new", &minutely(Overlap::Skip), false).await;
    assert_eq!(ids(&look(world, now, at(2)).await), ["new", "old", "now", "near", "ahead"]);
    assert_eq!(ids(&look(world, now, now).await), ["new", "old", "now"]);
}

pub async fn a_look_keeps_to_its_limit(world: &impl World) {
    let now = minute(world, 10).await;
    put_all(world, Overlap::Allow, &[("c", now.after(SECOND)), ("b", now), ("a", now.before(SECOND))]).await;
    for limit in 0..=4 {
        let shards = Shard::all().collect();
        let request = DueRequest { shards, now, until: now.after(SECOND), overdue: now.before(MINUTE), limit };
        let found = world.store().due(request).await.unwrap();
        assert_eq!(ids(&found), ["a", "b", "c"][..limit.min(3)]);
    }
}

pub async fn what_lies_ahead_is_found_where_no_callback_is_in_its_way(world: &impl World) {
    let [first, next] = minutes(world, 10).await;
    let policies = [Overlap::Skip, Overlap::BufferOne, Overlap::CancelOther, Overlap::Allow];
    for overlap in policies {
        world.put(overlap.as_str(), &minutely(overlap), false).await;
        fired(world, overlap.as_str(), first).await;
    }
    let ahead = look(world, next.before(SECOND), next).await;
    assert_eq!(ids(&ahead), ["allow"], "a callback of each is pending");
    assert_eq!(ahead.next_at, Some(next));
    let due = look(world, next, next).await.schedules;
    assert_eq!(due.len(), policies.len(), "each moment is settled once it has come");
    for schedule in due {
        assert_eq!(schedule.active, schedule.rule.overlap != Overlap::Allow, "{}", schedule.key);
    }
}

pub async fn a_callback_is_in_the_way_until_it_is_over(world: &impl World) {
    let at = minute(world, 10).await;
    world.put("report", &minutely(Overlap::Skip), false).await;
    assert!(!read(world, "report").await.active);
    fired(world, "report", at).await;
    assert!(read(world, "report").await.active, "it is pending");
    world.claim("report", at).await;
    assert!(read(world, "report").await.active, "it is under way");
    world.retry("report", at, at.after(SECOND)).await;
    assert!(read(world, "report").await.active, "it is pending for another attempt");
    world.claim("report", at).await;
    world.finish("report", at).await;
    assert!(!read(world, "report").await.active);
}

pub async fn so_many_of_the_last_callbacks_are_looked_at(world: &impl World) {
    let moments: [Timestamp; 17] = minutes(world, 10).await;
    world.put("report", &minutely(Overlap::Skip), false).await;
    let all = moments.map(fire).to_vec();
    assert!(settle(world, "report", go_on(moments[16].after(MINUTE), all)).await);
    for (index, at) in moments.into_iter().enumerate().skip(1) {
        assert!(read(world, "report").await.active, "moment {index} is not over");
        world.claim("report", at).await;
        world.finish("report", at).await;
    }
    assert!(world.callback("report", moments[0]).await.is_some());
    assert!(!read(world, "report").await.active, "16 have been fired since");
}

pub async fn a_schedule_of_another_shard_is_left_alone_until_it_is_overdue(world: &impl World) {
    let next = minute(world, 10).await;
    put_all(world, Overlap::Skip, &[("report", next)]).await;
    let own = vec![key("report").shard()];
    let others: Vec<Shard> = Shard::all().filter(|shard| !own.contains(shard)).collect();
    let early = next.before(Duration::from_micros(1));
    for (shards, overdue, found) in
        [(&own, early, 1), (&others, early, 0), (&others, next, 1), (&Vec::new(), early, 0), (&Vec::new(), next, 1)]
    {
        let request = DueRequest { shards: shards.clone(), now: next, until: next, overdue, limit: LIMIT };
        assert_eq!(world.store().due(request).await.unwrap().schedules.len(), found, "{shards:?}");
    }
}

pub async fn the_first_moment_ahead_is_told(world: &impl World) {
    let now = minute(world, 10).await;
    let (near, until) = (now.after(SECOND), now.after(2 * SECOND));
    put_all(world, Overlap::Skip, &[("late", until), ("first", near), ("now", now)]).await;
    assert_eq!(look(world, now, until).await.next_at, Some(near));
    assert_eq!(look(world, near, until).await.next_at, Some(until));
    assert_eq!(look(world, now, near.before(Duration::from_micros(1))).await.next_at, None);
    let others = Shard::all().filter(|shard| *shard != key("first").shard()).collect();
    let request = DueRequest { shards: others, now, until, overdue: now, limit: LIMIT };
    assert_eq!(world.store().due(request).await.unwrap().next_at, Some(until), "that of another's shard is not");
    world.put("first", &minutely(Overlap::Skip), true).await;
    assert_eq!(look(world, now, until).await.next_at, Some(until), "nor that of one that is paused");
}

/// A schedule of which the first moment is under way and the second one waits for it; it goes on at the third.
pub async fn put_waiting(world: &impl World, id: &str, moments: [Timestamp; 3]) {
    world.put(id, &minutely(Overlap::BufferOne), false).await;
    fired(world, id, moments[0]).await;
    world.claim(id, moments[0]).await;
    let plan = Plan { buffered_at: Some(moments[1]), ..go_on(moments[2], vec![buffer(moments[1])]) };
    assert!(settle(world, id, plan).await);
}

pub async fn what_waits_is_found_once_no_callback_is_in_its_way(world: &impl World) {
    let moments = minutes(world, 10).await;
    put_waiting(world, "report", moments).await;
    let now = moments[1];
    assert_eq!(ids(&look(world, now, now).await), Vec::<String>::new(), "it waits");
    world.finish("report", moments[0]).await;
    let found = look(world, now, now).await.schedules;
    assert_eq!((found.len(), found[0].buffered_at, found[0].active), (1, Some(moments[1]), false));
    // Not even once it is overdue: who holds the shard knows of callbacks that are over.
    let others = Shard::all().filter(|shard| *shard != key("report").shard()).collect();
    let request = DueRequest { shards: others, now, until: now, overdue: now, limit: LIMIT };
    assert!(world.store().due(request).await.unwrap().schedules.is_empty());
    world.put("report", &minutely(Overlap::BufferOne), true).await;
    assert!(look(world, now, now).await.schedules.is_empty(), "it is paused");
}

pub async fn what_is_due_and_waits_is_found_once(world: &impl World) {
    let moments = minutes(world, 10).await;
    put_waiting(world, "report", moments).await;
    world.finish("report", moments[0]).await;
    assert_eq!(ids(&look(world, moments[2], moments[2]).await), ["report"]);
}

pub async fn a_paused_schedule_is_not_found(world: &impl World) {
    world.put("report", &minutely(Overlap::Allow), true).await;
    let now = minute(world, 10).await;
    let found = look(world, now, now.after(MINUTE)).await;
    assert!(found.schedules.is_empty() && found.next_at.is_none());
    world.put("report", &minutely(Overlap::Allow), false).await;
    assert_eq!(ids(&look(world, now, now).await), ["report"]);
}
