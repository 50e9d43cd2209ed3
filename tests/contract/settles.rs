//! How runs end.

use super::*;

/// One owner with all shards, and a run of its.
async fn running(world: &impl World, id: &str) -> (Owner, LeaseGrant, Run) {
    let a = owner("a");
    let grant = lease(world, &a, Shard::COUNT).await;
    let run = run(world, &a, &grant, &key(id)).await;
    (a, grant, run)
}

/// The only run of a key.
async fn row(world: &impl World, key: &TimerKey) -> RunRow {
    let mut rows = world.runs(key).await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows.remove(0)
}

/// What a run that was answered looks like.
fn answered(run: &Run, state: State, status: u16, last_error: Option<&str>) -> RunRow {
    let attempt = attempt(run, status, Verdict::Succeeded);
    RunRow {
        claimed_at: run.key.claimed_at,
        epoch: run.epoch,
        state,
        attempts: run.timer.attempts,
        sent_at: Some(attempt.sent_at),
        answered_at: Some(attempt.answered_at),
        status: Some(status),
        reply: Some(attempt.reply_head),
        last_error: last_error.map(str::to_owned),
    }
}

pub async fn a_success_is_written_in_place(world: &impl World) {
    let (a, _, run) = running(world, "first").await;
    assert_eq!(settle(world, &a, &[succeeded(&run)]).await, [true]);
    assert_eq!(row(world, &run.key.timer).await, answered(&run, State::Succeeded, 200, None));
    assert!(world.timer(&run.key.timer).await.is_none());
    assert_eq!(world.attempts(&run.key.timer).await, []);
}

pub async fn a_failure_is_written_in_place(world: &impl World) {
    let (a, _, run) = running(world, "first").await;
    // An attempt without an answer has neither status nor reply.
    let mut settlement = failed(&run);
    settlement.attempt.status = None;
    assert_eq!(settle(world, &a, &[settlement]).await, [true]);
    let wanted = RunRow { status: None, ..answered(&run, State::Failed, 404, Some("status 404")) };
    assert_eq!(row(world, &run.key.timer).await, wanted);
}

pub async fn a_retry_puts_the_timer_back_and_logs_the_attempt(world: &impl World) {
    let (a, grant, run) = running(world, "first").await;
    let key = &run.key.timer;
    let at = world.store().now().await.unwrap().after(Duration::from_secs(3600));
    let settlement = retry_at(&run, at);
    assert_eq!(settle(world, &a, std::slice::from_ref(&settlement)).await, [true]);
    assert_eq!(world.runs(key).await, []);
    let timer = world.timer(key).await.unwrap();
    assert_eq!(shown(&timer.definition), shown(&run.timer.definition));
    assert_eq!((timer.attempts, timer.retry_at, timer.due_at()), (1, Some(at), at));
    assert_eq!(timer.first_attempt_at, run.timer.first_attempt_at);
    assert_eq!(timer.last_error.as_deref(), Some("status 503"));
    assert_eq!((timer.created_at, timer.updated_at), (run.timer.created_at, run.timer.updated_at));
    let logged = AttemptRow {
        attempt: 1,
        due_at: run.timer.definition.execute_at,
        sent_at: settlement.attempt.sent_at,
        answered_at: settlement.attempt.answered_at,
        status: Some(503),
        error: Some("status 503".to_owned()),
    };
    assert_eq!(world.attempts(key).await, [logged]);
    assert_eq!(claim(world, &a, &grant, &[key]).await.left, [Entry { due_at: at, key: key.clone() }]);
}

pub async fn a_success_after_a_retry_keeps_the_count(world: &impl World) {
    let (a, grant, first) = running(world, "first").await;
    let key = &first.key.timer;
    let at = first.key.claimed_at;
    assert_eq!(settle(world, &a, &[retry_at(&first, at)]).await, [true]);
    let again = claim(world, &a, &grant, &[key]).await.runs.remove(0);
    assert_eq!((again.timer.attempts, again.timer.retry_at), (2, Some(at)));
    assert_eq!(again.timer.first_attempt_at, first.timer.first_attempt_at);
    assert_eq!(settle(world, &a, &[succeeded(&again)]).await, [true]);
    assert_eq!(row(world, key).await, answered(&again, State::Succeeded, 200, Some("status 503")));
    assert_eq!(world.attempts(key).await.len(), 1);
}

