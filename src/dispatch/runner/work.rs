//! Effects become calls: of the store, whose answers come back over one bounded channel, and of receivers (`lines`). The leases are
//! looked at before every step of the engine, so that nothing is done under one that is unsure, and by the lines once more.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use super::calls::Calls;
use super::found::Found;
use super::leases::Leases;
use super::lines::Lines;
use super::meters::Meters;
use super::{Config, Status};
use crate::clock::{Clock, Doubt};
use crate::dispatch::engine::{self, Engine};
use crate::dispatch::ports::{Delivery, Store};
use crate::dispatch::shards::{self, Holding};
use crate::domain::shard::Shard;

/// What comes back to the task that owns the machines.
#[derive(Debug)]
pub(super) enum Answer {
    /// For the engine.
    Engine(engine::Event),
    /// For the leases.
    Shards(shards::Event),
    /// Whether the feed answers, where that has changed.
    FeedAnswers(bool),
    /// Take nothing new.
    Drain,
}

/// The machines, and what their effects need.
pub(super) struct Work<S, D> {
    engine: Engine,
    leases: Leases,
    calls: Calls<S>,
    lines: Lines<D>,
    /// Told before timers of new shards are loaded: the follower must be at a position older than the load.
    followed: watch::Sender<Vec<Shard>>,
    meters: Meters,
    found: Found,
    /// Why nothing is fired, as the engine was told.
    doubt: Option<Doubt>,
    events: Vec<engine::Event>,
    effects: Vec<engine::Effect>,
}

impl<S: Store, D: Delivery> Work<S, D> {
    pub(super) fn new(
        config: &Config,
        store: Arc<S>,
        delivery: Arc<D>,
        clock: Clock,
        answers: mpsc::Sender<Answer>,
        followed: watch::Sender<Vec<Shard>>,
        since_boot: fn() -> Duration,
    ) -> Self {
        let leases = Leases::new(config.leases(), since_boot);
        let may_send = leases.clone();
        Self {
            engine: Engine::new(config.engine.clone()),
            leases,
            lines: Lines::new(delivery, clock.clone(), Box::new(move |run| may_send.may_send(run))),
            calls: Calls::new(config, store, clock, answers),
            followed,
            meters: Meters::new(),
            found: Found::default(),
            doubt: None,
            events: Vec::new(),
            effects: Vec::new(),
        }
    }

    /// Waits until attempts have ended.
    pub(super) async fn attempted(&self) {
        self.lines.news().await;
        // Those that are about to end come along: a step for each costs more than they gain by it.
        tokio::task::yield_now().await;
    }

    /// Takes in the answers, and does what follows from them and from the time.
    pub(super) fn step(&mut self, answers: &mut Vec<Answer>) {
        for (run, attempt) in self.lines.take_ended() {
            self.events.push(match attempt {
                Some(Ok(attempt)) => {
                    self.meters.attempted(&run, &attempt);
                    engine::Event::Attempted { run, attempt }
                }
                Some(Err(unmade)) => {
                    self.meters.unmade(&run, &unmade);
                    engine::Event::Unmade(run, unmade)
                }
                None => engine::Event::Unsent(run),
            });
        }
        for answer in answers.drain(..) {
            match answer {
                Answer::Engine(event) => {
                    self.measure(&event);
                    self.events.push(event);
                }
                Answer::Shards(event) => self.step_shards(event),
                Answer::FeedAnswers(answers) => self.found.feed_answers(answers),
                Answer::Drain => {
                    self.events.push(engine::Event::Drain);
                    self.step_shards(shards::Event::Drain);
                }
            }
        }
        self.step_shards(shards::Event::Tick);
        self.step_engine();
        // Right behind the engine, so that nothing is begun for a shard that has been looked at.
        if self.leases.look().asks_busy() {
            self.step_shards(shards::Event::Busy(self.engine.busy_shards()));
        }
        while !self.events.is_empty() {
            self.step_engine();
        }
        for key in self.found.missed(Instant::now()) {
            self.meters.found(&key);
        }
    }

    fn step_shards(&mut self, event: shards::Event) {
        for effect in self.leases.step(event) {
            match effect {
                shards::Effect::Ask(request) => self.calls.lease(request),
                shards::Effect::Hold(holding) => self.hold(holding),
            }
        }
    }

