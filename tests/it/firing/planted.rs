//! The checkers themselves: evidence that is right passes, and each planted violation is found by its own rule.

use std::time::Duration;

use walclock::clock::Timestamp;
use walclock::domain::shard::Shard;

use super::checks::{Rule, check};
use super::ledger::{
    AGAIN, ATTEMPTS_MAX, Act, Attempt, Call, Deed, Evidence, Failure, Fault, Lease, NAMESPACE, Outcome, Residue, Run,
    Script, Want, Write,
};

const SECOND: Duration = Duration::from_secs(1);

/// So many milliseconds after the beginning.
fn at(millis: i64) -> Timestamp {
    Timestamp::from_micros(1_700_000_000_000_000 + millis * 1000)
}

fn want(number: i64, due: i64, script: Script) -> Want {
    Want { number, due: at(due), script }
}

fn act(timer: &str, deed: Deed, answered: i64, outcome: Outcome) -> Act {
    Act { timer: timer.to_owned(), deed, answered_at: at(answered), outcome }
}

/// The call of an attempt of this want's firing at `due`, which arrives at `arrived`.
fn call(timer: &str, want: Want, due: i64, attempt: u32, arrived: i64) -> Call {
    Call {
        timer: timer.to_owned(),
        number: want.number,
        first_due: want.due,
        execute_at: at(due),
        scheduled_for: at(due),
        webhook_id: format!("{timer} {} {due}", want.number),
        fence: 1,
        attempt,
        at: at(arrived),
    }
}

fn run(timer: &str, number: i64, due: i64, state: &str, attempts: u32) -> Run {
    Run { timer: timer.to_owned(), number, execute_at: at(due), state: state.to_owned(), attempts, error: None }
}

fn attempt(timer: &str, number: u32, due: i64, answered: i64, status: i16) -> Attempt {
    let (due_at, answered_at) = (at(due), Some(at(answered)));
    Attempt { timer: timer.to_owned(), claimed_at: at(due), attempt: number, due_at, answered_at, status: Some(status) }
}

const ERRS: Script = Script::Fails(Failure::Error, 1);

/// `a` is taken at once; `b` fails once; `c` is moved and then cancelled; `d` is overwritten, and calls once more by
/// itself; `e` was never answered, and came to nothing; `f` is cancelled too late; `g` lies far ahead.
fn evidence() -> Evidence {
    let (a, b) = (want(1, 100, Script::Takes), want(2, 100, ERRS));
    let (c, moved) = (want(3, 500, Script::Takes), want(4, 600, Script::Takes));
    let (d, over) = (want(5, 300, Script::Takes), want(6, 400, Script::Again(1)));
    let (e, f, g) = (want(7, 100, Script::Takes), want(8, 100, Script::Refuses), want(9, 9_000_000, Script::Takes));
    let again = 400 + i64::try_from(AGAIN.as_millis()).unwrap();
    let acts = vec![
        act("a", Deed::Insert(a), 10, Outcome::Done),
        act("b", Deed::Create(b), 10, Outcome::Done),
        act("c", Deed::Insert(c), 10, Outcome::Done),
        act("c", Deed::Move(moved), 20, Outcome::Done),
        act("c", Deed::Cancel, 30, Outcome::Done),
        act("d", Deed::Insert(d), 10, Outcome::Done),
        act("d", Deed::Create(over), 20, Outcome::Done),
        act("e", Deed::Insert(e), 10, Outcome::Unknown),
        act("f", Deed::Insert(f), 10, Outcome::Done),
        act("f", Deed::Cancel, 200, Outcome::Refused),
        act("g", Deed::Insert(g), 10, Outcome::Done),
    ];
    let calls = vec![
        call("a", a, 100, 1, 101),
        call("b", b, 100, 1, 101),
        Call { scheduled_for: at(220), ..call("b", b, 100, 2, 221) },
        call("d", over, 400, 1, 401),
        call("d", over, again, 1, again + 1),
        call("f", f, 100, 1, 101),
    ];
    let runs = vec![
        run("a", 1, 100, "succeeded", 1),
        run("b", 2, 100, "succeeded", 2),
        run("d", 6, again, "succeeded", 1),
        run("f", 8, 100, "failed", 1),
    ];
    let attempts = vec![attempt("b", 1, 100, 120, 500), attempt("b", 2, 220, 230, 200)];
    let shard = i16::from(Shard::of(NAMESPACE, "c").0);
    let lease = |epoch, owner: Option<&str>| {
        let owner = owner.map(str::to_owned);
        Lease { at: at(0), shard, epoch, owner, lapsed: false }
    };
    Evidence {
        acts,
        calls,
        runs,
        attempts,
        writes: vec![Write {
            timer: "a".to_owned(),
            number: Some(1),
            execute_at: at(100),
            attempt: 1,
            epoch: 1,
            lease: 1,
            is_end: false,
        }],
        leases: vec![lease(1, Some("one")), lease(1, None), lease(2, Some("two"))],
        faults: Vec::new(),
        residue: Residue::default(),
        quiet_at: at(10_000),
        late_max: SECOND,
    }
}

