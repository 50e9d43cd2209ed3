//! Tests of what keeps namespaces and hosts from holding each other up.

use super::*;
use crate::domain::limits::{PAYLOAD_BYTES_MAX, RUNS_BYTES_MAX};

/// A failure whose next attempt is beyond the test.
fn failure() -> Verdict {
    Verdict::Retry { not_before: Some(at(1_000_000)), error: "refused".into() }
}

fn answered(status: u16, verdict: Verdict) -> Attempt {
    Attempt { status: Some(status), ..attempt(verdict) }
}

fn unconnected() -> Attempt {
    Attempt { connected: false, ..attempt(failure()) }
}

fn is_delivery(effect: &Effect) -> bool {
    matches!(effect, Effect::Deliver(_))
}

fn deferrals(effects: &[Effect]) -> Vec<Timestamp> {
    let settlements = effects.iter().flat_map(|effect| match effect {
        Effect::Settle(settlements) => &settlements[..],
        _ => &[],
    });
    let at = |settlement: &Settlement| match settlement.ending {
        Ending::Defer(at) => Some(at),
        _ => None,
    };
    settlements.filter_map(at).collect()
}

impl Rig {
    /// Claims these timers of a namespace, all due now, as the runs that a host gets; returns what is sent.
    fn claim_all(&mut self, now: Timestamp, ids: &[&str], url: &str) -> Vec<Effect> {
        let noted = ids.iter().map(|id| entry(id, now)).collect();
        let (claim, claimed) = self.claims(now, Event::Noted(noted)).expect("a claim");
        assert_eq!(claimed, ids);
        let runs = ids.iter().map(|id| {
            let mut run = run(id, now, 1);
            url.clone_into(&mut run.timer.definition.callback.url);
            run
        });
        let answer = Ok(Claimed { runs: runs.collect(), left: Vec::new() });
        self.step(now, Event::Claimed { id: claim, answer })
    }

    /// Each of these requests is answered like this; what that leads to, all writing answered.
    fn answer_all(&mut self, now: Timestamp, sent: Vec<Effect>, attempt: &Attempt) -> Vec<Effect> {
        let mut all = Vec::new();
        for effect in sent {
            let Effect::Deliver(run) = effect else { continue };
            all.extend(self.step(now, Event::Attempted { run, attempt: attempt.clone() }));
        }
        self.write_all(now, all)
    }

    /// Answers what is to be written, and what is written upon that; the deferrals among it stay in the list.
    fn write_all(&mut self, now: Timestamp, effects: Vec<Effect>) -> Vec<Effect> {
        let mut left = Vec::new();
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            let Effect::Settle(settlements) = effect else {
                left.push(effect);
                continue;
            };
            let written = Ok(settlements.iter().map(|_| Ok(true)).collect());
            effects.extend(self.step(now, Event::Settled { settlements: settlements.clone(), written }));
            left.push(Effect::Settle(settlements));
        }
        left
    }
}

#[test]
fn a_host_gets_no_more_at_once_than_it_may() {
    let mut rig = Rig::new(Config { host_inflight_max: 2, ..Config::default() });
    let mut sent = rig.claim_all(START, &["a", "b", "c", "d"], "http://one/x");
    assert_eq!((sent.len(), rig.engine.waiting()), (2, 2));
    // Another host does not wait for it, however its name is written.
    assert_eq!(rig.claim_all(START, &["e"], "http://two/x").len(), 1);
    assert_eq!(rig.claim_all(START, &["f"], "HTTP://One:80/y").len(), 0);
    let first = vec![sent.remove(0)];
    let effects = rig.answer_all(at(1), first, &answered(200, Verdict::Succeeded));
    let next = effects.iter().filter(|effect| is_delivery(effect)).count();
    assert_eq!((next, rig.engine.waiting(), rig.engine.requests()), (1, 2, 3));
}

#[test]
fn a_host_gets_no_more_a_second_than_it_may() {
    let mut rig = Rig::new(Config { host_rate_max: Some(10), ..Config::default() });
    assert_eq!(rig.claim_all(START, &["a", "b", "c"], "http://one/x").len(), 1);
    assert_eq!(rig.engine.next_wake(), Some(at(100)));
    assert!(!rig.step(at(99), Event::Tick).iter().any(is_delivery));
    assert_eq!(rig.step(at(100), Event::Tick).iter().filter(|effect| is_delivery(effect)).count(), 1);
    // Set back by an hour, the clock holds nothing up for as long.
    let an_hour = Duration::from_secs(3600);
    rig.step(START.before(an_hour), Event::Tick);
    assert_eq!(rig.engine.waiting(), 1);
}

