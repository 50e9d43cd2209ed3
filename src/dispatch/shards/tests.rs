//! Tests of the leases: shares, expiry, and what is given up.

use super::*;
use crate::clock::Timestamp;

const TTL: Duration = Duration::from_secs(9);

fn machine() -> Shards {
    Shards::new(Config::with_ttl(Owner("me".into()), TTL))
}

fn lease(shard: u8, epoch: i64) -> Lease {
    Lease { shard: Shard(shard), epoch: Epoch(epoch) }
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// Steps; returns what is asked and what is held, where either is told.
fn step(shards: &mut Shards, at: f64, event: Event) -> (Option<LeaseRequest>, Option<Holding>) {
    let mut effects = Vec::new();
    shards.step(seconds(at), event, &mut effects);
    let (mut asked, mut held) = (None, None);
    for effect in effects {
        match effect {
            Effect::Ask(request) => asked = Some(request),
            Effect::Hold(holding) => held = Some(holding),
        }
    }
    (asked, held)
}

fn granted(held: Vec<Lease>, owners_alive: usize) -> Event {
    Event::Answered(Ok(LeaseGrant { held, owners_alive, now: Timestamp::default() }))
}

fn refused() -> Event {
    Event::Answered(Err(Unavailable { doing: "a test", source: "no answer".into() }))
}

fn everything() -> Vec<Lease> {
    Shard::all().map(|shard| Lease { shard, epoch: Epoch(1) }).collect()
}

#[test]
fn leases_are_renewed_after_a_third_of_their_life() {
    let mut shards = machine();
    let (asked, _) = step(&mut shards, 0.0, Event::Tick);
    assert_eq!(asked.expect("a first question").shards_max, Shard::COUNT);
    let (asked, held) = step(&mut shards, 0.5, granted(everything(), 1));
    assert!(asked.is_none());
    assert_eq!(held.expect("news").held.len(), Shard::COUNT);
    assert_eq!(shards.next_wake(), Some(seconds(3.0)));
    assert!(step(&mut shards, 2.9, Event::Tick).0.is_none());
    assert!(step(&mut shards, 3.0, Event::Tick).0.is_some());
}

#[test]
fn a_lease_counts_from_before_the_question_was_sent() {
    let mut shards = machine();
    step(&mut shards, 0.0, Event::Tick);
    step(&mut shards, 2.0, granted(vec![lease(7, 1)], 1));
    step(&mut shards, 3.0, Event::Tick);
    // 9 s of life less a margin of 1.8 s, from 0.0 on.
    assert_eq!(step(&mut shards, 7.19, Event::Tick).1, None);
    let (_, held) = step(&mut shards, 7.2, Event::Tick);
    assert_eq!(held, Some(Holding { held: vec![], unsure: vec![Shard(7)] }));
    // The late answer makes it sure again, counted from when it was asked for.
    let (_, held) = step(&mut shards, 7.5, granted(vec![lease(7, 1)], 1));
    assert_eq!(held, Some(Holding { held: vec![lease(7, 1)], unsure: vec![] }));
    assert_eq!(shards.held_until, seconds(10.2));
}

#[test]
fn an_answer_that_comes_after_its_lease_is_over_holds_nothing() {
    let mut shards = machine();
    step(&mut shards, 0.0, Event::Tick);
    let (_, held) = step(&mut shards, 8.0, granted(vec![lease(7, 1)], 1));
    assert_eq!(held.expect("news").held, []);
}

#[test]
fn a_question_without_an_answer_is_asked_again_soon() {
    let mut shards = machine();
    step(&mut shards, 0.0, Event::Tick);
    assert!(step(&mut shards, 1.0, refused()).0.is_none());
    assert!(step(&mut shards, 1.45, Event::Tick).0.is_some());
}

#[test]
fn surplus_is_released_gradually() {
    let mut shards = machine();
    step(&mut shards, 0.0, Event::Tick);
    let (asked, held) = step(&mut shards, 0.1, granted(everything(), 2));
    assert_eq!(held.expect("news").held.len(), 192);
    let request = asked.expect("a release at once");
    assert_eq!(request.release.len(), 64);
    // Its own share: what it holds beyond that it keeps until it is released.
    assert_eq!(request.shards_max, 128);
    let (asked, held) = step(&mut shards, 0.2, granted(everything()[..192].to_vec(), 2));
    assert_eq!((held.expect("news").held.len(), asked.expect("another release").release.len()), (128, 64));
    let (asked, held) = step(&mut shards, 0.3, granted(everything()[..128].to_vec(), 2));
    assert_eq!((asked.is_none(), held), (true, None));
}

#[test]
fn a_lease_given_up_is_released_until_that_was_answered_and_comes_back_in_a_new_epoch() {
    let mut shards = machine();
    step(&mut shards, 0.0, Event::Tick);
    step(&mut shards, 0.1, granted(vec![lease(1, 1), lease(2, 1)], 1));
    // A question is under way when the lease is given up: its answer still has the old epoch.
    step(&mut shards, 3.0, Event::Tick);
    let (asked, held) = step(&mut shards, 3.1, Event::GiveUp(vec![lease(1, 1)]));
    assert_eq!((asked.is_none(), held), (true, Some(Holding { held: vec![lease(2, 1)], unsure: vec![Shard(1)] })));
    let (_, held) = step(&mut shards, 3.2, granted(vec![lease(1, 1), lease(2, 1)], 1));
    assert_eq!(held, None, "the old epoch counts no more");
    let at = shards.next_wake().expect("a question").as_secs_f64();
    let release = |asked: Option<LeaseRequest>| asked.expect("a question").release;
    assert_eq!(release(step(&mut shards, at, Event::Tick).0), [lease(1, 1)]);
    step(&mut shards, at + 0.1, refused());
    let at = at + 1.0;
    assert_eq!(release(step(&mut shards, at, Event::Tick).0), [lease(1, 1)]);
    let (_, held) = step(&mut shards, at + 0.1, granted(vec![lease(1, 2), lease(2, 1)], 1));
    assert_eq!(held, Some(Holding { held: vec![lease(1, 2), lease(2, 1)], unsure: vec![] }));
}

#[test]
fn a_drain_acquires_nothing_and_keeps_what_it_has() {
    let mut shards = machine();
    step(&mut shards, 0.0, Event::Tick);
    step(&mut shards, 0.1, granted(vec![lease(1, 1)], 1));
    step(&mut shards, 0.2, Event::Drain);
    let (asked, _) = step(&mut shards, 3.0, Event::Tick);
    assert_eq!(asked.expect("a renewal").shards_max, 0);
    // Nor does it give way to who joins: what it still holds has something under way.
    let (asked, held) = step(&mut shards, 3.1, granted(vec![lease(1, 1)], 300));
    assert_eq!((asked.is_none(), held), (true, None));
}

#[test]
fn what_is_released_goes_at_once_and_is_not_wanted_again() {
    let mut shards = machine();
    step(&mut shards, 0.0, Event::Tick);
    step(&mut shards, 0.1, granted(vec![lease(1, 1), lease(2, 1)], 1));
    step(&mut shards, 0.2, Event::Drain);
    let (asked, held) = step(&mut shards, 0.2, Event::Release(vec![lease(1, 1), lease(2, 7)]));
    assert_eq!(asked.expect("a release").release, [lease(1, 1)]);
    assert_eq!(held, Some(Holding { held: vec![lease(2, 1)], unsure: vec![] }));
    assert!(shards.is_asking());
    let (_, held) = step(&mut shards, 0.3, granted(vec![lease(2, 1)], 1));
    assert_eq!((held, shards.is_asking()), (None, false));
}

#[test]
fn settings_out_of_bounds_are_refused() {
    let config = Config::new(Owner("me".into()));
    assert_eq!(config.validate(), Ok(()));
    assert!(Config { ttl: Duration::from_millis(99), ..config.clone() }.validate().is_err());
    assert!(Config { margin: Duration::from_secs(5), ..config }.validate().is_err());
}
