//! Whether this process works and can serve: what its parts say, put together for load balancers and operators.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What one part says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It does its work.
    Ready,
    /// It does its work, but somebody should look: shown by the verbose form, and no reason to send callers away.
    Degraded(String),
    /// It cannot give correct answers now; why.
    NotReady(String),
    /// It has ended and will not come back without a restart; why.
    Failed(String),
}

/// The state of the whole process. Cheap to clone; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    parts: Mutex<BTreeMap<&'static str, Condition>>,
    /// A part has said something.
    said: Notify,
    marked_down: CancellationToken,
    shutting_down: CancellationToken,
    /// Either of the two: each of those who wait keeps a place in it.
    closing: CancellationToken,
}

/// Where one part reports. Dropping it leaves its last word standing.
#[derive(Clone, Debug)]
pub struct Check {
    health: Health,
    part: &'static str,
}

impl Health {
    /// A process without parts, which is ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a part, which is starting.
    pub fn add(&self, part: &'static str) -> Check {
        let check = Check { health: self.clone(), part };
        check.set(Condition::NotReady("starting".to_owned()));
        check
    }

    /// Why the process is broken and a restart may help, if it is.
    pub fn unhealthy(&self) -> Option<String> {
        let failed = |(part, condition): (&&'static str, &Condition)| match condition {
            Condition::Failed(reason) => Some(format!("{part}: {reason}")),
            Condition::Ready | Condition::Degraded(_) | Condition::NotReady(_) => None,
        };
        self.0.parts.lock().iter().find_map(failed)
    }

    /// Why the process cannot serve, if it cannot.
    pub fn not_ready(&self) -> Option<String> {
        if self.is_marked_down() {
            return Some("Marked down".to_owned());
        }
        if self.0.shutting_down.is_cancelled() {
            return Some("Shutting down".to_owned());
        }
        let reason = |(part, condition): (&&'static str, &Condition)| match condition {
            Condition::NotReady(reason) | Condition::Failed(reason) => Some(format!("{part}: {reason}")),
            Condition::Ready | Condition::Degraded(_) => None,
        };
        self.0.parts.lock().iter().find_map(reason)
    }

    /// Ends once the process can serve.
    pub async fn until_ready(&self) {
        loop {
            let said = self.0.said.notified();
            let mut said = std::pin::pin!(said);
            // What is said from here on is heard, also while we look.
            said.as_mut().enable();
            if self.not_ready().is_none() {
                return;
            }
            said.await;
        }
    }

    /// What each part says, by name.
    pub fn parts(&self) -> Vec<(&'static str, Condition)> {
        self.0.parts.lock().iter().map(|(part, condition)| (*part, condition.clone())).collect()
    }

    /// Takes the process out of service for good: nothing but `/health` is answered, and its slot goes when it exits.
    pub fn mark_down(&self) {
        self.0.marked_down.cancel();
        self.0.closing.cancel();
    }

    /// Whether the process was marked down.
    pub fn is_marked_down(&self) -> bool {
        self.0.marked_down.is_cancelled()
    }

    /// Ends when the process is marked down.
    pub async fn marked_down(&self) {
        self.0.marked_down.cancelled().await;
    }

    /// Ends when the process is marked down or about to stop: whoever waits for something is answered now.
    pub async fn closing(&self) {
        self.0.closing.cancelled().await;
    }

    /// Whether the process was marked down or is about to stop.
    pub fn is_closing(&self) -> bool {
        self.0.closing.is_cancelled()
    }

    /// Says that the process is about to stop: no longer ready, though what is under way is answered.
    pub fn shut_down(&self) {
        self.0.shutting_down.cancel();
        self.0.closing.cancel();
    }
}

impl Check {
    /// Says how the part is.
    pub fn set(&self, condition: Condition) {
        self.health.0.parts.lock().insert(self.part, condition);
        self.health.0.said.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_part_that_cannot_serve_gives_the_reason() {
        let health = Health::new();
        assert_eq!(health.not_ready(), None);
        let feed = health.add("feed");
        let store = health.add("store");
        assert_eq!(health.not_ready().as_deref(), Some("feed: starting"));
        feed.set(Condition::Ready);
        store.set(Condition::Degraded("slow".to_owned()));
        assert_eq!(health.not_ready(), None);
        feed.set(Condition::Failed("disk full".to_owned()));
        assert_eq!(health.not_ready().as_deref(), Some("feed: disk full"));
        assert_eq!(health.unhealthy().as_deref(), Some("feed: disk full"));
    }

    #[tokio::test]
    async fn readiness_can_be_waited_for() {
        let health = Health::new();
        let feed = health.add("feed");
        let waiting = tokio::spawn({
            let health = health.clone();
            async move { health.until_ready().await }
        });
        feed.set(Condition::NotReady("catching up".to_owned()));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        feed.set(Condition::Ready);
        waiting.await.unwrap();
    }

    #[test]
    fn mark_down_outlives_everything() {
        let health = Health::new();
        health.shut_down();
        assert_eq!(health.not_ready().as_deref(), Some("Shutting down"));
        health.mark_down();
        assert_eq!(health.not_ready().as_deref(), Some("Marked down"));
        assert_eq!(health.unhealthy(), None);
    }
}