#[test]
fn a_host_that_fails_is_spared_and_comes_back_slowly() {
    let mut rig = Rig::new(Config { host_failures_max: 3, ..Config::default() });
    let sent = rig.claim_all(START, &["a", "b", "c"], "http://one/x");
    let effects = rig.answer_all(START, sent, &attempt(failure()));
    let until = effects.iter().find_map(|effect| match effect {
        Effect::Spared(target, until) if &*target.host == "http://one" => Some(*until),
        _ => None,
    });
    let until = until.expect("it is spared");
    assert!(until >= at(800) && until <= at(1200), "{until}");
    assert_eq!(rig.engine.hosts_spared(), 1);

    // No request leaves, no attempt is counted, and the timer comes again when it may.
    let effects = rig.claim_all(at(500), &["d", "e"], "http://one/x");
    assert!(!effects.iter().any(is_delivery), "{effects:?}");
    assert_eq!(deferrals(&effects).len(), 2);
    assert!(deferrals(&effects).iter().all(|at| *at >= until), "{effects:?}");
    rig.write_all(at(500), effects);
    assert_eq!((rig.engine.inflight(), rig.engine.deferred()), (0, 2));
    // Another host is called.
    assert_eq!(rig.claim_all(at(500), &["f"], "http://two/x").len(), 1);

    // Then one may try.
    let effects = rig.claim_all(until, &["g", "h", "i", "j"], "http://one/x");
    let (probe, rest): (Vec<_>, Vec<_>) = effects.into_iter().partition(is_delivery);
    assert_eq!((probe.len(), deferrals(&rest).len()), (1, 3));
    rig.write_all(until, rest);
    let effects = rig.answer_all(until, probe, &answered(200, Verdict::Succeeded));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Back(_))), "{effects:?}");
    assert_eq!(rig.engine.hosts_spared(), 0);

    // A few at a time at first, and more with every answer.
    let sent = rig.claim_all(until, &["k", "l", "m", "n", "o", "p", "q", "r", "s", "t", "u", "v"], "http://one/x");
    assert_eq!((sent.len(), rig.engine.waiting()), (4, 8));
    rig.answer_all(until, sent, &answered(200, Verdict::Succeeded));
    assert_eq!((rig.engine.requests() - 1, rig.engine.waiting()), (8, 0), "the other host's is under way too");
}

#[test]
fn a_policy_ends_also_while_the_host_is_spared() {
    let mut rig = Rig::new(Config { host_failures_max: 1, ..Config::default() });
    let sent = rig.claim_all(START, &["a"], "http://one/x");
    rig.answer_all(START, sent, &attempt(failure()));
    assert_eq!(rig.engine.hosts_spared(), 1);

    // The host is spared for a second, give or take a fifth, and what is put off is spread over another one.
    let (over, soon_over) = (Duration::from_secs(60), Duration::from_millis(61_250));
    let tight: Vec<String> = (0..20).map(|number| format!("tight-{number}")).collect();
    let mut policies = vec![("tried", 2, over), ("new", 1, over)];
    policies.extend(tight.iter().map(|id| (id.as_str(), 2, soon_over)));
    let noted = policies.iter().map(|(id, ..)| entry(id, START)).collect();
    let (claim, _) = rig.claims(START, Event::Noted(noted)).expect("a claim");
    let runs = policies.iter().map(|(id, attempts, duration)| {
        let mut run = run(id, START, 1);
        run.timer.attempts = *attempts;
        run.timer.first_attempt_at = Some(START.before(Duration::from_secs(60)));
        run.timer.last_error = Some("connection refused".to_owned());
        run.timer.definition.retry.attempts_duration = *duration;
        run.timer.definition.callback.url = "http://one/x".to_owned();
        run
    });
    let answer = Ok(Claimed { runs: runs.collect(), left: Vec::new() });
    let effects = rig.step(START, Event::Claimed { id: claim, answer });
    let settled: Vec<&Settlement> = effects
        .iter()
        .flat_map(|effect| match effect {
            Effect::Settle(settlements) => &settlements[..],
            _ => &[],
        })
        .collect();
    let settlement = |id: &str| settled.iter().find(|one| &*one.run.key.timer.id == id).expect("it is settled");
    let of = |id: &str| settlement(id).ending;
    assert_eq!(of("tried"), Ending::GivenUp, "no attempt was made");
    let why = "connection refused; not sent: http://one fails, and is spared for a while";
    assert!(matches!(&settlement("tried").attempt.verdict, Verdict::Retry { error, .. } if error == why));
    assert!(matches!(of("new"), Ending::Defer(_)), "one that was never tried is tried once");
    let last = START.after(Duration::from_millis(1250));
    for id in &tight {
        assert!(matches!(of(id), Ending::Defer(at) if at <= last), "it has a try left: {:?}", of(id));
    }
    assert_eq!(rig.engine.deferred(), 21);
}

