//! A namespace whose timers wait for a slow host, more of them than there is memory for: they must not keep the timers of
//! others from being known in time.

use std::time::Duration;

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
    world.run(at(END + 60_000)).0
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
