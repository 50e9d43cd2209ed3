//! Tests of the engine: what each event leads to. Whole histories are the simulation's.

mod endings;
mod hosts;
mod lanes;
mod misses;
mod sweeps;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::domain::callback::{Callback, Verdict};
use crate::domain::retry::RetryPolicy;
use crate::domain::run::Ending;
use crate::domain::timer::{Definition, Timer};

const START: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

fn at(millis: u64) -> Timestamp {
    START.after(Duration::from_millis(millis))
}

fn entry(id: &str, due_at: Timestamp) -> Entry {
    Entry { due_at, key: TimerKey::new("n", id) }
}

fn run(id: &str, due_at: Timestamp, epoch: i64) -> Run {
    let callback =
        Callback { url: "http://r/".into(), method: "POST".into(), headers: BTreeMap::new(), timeout: Duration::ZERO };
    let key = TimerKey::new("n", id);
    let retry = RetryPolicy::default();
    let definition = Definition { key: key.clone(), execute_at: due_at, callback, payload: None, retry };
    let timer = Timer { attempts: 1, ..Timer::new(definition, START) };
    Run {
        key: RunKey { timer: key, claimed_at: START },
        timer,
        epoch: Epoch(epoch),
        secrets: Arc::from([]),
        adoptions: 0,
        unwanted: false,
    }
}

fn attempt(verdict: Verdict) -> Attempt {
    Attempt { sent_at: START, answered_at: START, connected: true, status: None, reply_head: String::new(), verdict }
}

fn unavailable() -> Unavailable {
    Unavailable { doing: "a test", source: "no answer".into() }
}

fn all_in(epoch: i64) -> Event {
    let held = Shard::all().map(|shard| Lease { shard, epoch: Epoch(epoch) }).collect();
    Event::Holding(Holding { held, ..Holding::default() })
}

/// An engine that holds every shard in epoch 1, has adopted what there was, and loaded what was near at `START`.
struct Rig {
    engine: Engine,
}

impl Rig {
    fn new(config: Config) -> Self {
        let mut rig = Self { engine: Engine::new(config) };
        let effects = rig.step(START, all_in(1));
        assert!(matches!(effects[..], [Effect::Adopt { .. }, Effect::Load(_)]), "{effects:?}");
        rig.step(START, Event::Adopted(Ok(Vec::new())));
        // What was read, and the sweep that was planned with it.
        for _ in 0..3 {
            rig.step(START, Event::Loaded(Ok(Vec::new())));
        }
        rig
    }

    fn step(&mut self, now: Timestamp, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.engine.step(now, [event], &mut effects);
        self.engine.assert_invariants();
        effects
    }

    /// Steps and returns the one claim that this leads to: its number and the ids.
    fn claims(&mut self, now: Timestamp, event: Event) -> Option<(u64, Vec<String>)> {
        self.step(now, event).into_iter().find_map(|effect| match effect {
            Effect::Claim { id, timers, .. } => Some((id, timers.iter().map(|(key, _)| key.id.to_string()).collect())),
            _ => None,
        })
    }

    /// A run of epoch 1 that is under way.
    fn send(&mut self, id: &str) -> Box<Run> {
        self.send_at(START, id)
    }

    fn send_at(&mut self, now: Timestamp, id: &str) -> Box<Run> {
        let (claim, _) = self.claims(now, Event::Noted(vec![entry(id, START)])).unwrap();
        let answer = Ok(Claimed { runs: vec![run(id, START, 1)], left: Vec::new() });
        match self.step(now, Event::Claimed { id: claim, answer }).pop() {
            Some(Effect::Deliver(run)) => run,
            other => panic!("{other:?}"),
        }
    }

    fn claim_ids(&mut self, now: Timestamp) -> Vec<String> {
        self.claims(now, Event::Tick).map_or_else(Vec::new, |(_, ids)| ids)
    }
}

