//! The hosts that are called: how many requests one may have under way, how fast they may leave, and that one which does
//! nothing but fail is spared for a while. A host is a scheme, a name and a port.
//!
//! The breaker of a host opens after so many failures in a row. While it is open, runs are deferred and no request leaves.
//! After a span, one run may try. If that fails too, the host is spared for twice as long. If not, requests leave again,
//! a few at a time at first, so that a host which comes back is not run over.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::domain::callback::Verdict;
use crate::domain::limits::HOSTS_REMEMBERED_MAX;
use crate::domain::run::{Attempt, Run, RunKey};

/// For how long a host is spared at first; each time that follows doubles it.
const SPAN_FIRST: Duration = Duration::from_secs(1);
/// For how long it is spared at most: one that is back waits for its timers no longer than that.
const SPAN_MAX: Duration = Duration::from_secs(30);
/// Requests at once to a host that is back; they double with as many answers.
const WINDOW_FIRST: usize = 4;
/// How far apart deferred runs are due again, so that very many keep the database busy with nothing else.
const DEFERRAL_PACE: Duration = Duration::from_millis(1);
/// Over how long they are spread at most.
const DEFERRAL_SPREAD_MAX: Duration = Duration::from_secs(300);
/// Requests above the rate that may leave at once, as a span of the rate.
const RATE_BURST: Duration = Duration::from_millis(100);
/// Hosts looked at to find one that can be forgotten.
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

/// What a host was found to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// It fails, and is spared until this moment.
    Spared(Timestamp),
    /// It answers again.
    Back,
}

/// What an attempt says of its host.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    Alive,
    Failed,
    /// It never came to a request.
    None,
}

