//! Drives schedules, beside the task that owns the timers: it asks the machine, calls the store, and waits.

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::TICK;
use super::calls::Outages;
use crate::clock::Clock;
use crate::dispatch::ports::{Planned, ScheduleStore};
use crate::dispatch::schedules::{Effect, Event, Schedules};
use crate::domain::schedule::{Outcome, Reason};
use crate::domain::shard::Shard;

/// What settles the moments of schedules. It works for as long as the dispatcher beside it has the database's time.
pub struct Materializer<S> {
    store: Arc<S>,
    clock: Clock,
    shards: watch::Receiver<Vec<Shard>>,
    aligned: watch::Receiver<super::Status>,
    timeout: Duration,
    machine: Schedules,
}

impl<S: ScheduleStore> Materializer<S> {
    /// One that works for the shards of a dispatcher, by its clock; `timeout` bounds a statement.
    pub fn new(store: S, clock: Clock, dispatcher: &super::Handle, timeout: Duration) -> Self {
        let (shards, aligned) = (dispatcher.shards.clone(), dispatcher.status.clone());
        Self { store: Arc::new(store), clock, shards, aligned, timeout, machine: Schedules::default() }
    }

    /// Works until `shutdown`. A statement that is under way then may still come to pass.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let _ = shutdown.run_until_cancelled(self.work()).await;
    }

    async fn work(&mut self) {
        // Before the clock is the database's, nothing is due; without a dispatcher there is none to wait for.
        if self.aligned.wait_for(|status| status.doubt.is_none()).await.is_err() {
            return;
        }
        let outages = Outages::default();
        let mut event = Event::Tick;
        loop {
            let (now, doubt) = self.clock.judged();
            if doubt.is_some() {
                // Its moments would be due by a clock that is not trusted.
                tokio::time::sleep(TICK).await;
                continue;
            }
            let shards = self.shards.borrow().clone();
            event = match self.machine.step(now, &shards, event) {
                Some(Effect::Load(request)) => {
                    let due = self.store.due(request);
                    Event::Loaded(outages.bounded("looking for schedules", self.timeout, due).await)
                }
                Some(Effect::Settle(planned)) => {
                    let settle = self.store.settle(&planned);
                    let settled = outages.bounded("settling schedules", self.timeout, settle).await;
                    if let Ok(settled) = &settled {
                        let done =
                            planned.iter().zip(settled).filter_map(|(planned, settled)| Some((planned, (*settled)?)));
                        done.for_each(|(planned, clashes)| tell(planned, clashes));
                    }
                    Event::Settled(settled.map(|settled| settled.iter().map(Option::is_some).collect()))
                }
                None => {
                    let wait = self.machine.next_wake().since(self.clock.now());
                    tokio::time::sleep(wait.min(TICK)).await;
                    Event::Tick
                }
            };
        }
    }
}

/// Counts what became of a schedule's moments, and says what is wrong with it. So many that were to fire did not, because
/// another timer has the id: `clashes`.
fn tell(Planned { schedule, plan }: &Planned, clashes: u64) {
    let occurrences = |outcome: &'static str| counter!("walclock_occurrences_total", "outcome" => outcome);
    let mut fired = u64::from(plan.release_at.is_some());
    for occurrence in &plan.occurrences {
        match occurrence.outcome {
            Outcome::Fire => fired += 1,
            Outcome::Buffer => occurrences("buffered").increment(1),
            Outcome::Skip(Reason::Missed) => occurrences("missed").increment(1),
            Outcome::Skip(Reason::Taken) => occurrences("taken").increment(1),
            Outcome::Skip(Reason::Overlap | Reason::Waiting | Reason::Overtaken) => occurrences("skipped").increment(1),
        }
    }
    occurrences("fired").increment(fired.saturating_sub(clashes));
    occurrences("taken").increment(clashes);
    if let Some(error) = &plan.error {
        counter!("walclock_schedule_errors_total").increment(1);
        warn!(schedule = %schedule.key, error, "a schedule makes no sense: nothing is made of it until it is changed");
    }
}