#[test]
fn a_timer_is_claimed_before_and_sent_at_its_moment() {
    let mut rig = Rig::new(Config::default());
    assert_eq!(rig.claims(START, Event::Noted(vec![entry("a", at(1000))])), None);
    assert_eq!(rig.claim_ids(at(900)), [""; 0]);
    let (id, ids) = rig.claims(at(950), Event::Tick).unwrap();
    assert_eq!(ids, ["a"]);
    let answer = Ok(Claimed { runs: vec![run("a", at(1000), 1)], left: Vec::new() });
    assert!(rig.step(at(960), Event::Claimed { id, answer }).is_empty());
    assert_eq!(rig.engine.next_wake(), Some(at(1000)));
    assert!(rig.step(at(999), Event::Tick).is_empty());
    assert!(matches!(rig.step(at(1000), Event::Tick)[..], [Effect::Deliver(_)]));
}

#[test]
fn of_hints_for_one_timer_the_right_one_counts() {
    let noted = |entries: &[u64]| Event::Noted(entries.iter().map(|due| entry("a", at(*due))).collect());
    for (case, events, claimed_at) in [
        ("the feed's last word counts, be it earlier", vec![noted(&[2000, 1000])], 1000),
        ("the feed's last word counts, be it later", vec![noted(&[1000, 2000])], 2000),
        ("a gap does not forget", vec![noted(&[1000]), Event::Gap], 1000),
    ] {
        let mut rig = Rig::new(Config::default());
        for event in events {
            rig.step(START, event);
        }
        assert_eq!(rig.claim_ids(at(claimed_at - 100)), [""; 0], "{case}");
        assert_eq!(rig.claim_ids(at(claimed_at)), ["a"], "{case}");
        assert_eq!(rig.engine.queue_len(), 0, "{case}");
    }
}

#[test]
fn a_claim_without_an_answer_gives_its_leases_up_and_the_adoption_finds_its_runs() {
    let mut rig = Rig::new(Config::default());
    let (id, _) = rig.claims(START, Event::Noted(vec![entry("a", START)])).unwrap();
    let effects = rig.step(START, Event::Claimed { id, answer: Err(unavailable()) });
    let shard = TimerKey::new("n", "a").shard();
    let gives_up =
        |effect: &Effect| matches!(effect, Effect::GiveUp(leases) if leases[..] == [Lease { shard, epoch: Epoch(1) }]);
    assert!(effects.iter().any(gives_up), "{effects:?}");
    assert_eq!(rig.claim_ids(at(200)), [""; 0], "nothing is claimed under a lease that is unsure");
    let effects = rig.step(at(300), all_in(2));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Adopt { .. })), "{effects:?}");
    let effects = rig.step(at(300), Event::Adopted(Ok(vec![run("a", START, 2)])));
    assert!(
        effects.iter().any(|effect| matches!(effect, Effect::Deliver(run) if run.epoch == Epoch(2))),
        "{effects:?}"
    );
}

#[test]
fn a_run_of_its_own_that_it_adopts_is_not_sent_again() {
    let mut rig = Rig::new(Config::default());
    let sent = rig.send("a");
    rig.step(at(1), all_in(2));
    // Answered before the adoption: under which epoch to write is not yet known.
    let effects = rig.step(at(1), Event::Attempted { run: sent, attempt: attempt(Verdict::Succeeded) });
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Settle(_))), "{effects:?}");
    let effects = rig.step(at(2), Event::Adopted(Ok(vec![run("a", START, 2)])));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Deliver(_))), "{effects:?}");
    let settles = |effect: &Effect| matches!(effect, Effect::Settle(written) if written[0].run.epoch == Epoch(2));
    assert!(effects.iter().any(settles), "{effects:?}");
}

#[test]
fn a_run_that_was_left_again_and_again_is_a_failed_attempt() {
    for (adoptions, is_sent) in [(1, true), (2, true), (3, false), (4, false)] {
        let mut rig = Rig::new(Config::default());
        let effects = rig.step(at(1), all_in(2));
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Adopt { .. })), "{effects:?}");
        let left = Run { adoptions, ..run("a", START, 2) };
        let effects = rig.step(at(2), Event::Adopted(Ok(vec![left])));
        let sent = effects.iter().any(|effect| matches!(effect, Effect::Deliver(_)));
        let abandoned = effects.iter().any(|effect| matches!(effect, Effect::Abandoned(_)));
        let settled = effects.iter().find_map(|effect| match effect {
            Effect::Settle(settlements) => settlements.first(),
            _ => None,
        });
        assert_eq!((sent, abandoned, settled.is_some()), (is_sent, !is_sent, !is_sent), "{adoptions}");
        // By its policy, which waits.
        let waits = |settlement: &Settlement| matches!(settlement.ending, Ending::RetryAt(next) if next > at(2));
        assert!(settled.is_none_or(waits), "{settled:?}");
    }
}

