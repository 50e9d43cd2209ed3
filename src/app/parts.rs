//! The running parts of a process: started together, watched together, stopped one by one.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

/// Named tasks, each with what tells it to stop.
#[derive(Default)]
pub(super) struct Parts {
    tasks: JoinSet<anyhow::Result<()>>,
    names: BTreeMap<Id, &'static str>,
    stops: BTreeMap<&'static str, CancellationToken>,
}

impl Parts {
    /// Starts a part. It runs until its token is cancelled; ending earlier is a failure.
    pub(super) fn start<F>(&mut self, name: &'static str, part: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let task = self.tasks.spawn(part(stop.clone()));
        self.names.insert(task.id(), name);
        self.stops.insert(name, stop);
    }

    /// Waits for a part that ends although nobody told it to, and says which and why.
    pub(super) async fn failure(&mut self) -> anyhow::Error {
        loop {
            match self.ended().await {
                Some((name, Ok(()))) if self.was_told(name) => {}
                Some((name, Ok(()))) => return anyhow!("{name} ended unasked"),
                Some((name, Err(error))) => return error.context(format!("{name} failed")),
                None => std::future::pending().await,
            }
        }
    }

    /// Tells a part to stop, without waiting for it.
    pub(super) fn tell(&self, name: &'static str) {
        if let Some(stop) = self.stops.get(name) {
            stop.cancel();
        }
    }

    /// Stops a part and waits for its end, at most so long. What it fails with is returned.
    pub(super) async fn stop(&mut self, name: &'static str, patience: Duration) -> anyhow::Result<()> {
        self.tell(name);
        let ends = async {
            while self.names.values().any(|running| *running == name) {
                if let Some((ended, result)) = self.ended().await {
                    result.with_context(|| format!("{ended} failed while stopping"))?;
                }
            }
            Ok(())
        };
        match tokio::time::timeout(patience, ends).await {
            Ok(result) => result,
            Err(_) => {
                tracing::warn!(part = name, "did not stop within {patience:?} and is left behind");
                Ok(())
            }
        }
    }

    fn was_told(&self, name: &'static str) -> bool {
        self.stops.get(name).is_some_and(CancellationToken::is_cancelled)
    }

    async fn ended(&mut self) -> Option<(&'static str, anyhow::Result<()>)> {
        let (id, result) = match self.tasks.join_next_with_id().await? {
            Ok((id, result)) => (id, result),
            Err(error) => (error.id(), Err(anyhow!(error))),
        };
        Some((self.names.remove(&id).unwrap_or("a part"), result))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_part_that_ends_unasked_is_a_failure() {
        let mut parts = Parts::default();
        parts.start("good", |stop| async move {
            stop.cancelled().await;
            Ok(())
        });
        parts.start("bad", |_| async { Ok(()) });
        assert_eq!(parts.failure().await.to_string(), "bad ended unasked");
        parts.start("worse", |_| async { Err(anyhow!("disk full")) });
        assert_eq!(format!("{:#}", parts.failure().await), "worse failed: disk full");
        parts.start("worst", |_| async { panic!("planted") });
        assert!(format!("{:#}", parts.failure().await).starts_with("worst failed: task"));
        parts.stop("good", LONG).await.unwrap();
    }

    #[tokio::test]
    async fn a_part_that_does_not_stop_is_left_behind() {
        let mut parts = Parts::default();
        parts.start("deaf", |_| std::future::pending());
        parts.stop("deaf", Duration::from_millis(1)).await.unwrap();
        parts.stop("absent", LONG).await.unwrap();
    }
}
