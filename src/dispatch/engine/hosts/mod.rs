//! The hosts that are called: how many requests one may have under way, how fast they may leave, whose they are, and that one
//! which does nothing but fail is spared for a while. A host is a scheme, a name and a port. `host` has the rule of one host, and
//! what its namespaces share; `breaker` that of sparing.

mod breaker;
mod host;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::domain::limits::HOSTS_REMEMBERED_MAX;
use crate::domain::run::{Attempt, Run, RunKey};
pub(super) use breaker::Turn;
use host::{Host, Signs};

/// Namespaces of hosts that are looked at to find one that can be forgotten.
const FORGET_TRIES: usize = 8;

/// What each host is allowed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Requests under way at once.
    pub(super) inflight_max: usize,
    /// Requests a second; none for any number.
    pub(super) rate_max: Option<u32>,
    /// Failures in a row after which it is spared; 0 never spares.
    pub(super) failures_max: u32,
}

/// What is to be done with a run that is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Its request may leave, and counts as under way.
    Send,
    /// It waits for others of its host.
    Wait,
    /// Its host is spared, and this is when it may be due again at the earliest and at the latest.
    Defer(Timestamp, Timestamp),
}

/// What was found of a host.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct News {
    /// The namespace for which it is so; none for all of them.
    pub(super) namespace: Option<Arc<str>>,
    pub(super) turn: Turn,
}

impl Bounds {
    fn interval(self) -> Option<Duration> {
        self.rate_max.map(|rate| Duration::from_secs(1) / rate.max(1))
    }
}

/// All hosts that are remembered, each with the namespaces that call it.
#[derive(Debug)]
pub(super) struct Hosts {
    bounds: Bounds,
    hosts: HashMap<Arc<str>, Host>,
    /// All of them with each namespace, in the order in which they are looked at to be forgotten.
    ring: VecDeque<(Arc<str>, Arc<str>)>,
    /// Hosts with runs that wait and may be able to leave now.
    stirred: BTreeSet<Arc<str>>,
    /// Hosts with runs that wait for the rate.
    wakes: BTreeSet<(Timestamp, Arc<str>)>,
    waiting: usize,
    spared: usize,
}