#[test]
fn a_probe_that_fails_spares_the_host_for_longer() {
    let mut rig = Rig::new(Config { host_failures_max: 1, ..Config::default() });
    let mut now = START;
    let mut spans = Vec::new();
    for number in 0..8 {
        let sent = rig.claim_all(now, &[&format!("{number}")], "http://one/x");
        assert!(is_delivery(&sent[0]), "one may try: {sent:?}");
        let effects = rig.answer_all(now, sent, &answered(503, failure()));
        let until = effects.iter().find_map(|effect| match effect {
            Effect::Spared(_, until) => Some(*until),
            _ => None,
        });
        let until = until.expect("it is spared again");
        spans.push(until.since(now).as_secs_f64());
        now = until;
    }
    for (span, wanted) in spans.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]) {
        assert!((0.8 * wanted..=1.2 * wanted).contains(span), "{spans:?}");
    }
}

#[test]
fn only_failures_of_the_host_in_a_row_spare_it() {
    let refused = Verdict::Failed { error: "404".into() };
    for (case, attempts, spared) in [
        ("no answers", vec![attempt(failure()), attempt(failure())], 1),
        ("no connections", vec![unconnected(), unconnected()], 1),
        ("5xx", vec![answered(500, failure()), answered(503, failure())], 1),
        ("an answer between", vec![attempt(failure()), answered(200, Verdict::Succeeded), attempt(failure())], 0),
        ("too many requests", vec![answered(429, failure()), answered(429, failure())], 0),
        ("refused", vec![answered(404, refused.clone()), answered(404, refused.clone())], 0),
        ("what cannot be called", vec![attempt(refused.clone()), attempt(refused)], 0),
        ("an answer that is not understood", vec![answered(200, failure()), answered(200, failure())], 0),
    ] {
        let mut rig = Rig::new(Config { host_failures_max: 2, ..Config::default() });
        for (number, attempt) in attempts.iter().enumerate() {
            let sent = rig.claim_all(START, &[&format!("{number}")], "http://one/x");
            rig.answer_all(START, sent, attempt);
        }
        assert_eq!(rig.engine.hosts_spared(), spared, "{case}");
    }
}

#[test]
fn namespaces_take_turns() {
    let mut rig = Rig::new(Config::default());
    let mut entries: Vec<Entry> = (0..10_000).map(|id| entry(&format!("{id:05}"), START)).collect();
    entries.push(Entry { due_at: START, key: TimerKey::new("other", "last") });
    let effects = rig.step(START, Event::Noted(entries));
    let first = effects.iter().find_map(|effect| match effect {
        Effect::Claim { timers, .. } => Some(timers),
        _ => None,
    });
    let first = first.expect("a claim");
    assert_eq!(first.len(), BATCH_ROWS_MAX);
    assert!(first.iter().any(|(key, _)| &*key.namespace == "other"), "the last one is in the first claim");
}

#[test]
fn a_namespace_leaves_room_for_others() {
    let bounds = Config { inflight_max: 90, batch_max: 100, claims_max: 10, ..Config::default() };
    let mut rig = Rig::new(bounds);
    let entries: Vec<Entry> = (0..1_000).map(|id| entry(&format!("{id:04}"), START)).collect();
    rig.step(START, Event::Noted(entries));
    // 8 for each place that is free, and no more.
    assert_eq!(rig.engine.inflight(), 80);
    assert!(rig.step(at(1), Event::Tick).is_empty());
    let other = |id: &str| Entry { due_at: START, key: TimerKey::new("other", id) };
    let effects = rig.step(at(1), Event::Noted(vec![other("a"), other("b")]));
    assert!(matches!(&effects[..], [Effect::Claim { timers, .. }] if timers.len() == 2), "{effects:?}");
}