pub async fn a_reschedule_puts_the_timer_back_anew_and_logs_the_attempt(world: &impl World) {
    let (a, grant, first) = running(world, "first").await;
    let key = &first.key.timer;
    assert_eq!(settle(world, &a, &[retry_at(&first, first.key.claimed_at)]).await, [true]);
    let second = claim(world, &a, &grant, &[key]).await.runs.remove(0);
    let at = world.store().now().await.unwrap().after(Duration::from_secs(60));
    let settlement = reschedule(&second, at);
    assert_eq!(settle(world, &a, std::slice::from_ref(&settlement)).await, [true]);
    let timer = world.timer(key).await.unwrap();
    assert_eq!((timer.definition.execute_at, timer.attempts, timer.retry_at), (at, 0, None));
    assert_eq!((timer.first_attempt_at, timer.last_error), (None, None));
    assert_eq!(timer.created_at, first.timer.created_at);
    assert_eq!(world.runs(key).await, []);
    let logged = AttemptRow {
        attempt: 2,
        due_at: first.key.claimed_at,
        sent_at: settlement.attempt.sent_at,
        answered_at: settlement.attempt.answered_at,
        status: Some(200),
        error: None,
    };
    assert_eq!(world.attempts(key).await[1..], [logged]);
}

pub async fn a_deferral_puts_the_timer_back_as_it_was(world: &impl World) {
    let (a, grant, run) = running(world, "first").await;
    let key = &run.key.timer;
    let at = world.store().now().await.unwrap().after(Duration::from_secs(3600));
    assert_eq!(settle(world, &a, &[defer(&run, at)]).await, [true]);
    assert_eq!(world.runs(key).await, []);
    let timer = world.timer(key).await.unwrap();
    assert_eq!(shown(&timer.definition), shown(&run.timer.definition));
    assert_eq!((timer.attempts, timer.first_attempt_at), (0, None));
    assert_eq!((timer.retry_at, timer.due_at()), (Some(at), at));
    assert_eq!(timer.last_error.as_deref(), Some("its host is down"));
    assert_eq!((timer.created_at, timer.updated_at), (run.timer.created_at, run.timer.updated_at));
    assert_eq!(world.attempts(key).await, []);
    assert_eq!(claim(world, &a, &grant, &[key]).await.left, [Entry { due_at: at, key: key.clone() }]);
}

pub async fn a_deferral_after_a_retry_keeps_the_count(world: &impl World) {
    let (a, grant, first) = running(world, "first").await;
    let key = &first.key.timer;
    let at = first.key.claimed_at;
    assert_eq!(settle(world, &a, &[retry_at(&first, at)]).await, [true]);
    let second = claim(world, &a, &grant, &[key]).await.runs.remove(0);
    assert_eq!(settle(world, &a, &[defer(&second, at)]).await, [true]);
    let timer = world.timer(key).await.unwrap();
    assert_eq!((timer.attempts, timer.first_attempt_at), (1, first.timer.first_attempt_at));
    let again = claim(world, &a, &grant, &[key]).await.runs.remove(0);
    assert_eq!(again.timer.attempts, 2);
    assert_eq!(world.attempts(key).await.len(), 1);
}

pub async fn an_end_without_an_attempt_counts_none(world: &impl World) {
    let (a, grant, first) = running(world, "first").await;
    let key = &first.key.timer;
    assert_eq!(settle(world, &a, &[retry_at(&first, first.key.claimed_at)]).await, [true]);
    let second = claim(world, &a, &grant, &[key]).await.runs.remove(0);
    let other = run(world, &a, &grant, &super::key("other")).await;
    let settlement = give_up(&second);
    assert_eq!(settle(world, &a, &[settlement.clone(), failed(&other)]).await, [true, true]);
    assert!(world.timer(key).await.is_none());
    let wanted = RunRow {
        attempts: 1,
        sent_at: None,
        answered_at: Some(settlement.attempt.answered_at),
        status: None,
        reply: Some(String::new()),
        ..answered(&second, State::Failed, 0, Some("its host is down"))
    };
    assert_eq!(row(world, key).await, wanted);
    assert_eq!(world.attempts(key).await.len(), 1, "the one that was made");
    // Beside it each is as it would be alone.
    assert_eq!(row(world, &other.key.timer).await, answered(&other, State::Failed, 404, Some("status 404")));
}

