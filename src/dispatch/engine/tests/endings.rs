//! Tests of what becomes of a run after its attempt.

use super::*;

#[test]
fn a_failed_attempt_is_due_again() {
    let mut rig = Rig::new(Config::default());
    let sent = rig.send("a");
    let failure = Verdict::Retry { not_before: Some(at(3_000)), error: "503".into() };
    let mut effects = rig.step(at(1), Event::Attempted { run: sent, attempt: attempt(failure) });
    let Some(Effect::Settle(settlements)) = effects.pop() else { panic!("{effects:?}") };
    assert_eq!(settlements[0].ending, Ending::RetryAt(at(3_000)));
    rig.step(at(2), Event::Settled { settlements, written: Ok(vec![Ok(true)]) });
    assert_eq!(rig.claim_ids(at(3_000)), ["a"]);
}

#[test]
fn a_wish_of_the_receiver_that_ends_the_retries_is_named() {
    let ends = |not_before, answered_at| {
        let mut rig = Rig::new(Config::default());
        let mut run = rig.send("a");
        run.timer.first_attempt_at = Some(START);
        run.timer.definition.retry.attempts_duration = Duration::from_secs(60);
        let verdict = Verdict::Retry { not_before, error: "answered 503".into() };
        let attempt = Attempt { answered_at, ..attempt(verdict) };
        let effects = rig.step(at(1), Event::Attempted { run, attempt });
        let [Effect::Settle(settlements)] = &effects[..] else { panic!("{effects:?}") };
        let Verdict::Retry { error, .. } = &settlements[0].attempt.verdict else { panic!("{settlements:?}") };
        (settlements[0].ending, error.clone())
    };
    let why = "answered 503; not tried again: its Retry-After is beyond the 1m of the policy";
    assert_eq!(ends(Some(at(60_001)), at(1)), (Ending::Failed, why.to_owned()));
    assert_eq!(ends(Some(at(60_000)), at(1)), (Ending::RetryAt(at(60_000)), "answered 503".to_owned()));
    // What is over by itself is not ended by the receiver's wish.
    assert_eq!(ends(Some(at(90_000)), at(60_000)), (Ending::Failed, "answered 503".to_owned()));
    assert_eq!(ends(None, at(60_000)), (Ending::Failed, "answered 503".to_owned()));
}
