//! Namespaces whose timers wait for slow hosts, more of them than there is memory for, overdue or not: they must not keep the
//! timers of others from being known in time.

use std::time::Duration;

use walclock::clock::Timestamp;
use walclock::dispatch::engine::Config;

use crate::steady::{Sent, World, at};

/// Hints that are kept in memory, and the timers of the namespaces that fill it.
const ROOM: usize = 500;
const SLOW: u64 = 1_500;
/// Until when the others' timers fall due, in milliseconds.
const END: u64 = 120_000;

/// What leaves while so many namespaces wait for a host of theirs.
fn backlog(namespaces: u64, bounds: Config) -> Vec<Sent> {
    let mut world = World::new(Config { queue_max: ROOM, ..bounds }, |host, _| match host.starts_with("slow") {
        true => (Duration::from_secs(20), true),
        false => (Duration::from_millis(10), true),
    });
    // Some are overdue at the beginning, the others fall due within a minute: all are in memory, as far as they may.
    for number in 0..SLOW {
        let slow = format!("slow-{}", number % namespaces);
        world.put(&slow, &slow, at(40 * number));
    }
    for number in 0..END / 200 {
        // Half of them have been there for long, the others are made a moment before.
        let due_at = at(1_000 + 200 * number);
        match number % 2 {
            0 => world.put("well", "well", due_at),
            _ => world.put_at(at(200 * number), "well", "well", due_at),
        }
    }
    world.run(at(END + 60_000)).sent
}

/// The usual bounds, so much smaller as the world is.
fn bounds() -> Config {
    Config { inflight_max: 256, host_inflight_max: 32, ..Config::default() }
}

#[test]
fn a_namespace_that_waits_in_memory_keeps_no_other_from_being_known() {
    for namespaces in [1, 4] {
        let sent = backlog(namespaces, bounds());
        let well: Vec<&Sent> = sent.iter().filter(|sent| sent.host == "well").collect();
        assert_eq!(well.len() as u64, END / 200, "beside {namespaces}, each leaves, and once");
        let latest = well.iter().map(|sent| sent.late()).max();
        assert!(latest <= Some(Duration::from_millis(50)), "beside {namespaces}, one is late by {latest:?}");
        // The slow hosts are called as often as they answer, until nothing is left.
        let slow = sent.len() - well.len();
        let calls = (END + 60_000) / 20_000 * 32 * namespaces;
        assert!(slow as u64 >= calls.min(SLOW) * 9 / 10, "{slow} of {calls} calls of {namespaces} slow hosts");
    }
}

/// Overdue hints above which no more are loaded, and the timers that are overdue at the beginning.
const BACKLOG_MAX: usize = 1_000;
const OVERDUE: usize = 4_000;

/// A world that begins with so many namespaces overdue, each with a host of its own that takes so long.
fn overdue(namespaces: usize, answer_takes: Duration, backlog_max: usize) -> World {
    let host = move |host: &str, _: Timestamp| match host.starts_with("big") {
        true => (answer_takes, true),
        false => (Duration::from_millis(10), true),
    };
    let mut world = World::new(Config { backlog_max, batch_max: 50, ..bounds() }, host);
    for number in 0..OVERDUE {
        let big = format!("big-{}", number % namespaces);
        world.put(&big, &big, overdue_at(number));
    }
    world
}

/// The moment of one of those that are overdue at the beginning.
fn overdue_at(number: usize) -> Timestamp {
    at(0).before(Duration::from_secs(100)).after(Duration::from_millis(10) * u32::try_from(number).unwrap())
}

#[test]
fn a_namespace_that_is_overdue_keeps_no_other_that_is_from_being_known() {
    for namespaces in [1, 2, 10] {
        let mut world = overdue(namespaces, Duration::from_secs(20), BACKLOG_MAX);
        // Most stand behind more of the others' than are loaded.
        for number in 0..200 {
            world.put("well", "well", overdue_at(20 * number));
        }
        let past = world.run(at(30_000));
        let well: Vec<&Sent> = past.sent.iter().filter(|sent| sent.host == "well").collect();
        assert_eq!(well.len(), 200, "beside {namespaces}");
        // As long as it takes to read past the others', and with the places that they leave.
        let latest = well.iter().map(|sent| sent.at).max();
        assert!(latest <= Some(at(2_000)), "beside {namespaces}, one left at {latest:?}");
        let read = past.rows_read;
        assert!(read <= 3 * OVERDUE, "{read} rows were read of {namespaces} that wait");
    }
}

#[test]
fn what_is_overdue_leaves_as_fast_as_if_all_of_it_were_in_memory() {
    for (namespaces, read_max) in [(1, 10_000), (4, 10_000), (15, 16_000), (100, 5_000)] {
        let [bounded, unbounded] = [BACKLOG_MAX, 2 * OVERDUE].map(|backlog_max| {
            let past = overdue(namespaces, Duration::from_millis(100), backlog_max).run(at(60_000));
            assert!(past.model.is_over(), "{:?}", past.model.open());
            let last = past.sent.iter().map(|sent| sent.at).max().unwrap();
            (last.since(at(0)), past.rows_read)
        });
        assert!(bounded.0 <= unbounded.0 * 11 / 10, "{namespaces}: {bounded:?}, not {unbounded:?}");
        assert!(bounded.1 <= read_max, "{} rows were read of {namespaces}", bounded.1);
    }
}