impl Sign {
    fn of(attempt: &Attempt) -> Self {
        match (attempt.status, &attempt.verdict) {
            (Some(500..), _) | (None, Verdict::Retry { .. }) => Self::Failed,
            (Some(_), _) | (None, Verdict::Succeeded | Verdict::Reschedule(_)) => Self::Alive,
            (None, Verdict::Failed { .. }) => Self::None,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Breaker {
    Closed,
    Open {
        until: Timestamp,
    },
    /// This run tries whether the host is back.
    Probing {
        run: RunKey,
        since: Timestamp,
    },
}

#[derive(Debug)]
struct Host {
    name: Arc<str>,
    inflight: usize,
    /// Due runs that may not leave yet, in their order.
    waiting: VecDeque<Box<Run>>,
    breaker: Breaker,
    failures: u32,
    /// Times that it was spared without having come back for good.
    spared: u32,
    span: Duration,
    deferred: u32,
    /// Requests at once while it comes back; none once it has.
    window: Option<usize>,
    answers: usize,
    /// When its next request is due by the rate.
    next_at: Timestamp,
    /// When it is looked at again though nothing happened.
    wake_at: Option<Timestamp>,
}

impl Host {
    fn new(name: Arc<str>) -> Self {
        Self {
            name,
            inflight: 0,
            waiting: VecDeque::new(),
            breaker: Breaker::Closed,
            failures: 0,
            spared: 0,
            span: Duration::ZERO,
            deferred: 0,
            window: None,
            answers: 0,
            next_at: Timestamp::MIN,
            wake_at: None,
        }
    }

    fn is_idle(&self) -> bool {
        self.inflight == 0 && self.waiting.is_empty()
    }

    /// Whether nothing is lost where it is forgotten.
    fn is_usual(&self, now: Timestamp) -> bool {
        self.breaker == Breaker::Closed && self.failures == 0 && self.window.is_none() && self.next_at <= now
    }

    fn is_spared(&self) -> bool {
        self.breaker != Breaker::Closed
    }

    fn admit(&mut self, now: Timestamp, run: &RunKey, bounds: Bounds) -> Admission {
        self.wake_at = None;
        match &self.breaker {
            Breaker::Open { until } if now < *until => self.defer(*until),
            Breaker::Open { .. } => {
                self.breaker = Breaker::Probing { run: run.clone(), since: now };
                self.send(now, bounds)
            }
            // The longer the answer takes, the longer it is likely to take.
            Breaker::Probing { since, .. } => self.defer(now.after(now.since(*since).max(SPAN_FIRST))),
            Breaker::Closed if self.inflight >= self.window.unwrap_or(usize::MAX).min(bounds.inflight_max) => {
                Admission::Wait
            }
            Breaker::Closed => {
                self.wake_at = self.too_early(now, bounds);
                if self.wake_at.is_some() { Admission::Wait } else { self.send(now, bounds) }
            }
        }
    }

    /// Until when the rate forbids a request; none where it does not.
    fn too_early(&mut self, now: Timestamp, bounds: Bounds) -> Option<Timestamp> {
        let interval = bounds.interval()?;
        // Where the clock was set back, nobody waits for what it had read.
        self.next_at = self.next_at.min(now.after(RATE_BURST.max(interval)));
        let may_at = self.next_at.before(RATE_BURST.saturating_sub(interval));
        (may_at > now).then_some(may_at)
    }

    fn send(&mut self, now: Timestamp, bounds: Bounds) -> Admission {
        self.inflight += 1;
        if let Some(interval) = bounds.interval() {
            self.next_at = self.next_at.max(now).after(interval);
        }
        Admission::Send
    }

    fn defer(&mut self, from: Timestamp) -> Admission {
        self.deferred = self.deferred.saturating_add(1);
        let spread = DEFERRAL_PACE.saturating_mul(self.deferred).clamp(self.span, DEFERRAL_SPREAD_MAX);
        Admission::Defer(from, from.after(spread))
    }

    /// Takes in what an attempt has shown. `jitter` is from 0 to 1.
    fn heard(&mut self, now: Timestamp, run: &RunKey, sign: Sign, jitter: f64, bounds: Bounds) -> Option<News> {
        match &self.breaker {
            Breaker::Closed => match sign {
                Sign::Alive => {
                    self.failures = 0;
                    self.widen(bounds);
                    None
                }
                Sign::Failed => {
                    self.failures = self.failures.saturating_add(1);
                    let few = self.window.and_then(|window| u32::try_from(window).ok()).unwrap_or(u32::MAX);
                    let opens = bounds.failures_max > 0 && self.failures >= bounds.failures_max.min(few);
                    opens.then(|| self.open(now, jitter))
                }
                Sign::None => None,
            },
            Breaker::Probing { run: probe, .. } if probe == run => match sign {
                Sign::Alive => {
                    self.breaker = Breaker::Closed;
                    (self.failures, self.answers, self.window) = (0, 0, Some(WINDOW_FIRST));
                    Some(News::Back)
                }
                Sign::Failed => Some(self.open(now, jitter)),
                Sign::None => {
                    self.breaker = Breaker::Open { until: now };
                    None
                }
            },
            // Sent before it was spared: what counts is the probe.
            Breaker::Open { .. } | Breaker::Probing { .. } => None,
        }
    }

    fn widen(&mut self, bounds: Bounds) {
        let Some(window) = self.window else { return };
        self.answers += 1;
        if self.answers >= window {
            self.answers = 0;
            self.window = Some(window * 2).filter(|window| *window < bounds.inflight_max);
            if self.window.is_none() {
                self.spared = 0;
            }
        }
    }

    fn open(&mut self, now: Timestamp, jitter: f64) -> News {
        self.span = SPAN_FIRST.saturating_mul(1 << self.spared.min(16)).min(SPAN_MAX);
        self.spared = self.spared.saturating_add(1);
        self.deferred = 0;
        // Up to a fifth earlier or later, so that dispatchers do not all try at once.
        let until = now.after(self.span.mul_f64(0.8 + 0.4 * jitter));
        self.breaker = Breaker::Open { until };
        News::Spared(until)
    }
}

impl Bounds {
    fn interval(self) -> Option<Duration> {
        self.rate_max.map(|rate| Duration::from_secs(1) / rate.max(1))
    }
}

/// All hosts that are remembered.
#[derive(Debug)]
pub(super) struct Hosts {
    bounds: Bounds,
    hosts: HashMap<Arc<str>, Host>,
    /// All of them, in the order in which they are looked at to be forgotten.
    ring: VecDeque<Arc<str>>,
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

    /// Hosts that are spared at the moment.
    pub(super) fn spared(&self) -> usize {
        self.spared
    }

    /// Says what is to be done with a due run of this host. Those that wait are before it.
    pub(super) fn admit(&mut self, now: Timestamp, origin: &str, run: &Run) -> Admission {
        let bounds = self.bounds;
        let host = self.known(now, origin);
        match host.waiting.is_empty() || host.is_spared() {
            true => host.admit(now, &run.key, bounds),
            false => Admission::Wait,
        }
    }

    /// Keeps a run that was told to wait.
    pub(super) fn wait(&mut self, now: Timestamp, origin: &str, run: Box<Run>) {
        let host = self.known(now, origin);
        host.waiting.push_back(run);
        let wake = host.wake_at.map(|at| (at, host.name.clone()));
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
            let Some(run) = host.waiting.pop_front() else { continue };
            match host.admit(now, &run.key, self.bounds) {
                Admission::Wait => {
                    host.waiting.push_front(run);
                    self.wakes.extend(host.wake_at.map(|at| (at, name)));
                }
                admission => {
                    self.waiting -= 1;
                    self.stirred.insert(name);
                    return Some((run, admission));
                }
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
        self.hosts.values_mut().flat_map(|host| host.waiting.drain(..)).collect()
    }

    /// Takes in how an attempt went, and says what it shows of its host. `jitter` is from 0 to 1.
    pub(super) fn answered(
        &mut self,
        now: Timestamp,
        origin: &str,
        run: &RunKey,
        attempt: &Attempt,
        jitter: f64,
    ) -> Option<News> {
        self.over(now, origin, run, Sign::of(attempt), jitter)
    }

    /// Takes back that a request may leave.
    pub(super) fn unsent(&mut self, now: Timestamp, origin: &str, run: &RunKey) {
        self.over(now, origin, run, Sign::None, 0.0);
    }

    fn over(&mut self, now: Timestamp, origin: &str, run: &RunKey, sign: Sign, jitter: f64) -> Option<News> {
        let host = self.hosts.get_mut(origin)?;
        host.inflight -= 1;
        let was_spared = host.is_spared();
        let news = host.heard(now, run, sign, jitter, self.bounds);
        self.spared = self.spared + usize::from(host.is_spared()) - usize::from(was_spared);
        if !host.waiting.is_empty() {
            self.stirred.insert(host.name.clone());
        }
        news
    }

    fn known(&mut self, now: Timestamp, origin: &str) -> &mut Host {
        if !self.hosts.contains_key(origin) {
            if self.hosts.len() >= HOSTS_REMEMBERED_MAX {
                self.forget_one(now);
            }
            let name: Arc<str> = origin.into();
            self.ring.push_back(name.clone());
            self.hosts.insert(name.clone(), Host::new(name));
        }
        self.hosts.get_mut(origin).expect("it was put there where it was not")
    }

    /// Forgets one of the hosts whose turn it is: one that is as any other if there is one, else one without requests.
    fn forget_one(&mut self, now: Timestamp) {
        let tries = FORGET_TRIES.min(self.ring.len());
        let is = |test: fn(&Host, Timestamp) -> bool| {
            self.ring.iter().take(tries).position(|name| self.hosts.get(name).is_none_or(|host| test(host, now)))
        };
        let place = is(|host, now| host.is_idle() && host.is_usual(now)).or_else(|| is(|host, _| host.is_idle()));
        let name = place.and_then(|place| self.ring.remove(place));
        if let Some(host) = name.and_then(|name| self.hosts.remove(&name)) {
            self.spared -= usize::from(host.is_spared());
        }
        // The next look is at others.
        let tries = tries.min(self.ring.len());
        self.ring.rotate_left(tries);
    }

    /// Hosts that are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Requests under way.
    pub(super) fn inflight(&self) -> usize {
        self.hosts.values().map(|host| host.inflight).sum()
    }

    /// The runs that wait, for checks.
    pub(super) fn all_waiting(&self) -> impl Iterator<Item = &Run> {
        self.hosts.values().flat_map(|host| host.waiting.iter().map(|run| &**run))
    }

    /// Whether the counts are right, and no host has more under way than it may.
    pub(super) fn is_consistent(&self) -> bool {
        let hosts = || self.hosts.values();
        hosts().map(|host| host.waiting.len()).sum::<usize>() == self.waiting
            && hosts().filter(|host| host.is_spared()).count() == self.spared
            && self.ring.len() == self.hosts.len()
            && hosts().all(|host| host.inflight <= self.bounds.inflight_max)
    }
}
