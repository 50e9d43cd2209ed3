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
    ranked(held, owners_alive, 0)
}

fn ranked(held: Vec<Lease>, owners_alive: usize, rank: usize) -> Event {
    Event::Answered(Ok(LeaseGrant { held, owners_alive, rank, others_left: None, now: Timestamp::default() }))
}

/// An answer that knows another owner, which is alive for so many seconds unless it asks again.
fn beside(held: Vec<Lease>, left: f64) -> Event {
    let others_left = Some(seconds(left));
    Event::Answered(Ok(LeaseGrant { held, owners_alive: 2, rank: 0, others_left, now: Timestamp::default() }))
}

fn busy(shards: impl IntoIterator<Item = u8>) -> Event {
    Event::Busy(shards.into_iter().map(Shard).collect())
}

/// What is held, once it is known.
fn holding(held: Vec<Lease>, unsure: Vec<Shard>) -> Option<Holding> {
    Some(Holding { held, leaving: vec![], unsure })
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
    let asked = asked.expect("a first question");
    // A twentieth of the time is left for others to notice a death and to take over.
    assert_eq!((asked.shards_max, asked.ttl), (Shard::COUNT, seconds(8.55)));
    let (asked, held) = step(&mut shards, 0.5, granted(everything(), 1));
    assert!(asked.is_none());
    assert_eq!(held.expect("news").held.len(), Shard::COUNT);
    assert_eq!(shards.next_wake(), Some(seconds(3.0)));
    assert!(step(&mut shards, 2.9, Event::Tick).0.is_none());
    assert!(step(&mut shards, 3.0, Event::Tick).0.is_some());
}

#[test]
fn who_may_be_dead_is_asked_after_when_its_leases_run_out() {
    let mut shards = machine();
    step(&mut shards, 0.0, Event::Tick);
    // It has renewed just now: there is no need to ask before the own renewal.
    step(&mut shards, 0.1, beside(everything()[..128].to_vec(), 8.5));
    assert_eq!(shards.next_wake(), Some(seconds(3.0)));
    // It has not asked again since: what is left is counted from the answer, and a hundredth of a life is added.
    step(&mut shards, 3.0, Event::Tick);
    step(&mut shards, 3.1, beside(everything()[..128].to_vec(), 5.5));
    assert_eq!(shards.next_wake(), Some(seconds(6.0)));
    step(&mut shards, 6.0, Event::Tick);
    step(&mut shards, 6.1, beside(everything()[..128].to_vec(), 2.0));
    assert_eq!(shards.next_wake(), Some(seconds(8.19)));
    // It is gone: all of its shards are asked for at once.
    assert!(step(&mut shards, 8.19, Event::Tick).0.is_some());
    let (asked, _) = step(&mut shards, 8.2, granted(everything()[..128].to_vec(), 1));
    assert_eq!(asked.expect("a question at once").shards_max, Shard::COUNT);
    // However soon another one may be dead, no question follows within a twentieth of a life.
    step(&mut shards, 8.3, beside(everything()[..128].to_vec(), 0.0));
    assert_eq!(shards.next_wake(), Some(seconds(8.75)));
}

#[test]
fn a_lease_counts_from_before_the_question_was_sent() {
    let mut shards = machine();
    step(&mut shards, 0.0, Event::Tick);
    step(&mut shards, 2.0, granted(vec![lease(7, 1)], 1));
    step(&mut shards, 3.0, Event::Tick);
    // 9 s less a margin of 1.8 s, from 0.0 on.
    assert_eq!(step(&mut shards, 7.19, Event::Tick).1, None);
    let (_, held) = step(&mut shards, 7.2, Event::Tick);
    assert_eq!(held, holding(vec![], vec![Shard(7)]));
    // The late answer makes it sure again, counted from when it was asked for.
    let (_, held) = step(&mut shards, 7.5, granted(vec![lease(7, 1)], 1));
    assert_eq!(held, holding(vec![lease(7, 1)], vec![]));
    assert_eq!(shards.held_until, seconds(10.2));
}

