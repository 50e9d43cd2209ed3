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
