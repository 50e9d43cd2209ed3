//! What must always hold, said once, and where it is checked. The engine asserts what it can see of it: `assert_sendable` at
//! each request, [`Engine::assert_invariants`] after each step of the simulation (`tests/sim`).
//!
//! - I1 Every committed timer that is not cancelled is fired at or after its due moment, at least once. Not early: at each
//!   request, by the engine and by the simulation. At least once: at the end of each simulated world.
//! - I2 A delete or update acknowledged before the claim is honoured: the old definition never fires. By the simulation at
//!   each request; and that no timer is claimed while it is put back, at each step.
//! - I3 One owner per shard and epoch; a stale owner's writes change no row. By the engine and the simulation at each request,
//!   by the simulation at each write of its model; by the contract of the store, which PostgreSQL and that model keep alike.
//! - I4 A callback repeats only after a failed or unanswered attempt, or a change of owner; always with the same id. By the
//!   simulation at each request.
//! - I5 A reader that follows sees each committed change of its scopes once, in commit order, or is told of a gap. No matter of
//!   the engine: by the checkers of `tests/it/chaos`, and for the journal alone by its model in `feed::journal`'s tests.
//! - I6 PostgreSQL is never told that it may forget what the journal has not made durable. By the same checkers.
//! - I7 Memory is bounded, whatever the number of timers, the lag of readers or the size of transactions. What the engine holds,
//!   by itself after each step; what the feed holds, by the tests of its parts.
//! - I8 One run per moment of a schedule. By the simulation of schedules at each settle, and by the key of
//!   `walclock.occurrences`.
//! - I9 A namespace holds up no other, however many due timers it has, however slow its hosts are, and whatever fails of what it
//!   calls, also at the very same host. By the engine's tests of its lanes, and the simulation of a crowded namespace, which
//!   judges how late the others are, at its end; at one host by the simulation of a gateway, which counts at each request who was
//!   passed over, and at each settle who was put off.
//! - I10 A host gets no more requests than it is allowed, and next to none while it fails. By the simulation at
//!   each request.

use std::collections::BTreeMap;

use super::Engine;
use crate::clock::Timestamp;
use crate::domain::lease::Epoch;
use crate::domain::limits::TIMER_BYTES_MAX;
use crate::domain::run::Run;
use crate::domain::shard::Shard;

/// Asserts what must hold when a run is sent at `now`, by a clock that is not ahead of PostgreSQL's, while its shard is
/// surely held in `epoch`: never early (I1), and under no older epoch (I3).
pub(super) fn assert_sendable(now: Timestamp, run: &Run, epoch: Epoch) {
    assert!(now >= run.timer.due_at(), "{} would be sent before it is due", run.key.timer);
    assert_eq!(run.epoch, epoch, "{} would be sent under another epoch than its claim's", run.key.timer);
}

impl Engine {
    /// Asserts what holds between any two steps. For tests and the simulation: it is too slow for every step of a server.
    pub fn assert_invariants(&self) {
        let under_way = self.claiming + self.records.len();
        let bytes = self.records.values().map(|record| record.bytes).sum::<usize>() + self.claiming * TIMER_BYTES_MAX;
        assert!(self.queue.is_consistent(under_way, bytes), "the queue's views differ");
        assert!(self.hosts.is_consistent(), "the hosts' counts are wrong, or one has too much under way");
        assert!(self.queue_len() <= self.config.queue_max, "{} hints are over the bound", self.queue_len());
        let mut records_of = BTreeMap::<Shard, usize>::new();
        self.records.values().for_each(|record| *records_of.entry(record.shard).or_default() += 1);
        assert_eq!(self.records_of, records_of, "the counts of the shards' runs are wrong");
        let (waiting, inflight_max) = (self.parked_settlements.len(), self.config.inflight_max);
        assert!(waiting <= inflight_max, "{waiting} settlements wait for their shards");
        // An adoption may fill the room beside settlements that wait. Those count again as soon as they may be written.
        let over = waiting + self.settlements.len() + self.held_back.len() + self.settling * self.config.batch_max;
        let bound = inflight_max + over.min(inflight_max);
        assert!(self.inflight() <= bound, "{} runs are over the bound", self.inflight());
        assert!(self.claims.len() <= self.config.claims_max, "too many claims at once");
        assert!(self.settling <= self.config.settles_max, "too many settles at once");
        let claiming: usize = self.claims.values().map(Vec::len).sum();
        assert_eq!(self.claiming, claiming, "the count of timers being claimed is wrong");
        let mut claimed = self.claims.values().flatten();
        assert!(!claimed.any(|(hint, _)| self.putting_back.contains_key(&hint.key)), "claimed and put back at once");
        let ready = self.ready.values().chain(&self.parked_runs).map(|run| &**run);
        for run in ready.chain(self.hosts.all_waiting()) {
            let record = self.records.get(&run.key).expect("a run that waits has its record");
            assert_eq!(record.epoch, run.epoch, "{} waits under an epoch that is over", run.key.timer);
        }
        for settlement in self.settlements.iter().chain(&self.repeats).chain(&self.parked_settlements) {
            let waits = self.ready.values().any(|run| run.key == settlement.run.key);
            assert!(!waits, "{} would be sent again after its answer", settlement.run.key.timer);
        }
    }
}