#[test]
fn a_run_that_nobody_wants_any_more_is_not_sent_again() {
    let mut rig = Rig::new(Config::default());
    rig.step(at(1), all_in(2));
    let left = Run { unwanted: true, ..run("a", START, 2) };
    let effects = rig.step(at(2), Event::Adopted(Ok(vec![left])));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Deliver(_))), "{effects:?}");
    let ends =
        |effect: &Effect| matches!(effect, Effect::Settle(written) if matches!(written[0].ending, Ending::Defer(_)));
    assert!(effects.iter().any(ends), "{effects:?}");
}

#[test]
fn nothing_new_begins_for_a_shard_that_is_to_leave() {
    let mut rig = Rig::new(Config::default());
    let sent = rig.send("a");
    rig.step(START, Event::Noted(vec![entry("b", at(500))]));
    let held: Vec<Lease> = Shard::all().map(|shard| Lease { shard, epoch: Epoch(1) }).collect();
    let leaving = Holding { held, leaving: Shard::all().collect(), unsure: Vec::new() };
    rig.step(at(1), Event::Holding(leaving));
    assert_eq!(rig.claim_ids(at(600)), [""; 0]);
    assert_eq!(rig.engine.busy_shards().into_iter().collect::<Vec<_>>(), [sent.key.timer.shard()]);
    // What is under way ends as always.
    let effects = rig.step(at(601), Event::Attempted { run: sent, attempt: attempt(Verdict::Succeeded) });
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Settle(_))), "{effects:?}");
    // It stays after all, and nothing was forgotten.
    let (_, ids) = rig.claims(at(602), all_in(1)).expect("a claim");
    assert_eq!(ids, ["b"]);
}

#[test]
fn nothing_is_sent_while_its_lease_is_unsure() {
    let mut rig = Rig::new(Config::default());
    let (id, _) = rig.claims(at(950), Event::Noted(vec![entry("a", at(1000))])).unwrap();
    let answer = Ok(Claimed { runs: vec![run("a", at(1000), 1)], left: Vec::new() });
    rig.step(at(960), Event::Claimed { id, answer });
    let unsure = Event::Holding(Holding { unsure: Shard::all().collect(), ..Holding::default() });
    assert!(rig.step(at(1000), unsure).is_empty());
    // Sure again in the same epoch: nobody else can have had it.
    let effects = rig.step(at(1100), all_in(1));
    assert!(matches!(effects[..], [Effect::Deliver(_)]), "{effects:?}");
}

#[test]
fn a_run_that_was_not_sent_is_sent_under_the_lease_that_is_sure() {
    let unsure = || Event::Holding(Holding { unsure: Shard::all().collect(), ..Holding::default() });
    let adopted = || Event::Adopted(Ok(vec![run("a", START, 2)]));
    // What happens before and after it comes back, and in which epoch it is sent then.
    for (before, after, epoch) in [
        (vec![], vec![], Some(1)),
        (vec![unsure()], vec![], None),
        (vec![unsure()], vec![all_in(1)], Some(1)),
        (vec![unsure()], vec![all_in(2)], None),
        (vec![unsure()], vec![all_in(2), adopted()], Some(2)),
        (vec![all_in(2)], vec![adopted()], Some(2)),
        (vec![all_in(2), adopted()], vec![], Some(2)),
        (vec![Event::Holding(Holding::default())], vec![], None),
    ] {
        let mut rig = Rig::new(Config::default());
        let waiting = rig.send("a");
        let case = format!("{before:?} and {after:?}");
        let events = before.into_iter().chain([Event::Unsent(waiting)]).chain(after);
        let effects: Vec<Effect> = events.flat_map(|event| rig.step(at(1), event)).collect();
        let sent: Vec<i64> = effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Deliver(run) => Some(run.epoch.0),
                _ => None,
            })
            .collect();
        assert_eq!(sent, Vec::from_iter(epoch), "{case}");
        assert_eq!(rig.engine.requests(), sent.len(), "{case}");
        rig.engine.assert_invariants();
    }
}

