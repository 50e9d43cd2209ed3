//! The running parts of a process: started together, watched together, stopped one by one.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

/// What a process may consist of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// Watches the database.
    Database,
    /// Makes and drops the days of history.
    Partitions,
    /// Deletes what became of schedules' moments long ago.
    Occurrences,
    /// Folds histograms.
    Metrics,
    /// Makes timers of schedules.
    Schedules,
    /// Fires timers.
    Dispatcher,
    /// Tells how the dispatcher is.
    DispatcherState,
    /// Fills the journal.
    Feed,
    /// Tells how the feed is.
    FeedState,
    /// Deletes what is too old from the journal.
    Purge,
    /// Answers operators, on a port of its own.
    Management,
    /// Answers everybody else.
    Http,
}

impl Part {
    /// As the log has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Partitions => "partitions",
            Self::Occurrences => "occurrences",
            Self::Metrics => "metrics",
            Self::Schedules => "schedules",
            Self::Dispatcher => "dispatcher",
            Self::DispatcherState => "dispatcher's state",
            Self::Feed => "feed",
            Self::FeedState => "feed's state",
            Self::Purge => "purge",
            Self::Management => "management",
            Self::Http => "http",
        }
    }
}

/// Tasks, each with what tells it to stop.
#[derive(Default)]
pub(super) struct Parts {
    tasks: JoinSet<anyhow::Result<()>>,
    running: BTreeMap<Id, Part>,
    stops: BTreeMap<Part, CancellationToken>,
}

impl Parts {
    /// Starts a part. It runs until its token is cancelled; ending earlier is a failure.
    pub(super) fn start<F>(&mut self, part: Part, run: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let task = self.tasks.spawn(run(stop.clone()));
        self.running.insert(task.id(), part);
        self.stops.insert(part, stop);
    }

    /// Waits for a part that ends although nobody told it to, and says which and why.
    pub(super) async fn failure(&mut self) -> anyhow::Error {
        loop {
            match self.ended().await {
                Some((Some(part), Ok(()))) if self.was_told(part) => {}
                Some((part, Ok(()))) => return anyhow!("{} ended unasked", name(part)),
                Some((part, Err(error))) => return error.context(format!("{} failed", name(part))),
                None => std::future::pending().await,
            }
        }
    }

    /// Tells a part to stop, without waiting for it; there may be none.
    pub(super) fn tell(&self, part: Part) {
        if let Some(stop) = self.stops.get(&part) {
            stop.cancel();
        }
    }

    /// Stops a part and waits for its end, at most so long. What it fails with is returned.
    pub(super) async fn stop(&mut self, part: Part, patience: Duration) -> anyhow::Result<()> {
        self.tell(part);
        let ends = async {
            while self.running.values().any(|running| *running == part) {
                if let Some((ended, result)) = self.ended().await {
                    result.with_context(|| format!("{} failed while stopping", name(ended)))?;
                }
            }
            Ok(())
        };
        match tokio::time::timeout(patience, ends).await {
            Ok(result) => result,
            Err(_) => {
                tracing::warn!(part = part.name(), "did not stop within {patience:?} and is left behind");
                Ok(())
            }
        }
    }

    fn was_told(&self, part: Part) -> bool {
        self.stops.get(&part).is_some_and(CancellationToken::is_cancelled)
    }

    async fn ended(&mut self) -> Option<(Option<Part>, anyhow::Result<()>)> {
        let (id, result) = match self.tasks.join_next_with_id().await? {
            Ok((id, result)) => (id, result),
            Err(error) => (error.id(), Err(anyhow!(error))),
        };
        Some((self.running.remove(&id), result))
    }
}

fn name(part: Option<Part>) -> &'static str {
    part.map_or("a part", Part::name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_part_that_ends_unasked_is_a_failure() {
        let mut parts = Parts::default();
        parts.start(Part::Http, |stop| async move {
            stop.cancelled().await;
            Ok(())
        });
        parts.start(Part::Feed, |_| async { Ok(()) });
        assert_eq!(parts.failure().await.to_string(), "feed ended unasked");
        parts.start(Part::Metrics, |_| async { Err(anyhow!("disk full")) });
        assert_eq!(format!("{:#}", parts.failure().await), "metrics failed: disk full");
        parts.start(Part::Purge, |_| async { panic!("planted") });
        assert!(format!("{:#}", parts.failure().await).starts_with("purge failed: task"));
        parts.stop(Part::Http, LONG).await.unwrap();
    }

    #[tokio::test]
    async fn a_part_that_does_not_stop_is_left_behind() {
        let mut parts = Parts::default();
        parts.start(Part::Http, |_| std::future::pending());
        parts.stop(Part::Http, Duration::from_millis(1)).await.unwrap();
        parts.stop(Part::Feed, LONG).await.unwrap();
    }
}
