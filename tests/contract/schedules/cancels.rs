//! Callbacks that a later moment ends.

use super::*;

/// A plan that has a moment take the place of those before it.
fn overtake(at: Timestamp) -> Plan {
    Plan { cancel: true, ..go_on(at.after(MINUTE), vec![fire(at)]) }
}

fn cancelled(at: Timestamp) -> Moment {
    Moment { scheduled_for: at, state: State::Cancelled, reason: Some(OVERTAKEN.to_owned()), through: None }
}

pub async fn a_later_moment_ends_those_before_it(world: &impl World) {
    let [pending, retried, over, last] = minutes(world, 10).await;
    world.put("report", &minutely(Overlap::CancelOther), false).await;
    for at in [pending, retried, over] {
        fired(world, "report", at).await;
    }
    world.claim("report", retried).await;
    world.retry("report", retried, last).await;
    world.claim("report", over).await;
    world.finish("report", over).await;
    assert!(settle(world, "report", overtake(last)).await);
    let fired = |scheduled_for| Moment { scheduled_for, state: State::Fired, reason: None, through: None };
    let expected = [cancelled(pending), cancelled(retried), fired(over), fired(last)];
    assert_eq!(world.moments("report").await, expected, "what was over has fired");
    for (at, is_left) in [(pending, false), (retried, false), (over, false), (last, true)] {
        assert_eq!(world.callback("report", at).await.is_some(), is_left);
    }
    assert!(read(world, "report").await.active, "the last one is not over");
    world.claim("report", last).await;
    world.finish("report", last).await;
    assert!(!read(world, "report").await.active);
}

pub async fn what_was_ended_under_way_is_not_tried_again(world: &impl World) {
    let [first, last] = minutes(world, 10).await;
    for id in ["fails", "succeeds"] {
        world.put(id, &minutely(Overlap::CancelOther), false).await;
        fired(world, id, first).await;
        world.claim(id, first).await;
        assert!(settle(world, id, overtake(last)).await);
        let callback = Callback { due_at: first, attempts: 1, running: true, cancelled: true };
        assert_eq!(world.callback(id, first).await, Some(callback), "it may finish");
        assert_eq!(world.moments(id).await[0], cancelled(first));
        world.claim(id, last).await;
        world.finish(id, last).await;
        assert!(!read(world, id).await.active, "it is in nobody's way");
    }
    world.retry("fails", first, last).await;
    world.finish("succeeds", first).await;
    for id in ["fails", "succeeds"] {
        assert_eq!(world.callback(id, first).await, None);
        assert_eq!(states(world, id).await, [(first, State::Cancelled), (last, State::Fired)]);
    }
}

pub async fn a_moment_ends_no_later_one_and_no_other_schedules(world: &impl World) {
    let moments: [Timestamp; 35] = minutes(world, 10).await;
    let (pending, taking, later) = (&moments[..33], moments[33], moments[34]);
    world.put("report", &minutely(Overlap::CancelOther), false).await;
    for id in ["other", "without"] {
        world.put(id, &minutely(Overlap::Allow), false).await;
        fired(world, id, moments[0]).await;
    }
    let all = pending.iter().copied().chain([later]).map(fire).collect();
    assert!(settle(world, "report", go_on(taking, all)).await);
    assert!(settle(world, "report", overtake(taking)).await);
    assert!(settle(world, "without", go_on(later, vec![fire(taking)])).await);
    let mut expected = vec![(moments[0], State::Fired)];
    // Of those before it, the last 32 are looked at.
    expected.extend(pending[1..].iter().map(|at| (*at, State::Cancelled)));
    expected.extend([(taking, State::Fired), (later, State::Fired)]);
    assert_eq!(states(world, "report").await, expected);
    assert_eq!(states(world, "other").await, [(moments[0], State::Fired)]);
    assert_eq!(states(world, "without").await, [(moments[0], State::Fired), (taking, State::Fired)]);
    for id in ["report", "other", "without"] {
        assert!(world.callback(id, moments[0]).await.is_some(), "{id}");
    }
}

pub async fn a_plan_that_comes_too_late_ends_nothing(world: &impl World) {
    let [first, last] = minutes(world, 10).await;
    for id in ["late", "in time"] {
        world.put(id, &minutely(Overlap::CancelOther), false).await;
        fired(world, id, first).await;
    }
    let mut planned = Vec::new();
    for id in ["late", "in time"] {
        planned.push(Planned { schedule: read(world, id).await, plan: overtake(last) });
    }
    assert!(world.trigger("late").await);
    assert_eq!(settle_all(world, &planned).await, [false, true]);
    assert!(states(world, "late").await.contains(&(first, State::Fired)));
    assert!(world.callback("late", first).await.is_some());
    assert_eq!(world.moments("in time").await[0], cancelled(first));
}