#[test]
fn a_lost_shard_takes_its_work_with_it() {
    let mut rig = Rig::new(Config::default());
    let sent = rig.send("a");
    rig.step(START, Event::Noted(vec![entry("b", at(500))]));
    rig.step(START, Event::Holding(Holding::default()));
    assert_eq!(rig.engine.queue_len(), 0);
    let effects = rig.step(at(1), Event::Attempted { run: sent, attempt: attempt(Verdict::Succeeded) });
    assert!(matches!(effects[..], [Effect::Stale(1)]), "{effects:?}");
    assert!(rig.engine.is_idle());
}

#[test]
fn an_outcome_without_an_answer_is_written_again() {
    let mut rig = Rig::new(Config::default());
    let sent = rig.send("a");
    let mut effects = rig.step(at(1), Event::Attempted { run: sent, attempt: attempt(Verdict::Succeeded) });
    let Some(Effect::Settle(settlements)) = effects.pop() else { panic!("{effects:?}") };
    assert!(rig.step(at(2), Event::Settled { settlements, written: Err(unavailable()) }).is_empty());
    let mut effects = rig.step(at(200), Event::Tick);
    let Some(Effect::Settle(settlements)) = effects.pop() else { panic!("{effects:?}") };
    // It had been written the first time: that is no stale write.
    assert!(rig.step(at(201), Event::Settled { settlements, written: Ok(vec![Ok(false)]) }).is_empty());
    assert!(rig.engine.is_idle());
}

#[test]
fn of_a_batch_only_what_could_not_be_written_is_written_again() {
    let mut rig = Rig::new(Config::default());
    let runs = ["first", "held", "written"].map(|id| rig.send(id));
    let answers = runs.map(|run| rig.step(at(1), Event::Attempted { run, attempt: attempt(Verdict::Succeeded) }));
    let settlements = |effects: Vec<Effect>| {
        effects.into_iter().find_map(|effect| match effect {
            Effect::Settle(settlements) => Some(settlements),
            _ => None,
        })
    };
    let first = answers.into_iter().find_map(settlements).unwrap();
    let effects = rig.step(at(2), Event::Settled { settlements: first, written: Ok(vec![Ok(true)]) });
    let both = settlements(effects).unwrap();
    let ids: Vec<&str> = both.iter().map(|one| &*one.run.key.timer.id).collect();
    assert_eq!(ids, ["held", "written"]);
    let written = Ok(vec![Err(unavailable()), Ok(true)]);
    assert!(rig.step(at(3), Event::Settled { settlements: both, written }).is_empty());
    rig.engine.assert_invariants();
    let again = settlements(rig.step(at(203), Event::Tick)).unwrap();
    let ids: Vec<&str> = again.iter().map(|one| &*one.run.key.timer.id).collect();
    assert_eq!(ids, ["held"]);
    // Surely nobody had written it before: now somebody else has.
    let effects = rig.step(at(204), Event::Settled { settlements: again, written: Ok(vec![Ok(false)]) });
    assert!(matches!(effects[..], [Effect::Stale(1)]), "{effects:?}");
    assert!(rig.engine.is_idle());
}

