//! The calls of the store: each runs in a task of its own and sends its answer back. None may go missing, for the machines
//! wait for it; so each call is bounded in time, and one that panics has failed.

use std::collections::BTreeSet;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::work::Answer;
use super::{Config, align};
use crate::clock::{Clock, Reading, Timestamp};
use crate::dispatch::engine::Event;
use crate::dispatch::ports::{ClaimRequest, LeaseRequest, LoadRequest, Store, Unavailable};
use crate::dispatch::shards;
use crate::domain::lease::{Epoch, Lease, Owner};
use crate::domain::run::Settlement;
use crate::domain::timer::TimerKey;

/// The store, and where its answers go.
pub(super) struct Calls<S> {
    store: Arc<S>,
    clock: Clock,
    answers: mpsc::Sender<Answer>,
    owner: Owner,
    timeout: Duration,
    lease_timeout: Duration,
    outages: Outages,
}

impl<S: Store> Calls<S> {
    pub(super) fn new(config: &Config, store: Arc<S>, clock: Clock, answers: mpsc::Sender<Answer>) -> Self {
        let timeout = config.store_timeout;
        // Two more questions fit into what is left of a lease.
        let lease_timeout = (config.lease_ttl / 5).min(timeout);
        let (owner, outages) = (config.owner.clone(), Outages::default());
        Self { store, clock, answers, owner, timeout, lease_timeout, outages }
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) fn lease(&self, request: LeaseRequest) {
        let (store, outages, timeout) = (self.store.clone(), self.outages.clone(), self.lease_timeout);
        self.spawn(async move {
            let answer = outages.bounded("leasing shards", timeout, store.lease(request)).await;
            Answer::Shards(shards::Event::Answered(answer))
        });
    }

    pub(super) fn load(&self, request: LoadRequest) {
        let (store, outages, timeout) = (self.store.clone(), self.outages.clone(), self.timeout);
        self.spawn(async move {
            let page = outages.bounded("loading timers", timeout, store.load(request)).await;
            Answer::Engine(Event::Loaded(page))
        });
    }

    pub(super) fn claim(&self, id: u64, timers: Vec<(TimerKey, Epoch)>, until: Timestamp) {
        let (store, outages, timeout) = (self.store.clone(), self.outages.clone(), self.timeout);
        let request = ClaimRequest { owner: self.owner.clone(), timers, until };
        let clock = self.clock.clone();
        self.spawn(async move {
            let asked = Instant::now();
            let answer = outages.bounded("claiming timers", timeout, store.claim(request)).await;
            // A claim tells the time, too: were the database's clock set back, that is known before what was claimed leaves.
            let claimed_at = answer.iter().flat_map(|claimed| &claimed.runs).map(|run| run.key.claimed_at).max();
            if let Some(at) = claimed_at {
                align::learn(&clock, &Reading { asked, at, answered: Instant::now() });
            }
            Answer::Engine(Event::Claimed { id, answer })
        });
    }

    pub(super) fn adopt(&self, leases: Vec<Lease>, limit: usize) {
        let (store, outages, timeout) = (self.store.clone(), self.outages.clone(), self.timeout);
        let owner = self.owner.clone();
        self.spawn(async move {
            let runs = outages.bounded("adopting runs", timeout, store.adopt(&owner, &leases, limit)).await;
            Answer::Engine(Event::Adopted(runs))
        });
    }

    pub(super) fn settle(&self, settlements: Vec<Settlement>) {
        let (store, outages, timeout) = (self.store.clone(), self.outages.clone(), self.timeout);
        let owner = self.owner.clone();
        self.spawn(async move {
            let written = outages.bounded("settling runs", timeout, store.settle(&owner, &settlements)).await;
            if let Ok(written) = &written {
                outages.tell("settling each run", written.iter().find_map(|written| written.as_ref().err()));
            }
            Answer::Engine(Event::Settled { settlements, written })
        });
    }

    fn spawn(&self, call: impl Future<Output = Answer> + Send + 'static) {
        let answers = self.answers.clone();
        tokio::spawn(async move {
            // Nobody waits for it any more once the dispatcher has stopped.
            let _ = answers.send(call.await).await;
        });
    }
}

/// What fails at the moment, so that an outage is told when it begins and when it ends, and not with every try between.
#[derive(Clone, Debug, Default)]
pub(super) struct Outages(Arc<Mutex<BTreeSet<&'static str>>>);

impl Outages {
    /// Waits for the call at most `timeout`. Logs a failure, because the machines only react to it.
    pub(super) async fn bounded<T>(
        &self,
        doing: &'static str,
        timeout: Duration,
        call: impl Future<Output = Result<T, Unavailable>>,
    ) -> Result<T, Unavailable> {
        let call = AssertUnwindSafe(tokio::time::timeout(timeout, call)).catch_unwind();
        let answer = match call.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(elapsed)) => Err(Unavailable { doing, source: Box::new(elapsed) }),
            Err(_) => Err(Unavailable { doing, source: "the call panicked: this is a bug".into() }),
        };
        self.tell(doing, answer.as_ref().err());
        answer
    }

    fn tell(&self, doing: &'static str, error: Option<&Unavailable>) {
        let is_news = self.note(doing, error.is_some());
        let Some(error) = error else {
            if is_news {
                info!("{doing} succeeds again");
            }
            return;
        };
        metrics::counter!("walclock_store_failures_total", "doing" => doing).increment(1);
        let cause = error.cause();
        if is_news {
            warn!(%cause, "{error} failed, and is tried again");
        } else {
            debug!(%cause, "{error} failed again");
        }
    }

    /// Notes how a call went; says whether an outage begins or ends with it.
    fn note(&self, doing: &'static str, has_failed: bool) -> bool {
        let mut failing = self.0.lock();
        if has_failed { failing.insert(doing) } else { failing.remove(doing) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_at_its_ends() {
        let outages = Outages::default();
        for (doing, has_failed, is_news) in [
            ("loading", false, false),
            ("loading", true, true),
            ("loading", true, false),
            ("claiming", true, true),
            ("loading", false, true),
            ("loading", false, false),
            ("claiming", true, false),
        ] {
            assert_eq!(outages.clone().note(doing, has_failed), is_news, "{doing}");
        }
    }
}
