//! The machine, step by step.

use super::*;
use crate::domain::schedule::{Rule, When};
use crate::domain::timer::TimerKey;

const NOW: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

fn every(seconds: u64, next_at: Timestamp) -> Schedule {
    Schedule {
        key: TimerKey::new("n", "a"),
        rule: Rule::new(When::Every(Duration::from_secs(seconds))),
        created_at: NOW.before(Duration::from_secs(3600)),
        changed_at: NOW.before(Duration::from_secs(3600)),
        next_at,
        buffered_at: None,
        active: false,
        revision: 0,
    }
}

fn due(schedules: Vec<Schedule>, next_at: Option<Timestamp>) -> Event {
    Event::Loaded(Ok(Due { schedules, next_at }))
}

fn unavailable() -> Unavailable {
    Unavailable { doing: "testing", source: "planted".into() }
}

#[test]
fn it_looks_each_second_and_wakes_at_the_moment_that_it_knows() {
    let mut machine = Schedules::default();
    let Some(Effect::Load(request)) = machine.step(NOW, &[Shard(3)], Event::Tick) else { panic!("it asks at once") };
    assert_eq!((request.shards, request.until), (vec![Shard(3)], NOW.after(limits::SCHEDULE_LEAD)));
    assert!(machine.step(NOW, &[], Event::Tick).is_none(), "one question at a time");
    assert!(machine.step(NOW, &[], due(vec![], None)).is_none());
    assert_eq!(machine.next_wake(), NOW.after(POLL));
    assert!(machine.step(NOW, &[], Event::Tick).is_none(), "not before it is time");

    let soon = NOW.after(Duration::from_millis(1400));
    assert!(machine.step(NOW.after(POLL), &[], Event::Tick).is_some());
    machine.step(NOW.after(POLL), &[], due(vec![], Some(soon)));
    assert_eq!(machine.next_wake(), soon);
}

#[test]
fn it_has_settled_what_is_due_and_goes_on_while_there_is_more() {
    let mut machine = Schedules::default();
    machine.step(NOW, &[], Event::Tick);
    let full = (0..limits::BATCH_ROWS_MAX).map(|_| every(60, NOW)).collect();
    let Some(Effect::Settle(planned)) = machine.step(NOW, &[], due(full, None)) else { panic!("it has them settled") };
    assert_eq!(planned.len(), limits::BATCH_ROWS_MAX);
    assert_eq!(planned[0].plan.next_at, NOW.after(Duration::from_secs(60)));
    machine.step(NOW, &[], Event::Settled(Ok(vec![false, true])));
    assert_eq!(machine.next_wake(), NOW, "there may be more");

    machine.step(NOW, &[], Event::Tick);
    let full = (0..limits::BATCH_ROWS_MAX).map(|_| every(60, NOW)).collect();
    machine.step(NOW, &[], due(full, None));
    machine.step(NOW, &[], Event::Settled(Ok(vec![false])));
    assert_eq!(machine.next_wake(), NOW.after(POLL), "others are at it");
}

#[test]
fn what_fits_no_statement_waits_for_the_next() {
    let mut machine = Schedules::default();
    machine.step(NOW, &[], Event::Tick);
    let mut greedy = every(1, NOW.before(Duration::from_secs(3000)));
    greedy.rule.overlap = schedule::Overlap::Allow;
    greedy.rule.catch_up = schedule::CatchUp::All;
    greedy.rule.catch_up_max = 1000;
    let Some(Effect::Settle(planned)) = machine.step(NOW, &[], due(vec![greedy; 10], None)) else { panic!("some") };
    assert_eq!(planned.len(), 2);
    machine.step(NOW, &[], Event::Settled(Ok(vec![true, true])));
    assert_eq!(machine.next_wake(), NOW);
}

#[test]
fn a_store_that_does_not_answer_is_asked_again() {
    let mut machine = Schedules::default();
    for answer in [Event::Loaded(Err(unavailable())), Event::Settled(Err(unavailable()))] {
        machine.step(NOW, &[], Event::Tick);
        assert!(machine.step(NOW, &[], answer).is_none());
        assert_eq!(machine.next_wake(), NOW.after(POLL));
        machine.wake_at = NOW;
    }
}
