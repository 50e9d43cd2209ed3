//! What clients do to schedules, and what becomes of what is old.

use super::looks::put_waiting;
use super::*;

const DAY: Duration = Duration::from_secs(86_400);

pub async fn what_was_made_ahead_is_withdrawn_by_a_change(world: &impl World) {
    let [first, second, next] = minutes(world, 10).await;
    world.put("report", &minutely(Overlap::Allow), false).await;
    world.put("other", &minutely(Overlap::Allow), false).await;
    fired(world, "other", first).await;
    assert!(settle(world, "report", go_on(next, vec![fire(first), fire(second)])).await);
    let before = world.row("report").await.unwrap();
    world.put("report", &minutely(Overlap::Skip), false).await;
    assert_eq!(world.moments("report").await, []);
    assert_eq!((world.callback("report", first).await, world.callback("report", second).await), (None, None));
    let after = Row { next_at: first, revision: before.revision + 1, ..before };
    assert_eq!(world.row("report").await, Some(after), "it goes on with the first that was withdrawn");
    assert!(world.callback("other", first).await.is_some());
    // Their keys are free again.
    fired(world, "report", first).await;
    assert!(world.callback("report", first).await.is_some());
}

pub async fn what_has_begun_or_come_is_not_withdrawn(world: &impl World) {
    let (come, [claimed, retried, skipped, next]) = (minute(world, -10).await, minutes(world, 10).await);
    world.put("report", &minutely(Overlap::Allow), false).await;
    let all = vec![fire(come), fire(claimed), fire(retried), skip(skipped, Reason::Overlap)];
    assert!(settle(world, "report", go_on(next, all)).await);
    world.claim("report", claimed).await;
    world.claim("report", retried).await;
    world.retry("report", retried, next).await;
    let before = world.moments("report").await;
    world.put("report", &minutely(Overlap::Skip), false).await;
    assert_eq!(world.moments("report").await, before);
    for at in [come, claimed, retried] {
        assert!(world.callback("report", at).await.is_some());
    }
    assert_eq!(world.row("report").await.unwrap().next_at, next);
}

pub async fn a_change_of_when_it_recurs_counts_from_then_on(world: &impl World) {
    let next = minute(world, 10).await;
    let old = Rule { time_zone: "Europe/Berlin".to_owned(), ..Rule::new(When::Cron("* * * * *".to_owned())) };
    let at = Some(next);
    for (what, rule, is_when) in [
        ("cron", Rule { when: When::Cron("*/2 * * * *".to_owned()), ..old.clone() }, true),
        ("every", Rule { when: When::Every(MINUTE), ..old.clone() }, true),
        ("time zone", Rule { time_zone: "UTC".to_owned(), ..old.clone() }, true),
        ("start", Rule { start_at: at, ..old.clone() }, true),
        ("end", Rule { end_at: at, ..old.clone() }, true),
        ("jitter", Rule { jitter: MINUTE, ..old.clone() }, false),
        ("overlap", Rule { overlap: Overlap::Allow, ..old.clone() }, false),
        ("window", Rule { catch_up_window: MINUTE, catch_up_max: 3, ..old.clone() }, false),
        ("nothing", old.clone(), false),
    ] {
        world.put(what, &old, false).await;
        assert!(settle(world, what, go_on(next, Vec::new())).await);
        let before = world.row(what).await.unwrap();
        let asked_at = world.now().await;
        world.put(what, &rule, false).await;
        let after = world.row(what).await.unwrap();
        assert_eq!(after.revision, before.revision + 1, "{what}");
        match is_when {
            true => assert!(after.changed_at >= asked_at && after.next_at == Timestamp::MIN, "{what}: {after:?}"),
            false => assert_eq!((after.changed_at, after.next_at), (before.changed_at, next), "{what}"),
        }
    }
}

pub async fn a_change_keeps_what_waits(world: &impl World) {
    let moments = minutes(world, 10).await;
    put_waiting(world, "report", moments).await;
    world.put("report", &Rule::new(When::Cron("0 0 1 1 *".to_owned())), false).await;
    let row = world.row("report").await.unwrap();
    assert_eq!((row.buffered_at, row.next_at), (Some(moments[1]), Timestamp::MIN));
    assert_eq!(states(world, "report").await, [(moments[0], State::Fired), (moments[1], State::Buffered)]);
}

pub async fn a_pause_withdraws_what_lies_ahead_and_goes_on_there(world: &impl World) {
    let [now, next] = minutes(world, 10).await;
    let rule = minutely(Overlap::Allow);
    world.put("report", &rule, false).await;
    fired(world, "report", now).await;
    world.put("report", &rule, true).await;
    let row = world.row("report").await.unwrap();
    assert_eq!((row.paused, row.next_at, world.callback("report", now).await), (true, now, None));
    assert!(look(world, next, next).await.schedules.is_empty());
    world.put("report", &rule, false).await;
    let found = read(world, "report").await;
    assert_eq!((found.next_at, found.revision), (now, row.revision + 1));
    fired(world, "report", now).await;
    assert_eq!(states(world, "report").await, [(now, State::Fired)]);
}

