//! What becomes of plans: each is carried out whole or not at all, and a moment fires at most once.

use super::looks::put_waiting;
use super::*;

pub async fn what_was_decided_is_written(world: &impl World) {
    let [missed, last_missed, early, now, waiting, next] = minutes(world, 10).await;
    world.put("report", &minutely(Overlap::BufferOne), false).await;
    let before = world.row("report").await.unwrap();
    let occurrences = vec![
        Occurrence { through: Some(last_missed), ..skip(missed, Reason::Missed) },
        skip(early, Reason::Overlap),
        Occurrence { execute_at: now.after(Duration::from_micros(7)), ..fire(now) },
        buffer(waiting),
    ];
    let plan = Plan { buffered_at: Some(waiting), ..go_on(next, occurrences) };
    assert!(settle(world, "report", plan).await);
    let after = Row { next_at: next, buffered_at: Some(waiting), revision: before.revision + 1, ..before };
    assert_eq!(world.row("report").await, Some(after));
    let moment = |scheduled_for, state| Moment { scheduled_for, state, reason: None, through: None };
    let reason = |reason: Reason| Some(reason.as_str().to_owned());
    let expected = [
        Moment { reason: reason(Reason::Missed), through: Some(last_missed), ..moment(missed, State::Skipped) },
        Moment { reason: reason(Reason::Overlap), ..moment(early, State::Skipped) },
        moment(now, State::Fired),
        moment(waiting, State::Buffered),
    ];
    assert_eq!(world.moments("report").await, expected);
    let due_at = now.after(Duration::from_micros(7));
    let callback = Callback { due_at, attempts: 0, running: false, cancelled: false };
    assert_eq!(world.callback("report", now).await, Some(callback));
    for at in [missed, early, waiting] {
        assert_eq!(world.callback("report", at).await, None);
    }
}

pub async fn a_schedule_without_a_further_moment_rests(world: &impl World) {
    let now = minute(world, 10).await;
    world.put("report", &minutely(Overlap::Allow), false).await;
    assert!(settle(world, "report", go_on(Timestamp::MAX, vec![fire(now)])).await);
    let later = now.after(MINUTE * 1_000);
    let found = look(world, later, later.after(MINUTE)).await;
    assert!(found.schedules.is_empty() && found.next_at.is_none());
    assert_eq!(world.row("report").await.unwrap().next_at, Timestamp::MAX);
}

pub async fn of_two_plans_of_one_revision_one_is_settled(world: &impl World) {
    let [now, next] = minutes(world, 10).await;
    world.put("report", &minutely(Overlap::Allow), false).await;
    let schedule = read(world, "report").await;
    let one = Planned { schedule: schedule.clone(), plan: go_on(schedule.next_at, vec![fire(now)]) };
    let other = Planned { schedule, plan: go_on(next, vec![fire(next)]) };
    assert_eq!(settle_all(world, std::slice::from_ref(&one)).await, [true]);
    assert_eq!(settle_all(world, &[other]).await, [false]);
    assert_eq!(settle_all(world, &[one]).await, [false]);
    assert_eq!(states(world, "report").await, [(now, State::Fired)]);
    assert_eq!(world.callback("report", next).await, None);
}

pub async fn what_was_planned_before_a_change_changes_nothing(world: &impl World) {
    let [now, next] = minutes(world, 10).await;
    let rule = minutely(Overlap::Allow);
    for change in ["policy", "pause", "trigger", "delete"] {
        world.put("report", &rule, false).await;
        let planned = Planned { schedule: read(world, "report").await, plan: go_on(next, vec![fire(now)]) };
        match change {
            "policy" => world.put("report", &minutely(Overlap::Skip), false).await,
            "pause" => world.put("report", &rule, true).await,
            "trigger" => assert!(world.trigger("report").await),
            _ => world.delete("report").await,
        }
        let before = world.row("report").await;
        assert_eq!(settle_all(world, &[planned]).await, [false], "{change}");
        assert_eq!(world.row("report").await, before, "{change}");
        assert_eq!(world.callback("report", now).await, None, "{change}");
        assert!(states(world, "report").await.iter().all(|(at, _)| *at != now), "{change}");
    }
}