#[test]
fn a_timer_is_not_claimed_while_an_older_one_is_put_back() {
    let mut rig = Rig::new(Config::default());
    let older = rig.send("a");
    let mut effects = rig.step(START, Event::Attempted { run: older, attempt: attempt(failure()) });
    let Some(Effect::Settle(settlements)) = effects.pop() else { panic!("{effects:?}") };
    assert_eq!(rig.claims(START, Event::Noted(vec![entry("a", START)])), None);
    // Not while it is unknown whether it was put back, either.
    rig.step(at(1), Event::Settled { settlements, written: Err(unavailable()) });
    assert_eq!(rig.claim_ids(at(50)), [""; 0]);
    let effects = rig.step(at(200), Event::Tick);
    let repeated = effects.into_iter().find_map(|effect| match effect {
        Effect::Settle(settlements) => Some(settlements),
        _ => None,
    });
    rig.step(at(200), Event::Settled { settlements: repeated.expect("once more"), written: Ok(vec![Ok(true)]) });
    assert_eq!(rig.claim_ids(at(1_000)), ["a"]);
}

#[test]
fn a_timer_is_not_put_back_while_a_newer_one_is_claimed() {
    let mut rig = Rig::new(Config::default());
    let older = rig.send("a");
    let (claim, _) = rig.claims(START, Event::Noted(vec![entry("a", START)])).expect("the newer one is claimed");
    let effects = rig.step(START, Event::Attempted { run: older, attempt: attempt(failure()) });
    assert!(effects.is_empty(), "{effects:?}");
    let effects = rig.step(at(1), Event::Claimed { id: claim, answer: Ok(Claimed::default()) });
    assert!(matches!(effects[..], [Effect::Settle(_)]), "{effects:?}");
}

/// An engine that holds nothing yet, with one place, and pages of 500 timers, which are more than may be overdue in memory.
fn cramped() -> Rig {
    Rig { engine: Engine::new(Config { batch_max: 500, backlog_max: 400, inflight_max: 1, ..Config::default() }) }
}

#[test]
fn what_falls_due_is_loaded_though_much_is_overdue() {
    let mut rig = cramped();
    rig.step(START, all_in(1));
    rig.step(START, Event::Adopted(Ok(Vec::new())));
    let overdue = |id: u32| entry(&format!("{id:04}"), START.before(Duration::from_secs(1)));
    let page: Vec<Entry> = (0..500).map(overdue).collect();
    rig.step(START, Event::Loaded(Ok(page)));
    // What else is overdue takes turns with what comes next.
    let mut asked = rig.step(START, Event::Loaded(Ok(Vec::new())));
    let request = asked.pop();
    let Some(Effect::Load(request)) = request else { panic!("{request:?}, {asked:?}") };
    let after = request.after.expect("not from the beginning");
    assert!(after.due_at > START && request.until > at(60_000), "{after:?}");
    rig.step(START, Event::Loaded(Ok(vec![Entry { due_at: at(500), key: TimerKey::new("other", "a") }])));
    let (_, ids) = rig.claims(at(450), Event::Tick).unwrap_or_default();
    assert_eq!(ids, [""; 0], "the only place is taken");
    assert_eq!(rig.engine.queue.get(&TimerKey::new("other", "a")).map(|hint| hint.due_at), Some(at(500)));
}

/// The one page that these effects ask for.
fn asked(effects: &[Effect]) -> &LoadRequest {
    let loads = effects.iter().find_map(|effect| match effect {
        Effect::Load(request) => Some(request),
        _ => None,
    });
    loads.unwrap_or_else(|| panic!("nothing is read: {effects:?}"))
}

/// Whether it asks for what is overdue at that moment.
fn is_overdue(request: &LoadRequest, now: Timestamp) -> bool {
    request.after.as_ref().is_none_or(|after| after.due_at <= now) && request.until <= now
}