impl Hosts {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            hosts: HashMap::new(),
            ring: VecDeque::new(),
            stirred: BTreeSet::new(),
            wakes: BTreeSet::new(),
            waiting: 0,
            spared: 0,
        }
    }

    /// Runs that wait for their host.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Hosts that are spared at the moment, each counted for itself and for each namespace that alone finds it failing.
    pub(super) fn spared(&self) -> usize {
        self.spared
    }

    /// Says what is to be done with a due run of this host. Those of its namespace that wait are before it.
    pub(super) fn admit(&mut self, now: Timestamp, origin: &str, run: &Run) -> Admission {
        let namespace = &run.key.timer.namespace;
        if !self.hosts.get(origin).is_some_and(|host| host.knows(namespace)) {
            self.learn(now, origin, namespace);
        }
        let host = self.hosts.get_mut(origin).expect("it was put there where it was not");
        host.admit(now, run, self.bounds)
    }

    /// Keeps a run that was told to wait.
    pub(super) fn wait(&mut self, now: Timestamp, origin: &str, run: Box<Run>) {
        let host = self.hosts.get_mut(origin).expect("its run was told to wait");
        let wake = host.wait(now, run, self.bounds).map(|at| (at, origin.into()));
        self.wakes.extend(wake);
        self.waiting += 1;
    }

    /// When a run that waits may leave, without anything happening until then.
    pub(super) fn next_wake(&self) -> Option<Timestamp> {
        self.wakes.first().map(|(at, _)| *at)
    }

    /// Takes a run that need not wait any longer, and says what is to be done with it.
    pub(super) fn release(&mut self, now: Timestamp) -> Option<(Box<Run>, Admission)> {
        while self.wakes.first().is_some_and(|(at, _)| *at <= now) {
            self.stirred.extend(self.wakes.pop_first().map(|(_, name)| name));
        }
        while let Some(name) = self.stirred.pop_first() {
            let Some(host) = self.hosts.get_mut(&name) else { continue };
            match host.next(now, self.bounds) {
                Ok(next) => {
                    self.waiting -= 1;
                    self.stirred.insert(name);
                    return Some(next);
                }
                Err(wake_at) => self.wakes.extend(wake_at.map(|at| (at, name))),
            }
        }
        None
    }

    /// Takes all runs that wait.
    #[expect(clippy::vec_box, reason = "they go on as they are")]
    pub(super) fn take_waiting(&mut self) -> Vec<Box<Run>> {
        if self.waiting == 0 {
            return Vec::new();
        }
        self.waiting = 0;
        self.wakes.clear();
        let hosts = &mut self.hosts;
        let of_one = |(name, namespace): &(Arc<str>, Arc<str>)| {
            hosts.get_mut(name).map(|host| host.take_waiting(namespace)).unwrap_or_default()
        };
        self.ring.iter().flat_map(of_one).collect()
    }

    /// Takes in how an attempt went, and says what it shows of its host. `jitter` is from 0 to 1.
    pub(super) fn answered(
        &mut self,
        now: Timestamp,
        origin: &str,
        run: &RunKey,
        attempt: &Attempt,
        jitter: f64,
    ) -> impl Iterator<Item = News> + use<> {
        self.over(now, origin, run, Signs::of(attempt), jitter).into_iter().flatten()
    }

    /// Takes back that a request may leave.
    pub(super) fn unsent(&mut self, now: Timestamp, origin: &str, run: &RunKey) {
        self.over(now, origin, run, Signs::NONE, 0.0);
    }

    fn over(&mut self, now: Timestamp, origin: &str, run: &RunKey, signs: Signs, jitter: f64) -> [Option<News>; 2] {
        let Some(host) = self.hosts.get_mut(origin) else { return [None, None] };
        let news = host.heard(now, run, signs, jitter, self.bounds, &mut self.spared);
        if host.has_line() {
            self.stirred.insert(origin.into());
        }
        news
    }

    /// Begins to remember what this namespace finds at the host.
    fn learn(&mut self, now: Timestamp, origin: &str, namespace: &Arc<str>) {
        if self.ring.len() >= HOSTS_REMEMBERED_MAX {
            self.forget_one(now);
        }
        let name = self.hosts.get_key_value(origin).map_or_else(|| origin.into(), |(name, _)| name.clone());
        self.hosts.entry(name.clone()).or_insert_with(Host::new).learn(namespace.clone());
        self.ring.push_back((name, namespace.clone()));
    }

    /// Forgets a namespace of one of the hosts whose turn it is: one that is as any other if there is one, else one without
    /// requests. A host without namespaces is forgotten with the last one.
    fn forget_one(&mut self, now: Timestamp) {
        let tries = FORGET_TRIES.min(self.ring.len());
        let find = |test: &dyn Fn(&Host, &str) -> bool| {
            let is = |(name, namespace): &(Arc<str>, Arc<str>)| {
                self.hosts.get(name).is_none_or(|host| test(host, namespace))
            };
            self.ring.iter().take(tries).position(is)
        };
        let usual = find(&|host, namespace| host.may_forget(namespace, now));
        let place = usual.or_else(|| find(&|host, namespace| host.is_idle(namespace)));
        if let Some((name, namespace)) = place.and_then(|place| self.ring.remove(place))
            && let Some(host) = self.hosts.get_mut(&name)
        {
            let (spared, is_empty) = host.forget(&namespace);
            self.spared -= spared;
            if is_empty {
                self.hosts.remove(&name);
            }
        }
        // The next look is at others.
        let tries = tries.min(self.ring.len());
        self.ring.rotate_left(tries);
    }

    /// Namespaces of hosts that are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.ring.len()
    }

    /// Requests under way.
    pub(super) fn inflight(&self) -> usize {
        self.hosts.values().map(Host::inflight).sum()
    }

    /// The runs that wait, for checks.
    pub(super) fn all_waiting(&self) -> impl Iterator<Item = &Run> {
        self.hosts.values().flat_map(Host::waiting)
    }

    /// Whether the counts are right, no host has more under way than it may, and none is left standing with runs that wait.
    pub(super) fn is_consistent(&self) -> bool {
        let hosts = || self.hosts.values();
        let is_awaited = |(name, host): (&Arc<str>, &Host)| {
            !host.has_line()
                || host.inflight() > 0
                || self.stirred.contains(name)
                || self.wakes.iter().any(|(_, other)| other == name)
        };
        self.all_waiting().count() == self.waiting
            && hosts().map(Host::count_spared).sum::<usize>() == self.spared
            && hosts().map(Host::count_lanes).sum::<usize>() == self.ring.len()
            && hosts().all(|host| host.is_consistent(self.bounds))
            && self.hosts.iter().all(is_awaited)
    }
}