pub async fn a_newer_timer_wins_over_a_deferral(world: &impl World) {
    let (a, _, run) = running(world, "first").await;
    let newer_at = world.store().now().await.unwrap().after(Duration::from_secs(60));
    world.put(&definition(&run.key.timer, newer_at)).await;
    let settlement = defer(&run, run.key.claimed_at);
    assert_eq!(settle(world, &a, std::slice::from_ref(&settlement)).await, [true]);
    assert_eq!(world.timer(&run.key.timer).await.unwrap().definition.execute_at, newer_at);
    let row = row(world, &run.key.timer).await;
    assert_eq!((row.state, row.sent_at, row.status), (State::Failed, None, None));
    assert_eq!(row.answered_at, Some(settlement.attempt.answered_at));
    assert_eq!(row.last_error.as_deref(), Some(SUPERSEDED));
}

pub async fn a_second_settle_is_not_written(world: &impl World) {
    let (a, grant, over) = running(world, "over").await;
    let back = run(world, &a, &grant, &key("back")).await;
    let settlements = [succeeded(&over), retry_at(&back, back.key.claimed_at)];
    assert_eq!(settle(world, &a, &settlements).await, [true, true]);
    let (row_before, timer_before) = (row(world, &over.key.timer).await, world.timer(&back.key.timer).await);
    assert_eq!(settle(world, &a, &settlements).await, [false, false]);
    assert_eq!(settle(world, &a, &[failed(&over), reschedule(&back, Timestamp::MAX)]).await, [false, false]);
    assert_eq!(row(world, &over.key.timer).await, row_before);
    let timer_after = world.timer(&back.key.timer).await;
    assert_eq!(format!("{timer_after:?}"), format!("{timer_before:?}"));
    assert_eq!(world.attempts(&back.key.timer).await.len(), 1);
}

/// Settles in vain, in each of the ways: the run stays under way.
async fn is_refused(world: &impl World, owner: &Owner, run: &Run) {
    let before = row(world, &run.key.timer).await;
    let at = run.key.claimed_at;
    for settlement in
        [succeeded(run), failed(run), retry_at(run, at), reschedule(run, at), defer(run, at), give_up(run)]
    {
        assert_eq!(settle(world, owner, &[settlement]).await, [false]);
        assert_eq!(row(world, &run.key.timer).await, before);
        assert!(world.timer(&run.key.timer).await.is_none());
        assert_eq!(world.attempts(&run.key.timer).await, []);
    }
}

pub async fn a_settle_under_an_old_epoch_changes_nothing(world: &impl World) {
    let (a, _, run) = running(world, "first").await;
    world.expire(run.key.timer.shard()).await;
    // The same owner once more: nobody has adopted the run, and its epoch is over all the same.
    lease(world, &a, Shard::COUNT).await;
    is_refused(world, &a, &run).await;
}

pub async fn a_settle_under_an_expired_lease_changes_nothing(world: &impl World) {
    let (a, _, run) = running(world, "first").await;
    is_refused(world, &owner("b"), &run).await;
    world.expire(run.key.timer.shard()).await;
    is_refused(world, &a, &run).await;
}

pub async fn an_adopted_run_is_settled_by_its_new_owner_alone(world: &impl World) {
    let (a, _, run) = running(world, "first").await;
    let b = owner("b");
    world.expire(run.key.timer.shard()).await;
    let taken = lease(world, &b, Shard::COUNT).await;
    let adopted = world.store().adopt(&b, &taken.held, MANY).await.unwrap().remove(0);
    is_refused(world, &a, &run).await;
    // Not even the new owner may settle what the old one began.
    is_refused(world, &b, &run).await;
    assert_eq!(settle(world, &b, &[succeeded(&adopted)]).await, [true]);
    assert_eq!(row(world, &run.key.timer).await.state, State::Succeeded);
}

const SUPERSEDED: &str = "superseded by a newer timer of the same id";

pub async fn a_newer_timer_wins_over_a_retry(world: &impl World) {
    let (a, _, run) = running(world, "first").await;
    let newer_at = world.store().now().await.unwrap().after(Duration::from_secs(60));
    world.put(&definition(&run.key.timer, newer_at)).await;
    assert_eq!(settle(world, &a, &[retry_at(&run, run.key.claimed_at)]).await, [true]);
    let timer = world.timer(&run.key.timer).await.unwrap();
    assert_eq!((timer.definition.execute_at, timer.attempts, timer.retry_at), (newer_at, 0, None));
    assert_eq!(row(world, &run.key.timer).await, answered(&run, State::Failed, 503, Some(SUPERSEDED)));
    // The attempt stands in its run's row.
    assert_eq!(world.attempts(&run.key.timer).await, []);
}

