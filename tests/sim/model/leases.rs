//! The model's lease table, and the fence that every write passes.

use std::time::Duration;

use walclock::clock::Timestamp;
use walclock::dispatch::ports::{LeaseGrant, LeaseRequest};
use walclock::domain::lease::{Epoch, Lease, Owner};
use walclock::domain::shard::Shard;

use super::Model;

/// A row of `walclock.shards`.
#[derive(Clone, Debug)]
pub(super) struct LeaseRow {
    owner: Option<Owner>,
    epoch: i64,
    expires_at: Timestamp,
    /// A write under the lease is under way until this moment.
    written_until: Timestamp,
}

impl LeaseRow {
    /// A shard that nobody has held yet.
    pub(super) const FREE: Self =
        Self { owner: None, epoch: 0, expires_at: Timestamp::MIN, written_until: Timestamp::MIN };

    fn free(&mut self) {
        self.owner = None;
        self.expires_at = Timestamp::MIN;
    }

    /// Whether this is the owner's lease, and it may end: no write under it is under way.
    fn may_end(&self, now: Timestamp, owner: &Owner, epoch: Epoch) -> bool {
        self.owner.as_ref() == Some(owner) && self.epoch == epoch.0 && self.written_until <= now
    }
}

impl Model {
    pub fn lease(&mut self, request: &LeaseRequest) -> LeaseGrant {
        let (now, owner) = (self.now, &request.owner);
        let expires_at = now.after(request.ttl);
        // Who wants none is about to leave, and does not count for others.
        let alive_until = if request.shards_max > 0 { expires_at } else { now };
        self.owners.entry(owner.clone()).or_insert((now, alive_until)).1 = alive_until;
        self.owners.retain(|other, (_, until)| *until > now || other == owner);
        // A lease of another that lies farther ahead than it can is cut: the clock was set back.
        let others = self.owners.iter_mut().filter(|(other, _)| *other != owner);
        others.for_each(|(_, (_, until))| *until = (*until).min(expires_at));
        let is_others = |row: &&mut LeaseRow| row.owner.as_ref().is_some_and(|other| other != owner);
        let others = self.shards.iter_mut().filter(is_others);
        others.for_each(|row| row.expires_at = row.expires_at.min(expires_at));
        let since = |owner: &Owner| self.owners.get(owner).map(|(since, _)| (*since, owner.clone()));
        let rank = self.owners.keys().filter(|other| since(other) < since(owner)).count();
        // What is given up is not taken back in the same round.
        let mut given_up = [false; Shard::COUNT];
        for lease in &request.release {
            let shard = usize::from(lease.shard.0);
            let row = &mut self.shards[shard];
            if row.may_end(now, owner, lease.epoch) {
                row.free();
                given_up[shard] = true;
            }
        }
        let is_own = |row: &LeaseRow| row.owner.as_ref() == Some(owner) && row.expires_at > now;
        for lease in &request.anew {
            let row = &mut self.shards[usize::from(lease.shard.0)];
            // One that has run out is acquired like any other.
            row.epoch += i64::from(is_own(row) && row.may_end(now, owner, lease.epoch));
        }
        let mut room = request.shards_max.saturating_sub(self.shards.iter().filter(|row| is_own(row)).count());
        let mut held = Vec::new();
        for ((shard, row), given_up) in Shard::all().zip(&mut self.shards).zip(given_up) {
            if !is_own(row) {
                if room == 0 || given_up || row.expires_at > now || row.written_until > now {
                    continue;
                }
                room -= 1;
                row.epoch += 1;
                row.owner = Some(owner.clone());
            }
            row.expires_at = expires_at;
            held.push(Lease { shard, epoch: Epoch(row.epoch) });
        }
        let others_left =
            self.owners.iter().filter(|(other, _)| *other != owner).map(|(_, (_, until))| until.since(now)).min();
        LeaseGrant { held, owners_alive: self.owners.len(), rank, others_left, now }
    }

    /// An owner gives up everything: it is going away.
    pub fn leave(&mut self, owner: &Owner) {
        self.owners.remove(owner);
        self.shards.iter_mut().filter(|row| row.owner.as_ref() == Some(owner)).for_each(LeaseRow::free);
    }

    /// The lease of a shard runs out.
    pub fn expire(&mut self, shard: Shard) {
        self.shards[usize::from(shard.0)].expires_at = self.now;
    }

    /// The clock is set back: what it says now is as it was, and every moment that was written down lies farther ahead.
    pub fn set_back(&mut self, span: Duration) {
        self.owners.values_mut().for_each(|(_, until)| *until = until.after(span));
        let held = self.shards.iter_mut().filter(|row| row.owner.is_some());
        held.for_each(|row| row.expires_at = row.expires_at.after(span));
    }

    /// When the lease of a shard runs out, and when its owner counts as dead.
    pub fn expiries(&self, shard: Shard) -> Option<(Timestamp, Timestamp)> {
        let row = &self.shards[usize::from(shard.0)];
        Some((row.expires_at, self.owners.get(row.owner.as_ref()?)?.1))
    }

    /// A write under the leases of these shards is under way until this moment.
    pub fn write_until(&mut self, until: Timestamp, shards: &[Shard]) {
        for shard in shards {
            let row = &mut self.shards[usize::from(shard.0)];
            row.written_until = row.written_until.max(until);
        }
    }

    /// No write under it is under way any more.
    pub fn end_writes(&mut self, shard: Shard) {
        self.shards[usize::from(shard.0)].written_until = Timestamp::MIN;
    }

    /// Whether this lease is the current one.
    pub fn is_current(&self, owner: &Owner, lease: Lease) -> bool {
        let row = &self.shards[usize::from(lease.shard.0)];
        row.owner.as_ref() == Some(owner) && row.epoch == lease.epoch.0 && row.expires_at > self.now
    }

    /// The fence: whether a write under this lease may go ahead. Where the store is told to do wrong it always may, and
    /// that is noted.
    pub(super) fn may_write(&mut self, owner: &Owner, lease: Lease) -> bool {
        let current = self.is_current(owner, lease);
        self.fence_broken += u64::from(!current && self.wrongs.ignores_epochs);
        current || self.wrongs.ignores_epochs
    }
}
