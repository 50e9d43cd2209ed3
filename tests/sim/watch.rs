//! What one process asks for and sends, looked at from outside: what it must never do at the same time, and how much of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use walclock::clock::Timestamp;
use walclock::dispatch::engine::{Config, Effect, Event};
use walclock::domain::run::{Ending, Run, RunKey, Settlement};
use walclock::domain::timer::TimerKey;

use crate::plan::{FAILING, Gateway};

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
    /// What its namespaces share, where they call one gateway.
    gateway: Option<Gateway>,
    /// Runs that are claimed and have not left, by their client, each with its moment.
    claimed: BTreeMap<String, BTreeMap<RunKey, Timestamp>>,
    /// Clients of whom some have been due, and how many of each of the others have left since.
    passed_over: BTreeMap<String, BTreeMap<String, usize>>,
    /// The waits behind first attempts that failed.
    pub waits: Vec<Duration>,
    pub broken: Vec<String>,
}

impl Watch {
    pub fn new(bounds: Config, steady: bool, gateway: Option<Gateway>) -> Self {
        Self {
            bounds,
            steady,
            claiming: BTreeMap::new(),
            putting_back: BTreeSet::new(),
            inflight: BTreeMap::new(),
            sent: BTreeMap::new(),
            gateway,
            claimed: BTreeMap::new(),
            passed_over: BTreeMap::new(),
            waits: Vec::new(),
            broken: Vec::new(),
        }
    }

    /// The process is told this.
    pub fn told(&mut self, event: &Event) {
        match event {
            Event::Claimed { id, answer } => {
                self.claiming.remove(id);
                for run in answer.iter().flat_map(|claimed| &claimed.runs) {
                    let client = client_of(&run.key.timer).to_owned();
                    self.claimed.entry(client).or_default().insert(run.key.clone(), run.timer.due_at());
                }
            }
            Event::Settled { settlements, .. } => {
                for settlement in settlements {
                    self.putting_back.remove(&settlement.run.key);
                }
            }
            Event::Attempted { run, .. } | Event::Unsent(run) | Event::Unmade(run, _) => {
                *self.inflight.entry(host_of(run)).or_default() -= 1;
            }
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
                settlements.iter().for_each(|settlement| self.put_off(settlement));
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
            Effect::Deliver(run) => {
                self.sends(now, run);
                self.takes_its_turn(&run.key);
            }
            _ => {}
        }
    }

    /// A step is over: what is due by now and has not left waits.
    pub fn stepped(&mut self, now: Timestamp) {
        if self.gateway != Some(Gateway::Crowded) {
            return;
        }
        let is_due = |runs: &BTreeMap<RunKey, Timestamp>| runs.values().any(|due_at| *due_at <= now);
        for (client, _) in self.claimed.iter().filter(|(_, runs)| is_due(runs)) {
            self.passed_over.entry(client.clone()).or_default();
        }
    }

    /// One leaves: of no other client has another one left before, while this one's waited.
    fn takes_its_turn(&mut self, run: &RunKey) {
        let client = client_of(&run.timer);
        self.passed_over.remove(client);
        self.claimed.get_mut(client).and_then(|runs| runs.remove(run));
        for (waiting, left) in &mut self.passed_over {
            let left = left.entry(client.to_owned()).or_default();
            *left += 1;
            if *left > 1 {
                self.broken
                    .push(format!("I9: {left} callbacks of {client} left while one of {waiting} was passed over"));
            }
        }
    }

    /// A run is put back without an attempt, which at a gateway comes of the failures of its own client alone.
    fn put_off(&mut self, settlement: &Settlement) {
        let key = &settlement.run.key;
        if self.gateway == Some(Gateway::Failing)
            && matches!(settlement.ending, Ending::Defer(_))
            && client_of(&key.timer) != FAILING
        {
            self.broken.push(format!("I9: {} was put off for another's failures", key.timer));
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

/// Whose a timer is, also where all of them are in one namespace.
pub fn client_of(key: &TimerKey) -> &str {
    match &*key.namespace {
        "all" => key.id.rsplit('-').next().unwrap_or_default(),
        namespace => namespace,
    }
}

/// Each host has a name of its own.
pub fn host_of(run: &Run) -> String {
    run.timer.definition.callback.url.split('/').nth(2).unwrap_or_default().to_owned()
}
