//! The checkers: what must hold of the clients' ledger, the calls, and what the database wrote. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use walclock::clock::Timestamp;
use walclock::domain::shard::Shard;

use super::doubles::Doubles;
use super::ledger::{
    ATTEMPTS_MAX, Act, Attempt, BUSY, Call, Deed, Evidence, Fault, Lease, NAMESPACE, Outcome, RETRY_FIRST, RETRY_MAX,
    Residue, Run, Script, Want,
};

/// How the error of an attempt begins that was taken over so often that it counts as failed.
const GONE: &str = "no outcome: its dispatcher was gone ";
const ADOPTIONS_MAX: usize = 3;
/// By how much a wait may be longer than the policy's.
const LATER_MAX: Duration = Duration::from_secs(1);

/// What does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// No call arrives before its moment, by the client's ledger and by its own header.
    NeverEarly,
    /// What a client wanted last is called, in time, and ends as its receiver decides.
    NeverLost,
    /// One firing has one id. The same attempt comes twice only where its shard had to change its owner meanwhile, and never
    /// once its outcome is written.
    DuplicatesExplained,
    /// Every write is made under the epoch that the lease has; an epoch has one owner.
    Fenced,
    /// What was cancelled, moved or overwritten while it was pending is not called any more.
    CancelledStays,
    /// Attempts are numbered without holes, and their waits are the policy's.
    AttemptsCounted,
    /// Nothing is called that no client wanted.
    NothingInvented,
    /// In the end nothing is due, nothing under way, and every shard has an owner.
    NothingLeft,
}

/// A rule that is broken, and how.
pub type Violation = (Rule, String);

/// Checks everything.
pub fn check(evidence: &Evidence) -> Vec<Violation> {
    let mut broken = Vec::new();
    let timers = Timers::of(evidence);
    timers.early(&mut broken);
    timers.invented(&mut broken);
    timers.lost(&mut broken);
    timers.cancelled(&mut broken);
    firings(evidence, &mut broken);
    waits(&evidence.attempts, &mut broken);
    fences(evidence, &mut broken);
    if evidence.residue != Residue::default() {
        broken.push((Rule::NothingLeft, format!("{:?}", evidence.residue)));
    }
    broken
}

/// The ledger and the calls by timer.
struct Timers<'a> {
    evidence: &'a Evidence,
    acts: BTreeMap<&'a str, Vec<&'a Act>>,
    calls: BTreeMap<&'a str, Vec<&'a Call>>,
}

impl<'a> Timers<'a> {
    fn of(evidence: &'a Evidence) -> Self {
        let mut timers = Self { evidence, acts: BTreeMap::new(), calls: BTreeMap::new() };
        for act in &evidence.acts {
            timers.acts.entry(&act.timer).or_default().push(act);
        }
        for call in &evidence.calls {
            timers.calls.entry(&call.timer).or_default().push(call);
        }
        timers
    }

