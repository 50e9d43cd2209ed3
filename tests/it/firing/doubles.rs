//! Which calls may be made again: those that were under way when their shard had to change its owner. Pure, and without a
//! look at how long anything took: what counts is what the log of the leases tells.

use std::collections::BTreeMap;

use walclock::clock::Timestamp;
use walclock::domain::shard::Shard;

use super::checks::{Rule, Violation};
use super::ledger::{Call, Evidence, Fault, Lease, NAMESPACE};

/// The attempt of a firing: its timer, want, moment, and number.
type Name<'a> = (&'a str, i64, Timestamp, u32);

/// What is known of the leases, and of the outcomes.
pub struct Doubles<'a> {
    faults: &'a [Fault],
    /// The leases that somebody was granted, by shard and epoch.
    grants: BTreeMap<(i16, i64), &'a Lease>,
    /// When a lease first ran out though nothing was broken: the machine is so busy that it loses some, and they move from
    /// then on.
    lapsed_at: Option<Timestamp>,
    /// Under which epoch outcomes were written.
    ends: BTreeMap<Name<'a>, i64>,
}

impl<'a> Doubles<'a> {
    pub fn of(evidence: &'a Evidence) -> Self {
        let Evidence { leases, faults, writes, .. } = evidence;
        let is_unforeseen = |lease: &&Lease| lease.lapsed && !faults.iter().any(|fault| fault.covers(lease.at));
        let granted = leases.iter().filter(|lease| lease.owner.is_some());
        let end = |write: &'a super::ledger::Write| {
            let name = (&*write.timer, write.number?, write.execute_at, write.attempt);
            write.is_end.then_some((name, write.epoch))
        };
        Self {
            faults,
            grants: granted.map(|lease| ((lease.shard, lease.epoch), lease)).collect(),
            lapsed_at: leases.iter().filter(is_unforeseen).map(|lease| lease.at).min(),
            ends: writes.iter().filter_map(end).collect(),
        }
    }

    /// Judges all calls of one attempt.
    pub fn judge(&self, calls: &mut [&Call], broken: &mut Vec<Violation>) {
        // One that was left behind with a call in its hands may make it behind its successor.
        calls.sort_by_key(|call| (call.fence, call.at));
        for pair in calls.windows(2).filter(|pair| !self.explain(pair[0], pair[1])) {
            broken.push((Rule::DuplicatesExplained, format!("{:?} and again {:?}", pair[0], pair[1])));
        }
        for call in calls {
            let name = (&*call.timer, call.number, call.execute_at, call.attempt);
            if let Some(epoch) = self.ends.get(&name).filter(|epoch| **epoch < call.fence) {
                broken.push((Rule::DuplicatesExplained, format!("it was over under epoch {epoch}, and then {call:?}")));
            }
        }
    }

    /// Whether an attempt had to be made again.
    fn explain(&self, before: &Call, again: &Call) -> bool {
        let shard = i16::from(Shard::of(NAMESPACE, &before.timer).0);
        let owner = self.grants.get(&(shard, before.fence)).map(|lease| &lease.owner);
        let mut since = match before.fence < again.fence {
            true => self.grants.range((shard, before.fence + 1)..=(shard, again.fence)),
            false => self.grants.range((shard, 0)..(shard, 0)),
        };
        // Who holds a shard on in a new epoch knows what is under way for it.
        let has_moved = |lease: &Lease| lease.lapsed || owner != Some(&lease.owner);
        let had_to = |lease: &Lease| {
            self.lapsed_at.is_some_and(|at| at <= lease.at) || self.faults.iter().any(|fault| fault.covers(lease.at))
        };
        since.any(|(_, lease)| has_moved(lease) && had_to(lease))
            || self.faults.iter().any(|fault| fault.forgets && fault.overlaps(before.at.min(again.at), again.at))
    }
}