/// Plants something in evidence that is right; says which rules it breaks.
fn broken(plant: impl FnOnce(&mut Evidence)) -> Vec<Rule> {
    let mut evidence = evidence();
    plant(&mut evidence);
    let mut rules: Vec<Rule> = check(&evidence).into_iter().map(|(rule, _)| rule).collect();
    rules.dedup();
    rules
}

fn fault(from: i64, until: i64) -> Fault {
    Fault { what: "planted".to_owned(), forgets: false, from: at(from), until: at(until) }
}

#[test]
fn what_is_right_passes() {
    assert_eq!(check(&evidence()), []);
}

#[test]
fn an_early_call_is_found() {
    assert_eq!(broken(|evidence| evidence.calls[0].at = at(99)), [Rule::NeverEarly]);
    // A server that believes in another moment than the client's.
    let wrong = |evidence: &mut Evidence| {
        (evidence.calls[0].scheduled_for, evidence.calls[0].at) = (at(50), at(51));
    };
    assert_eq!(broken(wrong), [Rule::NeverEarly]);
}

#[test]
fn a_lost_timer_is_found() {
    let lose = |timer: &'static str| move |evidence: &mut Evidence| evidence.calls.retain(|call| call.timer != timer);
    assert_eq!(broken(lose("a")), [Rule::NeverLost]);
    // Its cancel was refused, so it had to be called.
    assert_eq!(broken(lose("f")), [Rule::NeverLost]);
    assert_eq!(
        broken(|evidence| drop(evidence.calls.remove(4))),
        [],
        "a call of the receiver's making shows in the runs"
    );
    assert_eq!(broken(|evidence| drop(evidence.runs.remove(2))), [Rule::NeverLost]);
    assert_eq!(broken(|evidence| evidence.runs[0].state = "failed".to_owned()), [Rule::NeverLost]);
    assert_eq!(broken(|evidence| evidence.runs[1].attempts = 1), [Rule::NeverLost]);
    let late = |evidence: &mut Evidence| evidence.calls[0].at = at(2_000);
    assert_eq!(broken(late), [Rule::NeverLost]);
    let across_a_fault = |evidence: &mut Evidence| {
        evidence.calls[0].at = at(2_000);
        evidence.faults.push(fault(50, 1_500));
    };
    assert_eq!(broken(across_a_fault), []);
    let long_behind_it = |evidence: &mut Evidence| {
        across_a_fault(evidence);
        evidence.calls[0].at = at(2_501);
    };
    assert_eq!(broken(long_behind_it), [Rule::NeverLost]);
    let late_before_it = |evidence: &mut Evidence| {
        late(evidence);
        evidence.faults.push(fault(1_200, 1_500));
    };
    assert_eq!(broken(late_before_it), [Rule::NeverLost], "a fault excuses nothing that was lost before");
    let unknown_move = |evidence: &mut Evidence| {
        let deed = Deed::Move(want(10, 300, Script::Takes));
        evidence.acts.insert(1, act("a", deed, 50, Outcome::Unknown));
        evidence.calls.remove(0);
    };
    assert_eq!(broken(unknown_move), [Rule::NeverLost], "either of the two moments had to be kept");
}