#[test]
fn a_lease_is_sure_only_in_its_epoch_and_its_time() {
    let mut shards = machine();
    assert!(!shards.is_sure(seconds(0.0), lease(1, 1)));
    step(&mut shards, 0.0, Event::Tick);
    step(&mut shards, 2.0, granted(vec![lease(1, 3), lease(2, 1)], 1));
    for (at, lease, is_sure) in [
        (7.19, lease(1, 3), true),
        (7.19, lease(1, 2), false),
        (7.19, lease(1, 4), false),
        (7.19, lease(3, 1), false),
        // Also where nobody has stepped since.
        (7.2, lease(1, 3), false),
    ] {
        assert_eq!(shards.is_sure(seconds(at), lease), is_sure, "{lease:?} at {at}");
    }
    step(&mut shards, 3.0, Event::GiveUp(vec![lease(1, 3)]));
    assert!(!shards.is_sure(seconds(3.0), lease(1, 3)) && shards.is_sure(seconds(3.0), lease(2, 1)));
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

/// A machine that held the whole ring when another owner came, and is told so at 3.1.
fn joined() -> Shards {
    let mut shards = machine();
    step(&mut shards, 0.0, Event::Tick);
    step(&mut shards, 0.1, granted(everything(), 1));
    step(&mut shards, 3.0, Event::Tick);
    let (asked, _) = step(&mut shards, 3.1, granted(everything(), 2));
    assert_eq!(asked.map(|request| request.release), None, "nothing goes before it is known to be idle");
    assert!(shards.asks_busy());
    shards
}

#[test]
fn idle_surplus_is_released_gradually() {
    let mut shards = joined();
    let (asked, held) = step(&mut shards, 3.1, busy([]));
    assert_eq!(held.expect("news").held.len(), 192);
    let request = asked.expect("a release at once");
    assert_eq!(request.release.len(), 64);
    // Its own share: what it holds beyond that it keeps until it is released.
    assert_eq!(request.shards_max, 128);
    step(&mut shards, 3.2, granted(everything()[..192].to_vec(), 2));
    let (asked, held) = step(&mut shards, 3.2, busy([]));
    assert_eq!((held.expect("news").held.len(), asked.expect("another release").release.len()), (128, 64));
    let (asked, held) = step(&mut shards, 3.3, granted(everything()[..128].to_vec(), 2));
    assert_eq!((asked.is_none(), held), (true, None));
    assert!(!shards.asks_busy());
}

#[test]
fn what_is_busy_is_not_released_while_something_else_is_idle() {
    let mut shards = joined();
    let (asked, _) = step(&mut shards, 3.1, busy(100..=255));
    let idle: Vec<Lease> = everything().into_iter().filter(|lease| (36..100).contains(&lease.shard.0)).collect();
    let mut released = asked.expect("a release").release;
    released.sort_unstable();
    assert_eq!(released, idle);
}

#[test]
fn a_shard_that_stays_busy_begins_nothing_new_and_goes_in_the_end() {
    let mut shards = joined();
    let all = || busy(0..=255);
    let (asked, held) = step(&mut shards, 3.1, all());
    assert_eq!((asked.is_none(), held), (true, None));
    // A fifth of the lease after it was told: what is under way ends, and nothing new begins.
    assert_eq!(shards.next_wake(), Some(seconds(4.9)));
    let (asked, held) = step(&mut shards, 4.9, all());
    let held = held.expect("news");
    assert_eq!((asked.is_none(), held.held.len(), held.leaving.len()), (true, 256, 128));
    // One of them is idle now.
    let (asked, held) = step(&mut shards, 5.0, busy((0..=255).filter(|shard| *shard != 200)));
    assert_eq!(asked.expect("a release").release, [lease(200, 1)]);
    assert_eq!(held.expect("news").leaving.len(), 127);
    let rest: Vec<Lease> = everything().into_iter().filter(|lease| lease.shard.0 != 200).collect();
    step(&mut shards, 5.1, granted(rest.clone(), 2));
    assert_eq!(step(&mut shards, 8.4, all()).1, None);
    step(&mut shards, 8.45, granted(rest, 2));
    // Three fifths after: what is still busy is given away.
    let (asked, held) = step(&mut shards, 8.5, all());
    assert_eq!(asked.expect("a release").release.len(), 64);
    assert_eq!(held.expect("news").leaving.len(), 63);
}

/// What leaves for the second one has as long as what leaves for the first one, which goes no later for all that.
#[test]
fn who_joins_while_shards_leave_for_another_waits_as_long() {
    let mut shards = joined();
    let all = || busy(0..=255);
    step(&mut shards, 4.9, all());
    step(&mut shards, 6.0, Event::Tick);
    step(&mut shards, 6.1, granted(everything(), 3));
    let leaving = |shards: &Shards| shards.holding().leaving.len();
    for (at, wakes, expected) in [(6.1, 7.9, 128), (7.9, 8.5, 170)] {
        assert_eq!((step(&mut shards, at, all()).0.is_none(), leaving(&shards)), (true, expected), "at {at}");
        assert_eq!(shards.next_wake(), Some(seconds(wakes)), "at {at}");
    }
    // Those of the first one go, a round after the other, and no more.
    let mut rest = everything();
    for (at, left) in [(8.5, 106), (8.7, 42)] {
        let released = step(&mut shards, at, all()).0.expect("a release").release;
        assert!(released.len() == 64 && released.iter().all(|lease| lease.shard.0 >= 128), "{released:?}");
        rest.retain(|lease| !released.contains(lease));
        step(&mut shards, at + 0.1, granted(rest.clone(), 3));
        assert_eq!(leaving(&shards), left);
    }
    assert!(step(&mut shards, 11.49, all()).0.is_none());
    let released = step(&mut shards, 11.5, all()).0.expect("a release").release;
    assert_eq!(released, (86..128).map(|shard| lease(shard, 1)).collect::<Vec<_>>());
}

#[test]
fn what_was_to_leave_stays_where_the_other_owner_is_gone_again() {
    let mut shards = joined();
    let (_, held) = step(&mut shards, 4.9, busy(0..=255));
    assert_eq!(held.expect("news").leaving.len(), 128);
    step(&mut shards, 6.0, Event::Tick);
    let (_, held) = step(&mut shards, 6.1, granted(everything(), 1));
    assert_eq!(held, holding(everything(), vec![]));
    assert!(!shards.asks_busy());
}

#[test]
fn who_lacks_shards_asks_again_soon() {
    let mut shards = machine();
    step(&mut shards, 0.0, Event::Tick);
    // All are with the other one.
    step(&mut shards, 0.1, ranked(vec![], 2, 1));
    assert_eq!(shards.next_wake(), Some(seconds(0.55)));
    step(&mut shards, 0.55, Event::Tick);
    step(&mut shards, 0.6, ranked(everything()[..128].to_vec(), 2, 1));
    assert_eq!(shards.next_wake(), Some(seconds(0.55 + 3.0)));
    // The other one is gone: its shards are free already, or soon.
    step(&mut shards, 3.55, Event::Tick);
    let (asked, _) = step(&mut shards, 3.6, ranked(everything()[..128].to_vec(), 1, 0));
    assert_eq!(asked.expect("a question at once").shards_max, Shard::COUNT);
    step(&mut shards, 3.7, ranked(everything()[..128].to_vec(), 1, 0));
    assert_eq!(shards.next_wake(), Some(seconds(3.7 + 0.45)));
}

#[test]
fn shares_add_up_to_the_ring_and_differ_by_one_at_most() {
    for owners in [1, 2, 3, 5, 7, 100, 255, 256, 300] {
        let shares: Vec<usize> = (0..owners).map(|rank| share(owners, rank)).collect();
        assert_eq!(shares.iter().sum::<usize>(), Shard::COUNT, "{owners}");
        assert!(shares[0] - shares[owners - 1] <= 1 && shares.is_sorted_by(|a, b| a >= b), "{owners}");
    }
}

#[test]
fn after_a_sleep_longer_than_a_lease_nothing_is_held() {
    let mut shards = machine();
    step(&mut shards, 0.0, Event::Tick);
    step(&mut shards, 0.1, granted(everything(), 1));
    // The first thing that it is told after the sleep, whatever it is.
    let (_, held) = step(&mut shards, 100.0, busy([]));
    let held = held.expect("news");
    assert_eq!((held.held.len(), held.unsure.len()), (0, Shard::COUNT));
}

#[test]
fn a_lease_given_up_is_unsure_until_it_comes_back_in_a_new_epoch() {
    let mut shards = machine();
    step(&mut shards, 0.0, Event::Tick);
    step(&mut shards, 0.1, granted(vec![lease(1, 1), lease(2, 1)], 1));
    // A question is under way when the lease is given up: its answer still has the old epoch.
    step(&mut shards, 3.0, Event::Tick);
    let (asked, held) = step(&mut shards, 3.1, Event::GiveUp(vec![lease(1, 1)]));
    assert_eq!((asked.is_none(), held), (true, holding(vec![lease(2, 1)], vec![Shard(1)])));
    let (_, held) = step(&mut shards, 3.2, granted(vec![lease(1, 1), lease(2, 1)], 1));
    assert_eq!(held, None, "the old epoch counts no more");
    let at = shards.next_wake().expect("a question").as_secs_f64();
    let anew = |asked: Option<LeaseRequest>| asked.expect("a question").anew;
    assert_eq!(anew(step(&mut shards, at, Event::Tick).0), [lease(1, 1)]);
    step(&mut shards, at + 0.1, refused());
    let at = at + 1.0;
    assert_eq!(anew(step(&mut shards, at, Event::Tick).0), [lease(1, 1)]);
    let (_, held) = step(&mut shards, at + 0.1, granted(vec![lease(1, 2), lease(2, 1)], 1));
    assert_eq!(held, holding(vec![lease(1, 2), lease(2, 1)], vec![]));
}

#[test]
fn what_could_not_be_given_up_is_asked_for_again() {
    let mut shards = joined();
    step(&mut shards, 3.1, busy(1..=255));
    step(&mut shards, 3.2, Event::GiveUp(vec![lease(255, 1)]));
    let rest = || Shard::all().map(|shard| Lease { shard, epoch: Epoch(1) }).filter(|lease| lease.shard.0 != 255);
    // A write goes on under one of those that were asked for: it is renewed, and so are the others.
    let (_, held) = step(&mut shards, 3.3, granted(everything(), 2));
    assert_eq!(held, None, "neither counts as held");
    assert_eq!(shards.next_wake(), Some(seconds(3.3 + 0.45)));
    let (asked, _) = step(&mut shards, 3.75, Event::Tick);
    let asked = asked.expect("a question soon");
    assert_eq!((asked.release, asked.anew), (vec![lease(0, 1)], vec![lease(255, 1)]));
    // One of them could be given up now.
    step(&mut shards, 3.8, granted(rest().chain([lease(255, 2)]).collect(), 2));
    let (asked, _) = step(&mut shards, 4.25, Event::Tick);
    let asked = asked.expect("a question soon");
    assert_eq!((asked.release, asked.anew), (vec![lease(0, 1)], vec![]));
    let (_, held) = step(&mut shards, 4.3, granted(rest().skip(1).chain([lease(255, 2)]).collect(), 2));
    assert_eq!(held, None);
    assert_eq!(shards.holding().held.len(), 255);
    assert_eq!(step(&mut shards, 4.75, Event::Tick).0.map(|asked| asked.release), None);
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
fn in_a_drain_what_is_idle_goes_at_once_and_is_not_wanted_again() {
    let mut shards = machine();
    step(&mut shards, 0.0, Event::Tick);
    step(&mut shards, 0.1, granted(vec![lease(1, 1), lease(2, 1)], 1));
    step(&mut shards, 0.2, Event::Drain);
    let (asked, held) = step(&mut shards, 0.2, busy([2]));
    assert_eq!(asked.expect("a release").release, [lease(1, 1)]);
    assert_eq!(held, holding(vec![lease(2, 1)], vec![]));
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
