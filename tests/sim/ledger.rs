//! What really happened, and whether it was allowed: the invariants of `dispatch::engine::invariants`, judged from
//! outside.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use walclock::clock::Timestamp;
use walclock::domain::lease::{Epoch, Lease, Owner};
use walclock::domain::run::{Run, RunKey};
use walclock::domain::timer::{Timer, TimerKey};
use walclock::domain::webhook;

use crate::model::Model;

/// The longest pause after which a timer is looked at again that could not be claimed.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(1);

/// One definition of a timer, from its commit on.
#[derive(Debug)]
struct Version {
    key: TimerKey,
    name: String,
    /// When a client replaced or cancelled it while it was pending.
    ended_at: Option<Timestamp>,
    /// How long after its moment somebody may know of it at the latest.
    known_after: Duration,
    sends: Vec<Sent>,
}

/// A callback that left.
#[derive(Clone, Debug)]
struct Sent {
    run: RunKey,
    epoch: Epoch,
    execute_at: Timestamp,
    attempt: u32,
    id: String,
}

/// How late a callback may be.
#[derive(Clone, Copy, Debug)]
pub struct Lateness {
    /// Where nothing is broken.
    pub max: Duration,
    /// Behind the last fault on its way.
    pub behind_fault_max: Duration,
}

/// A callback that was late.
#[derive(Clone, Debug)]
struct Late {
    name: String,
    due: Timestamp,
    at: Timestamp,
}

/// The record of a world.
#[derive(Debug, Default)]
pub struct Ledger {
    versions: BTreeMap<String, Version>,
    count: u64,
    broken: Vec<String>,
    is_orderly: bool,
    /// How late a timer that is not of the crowd may be, if it falls due after some time.
    lateness: Option<Lateness>,
    judged_from: Timestamp,
    /// From when until when something was broken.
    faults: BTreeSet<(Timestamp, Timestamp)>,
    /// Until when nobody may have seen that a client holds a timer no more.
    held: BTreeMap<TimerKey, Timestamp>,
    /// Callbacks that would be late if nothing were broken.
    late: Vec<Late>,
    /// Callbacks that were not of the crowd.
    light: usize,
    /// Timers of which some run was abandoned.
    abandoned: BTreeSet<TimerKey>,
}

impl Ledger {
    /// An empty one. In an orderly world nothing fails and nobody dies, and no change of owner excuses a repetition.
    pub fn new(is_orderly: bool, judged_from: Timestamp, lateness: Option<Lateness>) -> Self {
        Self { is_orderly, judged_from, lateness, ..Self::default() }
    }

    /// Something is broken from one moment to the other.
    pub fn fault(&mut self, from: Timestamp, until: Timestamp) {
        self.faults.insert((from, until));
    }

    /// A client holds a timer, which cannot be claimed meanwhile.
    pub fn held(&mut self, key: &TimerKey, until: Timestamp) {
        self.held.insert(key.clone(), until.after(LOOK_AGAIN_MAX));
    }

