//! Which shards the engine works for, and in which epoch. What is unsure is not worked for, but not forgotten either.

use super::Engine;
use crate::dispatch::shards::Holding;
use crate::domain::lease::{Epoch, Lease};
use crate::domain::shard::Shard;

/// How a shard is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Hold {
    /// It is not.
    #[default]
    Lost,
    /// It was, in this epoch; whether it still is, the lease table has to say.
    Unsure(Epoch),
    /// It is, in this epoch.
    Sure(Epoch),
}

impl Hold {
    pub(super) fn epoch(self) -> Option<Epoch> {
        match self {
            Self::Lost => None,
            Self::Unsure(epoch) | Self::Sure(epoch) => Some(epoch),
        }
    }
}

/// All shards.
#[derive(Debug)]
pub(super) struct Holds {
    holds: [Hold; Shard::COUNT],
    /// What older epochs left running has been taken over.
    adopted: [bool; Shard::COUNT],
    /// Nothing new is begun for it: another owner is to have it.
    leaving: [bool; Shard::COUNT],
    /// No such lease lacks its adoption, as far as was looked: spares each step a walk over all shards.
    all_adopted: bool,
}

impl Default for Holds {
    fn default() -> Self {
        let none = [false; Shard::COUNT];
        Self { holds: [Hold::Lost; Shard::COUNT], adopted: none, leaving: none, all_adopted: false }
    }
}

impl Holds {
    pub(super) fn get(&self, shard: Shard) -> Hold {
        self.holds[usize::from(shard.0)]
    }

    /// The epoch in which the shard is surely held.
    pub(super) fn sure(&self, shard: Shard) -> Option<Epoch> {
        match self.get(shard) {
            Hold::Sure(epoch) => Some(epoch),
            Hold::Unsure(_) | Hold::Lost => None,
        }
    }

    /// The epoch in which something new may be begun for the shard.
    pub(super) fn open(&self, shard: Shard) -> Option<Epoch> {
        self.sure(shard).filter(|_| !self.leaving[usize::from(shard.0)])
    }

    pub(super) fn is_kept(&self, shard: Shard) -> bool {
        self.get(shard) != Hold::Lost
    }

    pub(super) fn kept(&self) -> Vec<Shard> {
        Shard::all().filter(|shard| self.is_kept(*shard)).collect()
    }

    /// The leases that are sure, and under which something new may be begun.
    pub(super) fn leases(&self) -> Vec<Lease> {
        Shard::all().filter_map(|shard| Some(Lease { shard, epoch: self.open(shard)? })).collect()
    }

    /// Those whose shards have not been adopted.
    pub(super) fn unadopted(&mut self) -> Vec<Lease> {
        if self.all_adopted {
            return Vec::new();
        }
        let leases: Vec<Lease> = self.leases().into_iter().filter(|lease| !self.is_adopted(lease.shard)).collect();
        self.all_adopted = leases.is_empty();
        leases
    }

    pub(super) fn is_adopted(&self, shard: Shard) -> bool {
        self.adopted[usize::from(shard.0)]
    }

    /// Notes that the shard has been adopted, if it is still held by this lease.
    pub(super) fn adopted(&mut self, lease: Lease) {
        if self.sure(lease.shard) == Some(lease.epoch) {
            self.adopted[usize::from(lease.shard.0)] = true;
        }
    }

    /// Trusts this lease no longer; says whether the shard was kept by it.
    pub(super) fn doubt(&mut self, lease: Lease) -> bool {
        let kept = self.get(lease.shard).epoch() == Some(lease.epoch);
        if kept {
            self.holds[usize::from(lease.shard.0)] = Hold::Unsure(lease.epoch);
        }
        kept
    }

    /// What each shard is after `holding` was told.
    fn after(&self, holding: &Holding) -> [Hold; Shard::COUNT] {
        let mut holds = [Hold::Lost; Shard::COUNT];
        for shard in &holding.unsure {
            holds[usize::from(shard.0)] = match self.get(*shard) {
                Hold::Lost => Hold::Lost,
                Hold::Unsure(epoch) | Hold::Sure(epoch) => Hold::Unsure(epoch),
            };
        }
        for lease in &holding.held {
            holds[usize::from(lease.shard.0)] = Hold::Sure(lease.epoch);
        }
        holds
    }
}

impl Engine {
    /// Takes up what is newly held and drops what is lost.
    pub(super) fn hold(&mut self, holding: &Holding) {
        let after = self.holds.after(holding);
        let mut taken = Vec::new();
        let mut lost = false;
        for shard in Shard::all() {
            let (old, new) = (self.holds.get(shard), after[usize::from(shard.0)]);
            match new {
                Hold::Sure(epoch) if old.epoch() != Some(epoch) => taken.push(shard),
                Hold::Lost if old != Hold::Lost => lost = true,
                Hold::Sure(_) | Hold::Unsure(_) | Hold::Lost => {}
            }
        }
        self.holds.holds = after;
        self.holds.all_adopted = false;
        self.holds.leaving = [false; Shard::COUNT];
        for shard in &holding.leaving {
            self.holds.leaving[usize::from(shard.0)] = true;
        }
        for shard in &taken {
            self.holds.adopted[usize::from(shard.0)] = false;
        }
        if lost {
            let holds = &self.holds;
            self.queue.retain(|shard| holds.is_kept(shard));
        }
        self.drop_unsendable();
        self.settlements.extend(self.parked_settlements.drain(..));
        for hint in std::mem::take(&mut self.parked) {
            if self.is_kept(hint.shard) {
                self.offer(hint);
            }
        }
        if !taken.is_empty() && !self.draining {
            self.take_over(taken);
        }
    }

    /// Drops runs that were claimed under a lease which is gone, and which were not sent: their new owner finds them,
    /// be it this engine in a later epoch. Those of leases that are sure again come back into line.
    fn drop_unsendable(&mut self) {
        for run in std::mem::take(&mut self.parked_runs).into_iter().chain(self.hosts.take_waiting()) {
            self.make_ready(run);
        }
        let Self { ready, holds, records, .. } = self;
        let mut gone = Vec::new();
        ready.retain(|_, run| {
            let Some(record) = records.get(&run.key) else { return false };
            let kept = holds.get(record.shard).epoch() == Some(run.epoch);
            if !kept && record.epoch == run.epoch {
                gone.push(run.key.clone());
            }
            kept
        });
        for run in gone {
            self.forget(&run);
        }
    }
}