#[test]
fn an_outcome_that_cannot_be_written_holds_up_no_other() {
    let mut rig = Rig::new(Config::default());
    let [stuck, first, second] = ["a", "b", "c"].map(|id| rig.send(id));
    let settled = |rig: &mut Rig, now, run| {
        let effects = rig.step(now, Event::Attempted { run, attempt: attempt(Verdict::Succeeded) });
        effects.into_iter().find_map(|effect| match effect {
            Effect::Settle(settlements) => Some(settlements),
            _ => None,
        })
    };
    let settlements = settled(&mut rig, at(1), stuck).unwrap();
    rig.step(at(2), Event::Settled { settlements, written: Err(unavailable()) });
    // Neither in the pause, nor while it is written once more, do the others wait for it or go with it.
    let settlements = settled(&mut rig, at(3), first).unwrap();
    assert_eq!((settlements.len(), &*settlements[0].run.key.timer.id), (1, "b"));
    rig.step(at(4), Event::Settled { settlements, written: Ok(vec![Ok(true)]) });
    let Some(Effect::Settle(repeated)) = rig.step(at(200), Event::Tick).pop() else { panic!("not repeated") };
    assert_eq!((repeated.len(), &*repeated[0].run.key.timer.id), (1, "a"));
    let settlements = settled(&mut rig, at(201), second).unwrap();
    assert_eq!((settlements.len(), &*settlements[0].run.key.timer.id), (1, "c"));
    rig.step(at(202), Event::Settled { settlements, written: Ok(vec![Ok(true)]) });
    rig.step(at(203), Event::Settled { settlements: repeated, written: Ok(vec![Ok(true)]) });
    assert!(rig.engine.is_idle());
}

#[test]
fn settlements_are_grouped_while_one_is_under_way() {
    let mut rig = Rig::new(Config::default());
    let runs = ["a", "b", "c"].map(|id| rig.send(id));
    let mut sizes = Vec::new();
    let mut first = None;
    for run in runs {
        for effect in rig.step(at(1), Event::Attempted { run, attempt: attempt(Verdict::Succeeded) }) {
            let Effect::Settle(settlements) = effect else { panic!("{effect:?}") };
            sizes.push(settlements.len());
            first = Some(settlements);
        }
    }
    let settled = Event::Settled { settlements: first.unwrap(), written: Ok(vec![Ok(true)]) };
    let effects = rig.step(at(2), settled);
    assert!(matches!(&effects[..], [Effect::Settle(settlements)] if settlements.len() == 2), "{effects:?}");
    assert_eq!(sizes, [1]);
}

#[test]
fn outcomes_are_gathered_while_a_batch_of_others_is_under_way() {
    let mut rig = Rig::new(Config { batch_max: 3, ..Config::default() });
    let mut runs = ["a", "b", "c", "d", "e"].map(|id| rig.send(id)).into_iter();
    let mut ends = |rig: &mut Rig, now| {
        let attempt = attempt(Verdict::Succeeded);
        let effects = rig.step(now, Event::Attempted { run: runs.next().unwrap(), attempt });
        effects.into_iter().find_map(|effect| match effect {
            Effect::Settle(settlements) => Some(settlements),
            _ => None,
        })
    };
    assert!(ends(&mut rig, at(1)).is_none() && ends(&mut rig, at(2)).is_none(), "three are still under way");
    assert_eq!(rig.engine.next_wake(), Some(at(21)));
    let batch = ends(&mut rig, at(3)).unwrap();
    assert_eq!(batch.len(), 3, "a full one goes at once");
    rig.step(at(4), Event::Settled { settlements: batch, written: Ok(vec![Ok(true), Ok(true), Ok(true)]) });
    assert_eq!(ends(&mut rig, at(5)).unwrap().len(), 1, "one that only one other could join goes alone");
}

#[test]
fn a_namespace_that_fills_the_queue_is_cut_off_and_read_on_later() {
    let mut rig = Rig::new(Config { queue_max: 10, ..Config::default() });
    let far = |number: u64| entry(&format!("{number:02}"), at(10_000 + number * 100));
    rig.step(START, Event::Noted((0..20).map(far).collect()));
    assert_eq!(rig.engine.queue_len(), 10);
    let other = TimerKey::new("other", "far");
    rig.step(START, Event::Noted(vec![Entry { due_at: at(20_000), key: other.clone() }]));
    assert_eq!(rig.engine.queue_len(), 10);
    assert!(rig.engine.queue.get(&other).is_some(), "another's has room, however far ahead");
    let reads_on = |effect: &Effect| match effect {
        Effect::Load(request) => request.after.as_ref().is_some_and(|after| after.due_at == at(10_900)),
        _ => false,
    };
    let mut effects = rig.step(at(10_800), Event::Tick);
    assert_eq!(lanes::claimed(&effects), 9, "{effects:?}");
    // The horizon has moved as well.
    while !effects.iter().any(reads_on) {
        effects = rig.step(at(10_801), Event::Loaded(Ok(Vec::new())));
        assert!(!effects.is_empty(), "what was cut off is not read");
    }
    rig.step(at(10_802), Event::Loaded(Ok((9..20).map(far).collect())));
    assert_eq!(rig.engine.queue_len(), 10, "as many as before");
}