    pub fn next_version(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    /// A client's insert or update was committed.
    pub fn began(&mut self, timer: &Timer) {
        let key = timer.definition.key.clone();
        let name = format!("{} (due {})", timer.definition.key, timer.definition.execute_at);
        let version = Version { key, name, ended_at: None, known_after: Duration::ZERO, sends: Vec::new() };
        self.versions.insert(version_of(timer), version);
    }

    /// A timer's shard came to a new owner between the feed's word of it and the moment from which queries see it: only the
    /// sweep may find it, which takes so long.
    pub fn overlooked(&mut self, timer: &Timer, sweep_takes: Duration) {
        if let Some(version) = self.versions.get_mut(&version_of(timer)) {
            version.known_after = sweep_takes;
        }
    }

    /// A client replaced or cancelled this timer while it was pending, and was told so.
    pub fn ended(&mut self, timer: &Timer, at: Timestamp) {
        if let Some(version) = self.versions.get_mut(&version_of(timer)) {
            version.ended_at = Some(at);
        }
    }

    /// A run that had not been sent gave way to a newer timer of the same id.
    pub fn superseded(&mut self, timer: &Timer, at: Timestamp) {
        self.ended(timer, at);
    }

    /// A run of this timer counts as a failed attempt, because one dispatcher after the other was gone before its callback was
    /// over. That it has ever left is more than anybody knows.
    pub fn abandoned(&mut self, key: &TimerKey) {
        self.abandoned.insert(key.clone());
    }

    /// A callback leaves now.
    pub fn sent(&mut self, model: &Model, owner: &Owner, run: &Run) {
        let Some(version) = self.versions.get_mut(&version_of(&run.timer)) else {
            return self.break_with(format!("{} was never committed", run.key.timer));
        };
        let sent = Sent {
            run: run.key.clone(),
            epoch: run.epoch,
            execute_at: run.timer.definition.execute_at,
            attempt: run.timer.attempts,
            id: webhook::id(&run.timer),
        };
        let lease = Lease { shard: run.key.timer.shard(), epoch: run.epoch };
        let same_firing = version.sends.iter().filter(|before| before.execute_at == sent.execute_at);
        let (mut repeated, mut other_id, mut is_first) = (false, false, true);
        for before in same_firing {
            is_first &= before.attempt != sent.attempt;
            repeated |= before.attempt == sent.attempt && before.epoch == sent.epoch;
            repeated |= before.run == sent.run && before.epoch == sent.epoch;
            repeated |= before.attempt == sent.attempt && self.is_orderly;
            other_id |= before.id != sent.id;
        }
        let checks = [
            (model.now < run.timer.due_at(), "I1: fired before it was due"),
            (version.ended_at.is_some(), "I2: fired after it was cancelled or changed"),
            (!model.is_current(owner, lease), "I3: fired by one who did not own its shard"),
            (repeated, "I4: fired again without a failure or a change of owner"),
            (other_id, "I4: fired again under another id"),
        ];
        for (broken, what) in checks {
            if broken {
                self.broken.push(format!("{what}: {} at {} by {}", version.name, model.now, owner.0));
            }
        }
        if !is_crowd(&run.key.timer) {
            self.light += 1;
            let held_until = self.held.get(&run.key.timer).copied().unwrap_or(Timestamp::MIN);
            let known_at = run.timer.due_at().max(run.timer.updated_at).after(version.known_after);
            let due = known_at.max(held_until);
            let is_late = self.lateness.is_some_and(|lateness| model.now > due.after(lateness.max));
            if is_first && is_late && run.timer.due_at() >= self.judged_from {
                self.late.push(Late { name: version.name.clone(), due, at: model.now });
            }
        }
        version.sends.push(sent);
    }

    /// The world is over: everything must be.
    pub fn close(&mut self, model: &Model) {
        self.judge_lateness();
        if self.is_broken() {
            return;
        }
        for open in model.open() {
            self.break_with(format!("I1: not over at the end: {open}"));
        }
        for version in self.versions.values() {
            let is_known = !self.abandoned.contains(&version.key);
            if version.ended_at.is_none() && version.sends.is_empty() && is_known {
                self.broken.push(format!("I1: never fired: {}", version.name));
            }
        }
    }

    /// What is due has to be called in time; each fault that comes before that puts it off.
    fn judge_lateness(&mut self) {
        let Some(Lateness { max, behind_fault_max }) = self.lateness else { return };
        for Late { name, due, at } in &self.late {
            let by = self.faults.iter().fold(due.after(max), |by, (from, until)| match *from <= by {
                true => by.max(until.after(behind_fault_max)),
                false => by,
            });
            if *at > by {
                self.broken.push(format!(
                    "late by {:?}, of which {:?} are too much: {name}",
                    at.since(*due),
                    at.since(by)
                ));
            }
        }
    }

    pub fn break_with(&mut self, what: String) {
        self.broken.push(what);
    }

    pub fn is_broken(&self) -> bool {
        !self.broken.is_empty()
    }

    pub fn broken(self) -> Vec<String> {
        self.broken
    }

    pub fn light(&self) -> usize {
        self.light
    }

    pub fn sends(&self) -> usize {
        self.versions.values().map(|version| version.sends.len()).sum()
    }
}

/// The crowd's timers have names of their own.
fn is_crowd(key: &TimerKey) -> bool {
    key.id.starts_with("crowd")
}

/// Each definition has its own URL.
fn version_of(timer: &Timer) -> String {
    timer.definition.callback.url.clone()
}
