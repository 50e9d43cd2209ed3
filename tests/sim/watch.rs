//! What one process asks for and sends, looked at from outside: what it must never do at the same time, and how much of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use walclock::clock::Timestamp;
use walclock::dispatch::engine::{Config, Effect, Event};
use walclock::domain::run::{Ending, Run, RunKey};
use walclock::domain::timer::TimerKey;

/// What is under way, and what was wrong.
#[derive(Debug)]
pub struct Watch {
    bounds: Config,
    /// Its clock is never set, so that its pace can be judged.
    steady: bool,
    claiming: BTreeMap<u64, Vec<TimerKey>>,
    putting_back: BTreeSet<RunKey>,
    inflight: BTreeMap<String, usize>,
    /// When the requests of the last second left.
    sent: BTreeMap<String, VecDeque<Timestamp>>,
    /// The waits behind first attempts that failed.
    pub waits: Vec<Duration>,
    pub broken: Vec<String>,
}

impl Watch {
    pub fn new(bounds: Config, steady: bool) -> Self {
        Self {
            bounds,
            steady,
            claiming: BTreeMap::new(),
            putting_back: BTreeSet::new(),
            inflight: BTreeMap::new(),
            sent: BTreeMap::new(),
            waits: Vec::new(),
            broken: Vec::new(),
        }
    }

    /// The process is told this.
    pub fn told(&mut self, event: &Event) {
        match event {
            Event::Claimed { id, .. } => drop(self.claiming.remove(id)),
            Event::Settled { settlements, .. } => {
                for settlement in settlements {
                    self.putting_back.remove(&settlement.run.key);
                }
            }
            Event::Attempted { run, .. } | Event::Unsent(run) => *self.inflight.entry(host_of(run)).or_default() -= 1,
            _ => {}
        }
    }

    /// The process wants this.
    pub fn wanted(&mut self, now: Timestamp, effect: &Effect) {
        match effect {
            Effect::Claim { id, timers, .. } => {
                let keys: Vec<TimerKey> = timers.iter().map(|(key, _)| key.clone()).collect();
                let both = self.putting_back.iter().find(|run| keys.contains(&run.timer));
                self.broken.extend(both.map(|run| format!("I2: {} is claimed while it is put back", run.timer)));
                self.claiming.insert(*id, keys);
            }
            Effect::Settle(settlements) => {
                let first = settlements.iter().filter(|settlement| settlement.run.timer.attempts == 1);
                self.waits.extend(first.filter_map(|settlement| match settlement.ending {
                    Ending::RetryAt(at) => Some(at.since(settlement.attempt.answered_at)),
                    _ => None,
                }));
                for settlement in settlements.iter().filter(|settlement| settlement.ending.again_at().is_some()) {
                    let key = &settlement.run.key.timer;
                    if self.claiming.values().flatten().any(|other| other == key) {
                        self.broken.push(format!("I2: {key} is put back while it is claimed"));
                    }
                    self.putting_back.insert(settlement.run.key.clone());
                }
            }
            Effect::Deliver(run) => self.sends(now, run),
            _ => {}
        }
    }

    fn sends(&mut self, now: Timestamp, run: &Run) {
        let host = host_of(run);
        let inflight = self.inflight.entry(host.clone()).or_default();
        *inflight += 1;
        if *inflight > self.bounds.host_inflight_max {
            self.broken.push(format!("I10: {inflight} requests to {host} at once"));
        }
        let sent = self.sent.entry(host.clone()).or_default();
        sent.push_back(now);
        while sent.front().is_some_and(|at| now.since(*at) >= Duration::from_secs(1)) {
            sent.pop_front();
        }
        let Some(rate) = self.bounds.host_rate_max.filter(|_| self.steady) else { return };
        // A tenth of a second's requests may leave at once, and one is on the edge.
        let most = usize::try_from(rate + rate / 10 + 2).unwrap();
        if sent.len() > most {
            self.broken.push(format!("I10: {} requests to {host} in a second", sent.len()));
        }
    }
}

/// Each host has a name of its own.
pub fn host_of(run: &Run) -> String {
    run.timer.definition.callback.url.split('/').nth(2).unwrap_or_default().to_owned()
}