#[test]
fn a_drain_finishes_what_is_under_way_and_takes_nothing_new() {
    let mut rig = Rig::new(Config::default());
    let sent = rig.send("a");
    rig.step(at(1), Event::Drain);
    assert!(rig.step(at(2), Event::Noted(vec![entry("b", at(2))])).is_empty());
    assert!(!rig.engine.is_idle());
    let mut effects = rig.step(at(3), Event::Attempted { run: sent, attempt: attempt(Verdict::Succeeded) });
    let Some(Effect::Settle(settlements)) = effects.pop() else { panic!("{effects:?}") };
    rig.step(at(4), Event::Settled { settlements, written: Ok(vec![Ok(true)]) });
    assert!(rig.engine.is_idle());
    assert_eq!(rig.engine.next_wake(), None);
}

#[test]
fn nothing_is_claimed_or_sent_while_the_clock_is_not_trusted() {
    let mut rig = Rig::new(Config::default());
    let sent = rig.send("under way");
    let (id, _) = rig.claims(at(950), Event::Noted(vec![entry("claimed", at(1000)), entry("due", at(1100))])).unwrap();
    rig.step(at(955), Event::Trust(false));
    let answer = Ok(Claimed { runs: vec![run("claimed", at(1000), 1)], left: Vec::new() });
    assert!(rig.step(at(960), Event::Claimed { id, answer }).is_empty());
    assert!(rig.step(at(2000), Event::Tick).is_empty());
    assert!(rig.engine.next_wake().is_none_or(|wake| wake > at(2000)), "it would spin");
    // What is under way is finished.
    let effects = rig.step(at(2000), Event::Attempted { run: sent, attempt: attempt(Verdict::Succeeded) });
    assert!(matches!(effects[..], [Effect::Settle(_)]), "{effects:?}");
    let effects = rig.step(at(2000), Event::Trust(true));
    assert!(matches!(effects[..], [Effect::Deliver(_), Effect::Claim { .. }]), "{effects:?}");
}

/// Pauses were reckoned by a time that is an hour off: none of them may last for an hour.
#[test]
fn a_clock_that_is_set_back_delays_nothing() {
    let hour = 3_600_000;
    let mut rig = Rig::new(Config::default());
    rig.step(at(hour), Event::Tick);
    let (id, _) = rig.claims(at(hour), Event::Noted(vec![entry("held", START)])).expect("a claim");
    let answer = Ok(Claimed { runs: Vec::new(), left: vec![entry("held", START)] });
    rig.step(at(hour), Event::Claimed { id, answer });
    let sent = rig.send_at(at(hour), "unwritten");
    let mut effects = rig.step(at(hour), Event::Attempted { run: sent, attempt: attempt(Verdict::Succeeded) });
    let Some(Effect::Settle(settlements)) = effects.pop() else { panic!("{effects:?}") };
    rig.step(at(hour), Event::Settled { settlements, written: Err(unavailable()) });

    let effects = rig.step(at(1), Event::Tick);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Claim { .. })), "{effects:?}");
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Settle(_))), "{effects:?}");
    let wake = rig.engine.next_wake().expect("it sweeps");
    assert!(wake <= at(1).after(Config::default().sweep_every), "{wake}");
    let sweeps = |effect: &Effect| matches!(effect, Effect::Load(request) if request.after.is_none());
    let mut now = at(1);
    let swept = (0..10).any(|_| {
        now = now.after(Duration::from_secs(1));
        rig.step(now, Event::Loaded(Ok(Vec::new()))).iter().any(sweeps)
    });
    assert!(swept, "no sweep within ten seconds");
}

