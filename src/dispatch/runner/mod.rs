//! The dispatcher as a part: one task owns the machines, turns their effects into calls on the ports, and feeds the
//! answers back. All judgement is the machines'; here is only waiting and calling.

mod alarm;
mod align;
mod calls;
mod follower;
mod found;
mod leases;
mod lines;
mod meters;
pub mod schedules;
#[cfg(test)]
mod tests;
mod work;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::ports::{Delivery, Feed, Store};
use super::{engine, shards};
use crate::clock::{Clock, Doubt, since_boot};
use crate::domain::lease::Owner;
use crate::domain::shard::Shard;
use alarm::Alarm;
use calls::Outages;
use work::{Answer, Work};

/// Answers that may wait for the task that owns the machines. Whoever has more waits.
const ANSWERS_MAX: usize = 4_096;
/// Answers taken in one step.
const STEP_ANSWERS_MAX: usize = 1_024;
/// The longest sleep: due times are looked at anew at least this often, whatever clocks did meanwhile.
const TICK: Duration = Duration::from_secs(1);
/// How long the first leases wait for the feed's position, so that the first load need not be repeated.
const POSITION_WAIT: Duration = Duration::from_secs(2);

/// The dispatcher's settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// This process, and this start of it.
    pub owner: Owner,
    /// How long a lease of a shard lasts: after a crash its timers wait that long. At least 100 ms.
    pub lease_ttl: Duration,
    /// How long callbacks under way may take to finish when the dispatcher stops.
    pub drain: Duration,
    /// How long one question to the feed waits for news.
    pub follow_wait: Duration,
    /// How often PostgreSQL's clock is read.
    pub align_every: Duration,
    /// How long one statement of the store may take.
    pub store_timeout: Duration,
    /// The engine's bounds and paces.
    pub engine: engine::Config,
}

impl Config {
    /// The usual settings.
    pub fn new(owner: Owner) -> Self {
        Self {
            owner,
            lease_ttl: Duration::from_secs(10),
            drain: Duration::from_secs(30),
            follow_wait: Duration::from_secs(30),
            align_every: Duration::from_secs(1),
            store_timeout: Duration::from_secs(10),
            engine: engine::Config::default(),
        }
    }

    /// Checks that the dispatcher can work with it; says what is wrong otherwise.
    pub fn validate(&self) -> Result<(), &'static str> {
        self.leases().validate()?;
        if self.align_every.is_zero() || self.store_timeout.is_zero() || self.follow_wait.is_zero() {
            return Err("align_every, store_timeout and follow_wait must be longer than nothing");
        }
        self.engine.validate()
    }

    fn leases(&self) -> shards::Config {
        shards::Config::with_ttl(self.owner.clone(), self.lease_ttl)
    }
}

/// How the dispatcher is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Why nothing is fired, where the clock is not trusted.
    pub doubt: Option<Doubt>,
    /// Shards surely held.
    pub shards: usize,
    /// Timers of the near future in memory.
    pub queued: usize,
    /// Runs claimed or being claimed, and not finished.
    pub inflight: usize,
    /// Those of them that are due and wait for others of their host.
    pub waiting: usize,
    /// Hosts that failed so often in a row that they are spared for a while.
    pub hosts_spared: usize,
}

impl Default for Status {
    /// Of one that does nothing, yet or any more.
    fn default() -> Self {
        Self { doubt: Some(Doubt::Unread), shards: 0, queued: 0, inflight: 0, waiting: 0, hosts_spared: 0 }
    }
}

/// Tells how the dispatcher is doing. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    status: watch::Receiver<Status>,
    shards: watch::Receiver<Vec<Shard>>,
}

impl Handle {
    /// How it was doing at most about a second ago.
    pub fn status(&self) -> Status {
        *self.status.borrow()
    }

    /// Ends once the dispatcher has begun, as it does when the database has told its time, or has ended before that.
    pub async fn begun(&mut self) {
        let _ = self.status.wait_for(|status| status.doubt != Some(Doubt::Unread)).await;
    }
}

/// The dispatcher. See the module.
pub struct Dispatcher<S, D, F> {
    config: Config,
    store: Arc<S>,
    delivery: Arc<D>,
    feed: Arc<F>,
    clock: Clock,
    status: watch::Sender<Status>,
    /// The shards that are held.
    shards: watch::Sender<Vec<Shard>>,
}