/// So many timers of shards with even numbers, or with odd ones, from that moment on.
fn overdue(count: usize, odd: u8, from: Timestamp) -> Vec<Entry> {
    let ids = (0..).map(|id| format!("{id:05}")).filter(|id| TimerKey::new("n", id).shard().0 % 2 == odd);
    ids.zip(0..).map(|(id, n)| entry(&id, from.after(Duration::from_micros(n)))).take(count).collect()
}

/// A [`cramped`] one whose first page is overdue.
fn behind(shards: impl Fn(Shard) -> bool) -> (Rig, Vec<Effect>) {
    let mut rig = cramped();
    let held = Shard::all().filter(|shard| shards(*shard)).map(|shard| Lease { shard, epoch: Epoch(1) }).collect();
    rig.step(START, Event::Holding(Holding { held, ..Holding::default() }));
    rig.step(START, Event::Adopted(Ok(Vec::new())));
    let effects = rig.step(START, Event::Loaded(Ok(overdue(500, 0, START.before(Duration::from_secs(1))))));
    (rig, effects)
}

#[test]
fn a_namespace_with_most_of_what_is_overdue_is_read_past() {
    let (mut rig, effects) = behind(|_| true);
    let request = asked(&effects);
    assert!(is_overdue(request, START), "{request:?}");
    assert_eq!(request.after, overdue(500, 0, START.before(Duration::from_secs(1))).pop());
    // Of the others it is taken in, of that one only what is not overdue.
    let kept = rig.engine.queue_len();
    let other = Entry { due_at: START, key: TimerKey::new("other", "a") };
    let mut page = overdue(500, 1, START.before(Duration::from_millis(500)));
    page.push(other.clone());
    let effects = rig.step(START, Event::Loaded(Ok(page)));
    assert_eq!(rig.engine.queue_len(), kept + 1);
    assert!(rig.engine.queue.get(&other.key).is_some());
    assert!(!is_overdue(asked(&effects), START), "by turns: {effects:?}");
    rig.step(START, Event::Loaded(Ok(vec![entry("later", at(1))])));
    assert_eq!(rig.engine.queue_len(), kept + 2);
}

#[test]
fn what_falls_due_in_shards_taken_over_does_not_wait_for_what_is_read_past() {
    let (mut rig, _) = behind(|shard| shard.0 % 2 == 0);
    for _ in 0..3 {
        rig.step(START, Event::Loaded(Ok(Vec::new())));
    }
    let now = at(2_000);
    let effects = rig.step(now, all_in(1));
    let request = asked(&effects);
    assert!(is_overdue(request, now) && request.after.is_none(), "{request:?}");
    let kept = rig.engine.queue_len();
    // It was not cut off there, so what is due there counts; and then it is.
    let mut page = overdue(1_000, 1, at(1_000));
    let rest = page.split_off(500);
    let effects = rig.step(now, Event::Loaded(Ok(page)));
    assert_eq!(rig.engine.queue_len(), kept + 500);
    let request = asked(&effects);
    assert!(!is_overdue(request, now), "{request:?}");
    let effects = rig.step(now, Event::Loaded(Ok(Vec::new())));
    let request = asked(&effects);
    assert!(is_overdue(request, now), "{request:?}");
    rig.step(now, Event::Loaded(Ok(rest)));
    assert_eq!(rig.engine.queue_len(), kept + 500);
}

#[test]
fn a_namespace_is_read_past_also_where_it_waited_for_its_leases() {
    let mut rig = cramped();
    rig.step(START, all_in(1));
    rig.step(START, Event::Adopted(Ok(Vec::new())));
    rig.step(START, Event::Holding(Holding { unsure: Shard::all().collect(), ..Holding::default() }));
    let page = overdue(500, 0, START.before(Duration::from_secs(1)));
    let effects = rig.step(START, Event::Loaded(Ok(page)));
    assert!(!is_overdue(asked(&effects), START), "{effects:?}");
    // Nothing is read as long as all of that waits, nor before it is known whose it is.
    assert!(rig.step(START, Event::Loaded(Ok(Vec::new()))).is_empty());
    let effects = rig.step(at(1), all_in(1));
    assert!(is_overdue(asked(&effects), at(1)), "{effects:?}");
}

