//! Tests of what the hosts allow, each by itself.

use super::*;
use crate::dispatch::engine::hosts::{Admission, Bounds, Turn};
use crate::domain::limits::HOSTS_REMEMBERED_MAX;

const GATEWAY: &str = "http://gateway";

/// The hosts, and what left for the only one of them that these tests call.
struct Gateway {
    hosts: Hosts,
    count: u32,
}

impl Gateway {
    fn new(inflight_max: usize, failures_max: u32) -> Self {
        Self { hosts: Hosts::new(Bounds { inflight_max, rate_max: None, failures_max }), count: 0 }
    }

    /// A run of this namespace is due; it is kept where it has to wait.
    fn due(&mut self, now: Timestamp, namespace: &str) -> (RunKey, Admission) {
        self.count += 1;
        let mut run = run(&format!("{:05}", self.count), START, 1);
        run.key.timer = TimerKey::new(namespace, &run.key.timer.id);
        let (key, admission) = (run.key.clone(), self.hosts.admit(now, GATEWAY, &run));
        if admission == Admission::Wait {
            self.hosts.wait(now, GATEWAY, Box::new(run));
        }
        assert!(self.hosts.is_consistent());
        (key, admission)
    }

    /// The same of one that is sent at once.
    fn sent(&mut self, now: Timestamp, namespace: &str) -> RunKey {
        let (key, admission) = self.due(now, namespace);
        assert_eq!(admission, Admission::Send, "of {namespace}");
        key
    }

    /// So many are due, and must wait.
    fn wait(&mut self, namespace: &str, count: usize) {
        for _ in 0..count {
            assert_eq!(self.due(START, namespace).1, Admission::Wait);
        }
    }

    /// A request is over; what is new by that.
    fn over(&mut self, now: Timestamp, run: &RunKey, attempt: &Attempt) -> Vec<(Option<String>, Turn)> {
        let news = self.hosts.answered(now, GATEWAY, run, attempt, 0.5);
        let news = news.map(|news| (news.namespace.map(|namespace| namespace.to_string()), news.turn)).collect();
        assert!(self.hosts.is_consistent());
        news
    }

    /// What need not wait any longer: its namespace, and whether it is sent.
    fn released(&mut self, now: Timestamp) -> Vec<(RunKey, bool)> {
        let released = std::iter::from_fn(|| self.hosts.release(now));
        let released = released.map(|(run, admission)| (run.key.clone(), admission == Admission::Send)).collect();
        assert!(self.hosts.is_consistent());
        released
    }
}

fn alive() -> Attempt {
    Attempt { status: Some(200), ..attempt(Verdict::Succeeded) }
}

fn refused() -> Attempt {
    attempt(Verdict::Retry { not_before: None, error: "refused".into() })
}

fn broken() -> Attempt {
    Attempt { status: Some(500), ..refused() }
}

fn unconnected() -> Attempt {
    Attempt { connected: false, ..refused() }
}

fn is_put_off(admission: &Admission) -> bool {
    matches!(admission, Admission::Defer(..))
}

#[test]
fn what_fails_for_one_namespace_is_called_for_another() {
    for failure in [broken(), refused()] {
        let mut gateway = Gateway::new(100, 3);
        let mut news = Vec::new();
        for _ in 0..3 {
            let (failing, well) = (gateway.sent(START, "failing"), gateway.sent(START, "well"));
            news.extend(gateway.over(START, &well, &alive()));
            news.extend(gateway.over(START, &failing, &failure));
        }
        assert!(matches!(&news[..], [(Some(namespace), Turn::Spared(_))] if namespace == "failing"), "{news:?}");
        assert!(is_put_off(&gateway.due(START, "failing").1));
        gateway.sent(START, "well");
        gateway.sent(START, "new");
        assert_eq!(gateway.hosts.spared(), 1);
    }
}

#[test]
fn a_host_without_a_connection_is_spared_for_all_and_comes_back_for_all() {
    let mut gateway = Gateway::new(100, 4);
    let tried = ["a", "b", "a", "c"].map(|namespace| gateway.sent(START, namespace));
    let news: Vec<_> = tried.iter().flat_map(|run| gateway.over(START, run, &unconnected())).collect();
    let [(None, Turn::Spared(until))] = news[..] else { panic!("{news:?}") };
    for namespace in ["a", "b", "c", "new"] {
        assert!(is_put_off(&gateway.due(START, namespace).1), "{namespace}");
    }
    let probe = gateway.sent(until, "new");
    assert!(is_put_off(&gateway.due(until, "a").1), "one is enough");
    // That it answers 500 to one namespace does not keep the others waiting.
    assert_eq!(gateway.over(until, &probe, &broken()), [(None, Turn::Back)]);
    let admissions = ["a", "b", "c", "d", "e"].map(|namespace| gateway.due(until, namespace).1);
    assert_eq!(admissions.iter().filter(|admission| **admission == Admission::Send).count(), 4, "{admissions:?}");
    assert_eq!(gateway.hosts.spared(), 0);
}

/// However many of one namespace wait, those of the others come after one of it each.
#[test]
fn namespaces_that_wait_for_a_host_take_turns() {
    let mut gateway = Gateway::new(1, 0);
    let mut sent = gateway.sent(START, "huge");
    gateway.wait("huge", 1_000);
    gateway.wait("small", 2);
    gateway.wait("late", 1);
    let mut order = Vec::new();
    for _ in 0..8 {
        assert_eq!(gateway.over(START, &sent, &alive()), []);
        let released = gateway.released(START);
        let [(run, true)] = &released[..] else { panic!("{released:?}") };
        order.push(run.timer.namespace.to_string());
        sent = run.clone();
    }
    assert_eq!(order, ["huge", "small", "late", "huge", "small", "huge", "huge", "huge"]);
}