pub async fn what_was_planned_for_one_changes_no_other_that_has_its_name(world: &impl World) {
    let [now, next] = minutes(world, 10).await;
    let rule = minutely(Overlap::Allow);
    world.put("report", &rule, false).await;
    let planned = Planned { schedule: read(world, "report").await, plan: go_on(next, vec![fire(now)]) };
    world.delete("report").await;
    world.put("report", &rule, false).await;
    let successor = read(world, "report").await;
    let looks = |schedule: &Schedule| (schedule.revision, schedule.next_at, schedule.rule.clone());
    assert_eq!(looks(&successor), looks(&planned.schedule), "they look the same");
    assert_eq!(settle_all(world, &[planned]).await, [false]);
    assert_eq!(states(world, "report").await, []);
}

pub async fn what_was_planned_from_another_moment_changes_nothing(world: &impl World) {
    let [now, next] = minutes(world, 10).await;
    world.put("report", &minutely(Overlap::Allow), false).await;
    assert!(settle(world, "report", go_on(next, Vec::new())).await);
    let planned = Planned { schedule: read(world, "report").await, plan: go_on(next.after(MINUTE), vec![fire(next)]) };
    world.set_back("report", now, None).await;
    assert_eq!(settle_all(world, &[planned]).await, [false]);
    assert_eq!((world.row("report").await.unwrap().next_at, states(world, "report").await), (now, vec![]));
}

pub async fn a_moment_whose_key_is_taken_makes_no_second_timer(world: &impl World) {
    let [skipped, called, next] = minutes(world, 10).await;
    world.put("report", &minutely(Overlap::Allow), false).await;
    let plan = go_on(next, vec![skip(skipped, Reason::Overlap), fire(called)]);
    assert!(settle(world, "report", plan).await);
    world.claim("report", called).await;
    world.finish("report", called).await;
    let before = world.moments("report").await;
    world.set_back("report", skipped, None).await;
    let again = go_on(next.after(MINUTE), vec![fire(skipped), fire(called), fire(next)]);
    assert!(settle(world, "report", again).await, "the schedule goes on");
    assert_eq!(world.row("report").await.unwrap().next_at, next.after(MINUTE));
    for (at, is_made) in [(skipped, false), (called, false), (next, true)] {
        assert_eq!(world.callback("report", at).await.is_some(), is_made);
    }
    assert_eq!(world.moments("report").await[..2], before, "what stood there stands there");
}

pub async fn a_timer_that_has_the_id_already_is_left_as_it_is(world: &impl World) {
    let [now, next] = minutes(world, 10).await;
    world.put("report", &minutely(Overlap::Skip), false).await;
    world.put_timer("report", now, now.after(MINUTE)).await;
    assert!(!read(world, "report").await.active, "it is no callback of a moment");
    let before = world.callback("report", now).await;
    assert!(before.is_some());
    assert!(settle(world, "report", go_on(next, vec![fire(now)])).await);
    assert_eq!(world.callback("report", now).await, before);
    // The moment has made nothing, and what is in its place is not in the way of the next one.
    let reason = Some(Reason::Taken.as_str().to_owned());
    assert_eq!(
        world.moments("report").await,
        [Moment { scheduled_for: now, state: State::Skipped, reason, through: None }]
    );
    assert!(!read(world, "report").await.active, "it is no callback of the schedule");
    let after = next.after(MINUTE);
    assert!(settle(world, "report", go_on(after, vec![fire(next)])).await);
    assert_eq!(states(world, "report").await, [(now, State::Skipped), (next, State::Fired)]);

    // Nor does what waits leave in its place, or anything end what came before.
    world.put("buffered", &minutely(Overlap::BufferOne), false).await;
    let plan = Plan { buffered_at: Some(now), ..go_on(next, vec![buffer(now)]) };
    assert!(settle(world, "buffered", plan).await);
    world.put_timer("buffered", now, after).await;
    let planned = release(&read(world, "buffered").await, next);
    assert_eq!(settle_all(world, &[planned]).await, [true]);
    assert_eq!(states(world, "buffered").await, [(now, State::Skipped)]);
    world.put("ending", &minutely(Overlap::CancelOther), false).await;
    assert!(settle(world, "ending", go_on(next, vec![fire(now)])).await);
    world.put_timer("ending", next, after).await;
    let plan = Plan { cancel: true, ..go_on(after, vec![fire(next)]) };
    assert!(settle(world, "ending", plan).await);
    assert_eq!(states(world, "ending").await, [(now, State::Fired), (next, State::Skipped)]);
    assert!(world.callback("ending", now).await.is_some());
}

