//! Answers one call for changes, waiting for some where asked to.

use std::time::Instant;

use tokio::time::timeout_at;

use super::journal::{self, Journal, Range};
use super::query::{Error, Page, Query};
use crate::domain::sequence::Sequence;

/// Pages of at most so many changes are made without leaving the task, where they touch no file: some 100 µs.
const INLINE_CHANGES_MAX: usize = 1_000;

/// Hands out changes. Cheap to clone; a call that waits is no task of its own.
#[derive(Clone, Debug)]
pub struct Reader {
    journal: Journal,
}

impl Reader {
    /// A reader of this journal.
    pub fn new(journal: Journal) -> Self {
        Self { journal }
    }

    /// Where to follow on for who knows all that has committed so far; zero before the feed has begun.
    pub fn position(&self) -> Sequence {
        self.journal.position()
    }

    /// The oldest and the newest change that are visible.
    pub fn range(&self) -> Range {
        self.journal.range()
    }

    /// How many calls are waiting.
    pub fn waiters(&self) -> usize {
        self.journal.hub().waiters()
    }

    /// Lets every call that waits answer at once, and none wait from now on.
    pub fn release_all(&self) {
        self.journal.hub().release_all();
    }

    /// Answers a query as the contract says. Where the first look finds nothing and `block` is above zero, it waits for
    /// a change of the query's scopes that its snapshot does not hide. Dropping the future gives the place back.
    ///
    /// # Errors
    ///
    /// [`Error::NotBegun`], [`Error::TooOld`], also while waiting, and [`Error::Journal`].
    pub async fn changes(&self, query: Query) -> Result<Page, Error> {
        if !self.journal.has_begun() {
            return Err(Error::NotBegun);
        }
        let page = self.look(&query, query.since).await?;
        if !page.changes.is_empty() || query.limit == 0 || query.block.is_zero() {
            return Ok(page);
        }
        let deadline = Instant::now().checked_add(query.block).map(tokio::time::Instant::from_std);
        let hub = self.journal.hub();
        let seat = hub.register(query.scopes.iter().map(|scope| journal::key(scope.as_str().as_bytes())).collect());
        let mut since = page.last;
        loop {
            // What is behind `since` has been looked at; registered as we are, nothing can be missed any more.
            let page = self.look(&query, since).await?;
            if !page.changes.is_empty() || hub.is_released() {
                return Ok(page);
            }
            since = page.last;
            let woken = match deadline {
                Some(deadline) => timeout_at(deadline, seat.woken()).await.is_ok(),
                None => {
                    seat.woken().await;
                    true
                }
            };
            if !woken {
                return self.look(&query, since).await;
            }
        }
    }

    /// One look, on a thread that may block where files have to be read.
    async fn look(&self, query: &Query, since: Sequence) -> Result<Page, Error> {
        let read = move |journal: &Journal, query: &Query| {
            journal.read(&query.scopes, since, query.limit, query.snapshot.as_ref())
        };
        if query.limit <= INLINE_CHANGES_MAX && self.journal.is_in_memory(since) {
            return read(&self.journal, query);
        }
        let (journal, query) = (self.journal.clone(), query.clone());
        let read = tokio::task::spawn_blocking(move || read(&journal, &query));
        read.await.unwrap_or_else(|e| Err(Error::Journal(std::io::Error::other(e))))
    }
}