#[test]
fn a_drain_puts_back_what_waits_for_its_host() {
    let mut rig = Rig::new(Config { host_inflight_max: 1, ..Config::default() });
    let sent = rig.claim_all(START, &["a", "b", "c"], "http://one/x");
    assert_eq!((sent.len(), rig.engine.waiting()), (1, 2));
    let effects = rig.step(at(1), Event::Drain);
    assert_eq!(deferrals(&effects), [at(1), at(1)]);
    rig.write_all(at(1), effects);
    rig.answer_all(at(2), sent, &answered(200, Verdict::Succeeded));
    assert!(rig.engine.is_idle());
}

/// So many timers of one namespace, all due at that moment.
fn crowd(count: usize, due_at: Timestamp) -> Event {
    Event::Noted((0..count).map(|n| entry(&format!("{n:05}"), due_at)).collect())
}

/// How many timers these effects claim.
pub(super) fn claimed(effects: &[Effect]) -> usize {
    let count = |effect: &Effect| if let Effect::Claim { timers, .. } = effect { timers.len() } else { 0 };
    effects.iter().map(count).sum()
}

#[test]
fn a_crowd_is_claimed_earlier_than_few() {
    for (count, claimed_at) in [(999, 950), (1_000, 920), (10_000, 650), (14_000, 650)] {
        let mut rig = Rig::new(Config::default());
        rig.step(START, crowd(count, at(1_000)));
        let mut now = START;
        loop {
            now = rig.engine.next_wake().expect("timers wait").max(now.after(Duration::from_micros(1)));
            if claimed(&rig.step(now, Event::Tick)) > 0 {
                break;
            }
        }
        // Looked at every 50 ms, and in grains of 12.5 ms.
        let late = now.since(at(claimed_at)).max(at(claimed_at).since(now));
        assert!(late <= Duration::from_millis(63), "{count} were claimed at {now}");
    }
}

/// Those of namespaces that stand in line count like those of namespaces that wait for their first one.
#[test]
fn a_crowd_is_counted_across_namespaces() {
    let mut queue = Queue::default();
    for (namespace, due) in [("a", [0, 10]), ("b", [0, 30]), ("c", [20, 40]), ("d", [50, 50])] {
        for (id, due_at) in due.into_iter().enumerate() {
            queue.put(at(due_at), Hint::stored(TimerKey::new(namespace, &format!("{id}")), at(due_at)));
        }
    }
    let counts = |queue: &Queue| [9, 10, 20, 30, 50].map(|until| queue.count_until(at(until), 2, 7));
    assert_eq!(counts(&queue), [2, 3, 4, 5, 7]);
    let room = queue::Room { free: 1, light: 1 };
    let bytes = queue::Room { free: usize::MAX, light: 0 };
    let share = queue::Share { runs: room, bytes, turn: 1 };
    let first = queue.pop_due(queue::Reach { now: START, ahead: START }, share).expect("one is due");
    assert_eq!(first.due_at, START);
    assert_eq!(counts(&queue), [1, 2, 3, 4, 7]);
    assert_eq!(queue.count_until(at(50), 1, 7), 4);
}

#[test]
fn a_crowd_leaves_room_for_what_is_due_before_it() {
    let mut rig = Rig::new(Config { crowd_min: 1, inflight_max: 80, ..Config::default() });
    rig.step(START, crowd(200, at(250)));
    assert_eq!(rig.claim_ids(at(50)).len(), 60);
    let (_, urgent) = rig.claims(at(51), Event::Noted(vec![entry("urgent", START)])).expect("there is room");
    assert_eq!(urgent, ["urgent"]);
    assert!(!rig.claim_ids(at(200)).is_empty(), "its moment is near");
}

/// One that another transaction holds is not tried again and again, also where its crowd is claimed ahead.
#[test]
fn what_is_claimed_ahead_in_vain_waits_for_its_moment() {
    let mut rig = Rig::new(Config { crowd_min: 1, ..Config::default() });
    let due_at = at(250);
    rig.step(START, crowd(10, due_at));
    let (id, ids) = rig.claims(at(50), Event::Tick).expect("a claim");
    assert_eq!(ids.len(), 10);
    let runs = ids.iter().skip(1).map(|id| run(id, due_at, 1)).collect();
    let left = ids.iter().take(1).map(|id| entry(id, due_at)).collect();
    let again = rig.step(at(51), Event::Claimed { id, answer: Ok(Claimed { runs, left }) });
    assert_eq!(claimed(&again), 0);
    assert!(rig.claim_ids(at(180)).is_empty());
    assert_eq!(rig.claim_ids(at(200)), ["00000"]);
}