/// What lets go what waits at a moment.
fn release(buffered: &Schedule, at: Timestamp) -> Planned {
    let plan = Plan { release_at: Some(at), ..go_on(buffered.next_at, Vec::new()) };
    Planned { schedule: buffered.clone(), plan }
}

pub async fn what_has_waited_leaves_once(world: &impl World) {
    let moments = minutes(world, 10).await;
    let [first, waiting, next] = moments;
    put_waiting(world, "report", moments).await;
    world.finish("report", first).await;
    let schedule = read(world, "report").await;
    let leaves_at = next.after(Duration::from_secs(7));
    let planned = release(&schedule, leaves_at);
    assert_eq!(settle_all(world, std::slice::from_ref(&planned)).await, [true]);
    assert_eq!(states(world, "report").await, [(first, State::Fired), (waiting, State::Fired)]);
    assert_eq!(world.row("report").await.unwrap().buffered_at, None);
    let callback = world.callback("report", waiting).await.unwrap();
    assert_eq!((callback.due_at, callback.running), (leaves_at, false));
    assert!(read(world, "report").await.active, "it counts as the last one");
    // Whoever decided the same comes too late, and so does who is told once more that it waits.
    assert_eq!(settle_all(world, &[planned]).await, [false]);
    world.claim("report", waiting).await;
    world.finish("report", waiting).await;
    world.set_back("report", next, Some(waiting)).await;
    let again = release(&read(world, "report").await, leaves_at);
    assert_eq!(settle_all(world, &[again]).await, [true]);
    assert_eq!(world.callback("report", waiting).await, None);
}

pub async fn what_waits_under_a_key_that_is_taken_does_not_leave(world: &impl World) {
    let [taken, next] = minutes(world, 10).await;
    world.put("report", &minutely(Overlap::BufferOne), false).await;
    assert!(settle(world, "report", go_on(taken, vec![skip(taken, Reason::Waiting)])).await);
    let plan = Plan { buffered_at: Some(taken), ..go_on(next, vec![buffer(taken)]) };
    assert!(settle(world, "report", plan).await);
    let planned = release(&read(world, "report").await, next);
    assert_eq!(settle_all(world, &[planned]).await, [true]);
    assert_eq!(states(world, "report").await, [(taken, State::Skipped)]);
    assert_eq!(world.callback("report", taken).await, None);
    assert_eq!(world.row("report").await.unwrap().buffered_at, None);
}

pub async fn what_waits_leaves_while_another_begins_to_wait(world: &impl World) {
    let moments = minutes(world, 10).await;
    let [first, waiting, next] = moments;
    put_waiting(world, "report", moments).await;
    world.finish("report", first).await;
    let plan =
        Plan { release_at: Some(waiting), buffered_at: Some(next), ..go_on(next.after(MINUTE), vec![buffer(next)]) };
    assert!(settle(world, "report", plan).await);
    let expected = [(first, State::Fired), (waiting, State::Fired), (next, State::Buffered)];
    assert_eq!(states(world, "report").await, expected);
    assert_eq!(world.row("report").await.unwrap().buffered_at, Some(next));
    assert!(world.callback("report", waiting).await.is_some() && world.callback("report", next).await.is_none());
}

pub async fn what_comes_too_late_lets_go_nothing(world: &impl World) {
    let moments = minutes(world, 10).await;
    put_waiting(world, "report", moments).await;
    world.finish("report", moments[0]).await;
    let planned = release(&read(world, "report").await, moments[2]);
    // What has been fired meanwhile may be in its way.
    assert!(world.trigger("report").await);
    assert_eq!(settle_all(world, &[planned]).await, [false]);
    assert_eq!(world.row("report").await.unwrap().buffered_at, Some(moments[1]));
    assert_eq!(world.callback("report", moments[1]).await, None);
}