pub async fn a_deletion_withdraws_what_lies_ahead_and_leaves_the_rest(world: &impl World) {
    let (come, [claimed, ahead]) = (minute(world, -10).await, minutes(world, 10).await);
    world.put("report", &minutely(Overlap::Allow), false).await;
    let all = vec![fire(come), fire(claimed), fire(ahead)];
    assert!(settle(world, "report", go_on(ahead.after(MINUTE), all)).await);
    world.claim("report", claimed).await;
    world.delete("report").await;
    assert_eq!(world.row("report").await, None);
    assert_eq!(states(world, "report").await, [(come, State::Fired), (claimed, State::Fired)]);
    assert_eq!(world.callback("report", ahead).await, None);
    assert!(world.callback("report", come).await.is_some() && world.callback("report", claimed).await.is_some());
    assert!(look(world, ahead, ahead).await.schedules.is_empty());
}

pub async fn a_trigger_fires_now_besides_the_moments(world: &impl World) {
    let next = minute(world, 10).await;
    world.put("report", &minutely(Overlap::Skip), false).await;
    assert!(settle(world, "report", go_on(next, Vec::new())).await);
    let (before, asked_at) = (world.row("report").await.unwrap(), world.now().await);
    assert!(world.trigger("report").await);
    let after = Row { revision: before.revision + 1, ..before };
    assert_eq!(world.row("report").await, Some(after), "its moments are as they were");
    let moments = world.moments("report").await;
    assert_eq!(moments.len(), 1);
    let fired = &moments[0];
    assert!(fired.scheduled_for >= asked_at && fired.scheduled_for <= world.now().await);
    let reason = fired.reason.as_deref();
    assert_eq!((fired.state, reason, fired.through), (State::Fired, Some("triggered"), None));
    let callback = world.callback("report", fired.scheduled_for).await.unwrap();
    assert_eq!((callback.due_at, callback.attempts, callback.running), (fired.scheduled_for, 0, false));
    assert!(read(world, "report").await.active, "it is in the way of its moments");
    // What has come is not withdrawn.
    world.put("report", &minutely(Overlap::Allow), false).await;
    assert!(world.callback("report", fired.scheduled_for).await.is_some());
}

pub async fn a_trigger_needs_a_schedule_and_no_more(world: &impl World) {
    assert!(!world.trigger("report").await, "there is none");
    world.put("report", &minutely(Overlap::Skip), true).await;
    assert!(world.trigger("report").await && world.trigger("report").await, "whatever it is and does");
    let moments = world.moments("report").await;
    assert_eq!(moments.len(), 2);
    for moment in moments {
        assert!(world.callback("report", moment.scheduled_for).await.is_some());
    }
    assert!(world.row("report").await.unwrap().paused);
}

pub async fn occurrences_go_with_the_retention(world: &impl World) {
    let now = world.now().await;
    let [old, young, caught_up, cancelled, pending] = [9, 6, 10, 11, 12].map(|days| now.before(DAY * days));
    world.put("report", &minutely(Overlap::Allow), false).await;
    let skipped = [old, young, caught_up].map(|at| skip(at, Reason::Overlap));
    let plan = Plan { occurrences: [&skipped[..], &[fire(cancelled)]].concat(), ..go_on(young, Vec::new()) };
    assert!(settle(world, "report", plan).await);
    assert!(settle(world, "report", Plan { cancel: true, ..go_on(now, vec![fire(caught_up.after(MINUTE))]) }).await);
    assert!(settle(world, "report", go_on(now, vec![fire(pending)])).await);
    let made_up = caught_up.after(MINUTE);
    for at in [old, young, cancelled, pending] {
        world.age("report", at, now.since(at)).await;
    }
    world.purge(DAY * 7).await;
    // What is caught up is as young as its row. A callback may outlast its row.
    let expected = [(caught_up, State::Skipped), (made_up, State::Fired), (young, State::Skipped)];
    assert_eq!(states(world, "report").await, expected);
    assert!(world.callback("report", pending).await.is_some());
}

pub async fn what_waits_still_stays(world: &impl World) {
    let now = world.now().await;
    let moments = [9, 8, 7].map(|days| now.before(DAY * days));
    put_waiting(world, "report", moments).await;
    for at in &moments[..2] {
        world.age("report", *at, DAY * 8).await;
    }
    world.purge(DAY * 2).await;
    assert_eq!(states(world, "report").await, [(moments[1], State::Buffered)]);
    let schedule = read(world, "report").await;
    let plan = Plan { release_at: Some(now), ..go_on(schedule.next_at, Vec::new()) };
    assert_eq!(settle_all(world, &[Planned { schedule, plan }]).await, [true]);
    assert!(world.callback("report", moments[1]).await.is_some(), "it leaves in its turn");
}

pub async fn what_waited_for_a_schedule_that_is_gone_goes(world: &impl World) {
    let now = world.now().await;
    let moments = [9, 8, 7].map(|days| now.before(DAY * days));
    put_waiting(world, "report", moments).await;
    for at in &moments[..2] {
        world.age("report", *at, DAY * 8).await;
    }
    world.delete("report").await;
    // One of that name waits for nothing.
    world.put("report", &minutely(Overlap::BufferOne), false).await;
    world.purge(DAY * 7).await;
    assert_eq!(states(world, "report").await, []);
}