impl<S: Store, D: Delivery, F: Feed> Dispatcher<S, D, F> {
    /// A dispatcher that holds nothing yet. Aligns `clock` while it runs. Panics where [`Config::validate`] fails.
    pub fn new(config: Config, store: S, delivery: D, feed: F, clock: Clock) -> Self {
        assert_eq!(config.validate(), Ok(()), "a configuration that was validated");
        let (store, delivery, feed) = (Arc::new(store), Arc::new(delivery), Arc::new(feed));
        let (status, shards) = (watch::Sender::new(Status::default()), watch::Sender::new(Vec::new()));
        Self { config, store, delivery, feed, clock, status, shards }
    }

    /// What tells how it is doing.
    pub fn handle(&self) -> Handle {
        Handle { status: self.status.subscribe(), shards: self.shards.subscribe() }
    }

    /// Works until `shutdown`; then claims nothing more, leaves the shards without callbacks under way to others, lets the
    /// callbacks finish within the drain time, writes their outcomes, and gives the other leases up.
    pub async fn run(self, shutdown: CancellationToken) {
        let aligned = shutdown.run_until_cancelled(align::first(&*self.store, &self.clock)).await;
        if aligned.is_none() {
            return;
        }
        let children = CancellationToken::new();
        let stop_children = children.clone().drop_guard();
        let (answers, inbox) = mpsc::channel(ANSWERS_MAX);
        let (positioned, mut is_positioned) = watch::channel(false);

        let aligner = align::keep(self.store.clone(), self.clock.clone(), self.config.align_every, answers.clone());
        tokio::spawn(children.clone().run_until_cancelled_owned(aligner));
        let follower = follower::Follower {
            feed: self.feed.clone(),
            shards: self.shards.subscribe(),
            answers: answers.clone(),
            wait: self.config.follow_wait,
            positioned,
        };
        tokio::spawn(children.run_until_cancelled_owned(follower.run()));
        let position = is_positioned.wait_for(|positioned| *positioned);
        // Where there is none in time, the sweep begins without it; the follower says why.
        let _ = tokio::time::timeout(POSITION_WAIT, position).await;

        let work =
            Work::new(&self.config, self.store.clone(), self.delivery, self.clock, answers, self.shards, since_boot);
        Loop { work, inbox, status: self.status, drain: self.config.drain }.run(&shutdown).await;
        drop(stop_children);
        let leave = self.store.leave(&self.config.owner);
        match Outages::default().bounded("giving up leases", self.config.store_timeout, leave).await {
            Ok(()) => info!(owner = %self.config.owner.0, "leases given up"),
            Err(_) => warn!("leases not given up: they end by themselves"),
        }
    }
}

/// The task that owns the machines.
struct Loop<S, D> {
    work: Work<S, D>,
    inbox: mpsc::Receiver<Answer>,
    status: watch::Sender<Status>,
    drain: Duration,
}

impl<S: Store, D: Delivery> Loop<S, D> {
    async fn run(mut self, shutdown: &CancellationToken) {
        let mut answers = Vec::with_capacity(STEP_ANSWERS_MAX);
        let mut drained_at = None;
        let mut report_at = Instant::now();
        let mut alarm = Alarm::new();
        loop {
            self.work.step(&mut answers);
            let now = Instant::now();
            if now >= report_at {
                let status = self.work.status();
                let (held, before) = (status.shards, self.status.send_replace(status).shards);
                if held != before {
                    info!(held, before, "holds another number of shards");
                }
                report_at = now + TICK / 2;
            }
            if drained_at.is_some_and(|at| now >= at || self.work.may_leave()) {
                break;
            }
            let wake_at = self.work.next_wake().min(now + TICK).min(drained_at.unwrap_or(now + TICK));
            tokio::select! {
                () = shutdown.cancelled(), if drained_at.is_none() => {
                    drained_at = Some(now + self.drain);
                    answers.push(Answer::Drain);
                }
                _ = self.inbox.recv_many(&mut answers, STEP_ANSWERS_MAX) => {}
                () = self.work.attempted() => {}
                () = alarm.until(wake_at.into_std()) => {}
            }
        }
        if !self.work.is_idle() {
            warn!(
                inflight = self.work.status().inflight,
                "callbacks under way did not finish in time; a later owner repeats them"
            );
        }
        self.status.send_replace(Status::default());
    }
}