#[test]
fn a_run_that_is_given_up_without_a_reason_is_found() {
    let shard = i16::from(Shard::of(NAMESPACE, "b").0);
    // The last attempt of `b` is taken over so often, and then given up.
    let given_up = |takeovers: i64, attempts: u32, error: &'static str| {
        move |evidence: &mut Evidence| {
            let (state, error) = ("failed".to_owned(), Some(error.to_owned()));
            evidence.runs[1] = Run { state, attempts, error, ..evidence.runs[1].clone() };
            let owner = |n: i64| Some(n.to_string());
            let lease = |n: i64| Lease { at: at(200 + n), shard, epoch: 10 + n, owner: owner(n), lapsed: true };
            evidence.leases.extend((0..takeovers).map(lease));
        }
    };
    let gone = "no outcome: its dispatcher was gone 3 times before the callback was over";
    assert_eq!(broken(given_up(3, ATTEMPTS_MAX, gone)), []);
    assert_eq!(broken(given_up(2, ATTEMPTS_MAX, gone)), [Rule::NeverLost], "too few had it");
    assert_eq!(broken(given_up(3, 1, gone)), [Rule::NeverLost], "attempts were left");
    assert_eq!(broken(given_up(3, ATTEMPTS_MAX, "answered 500")), [Rule::NeverLost]);
}

/// `a` is called again at 1000.
fn double(evidence: &mut Evidence) {
    evidence.calls.push(Call { at: at(1_000), ..evidence.calls[0].clone() });
}

/// The same by another owner, who got the shard at 900: it had run out, or was given up.
fn taken_over(evidence: &mut Evidence, lapsed: bool) {
    double(evidence);
    evidence.calls.last_mut().unwrap().fence = 2;
    let shard = i16::from(Shard::of(NAMESPACE, "a").0);
    let lease = |from, epoch, owner: &str, lapsed| {
        let owner = Some(owner.to_owned());
        Lease { at: at(from), shard, epoch, owner, lapsed }
    };
    evidence.leases.extend([lease(1, 1, "one", false), lease(900, 2, "two", lapsed)]);
}

/// The same while something was broken.
fn taken_over_at_a_fault(evidence: &mut Evidence) {
    taken_over(evidence, false);
    evidence.faults.push(fault(500, 950));
}

#[test]
fn an_unexplained_double_is_found() {
    const FOUND: [Rule; 1] = [Rule::DuplicatesExplained];
    assert_eq!(broken(double), FOUND);
    assert_eq!(broken(taken_over_at_a_fault), []);
    let under_one_epoch = |evidence: &mut Evidence| {
        taken_over_at_a_fault(evidence);
        evidence.calls.last_mut().unwrap().fence = 1;
    };
    assert_eq!(broken(under_one_epoch), FOUND, "no fault makes an owner call twice");
    let by_one_owner = |evidence: &mut Evidence| {
        taken_over_at_a_fault(evidence);
        evidence.leases.last_mut().unwrap().owner = Some("one".to_owned());
    };
    assert_eq!(broken(by_one_owner), FOUND, "it knows what it has under way");
    for (from, until) in [(901, 1_200), (0, 899)] {
        let elsewhere = |evidence: &mut Evidence| {
            taken_over(evidence, false);
            evidence.faults.push(fault(from, until));
        };
        assert_eq!(broken(elsewhere), FOUND, "the shard went to another for nothing");
    }
    let left_behind = |evidence: &mut Evidence| {
        taken_over_at_a_fault(evidence);
        evidence.calls[0].at = at(1_100);
    };
    assert_eq!(broken(left_behind), [], "its receiver can tell by the fence");
    let over = |evidence: &mut Evidence| {
        taken_over_at_a_fault(evidence);
        evidence.writes[0].is_end = true;
    };
    assert_eq!(broken(over), FOUND, "its outcome was written");
    let other_id = |evidence: &mut Evidence| {
        taken_over_at_a_fault(evidence);
        evidence.calls.last_mut().unwrap().webhook_id = "another".to_owned();
    };
    assert_eq!(broken(other_id), FOUND, "a receiver could not tell that it is the same");
    let shared_id = |evidence: &mut Evidence| evidence.calls[5].webhook_id = evidence.calls[0].webhook_id.clone();
    assert_eq!(broken(shared_id)[0], Rule::DuplicatesExplained);
}