    fn calls_of(&self, timer: &str, number: i64) -> impl Iterator<Item = &'a Call> {
        let calls = self.calls.get(timer).into_iter().flatten().copied();
        calls.filter(move |call| call.number == number)
    }

    fn early(&self, broken: &mut Vec<Violation>) {
        let wants = self.evidence.acts.iter().filter_map(|act| act.deed.want());
        let due: BTreeMap<i64, Timestamp> = wants.map(|want| (want.number, want.due)).collect();
        for call in &self.evidence.calls {
            let at_least = call.scheduled_for.max(due.get(&call.number).copied().unwrap_or(Timestamp::MIN));
            if call.at < at_least {
                let early = at_least.since(call.at);
                broken.push((Rule::NeverEarly, format!("{early:?} early: {call:?}")));
            }
        }
    }

    fn invented(&self, broken: &mut Vec<Violation>) {
        for (timer, calls) in &self.calls {
            let acts = self.acts.get(timer).map(Vec::as_slice).unwrap_or_default();
            for call in calls {
                let act = acts.iter().find(|act| act.deed.want().is_some_and(|want| want.number == call.number));
                match act {
                    Some(act) if act.outcome != Outcome::Refused => {}
                    Some(act) => broken.push((Rule::NothingInvented, format!("{act:?} was refused, and {call:?}"))),
                    None => broken.push((Rule::NothingInvented, format!("nobody wanted {call:?}"))),
                }
            }
        }
    }

    fn lost(&self, broken: &mut Vec<Violation>) {
        for (timer, acts) in &self.acts {
            let Some(done) = acts.iter().rposition(|act| act.outcome == Outcome::Done) else { continue };
            let open = acts[done..].iter().find(|act| act.outcome == Outcome::Unknown).map(|act| act.deed);
            let Some(want) = acts[done].deed.want().filter(|want| want.due <= self.evidence.quiet_at) else { continue };
            match open {
                None => self.happens(acts[done], want, broken),
                Some(Deed::Cancel) => {}
                Some(Deed::Insert(other) | Deed::Create(other) | Deed::Move(other)) => {
                    let called = |want: Want| self.calls_of(timer, want.number).next().is_some();
                    if !called(want) && !called(other) && other.due <= self.evidence.quiet_at {
                        broken.push((Rule::NeverLost, format!("{timer}: neither {want:?} nor {other:?} was called")));
                    }
                }
            }
        }
    }

    /// This want of a client is called, in time, and ends well or as its receiver wants.
    fn happens(&self, act: &Act, want: Want, broken: &mut Vec<Violation>) {
        let Some(first) = self.calls_of(&act.timer, want.number).map(|call| call.at).min() else {
            return broken.push((Rule::NeverLost, format!("{act:?} was never called")));
        };
        let from = want.due.max(act.answered_at);
        if first > self.due_by(from) {
            let faults = self.evidence.faults.iter().filter(|fault| fault.overlaps(from, first));
            let faults: Vec<&str> = faults.map(|fault| &*fault.what).collect();
            broken.push((Rule::NeverLost, format!("{act:?} was called {:?} late, at {faults:?}", first.since(from))));
        }
        let last_due = want.script.last_due(want.due);
        if last_due > self.evidence.quiet_at {
            return;
        }
        let (state, attempts) = want.script.end();
        let ended = |run: &&Run| run.timer == act.timer && run.number == want.number;
        let ends: Vec<_> = self.evidence.runs.iter().filter(ended).collect();
        // What asks for a moment that has passed is called at once, and that is its moment then.
        let as_wanted = |run: &&Run| run.execute_at >= last_due && run.state == state && run.attempts >= attempts;
        if !ends.iter().any(|run| as_wanted(run) || self.is_abandoned(run)) {
            broken.push((Rule::NeverLost, format!("{act:?} should be {state} after {attempts}, and is {ends:?}")));
        }
    }

    /// By when something has to be called that is due at this moment. A fault that begins before then puts it off.
    fn due_by(&self, due: Timestamp) -> Timestamp {
        let mut faults: Vec<&Fault> = self.evidence.faults.iter().collect();
        faults.sort_by_key(|fault| fault.from);
        let late_max = self.evidence.late_max;
        faults.into_iter().fold(due.after(late_max), |by, fault| match fault.from <= by {
            true => by.max(fault.until.after(late_max)),
            false => by,
        })
    }

    /// Whether the last attempt of a run was given up, because one dispatcher after the other was gone before it was over:
    /// it says so itself, and the leases show that each of them was followed by another.
    fn is_abandoned(&self, run: &Run) -> bool {
        let shard = i16::from(Shard::of(NAMESPACE, &run.timer).0);
        let is_takeover = |lease: &&Lease| lease.shard == shard && lease.owner.is_some() && lease.at > run.execute_at;
        let takeovers = self.evidence.leases.iter().filter(is_takeover).count();
        let says_so = run.error.as_ref().is_some_and(|error| error.starts_with(GONE));
        says_so && run.state == "failed" && run.attempts >= ATTEMPTS_MAX && takeovers >= ADOPTIONS_MAX
    }

    fn cancelled(&self, broken: &mut Vec<Violation>) {
        for (timer, acts) in &self.acts {
            let mut live: Option<Want> = None;
            for act in acts.iter().filter(|act| act.outcome == Outcome::Done) {
                // An overwritten one may be under way; what is cancelled or moved was pending.
                if let (Some(want), Deed::Cancel | Deed::Move(_)) = (live, act.deed) {
                    for call in self.calls_of(timer, want.number).filter(|call| call.at > act.answered_at) {
                        if call.fence >= self.epoch_at(timer, act.answered_at) {
                            broken.push((Rule::CancelledStays, format!("{act:?}, and then {call:?}")));
                        }
                    }
                }
                live = act.deed.want();
            }
        }
    }

    /// The epoch of a timer's shard at a moment. Whoever sends under an older one was left behind with a call in its
    /// hands; its receiver can tell by the fence.
    fn epoch_at(&self, timer: &str, at: Timestamp) -> i64 {
        let shard = Shard::of(NAMESPACE, timer).0;
        let leases = self.evidence.leases.iter().filter(|lease| lease.shard == i16::from(shard) && lease.at <= at);
        leases.map(|lease| lease.epoch).max().unwrap_or(0)
    }
}

