//! Calls for changes: bounded in time, and answered at once when the process is about to go.

use std::future::Future;
use std::time::Duration;

use super::health::Health;
use crate::domain::limits;
use crate::feed::query::{Error, Page, Query};
use crate::feed::reader::Reader;

/// What answers a call from the journal, waiting for `query.block` where there is nothing yet.
pub trait Read: Clone + Send + Sync + 'static {
    /// Answers one call. Dropping the future gives up its place among the waiters.
    fn changes(&self, query: Query) -> impl Future<Output = Result<Page, Error>> + Send;
}

impl Read for Reader {
    async fn changes(&self, query: Query) -> Result<Page, Error> {
        Self::changes(self, query).await
    }
}

/// The calls for changes that this process answers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Changes<R> {
    reader: R,
    health: Health,
    block_max: Duration,
}

impl<R: Read> Changes<R> {
    /// Answers from `reader`; nobody waits longer than `block_max`, and nobody waits once `health` says that the process
    /// is closing.
    pub fn new(reader: R, health: Health, block_max: Duration) -> Self {
        Self { reader, health, block_max }
    }

    /// Answers one call. A wait that the end of the process cuts short is answered with what is there by then.
    pub async fn changes(&self, query: Query) -> Result<Page, Error> {
        let query = Query { block: query.block.min(self.block_max), ..query };
        if query.block.is_zero() {
            return self.reader.changes(query).await;
        }
        let last_look = Query { block: Duration::ZERO, ..query.clone() };
        tokio::select! {
            biased;
            page = self.reader.changes(query) => page,
            () = self.health.closing() => self.reader.changes(last_look).await,
        }
    }

    /// The next page of a stream that goes on for as long as the process does: like [`Changes::changes`], but that it
    /// waits as long as a stream may be silent, whatever `query.block` says. None once the process is closing.
    pub async fn follow(&self, query: Query) -> Result<Option<Page>, Error> {
        let block = self.block_max.clamp(limits::EVENTS_IDLE_MIN, limits::EVENTS_IDLE_MAX);
        tokio::select! {
            biased;
            () = self.health.closing() => Ok(None),
            page = self.reader.changes(Query { block, ..query }) => page.map(Some),
        }
    }

    /// Whether the process is closing: a stream ends before its next change.
    pub fn is_closing(&self) -> bool {
        self.health.is_closing()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt;
    use parking_lot::Mutex;

    use super::*;
    use crate::domain::scope::Scope;
    use crate::domain::sequence::Sequence;
    use crate::feed::room::Taken;

    /// Has nothing, and waits for ever where it may wait at all. Notes for how long that would be.
    #[derive(Clone, Default)]
    struct Empty(Arc<Mutex<Vec<Duration>>>);

    impl Read for Empty {
        async fn changes(&self, query: Query) -> Result<Page, Error> {
            self.0.lock().push(query.block);
            if !query.block.is_zero() {
                std::future::pending::<()>().await;
            }
            Ok(Page {
                first: Sequence::ZERO,
                last: query.since,
                from: Sequence::ZERO,
                is_full: false,
                changes: Vec::new(),
                taken: Taken::default(),
            })
        }
    }

    fn query(block: Duration) -> Query {
        Query { scopes: vec![Scope::empty()], since: Sequence::ZERO, limit: 1, block, snapshot: None }
    }

    #[tokio::test]
    async fn a_wait_is_bounded_and_ends_with_the_process() {
        for close in [Health::mark_down, Health::shut_down] {
            let (reader, health) = (Empty::default(), Health::new());
            let changes = Changes::new(reader.clone(), health.clone(), Duration::from_secs(300));
            let waiting = tokio::spawn(async move { changes.changes(query(Duration::MAX)).await });
            while reader.0.lock().is_empty() {
                tokio::task::yield_now().await;
            }
            close(&health);
            let page = waiting.await.expect("no panic").expect("a page");
            assert!(page.changes.is_empty());
            assert_eq!(*reader.0.lock(), [Duration::from_secs(300), Duration::ZERO]);
        }
    }

    #[tokio::test]
    async fn a_stream_ends_with_the_process() {
        for close in [Health::mark_down, Health::shut_down] {
            let (reader, health) = (Empty::default(), Health::new());
            let changes = Changes::new(reader.clone(), health.clone(), Duration::from_secs(300));
            assert!(!changes.is_closing());
            let following = tokio::spawn({
                let changes = changes.clone();
                async move { changes.follow(query(Duration::ZERO)).await }
            });
            while reader.0.lock().is_empty() {
                tokio::task::yield_now().await;
            }
            close(&health);
            assert_eq!(following.await.expect("no panic").expect("no failure"), None);
            assert!(changes.is_closing());
        }
    }

    #[test]
    fn a_stream_is_silent_for_a_bounded_time_only() {
        let seconds = Duration::from_secs;
        for (block_max, idle) in [(seconds(300), seconds(15)), (seconds(5), seconds(5)), (Duration::ZERO, seconds(1))] {
            let reader = Empty::default();
            let changes = Changes::new(reader.clone(), Health::new(), block_max);
            let following = changes.follow(query(seconds(77)));
            assert!(following.now_or_never().is_none());
            assert_eq!(*reader.0.lock(), [idle]);
        }
    }

    #[tokio::test]
    async fn who_does_not_want_to_wait_does_not() {
        let reader = Empty::default();
        let changes = Changes::new(reader.clone(), Health::new(), Duration::from_secs(300));
        changes.changes(query(Duration::ZERO)).await.expect("a page");
        assert_eq!(*reader.0.lock(), [Duration::ZERO]);
    }
}