    fn hold(&mut self, holding: Holding) {
        let shards = holding.shards();
        self.followed.send_if_modified(|followed| {
            let modified = *followed != shards;
            *followed = shards;
            modified
        });
        self.meters.epoch_max(holding.held.iter().map(|lease| lease.epoch.0).max().unwrap_or(0));
        self.events.push(engine::Event::Holding(holding));
    }

    fn step_engine(&mut self) {
        let (mut effects, mut due) = (std::mem::take(&mut self.effects), Vec::new());
        let (now, doubt) = self.calls.clock().judged();
        self.heed(doubt);
        self.engine.step(now, self.events.drain(..), &mut effects);
        for effect in effects.drain(..) {
            match effect {
                engine::Effect::GiveUp(leases) => self.step_shards(shards::Event::GiveUp(leases)),
                engine::Effect::Stale(count) => self.meters.stale(count),
                engine::Effect::Spared(target, until) => self.meters.spared(&target, until),
                engine::Effect::Back(target) => self.meters.back(&target),
                engine::Effect::Found(key) => self.found.found(Instant::now(), key),
                engine::Effect::Abandoned(key) => self.meters.abandoned(&key),
                engine::Effect::Deliver(run) => due.push(run),
                engine::Effect::Settle(settlements) => self.calls.settle(settlements),
                engine::Effect::Claim { id, timers, until } => self.calls.claim(id, timers, until),
                engine::Effect::Adopt { leases, limit } => self.calls.adopt(leases, limit),
                engine::Effect::Load(request) => self.calls.load(request),
            }
        }
        self.effects = effects;
        self.lines.deliver(due.into_iter());
    }

    /// Holds everything back where the clock is not trusted, and lets it go where it is again.
    fn heed(&mut self, doubt: Option<Doubt>) {
        match (&doubt, &self.doubt) {
            (Some(doubt), Some(before)) if doubt.is_like(before) => {}
            (Some(doubt), _) => warn!("nothing is fired for now: {doubt}"),
            (None, Some(_)) => info!("the clock is trusted again: what was held back is fired"),
            (None, None) => {}
        }
        if doubt.is_some() != self.doubt.is_some() {
            self.events.push(engine::Event::Trust(doubt.is_none()));
        }
        self.doubt = doubt;
    }

    fn measure(&mut self, event: &engine::Event) {
        match event {
            engine::Event::Claimed { answer: Ok(claimed), .. } => self.meters.claimed(claimed.runs.len()),
            engine::Event::Adopted(Ok(runs)) => self.meters.adopted(runs.len()),
            engine::Event::Noted(entries) => self.found.told(entries),
            engine::Event::Attempted { .. }
            | engine::Event::Unsent(_)
            | engine::Event::Unmade(..)
            | engine::Event::Holding(_)
            | engine::Event::Gap
            | engine::Event::Loaded(_)
            | engine::Event::Claimed { answer: Err(_), .. }
            | engine::Event::Adopted(Err(_))
            | engine::Event::Settled { .. }
            | engine::Event::Trust(_)
            | engine::Event::Drain
            | engine::Event::Tick => {}
        }
    }

    /// When to step again at the latest.
    pub(super) fn next_wake(&self) -> Instant {
        let engine = self.engine.next_wake().map(|at| Instant::from_std(self.calls.clock().instant_of(at)));
        let leases = self.leases.next_wake().map(|wait| Instant::now() + wait);
        engine.into_iter().chain(leases).min().unwrap_or_else(|| Instant::now() + super::TICK)
    }

    /// Whether all callbacks are finished and written.
    pub(super) fn is_idle(&self) -> bool {
        self.engine.is_idle()
    }

    /// Whether the leases may be given up: no question that is under way could take some again.
    pub(super) fn may_leave(&self) -> bool {
        self.is_idle() && !self.leases.look().is_asking()
    }

    pub(super) fn status(&self) -> Status {
        let status = Status {
            doubt: self.doubt,
            shards: self.leases.look().holding().held.len(),
            queued: self.engine.queue_len(),
            inflight: self.engine.inflight(),
            waiting: self.engine.waiting(),
            hosts_spared: self.engine.hosts_spared(),
        };
        self.meters.deferred(self.engine.deferred());
        self.meters.status(status);
        self.meters.clock(self.calls.clock().standing(), self.doubt.is_some());
        status
    }
}
