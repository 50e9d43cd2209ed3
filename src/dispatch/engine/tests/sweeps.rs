//! Tests of the engine: what a sweep finds, and what has only changed meanwhile.

use super::*;

/// A moment at which a sweep begins.
const SWEEP: u64 = 6_000;

impl Rig {
    /// A rig whose sweep has asked for its page.
    fn sweeping(config: Config) -> Self {
        let mut rig = Self::new(config);
        let effects = rig.step(at(SWEEP - 1_000), Event::Noted(vec![entry("a", at(10_000))]));
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Load(_))), "{effects:?}");
        rig
    }

    /// The answer to a claim of the timer `a`: its run, or none and the moment at which the row is due.
    fn found(&mut self, now: Timestamp, id: u64, due_at: Timestamp, taken: bool) -> bool {
        let answer = match taken {
            true => Claimed { runs: vec![run("a", due_at, 1)], left: Vec::new() },
            false => Claimed { runs: Vec::new(), left: vec![entry("a", due_at)] },
        };
        let effects = self.step(now, Event::Claimed { id, answer: Ok(answer) });
        effects.iter().any(|effect| matches!(effect, Effect::Found(_)))
    }
}

fn page(id: &str, due_at: Timestamp) -> Event {
    Event::Loaded(Ok(vec![entry(id, due_at)]))
}

#[test]
fn a_sweep_tells_what_was_missed() {
    let mut rig = Rig::sweeping(Config::default());
    let (id, _) = rig.claims(at(SWEEP), page("a", at(2_000))).expect("it is overdue");
    assert!(rig.found(at(SWEEP), id, at(2_000), true), "the feed had told of another moment");
}

#[test]
fn what_the_feed_tells_of_during_the_claim_was_not_missed() {
    let mut rig = Rig::sweeping(Config::default());
    let (id, _) = rig.claims(at(SWEEP), page("a", at(2_000))).expect("it is overdue");
    rig.step(at(SWEEP), Event::Noted(vec![entry("a", at(2_000))]));
    assert!(!rig.found(at(SWEEP), id, at(2_000), true));
    assert!(rig.engine.sweeping.is_empty());
}

#[test]
fn a_row_that_changed_behind_the_sweep_was_not_missed() {
    let mut rig = Rig::sweeping(Config::default());
    let now = at(SWEEP + 2_000);
    let (id, _) = rig.claims(now, page("a", at(2_000))).expect("it was overdue");
    assert!(!rig.found(now, id, at(10_000), false));
    let (id, _) = rig.claims(at(9_950), Event::Tick).expect("its moment is near");
    assert!(!rig.found(at(9_960), id, at(10_000), true), "left, and claimed at the moment that was known");

    let mut rig = Rig::sweeping(Config::default());
    let (id, _) = rig.claims(at(9_935), page("a", at(2_000))).expect("it was overdue");
    assert!(!rig.found(at(9_940), id, at(9_995), true), "claimed at once, at the moment that it has now");
}

#[test]
fn a_row_that_is_to_be_read_again_was_not_missed() {
    let mut rig = Rig::sweeping(Config { queue_max: 3, ..Config::default() });
    rig.step(at(SWEEP), Event::Trust(false));
    let overdue = ["b", "c", "d"].map(|id| entry(id, at(1_000)));
    // There is no room for the one that is due last.
    rig.step(at(SWEEP), Event::Noted(overdue.into()));
    let (_, claimed) = rig.claims(at(SWEEP), Event::Trust(true)).expect("the others are overdue");
    assert_eq!(claimed, ["b", "c", "d"]);
    let (id, _) = rig.claims(at(11_000), page("a", at(10_000))).expect("it is overdue");
    assert!(!rig.found(at(11_000), id, at(10_000), true));
}

#[test]
fn a_moment_that_the_row_tells_is_not_slept_through() {
    let mut rig = Rig::new(Config::default());
    // The feed tells of a change before a query sees it, or has told long ago of what has changed since.
    rig.step(START, Event::Noted(vec![entry("a", at(100))]));
    let (mut now, row) = (at(50), at(1_700));
    let (mut id, _) = rig.claims(now, Event::Tick).expect("its moment is near");
    while now < at(1_650) {
        rig.found(now, id, row, false);
        now = rig.engine.queue.first_at().expect("it waits");
        id = rig.claims(now, Event::Tick).expect("another claim").0;
    }
    assert_eq!(now, at(1_650), "the moment at which it is to be claimed");
}