#[test]
fn a_lease_that_a_busy_machine_has_lost_explains_a_double() {
    assert_eq!(broken(|evidence| taken_over(evidence, true)), []);
    let by_one_owner = |evidence: &mut Evidence| {
        taken_over(evidence, true);
        evidence.leases.last_mut().unwrap().owner = Some("one".to_owned());
    };
    assert_eq!(broken(by_one_owner), [], "it had lost the lease, and what was under way with it");
    // That one ran out because its owner was dead, which is no sign of a busy machine.
    let dead = |evidence: &mut Evidence| {
        taken_over_at_a_fault(evidence);
        evidence.leases.last_mut().unwrap().lapsed = true;
        let shard = i16::from(Shard::of(NAMESPACE, "b").0);
        for (from, epoch, owner) in [(1, 1, "one"), (980, 2, "two")] {
            let owner = Some(owner.to_owned());
            evidence.leases.push(Lease { at: at(from), shard, epoch, owner, lapsed: false });
        }
        evidence.calls.push(Call { at: at(1_000), fence: 2, ..evidence.calls[2].clone() });
    };
    assert_eq!(broken(dead), [Rule::DuplicatesExplained]);
}

#[test]
fn a_crash_of_postgresql_explains_a_double_of_one_owner() {
    for (from, until, rules) in [(500, 600, &[][..]), (1_001, 1_200, &[Rule::DuplicatesExplained])] {
        let crash = |evidence: &mut Evidence| {
            double(evidence);
            evidence.faults.push(Fault { forgets: true, ..fault(from, until) });
        };
        assert_eq!(broken(crash), rules);
    }
}

#[test]
fn a_write_of_an_old_owner_is_found() {
    assert_eq!(broken(|evidence| evidence.writes[0].lease = 2), [Rule::Fenced]);
    assert_eq!(broken(|evidence| evidence.leases[2].epoch = 1), [Rule::Fenced], "two owners in one epoch");
}

#[test]
fn a_call_after_a_cancel_is_found() {
    let (c, moved) = (want(3, 500, Script::Takes), want(4, 600, Script::Takes));
    let after_cancel =
        |evidence: &mut Evidence| evidence.calls.push(Call { fence: 2, ..call("c", moved, 600, 1, 601) });
    let after_move = |evidence: &mut Evidence| evidence.calls.push(Call { fence: 2, ..call("c", c, 500, 1, 501) });
    assert_eq!(broken(after_cancel), [Rule::CancelledStays]);
    assert_eq!(broken(after_move), [Rule::CancelledStays]);
    let left_behind = |evidence: &mut Evidence| evidence.calls.push(call("c", moved, 600, 1, 601));
    assert_eq!(broken(left_behind), [], "its receiver can tell by the fence");
}

#[test]
fn a_miscount_of_attempts_is_found() {
    let hole = |evidence: &mut Evidence| evidence.calls[2].attempt = 3;
    assert_eq!(broken(hole), [], "the log knows of the second");
    let unlogged = |evidence: &mut Evidence| {
        hole(evidence);
        evidence.attempts.clear();
    };
    assert_eq!(broken(unlogged), [Rule::AttemptsCounted]);
    let order = |evidence: &mut Evidence| evidence.calls[2].at = evidence.calls[1].at.before(SECOND / 1000);
    assert!(broken(order).contains(&Rule::AttemptsCounted));
    for (due, status) in [(198, 500), (1_250, 200), (240, 429), (3_250, 429)] {
        let wait = |evidence: &mut Evidence| {
            evidence.attempts[0].status = Some(status);
            evidence.attempts[1].due_at = at(due);
        };
        assert_eq!(broken(wait), [Rule::AttemptsCounted], "{due} {status}");
    }
    let asked = |evidence: &mut Evidence| {
        evidence.attempts[0].status = Some(429);
        evidence.attempts[1].due_at = at(1_120);
    };
    assert_eq!(broken(asked), []);
}

#[test]
fn an_invented_call_is_found() {
    let unheard_of = |evidence: &mut Evidence| evidence.calls.push(call("z", want(99, 1, Script::Takes), 1, 1, 2));
    assert_eq!(broken(unheard_of), [Rule::NothingInvented]);
    let refused = |evidence: &mut Evidence| evidence.acts[0].outcome = Outcome::Refused;
    assert_eq!(broken(refused), [Rule::NothingInvented]);
}

#[test]
fn a_residue_is_found() {
    let plants: [fn(&mut Residue); 4] = [
        |residue| residue.overdue = 1,
        |residue| residue.running = 1,
        |residue| residue.ownerless = 1,
        |residue| residue.open = 1,
    ];
    for plant in plants {
        assert_eq!(broken(|evidence| plant(&mut evidence.residue)), [Rule::NothingLeft]);
    }
}
