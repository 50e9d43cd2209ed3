//! The leases, shared with those who send. A run may have stood in the line of its server for longer than its lease lasts, or
//! its shard may have gone to another owner meanwhile, who sends it too. So whoever sends looks at the lease once more.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use crate::dispatch::shards::{Config, Effect, Event, Shards};
use crate::domain::lease::Lease;
use crate::domain::run::Run;

/// The machine, and the clock that it goes by. Cheap to clone.
#[derive(Clone)]
pub(super) struct Leases {
    shards: Arc<Mutex<Shards>>,
    /// What leases are counted by: it goes on while the machine is suspended.
    since_boot: fn() -> Duration,
    started_at: Duration,
}

impl Leases {
    pub(super) fn new(config: Config, since_boot: fn() -> Duration) -> Self {
        Self { shards: Arc::new(Mutex::new(Shards::new(config))), since_boot, started_at: since_boot() }
    }

    /// Takes in what happened; what is to be done now.
    pub(super) fn step(&self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.shards.lock().step(self.now(), event, &mut effects);
        effects
    }

    /// The machine, to be looked at.
    pub(super) fn look(&self) -> MutexGuard<'_, Shards> {
        self.shards.lock()
    }

    /// How long it is until the machine is to be stepped at the latest.
    pub(super) fn next_wake(&self) -> Option<Duration> {
        self.look().next_wake().map(|at| at.saturating_sub(self.now()))
    }

    /// Whether this run may be sent now: its shard is surely held, in the run's epoch.
    pub(super) fn may_send(&self, run: &Run) -> bool {
        self.look().is_sure(self.now(), Lease { shard: run.key.timer.shard(), epoch: run.epoch })
    }

    fn now(&self) -> Duration {
        (self.since_boot)().saturating_sub(self.started_at)
    }
}
