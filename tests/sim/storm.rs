//! Hosts that have all been down for long come back at the same moment: what was meant for them must not leave at once, and
//! must not have held up other hosts meanwhile.

use std::time::Duration;

use walclock::clock::Timestamp;
use walclock::dispatch::engine::Config;

use crate::steady::{Past, Sent, World, at};

/// Hosts that are down at first, and the timers of each, all due within the first seconds.
const DOWN: [&str; 4] = ["down-1", "down-2", "down-3", "down-4"];
const EACH: u64 = 500;
/// When they are back, in milliseconds; all that was meant for them is over a minute later.
const BACK: u64 = 60_000;
/// How long an answer takes.
const ANSWER_TAKES: Duration = Duration::from_millis(10);

/// What leaves with these bounds, in its order.
fn storm(bounds: Config) -> Vec<Sent> {
    let mut world = World::new(bounds, |host, now| match DOWN.contains(&host) && now < at(BACK) {
        true => (Duration::from_millis(500), false),
        false => (ANSWER_TAKES, true),
    });
    for number in 0..EACH {
        DOWN.iter().for_each(|host| world.put("a", host, at(10 * number)));
    }
    // One that answers, in their namespace and in another.
    for number in 0..2_000 {
        world.put(if number % 2 == 0 { "a" } else { "b" }, "well", at(50 * number));
    }
    let Past { sent, model, .. } = world.run(at(BACK + 80_000));
    assert!(model.is_over(), "{:?}", model.open());
    sent
}

/// The usual bounds, so much smaller as the world is.
fn bounds() -> Config {
    Config { inflight_max: 1_024, host_inflight_max: 64, ..Config::default() }
}

/// How many of these requests went to a host from one moment to the other.
fn count(sent: &[Sent], host: &str, from: Timestamp, until: Timestamp) -> usize {
    sent.iter().filter(|sent| sent.host == host && sent.at >= from && sent.at < until).count()
}

/// How many requests a host got while it was known to be down: the first few seconds aside, in which that is found out.
fn tries(sent: &[Sent], host: &str) -> usize {
    count(sent, host, at(3_000), at(BACK))
}

/// How late the requests to the host were that answers, of a hundred all but the latest.
fn lateness(sent: &[Sent]) -> Duration {
    let mut late: Vec<Duration> = sent.iter().filter(|sent| sent.host == "well").map(Sent::late).collect();
    late.sort_unstable();
    late[late.len() * 99 / 100]
}

#[test]
fn hosts_that_are_back_at_once_are_not_stormed_and_hold_up_no_other() {
    let sent = storm(bounds());
    for host in DOWN {
        // One each time, after 1 second, 2, 4 and so on, or a fifth less.
        let tries = tries(&sent, host);
        assert!((3..=8).contains(&tries), "{host} was tried {tries} times");
        // What was put off meanwhile is spread over the 30 seconds of the longest span: some 17 a second.
        let most =
            (0..80_000).step_by(100).map(|millis| count(&sent, host, at(BACK + millis), at(BACK + millis + 1_000)));
        let most = most.max().unwrap_or_default();
        assert!(most <= 50, "{host} got {most} requests within a second");
    }
    let late = lateness(&sent);
    assert!(late <= Duration::from_millis(50), "another host's were late by {late:?}");
}

#[test]
fn what_hosts_do_that_are_down_is_seen_where_they_are_not_spared() {
    let sent = storm(Config { host_failures_max: 0, ..bounds() });
    assert!(DOWN.iter().all(|host| tries(&sent, host) > 1_000));
    let late = lateness(&sent);
    assert!(late > Duration::from_millis(200), "{late:?}");
}