/// How many timers there are in all once nothing more is claimed, where all payloads are so large and no call ends.
fn taken_with(rig: &mut Rig, payload_bytes: usize, mut effects: Vec<Effect>) -> usize {
    let payload = format!("\"{}\"", "x".repeat(payload_bytes - 2));
    let payload = serde_json::value::RawValue::from_string(payload).unwrap();
    let mut taken = 0;
    while let Some(claim) = effects.iter().position(|effect| matches!(effect, Effect::Claim { .. })) {
        let Effect::Claim { id, timers, .. } = effects.swap_remove(claim) else { unreachable!("it was looked for") };
        taken += timers.len();
        let runs = timers.into_iter().map(|(key, _)| {
            let mut run = run(&key.id, START, 1);
            run.timer.definition.payload = Some(payload.clone());
            run.key.timer = key;
            run
        });
        let answer = Ok(Claimed { runs: runs.collect(), left: Vec::new() });
        effects.extend(rig.step(START, Event::Claimed { id, answer }));
    }
    taken
}

/// Timers with so large a payload that their memory is full before their places are leave some of it to others.
#[test]
fn a_namespace_with_large_payloads_leaves_memory_for_others() {
    let mut rig = Rig::new(Config { inflight_max: 100_000, ..Config::default() });
    let effects = rig.step(START, crowd(10_000, START));
    let large = taken_with(&mut rig, PAYLOAD_BYTES_MAX, effects) * PAYLOAD_BYTES_MAX;
    assert!((RUNS_BYTES_MAX / 2..=RUNS_BYTES_MAX / 9 * 8).contains(&large), "{large} bytes were taken");
    // As many as it likes of those that are small, though the others' calls do not end.
    let other = |n: usize| Entry { due_at: START, key: TimerKey::new("other", &format!("{n:05}")) };
    let effects = rig.step(START, Event::Noted((0..10_000).map(other).collect()));
    assert_eq!(taken_with(&mut rig, 100, effects), 10_000);
    // Ten more fill what is left, each a part of it, and not more.
    let mut bytes = large + 10_000 * 100;
    for namespace in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"] {
        let entry = |n: usize| Entry { due_at: START, key: TimerKey::new(namespace, &format!("{n:05}")) };
        let effects = rig.step(START, Event::Noted((0..1_000).map(entry).collect()));
        bytes += taken_with(&mut rig, PAYLOAD_BYTES_MAX, effects) * PAYLOAD_BYTES_MAX;
    }
    assert!((RUNS_BYTES_MAX / 10 * 9..RUNS_BYTES_MAX + PAYLOAD_BYTES_MAX).contains(&bytes), "{bytes} bytes were taken");
}

/// Outcomes are written at once, but not before what is due and has not left; and not much later for all that.
#[test]
fn outcomes_let_what_is_due_go_first_for_a_while() {
    let mut rig = Rig::new(Config { host_inflight_max: 1, ..Config::default() });
    let mut sent = rig.claim_all(START, &["a", "b"], "http://one/");
    let Some(Effect::Deliver(run)) = sent.pop() else { panic!("{sent:?}") };
    let mut second = rig.step(at(1), Event::Attempted { run, attempt: answered(200, Verdict::Succeeded) });
    // Now "b" has left and nothing waits.
    assert!(second.iter().any(|effect| matches!(effect, Effect::Settle(_))), "{second:?}");
    let mut rig = Rig::new(Config { host_inflight_max: 1, ..Config::default() });
    sent = rig.claim_all(START, &["a", "b", "c"], "http://one/");
    let Some(Effect::Deliver(run)) = sent.pop() else { panic!("{sent:?}") };
    second = rig.step(at(1), Event::Attempted { run, attempt: answered(200, Verdict::Succeeded) });
    assert!(matches!(second[..], [Effect::Deliver(_)]), "{second:?}");
    assert_eq!(rig.engine.next_wake(), Some(at(201)));
    assert!(rig.step(at(200), Event::Tick).is_empty());
    assert!(matches!(rig.step(at(201), Event::Tick)[..], [Effect::Settle(_)]));
}