#[test]
fn a_sweep_comes_though_the_horizon_moves_whenever_it_is_due() {
    let step = Config::default().sweep_every;
    let mut rig = Rig::new(Config { horizon_step: step, ..Config::default() });
    let (mut moves, mut sweeps) = (0, 0);
    for number in 1..=10 {
        let now = START.after(step * number);
        let mut effects = rig.step(now, Event::Tick);
        while let Some(request) = effects.iter().find_map(|effect| match effect {
            Effect::Load(request) => Some(request),
            _ => None,
        }) {
            moves += u32::from(request.after.is_some());
            sweeps += u32::from(request.after.is_none());
            effects = rig.step(now, Event::Loaded(Ok(Vec::new())));
        }
    }
    assert_eq!((moves, sweeps), (10, 10), "both, whenever they are due");
}

/// It was due, and waited for another of its host; by the clock that was set back it is not due any more.
#[test]
fn a_clock_that_is_set_back_holds_what_waits_for_its_host() {
    let mut rig = Rig::new(Config { host_inflight_max: 1, ..Config::default() });
    let first = rig.send_at(at(1000), "first");
    let (id, _) = rig.claims(at(1000), Event::Noted(vec![entry("second", at(900))])).unwrap();
    let answer = Ok(Claimed { runs: vec![run("second", at(900), 1)], left: Vec::new() });
    assert!(rig.step(at(1000), Event::Claimed { id, answer }).is_empty());
    assert_eq!(rig.engine.waiting(), 1);
    let effects = rig.step(at(500), Event::Attempted { run: first, attempt: attempt(Verdict::Succeeded) });
    assert!(matches!(effects[..], [Effect::Settle(_)]), "{effects:?}");
    let sends = |effect: &Effect| matches!(effect, Effect::Deliver(run) if &*run.key.timer.id == "second");
    assert!(!rig.step(at(899), Event::Tick).iter().any(sends));
    assert!(rig.step(at(900), Event::Tick).iter().any(sends));
}

#[test]
fn settings_out_of_bounds_are_refused() {
    assert_eq!(Config::default().validate(), Ok(()));
    for config in [
        Config { batch_max: 0, ..Config::default() },
        Config { batch_max: BATCH_ROWS_MAX + 1, ..Config::default() },
        Config { inflight_max: 0, ..Config::default() },
        Config { horizon_step: Duration::ZERO, ..Config::default() },
        Config { lead: Duration::from_secs(61), ..Config::default() },
        Config { sweep_every: Duration::ZERO, ..Config::default() },
    ] {
        assert!(config.validate().is_err(), "{config:?}");
    }
}

#[test]
fn what_the_process_was_short_of_costs_no_attempt_and_says_nothing_of_the_host() {
    let mut rig = Rig::new(Config { host_failures_max: 1, ..Config::default() });
    let unmade = || Unmade { reason: "not sent".to_owned() };
    let mut latest = START;
    for count in 1..=1_000_u64 {
        let sent = rig.send_at(START, &count.to_string());
        let effects = rig.step(START, Event::Unmade(sent, unmade()));
        let [Effect::Settle(settlements)] = &effects[..] else { panic!("{effects:?}") };
        let Ending::Defer(again_at) = settlements[0].ending else { panic!("{settlements:?}") };
        // The more there are, the longer it may take.
        assert!((at(1_000)..=at(1_000 + count)).contains(&again_at), "number {count} at {again_at}");
        latest = latest.max(again_at);
        let (settlements, written) = (settlements.clone(), Ok(vec![Ok(true)]));
        rig.step(START, Event::Settled { settlements, written });
    }
    assert!(latest > at(1_500), "they are spread, the last one at {latest}");
    assert_eq!((rig.engine.deferred(), rig.engine.hosts_spared()), (1_000, 0));
    assert!(rig.engine.is_idle());
    // It is over where its policy is.
    let mut sent = rig.send_at(START, "tried");
    (sent.timer.attempts, sent.timer.first_attempt_at) =
        (2, Some(START.before(RetryPolicy::default().attempts_duration)));
    let effects = rig.step(START, Event::Unmade(sent, unmade()));
    assert!(matches!(&effects[..], [Effect::Settle(over)] if over[0].ending == Ending::GivenUp), "{effects:?}");
}