pub async fn each_of_a_batch_is_settled_by_itself(world: &impl World) {
    assert_eq!(settle_all(world, &[]).await, Vec::<bool>::new());
    let [now, next] = minutes(world, 10).await;
    let ids = ["a", "stale", "b", "gone", "c"];
    let mut planned = Vec::new();
    for id in ids {
        world.put(id, &minutely(Overlap::Allow), false).await;
        planned.push(Planned { schedule: read(world, id).await, plan: go_on(next, vec![fire(now)]) });
    }
    assert!(world.trigger("stale").await);
    world.delete("gone").await;
    let expected = [true, false, true, false, true];
    assert_eq!(settle_all(world, &planned).await, expected);
    for (id, is_settled) in ids.into_iter().zip(expected) {
        assert_eq!(world.callback(id, now).await.is_some(), is_settled, "{id}");
    }
}

pub async fn one_that_is_named_twice_is_settled_once(world: &impl World) {
    let [now, next] = minutes(world, 10).await;
    world.put("report", &minutely(Overlap::Allow), false).await;
    let planned = Planned { schedule: read(world, "report").await, plan: go_on(next, vec![fire(now)]) };
    let settled = settle_all(world, &[planned.clone(), planned]).await;
    assert_eq!(settled.iter().filter(|settled| **settled).count(), 1);
    assert_eq!(states(world, "report").await, [(now, State::Fired)]);
    assert_eq!(world.row("report").await.unwrap().revision, 1);
}

pub async fn what_the_database_refuses_holds_up_itself_only(world: &impl World) {
    let [now, next] = minutes(world, 10).await;
    for ids in [&["a", "poison", "z"][..], &["alone"]] {
        let refused = if ids.len() > 1 { "poison" } else { "alone" };
        world.refuse(refused).await;
        let mut planned = Vec::new();
        for id in ids {
            world.put(id, &minutely(Overlap::Allow), false).await;
            planned.push(Planned { schedule: read(world, id).await, plan: go_on(next, vec![fire(now)]) });
        }
        let expected: Vec<bool> = ids.iter().map(|id| *id != refused).collect();
        assert_eq!(settle_all(world, &planned).await, expected);
        for (id, is_settled) in ids.iter().zip(expected) {
            let row = world.row(id).await.unwrap();
            assert_eq!((row.error.is_none(), row.next_at == next), (is_settled, is_settled), "{id}");
            assert_eq!(world.callback(id, now).await.is_some(), is_settled, "{id}");
            assert_eq!(states(world, id).await.len(), usize::from(is_settled), "{id}");
        }
        assert!(!super::ids(&look(world, now, next).await).contains(&refused.to_owned()), "it is not tried again");
    }
}

pub async fn what_makes_no_sense_is_told_and_rests_until_it_is_changed(world: &impl World) {
    let [now, next] = minutes(world, 10).await;
    world.put("report", &minutely(Overlap::Allow), false).await;
    assert!(settle(world, "report", go_on(now, Vec::new())).await);
    let plan = Plan { error: Some("no such hour".to_owned()), ..go_on(now, Vec::new()) };
    assert!(settle(world, "report", plan).await);
    let row = world.row("report").await.unwrap();
    assert_eq!((row.error.as_deref(), row.next_at, row.revision), (Some("no such hour"), now, 2));
    let found = look(world, now, next).await;
    assert!(found.schedules.is_empty());
    assert_eq!(look(world, now.before(MINUTE), now).await.next_at, None);
    world.put("report", &minutely(Overlap::Skip), false).await;
    let after = world.row("report").await.unwrap();
    // Moments before this one are settled, also where nothing stands with them any more.
    assert_eq!((after.error, after.next_at, after.changed_at), (None, now, row.changed_at));
    assert_eq!(ids(&look(world, now, now).await), ["report"]);
}

pub async fn a_schedule_that_another_transaction_holds_is_left_for_the_next_time(world: &impl World) {
    let [now, next] = minutes(world, 10).await;
    let mut planned = Vec::new();
    for id in ["held", "free"] {
        world.put(id, &minutely(Overlap::Allow), false).await;
        planned.push(Planned { schedule: read(world, id).await, plan: go_on(next, vec![fire(now)]) });
    }
    let hold = world.hold("held").await;
    assert_eq!(ids(&look(world, now, now).await), ["free"], "it could not be settled");
    assert_eq!(settle_all(world, &planned).await, [false, true]);
    world.end(hold).await;
    assert_eq!(ids(&look(world, now, now).await), ["held"]);
    assert_eq!(settle_all(world, &planned[..1]).await, [true]);
}
