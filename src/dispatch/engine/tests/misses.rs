//! Tests of the engine: timers that a claim did not get.

use super::*;

#[test]
fn a_timer_that_the_feed_shows_before_queries_do_is_tried_again() {
    let mut rig = Rig::new(Config::default());
    let (id, _) = rig.claims(START, Event::Noted(vec![entry("a", START)])).unwrap();
    rig.step(START, Event::Claimed { id, answer: Ok(Claimed::default()) });
    let (id, ids) = rig.claims(at(5), Event::Tick).expect("another claim");
    assert_eq!(ids, ["a"]);
    // What is not there seconds later is gone.
    rig.step(at(3_000), Event::Claimed { id, answer: Ok(Claimed::default()) });
    assert_eq!(rig.engine.queue_len(), 0);
}

#[test]
fn a_row_that_is_held_is_tried_again_with_growing_pauses() {
    let mut rig = Rig::new(Config::default());
    let mut now = START;
    let (mut id, _) = rig.claims(now, Event::Noted(vec![entry("a", START)])).unwrap();
    let mut pauses = Vec::new();
    for _ in 0..10 {
        let answer = Ok(Claimed { runs: Vec::new(), left: vec![entry("a", START)] });
        rig.step(now, Event::Claimed { id, answer });
        let next = rig.engine.queue.first_at().expect("it waits");
        pauses.push(next.since(now).as_millis());
        now = next;
        id = rig.claims(now, Event::Tick).expect("another claim").0;
    }
    assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
}

/// Its old moment is claimed again and again, because queries may be behind the feed. The last of these claims asks a moment too
/// early for the new one, which is near by the time of its answer.
#[test]
fn a_timer_that_was_moved_is_not_taken_for_one_that_is_held() {
    let mut rig = Rig::new(Config::default());
    let (old, new) = (at(1_000), at(1_100));
    let (mut id, _) = rig.claims(at(950), Event::Noted(vec![entry("a", old)])).unwrap();
    let left = |id| Event::Claimed { id, answer: Ok(Claimed { runs: Vec::new(), left: vec![entry("a", new)] }) };
    for (now, next) in [(950, 955), (955, 965), (965, 985), (985, 1_025)] {
        rig.step(at(now), left(id));
        (id, _) = rig.claims(at(next), Event::Tick).expect("another claim");
    }
    rig.step(at(1_040), left(id));
    assert_eq!(rig.engine.queue.first_at(), Some(at(1_050)), "the usual lead before the new moment");
}