/// Whoever deletes a timer by its name wants nothing under that name to be tried again, of whichever definition it is.
pub async fn a_newer_timer_that_was_deleted_takes_the_older_one_along(world: &impl World) {
    const CANCELLED: &str = "cancelled: it was deleted, or a later occurrence of its schedule takes its place";
    let (a, grant, retried) = running(world, "0").await;
    let mut older = vec![retried];
    for id in ["1", "2", "3"] {
        older.push(run(world, &a, &grant, &key(id)).await);
    }
    let far = older[0].key.claimed_at.after(Duration::from_secs(60));
    for run in &older {
        world.put(&definition(&run.key.timer, far)).await;
        world.delete(&run.key.timer).await;
    }
    let at = older[0].key.claimed_at;
    let settlements = [retry_at(&older[0], at), reschedule(&older[1], at), succeeded(&older[2])];
    assert_eq!(settle(world, &a, &settlements).await, [true, true, true]);
    for run in &older {
        assert!(world.timer(&run.key.timer).await.is_none());
    }
    assert_eq!(row(world, &older[0].key.timer).await, answered(&older[0], State::Failed, 503, Some(CANCELLED)));
    assert_eq!(row(world, &older[1].key.timer).await, answered(&older[1], State::Failed, 200, Some(CANCELLED)));
    assert_eq!(row(world, &older[2].key.timer).await.state, State::Succeeded, "it was under way");
    // One that is put in behind that is another one.
    world.put(&definition(&older[3].key.timer, at)).await;
    let again = run(world, &a, &grant, &older[3].key.timer).await;
    assert_eq!(settle(world, &a, &[retry_at(&again, at)]).await, [true]);
    assert!(world.timer(&older[3].key.timer).await.is_some());
}

pub async fn a_newer_timer_wins_over_a_reschedule_also_when_it_was_claimed(world: &impl World) {
    let (a, grant, older) = running(world, "first").await;
    let key = &older.key.timer;
    let newer = run(world, &a, &grant, key).await;
    assert_eq!(settle(world, &a, &[reschedule(&older, Timestamp::MAX)]).await, [true]);
    assert!(world.timer(key).await.is_none());
    let rows = world.runs(key).await;
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0], answered(&older, State::Failed, 200, Some(SUPERSEDED)));
    assert_eq!(rows[1].state, State::Running);
    assert_eq!(settle(world, &a, &[succeeded(&newer)]).await, [true]);
}

pub async fn of_two_retries_of_one_id_the_newer_stays(world: &impl World) {
    let (a, grant, older) = running(world, "first").await;
    let key = &older.key.timer;
    let newer = run(world, &a, &grant, key).await;
    let at = newer.key.claimed_at;
    assert_eq!(settle(world, &a, &[retry_at(&newer, at), retry_at(&older, at)]).await, [true, true]);
    assert_eq!(row(world, key).await, answered(&older, State::Failed, 503, Some(SUPERSEDED)));
    let timer = world.timer(key).await.unwrap();
    assert_eq!(timer.definition.execute_at, newer.timer.definition.execute_at);
    assert_eq!(timer.retry_at, Some(at));
}

pub async fn settles_are_answered_in_their_order(world: &impl World) {
    let (a, grant, first) = running(world, "0").await;
    let mut runs = vec![first];
    for id in ["1", "2", "3", "4", "5"] {
        runs.push(run(world, &a, &grant, &key(id)).await);
    }
    let at = runs[0].key.claimed_at;
    assert_eq!(settle(world, &a, &[retry_at(&runs[1], at), failed(&runs[4])]).await, [true, true]);
    let settlements = [
        retry_at(&runs[0], at),
        retry_at(&runs[1], at),
        succeeded(&runs[2]),
        reschedule(&runs[3], at),
        succeeded(&runs[4]),
        failed(&runs[5]),
    ];
    assert_eq!(settle(world, &a, &settlements).await, [true, false, true, true, false, true]);
    assert_eq!(settle(world, &a, &[]).await, [] as [bool; 0]);
}