#[test]
fn within_a_namespace_those_that_waited_longer_go_first() {
    let mut gateway = Gateway::new(1, 0);
    let mut sent = gateway.sent(START, "a");
    gateway.wait("a", 3);
    for number in 2..5 {
        gateway.over(START, &sent, &alive());
        let released = gateway.released(START);
        let [(run, true)] = &released[..] else { panic!("{released:?}") };
        assert_eq!(&*run.timer.id, format!("{number:05}"));
        sent = run.clone();
    }
}

/// A namespace that comes back with few requests at a time waits for its own answers, and nobody waits behind it.
#[test]
fn a_namespace_that_comes_back_stands_in_nobodys_way() {
    let mut gateway = Gateway::new(100, 1);
    let failing = gateway.sent(START, "back");
    let news = gateway.over(START, &failing, &broken());
    let [(_, Turn::Spared(until))] = news[..] else { panic!("{news:?}") };
    let probe = gateway.sent(until, "back");
    assert_eq!(gateway.over(until, &probe, &alive()), [(Some("back".to_owned()), Turn::Back)]);
    let first = [(); 4].map(|()| gateway.sent(until, "back"));
    assert_eq!(gateway.due(until, "back").1, Admission::Wait);
    gateway.sent(until, "well");
    assert_eq!(gateway.released(until), []);
    gateway.over(until, &first[0], &alive());
    assert_eq!(gateway.released(until).len(), 1);
}

/// They would not be sent, so they need no place: also where others fill the host.
#[test]
fn runs_of_a_namespace_that_is_spared_wait_for_no_place() {
    let mut gateway = Gateway::new(2, 1);
    let failing = gateway.sent(START, "failing");
    let well = gateway.sent(START, "well");
    gateway.wait("well", 2);
    gateway.wait("failing", 10);
    gateway.over(START, &failing, &broken());
    let released = gateway.released(START);
    let put_off = released.iter().filter(|(run, sent)| !sent && &*run.timer.namespace == "failing").count();
    assert_eq!((put_off, released.len()), (10, 11), "the place goes to the other one");
    gateway.over(START, &well, &alive());
    assert_eq!(gateway.released(START).len(), 1);
}

/// One whose requests hang leaves places: 8 of 9 are its, and of what is left the next one has its share as well.
#[test]
fn a_namespace_whose_requests_hang_leaves_places_for_others() {
    let mut gateway = Gateway::new(90, 0);
    let mut hanging: Vec<RunKey> = (0..80).map(|_| gateway.sent(START, "hanging")).collect();
    gateway.wait("hanging", 100);
    let mut others: Vec<RunKey> = (0..9).map(|_| gateway.sent(START, "well")).collect();
    others.push(gateway.sent(START, "new"));
    gateway.wait("well", 1);
    for run in others.drain(..) {
        gateway.over(START, &run, &alive());
    }
    assert_eq!(gateway.released(START).len(), 1, "the other's, and none of those that hang");
    // Each answer of its own is a place for the next one.
    for run in hanging.drain(..20) {
        gateway.over(START, &run, &alive());
    }
    assert_eq!(gateway.released(START).iter().filter(|(run, _)| &*run.timer.namespace == "hanging").count(), 20);
}

/// What is a namespace's share depends on the others: where they have gone, it gets their places, though none of its own
/// requests is answered.
#[test]
fn a_namespace_gets_the_places_that_others_have_left() {
    let mut gateway = Gateway::new(90, 0);
    let hanging: Vec<RunKey> = (0..40).map(|_| gateway.sent(START, "hanging")).collect();
    let others: Vec<RunKey> = (0..45).map(|_| gateway.sent(START, "well")).collect();
    gateway.wait("hanging", 100);
    for run in &others {
        gateway.over(START, run, &alive());
    }
    assert_eq!(gateway.released(START).len(), 40, "80 in all");
    assert_eq!(gateway.hosts.inflight(), 2 * hanging.len());
}

#[test]
fn hosts_are_forgotten_when_there_are_too_many() {
    // Each another host, or each another namespace of one.
    for of_one in [false, true] {
        let mut hosts = Hosts::new(Bounds { inflight_max: usize::MAX, rate_max: None, failures_max: 1 });
        let mut open = 0;
        for number in 0..HOSTS_REMEMBERED_MAX + 100 {
            let mut one = run("a", START, 1);
            let origin = if of_one { GATEWAY.to_owned() } else { format!("http://host-{number}") };
            if of_one {
                one.key.timer = TimerKey::new(&format!("namespace-{number}"), "a");
            }
            assert_eq!(hosts.admit(START, &origin, &one), Admission::Send);
            if number % 20 == 0 && number < 100 {
                assert_eq!(hosts.answered(START, &origin, &one.key, &broken(), 0.5).count(), 1);
                open += 1;
            } else if number % 20 != 10 || number > 100 {
                assert_eq!(hosts.answered(START, &origin, &one.key, &alive(), 0.5).count(), 0);
            }
        }
        assert_eq!(hosts.len(), HOSTS_REMEMBERED_MAX);
        assert!(hosts.is_consistent());
        // Those that are spared, or have something under way, stay.
        assert_eq!((hosts.spared(), hosts.inflight()), (open, 5));
    }
}