/// One firing is one want at one moment under one id; its attempts count from 1 without holes, and come twice only for a
/// reason.
fn firings(evidence: &Evidence, broken: &mut Vec<Violation>) {
    let mut ids: BTreeMap<(&str, i64, Timestamp), BTreeSet<&str>> = BTreeMap::new();
    let mut firings: BTreeMap<&str, Vec<&Call>> = BTreeMap::new();
    for call in &evidence.calls {
        ids.entry((&call.timer, call.number, call.execute_at)).or_default().insert(&call.webhook_id);
        firings.entry(&call.webhook_id).or_default().push(call);
    }
    for (firing, ids) in ids.iter().filter(|(_, ids)| ids.len() > 1) {
        broken.push((Rule::DuplicatesExplained, format!("{firing:?} came under {ids:?}")));
    }
    let wants = evidence.acts.iter().filter_map(|act| act.deed.want());
    let endless: BTreeSet<i64> = wants.filter(|want| want.script == Script::Outlasts).map(|want| want.number).collect();
    let mut logged: BTreeSet<(&str, u32)> = BTreeSet::new();
    for attempt in &evidence.attempts {
        logged.insert((&attempt.timer, attempt.attempt));
    }
    let doubles = Doubles::of(evidence);
    for (id, mut calls) in firings {
        calls.sort_by_key(|call| call.at);
        let named = |call: &&Call| (call.timer.clone(), call.number, call.execute_at);
        if calls.iter().map(named).collect::<BTreeSet<_>>().len() > 1 {
            broken.push((Rule::DuplicatesExplained, format!("{id} is several firings: {calls:?}")));
        }
        let mut attempts: BTreeMap<u32, Vec<&Call>> = BTreeMap::new();
        let mut newest = 0;
        for call in calls {
            let made = attempts.entry(call.attempt).or_default();
            if made.is_empty() && call.attempt < newest {
                broken.push((Rule::AttemptsCounted, format!("attempt {newest} came before {call:?}")));
            }
            made.push(call);
            newest = newest.max(call.attempt);
        }
        attempts.values_mut().for_each(|calls| doubles.judge(calls, broken));
        let Some(any) = attempts.values().flatten().next() else { continue };
        // One that failed before it reached its receiver is known from the log.
        let is_known = |attempt: &u32| attempts.contains_key(attempt) || logged.contains(&(&*any.timer, *attempt));
        let attempts_max = if endless.contains(&any.number) { u32::MAX } else { ATTEMPTS_MAX };
        if !(1..=newest).all(|attempt| is_known(&attempt)) || newest > attempts_max {
            broken.push((Rule::AttemptsCounted, format!("{id} of {any:?} has the attempts {:?}", attempts.keys())));
        }
    }
}

/// Between an attempt and the next lies what the policy, or the receiver, says.
fn waits(attempts: &[Attempt], broken: &mut Vec<Violation>) {
    let mut timers: BTreeMap<&str, Vec<&Attempt>> = BTreeMap::new();
    for attempt in attempts {
        timers.entry(&attempt.timer).or_default().push(attempt);
    }
    // What a moment loses when it is stored.
    let grain = Duration::from_millis(1);
    for attempts in timers.values_mut() {
        attempts.sort_by_key(|attempt| attempt.claimed_at);
        for pair in attempts.windows(2).filter(|pair| pair[1].attempt == pair[0].attempt + 1) {
            let Some(answered_at) = pair[0].answered_at else { continue };
            let wait = (RETRY_FIRST * 2_u32.pow(pair[0].attempt - 1)).min(RETRY_MAX);
            let asked = if pair[0].status == Some(429) { BUSY } else { Duration::ZERO };
            let (least, most) = (wait.mul_f64(0.8).max(asked), wait.mul_f64(1.2).max(asked));
            let waited = pair[1].due_at.since(answered_at);
            // A host that fails is spared for a while. Where the database's clock seemed set back, a wait begins anew.
            let is_spared = pair[0].status.is_none_or(|status| status >= 500);
            if waited + grain < least || (waited > most + LATER_MAX && !is_spared) {
                broken.push((Rule::AttemptsCounted, format!("{waited:?}, not {least:?} to {most:?}: {pair:?}")));
            }
        }
    }
}

fn fences(evidence: &Evidence, broken: &mut Vec<Violation>) {
    for write in evidence.writes.iter().filter(|write| write.epoch != write.lease) {
        let (timer, epoch, lease) = (&write.timer, write.epoch, write.lease);
        broken.push((Rule::Fenced, format!("{timer} was written under epoch {epoch} while the lease had {lease}")));
    }
    let mut epochs: BTreeMap<i16, i64> = BTreeMap::new();
    for lease in evidence.leases.iter().filter(|lease| lease.owner.is_some()) {
        let before = epochs.insert(lease.shard, lease.epoch).unwrap_or(0);
        if lease.epoch <= before {
            broken.push((Rule::Fenced, format!("epoch {before} had an owner before {lease:?}")));
        }
    }
}
