//! The way of the dispatcher to the feed of its own process: the same pages as over HTTP, without HTTP.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::delivery::changes::entries;
use crate::dispatch::ports::{self, FeedError, News, Unavailable};
use crate::domain::limits;
use crate::domain::scope::Scope;
use crate::domain::sequence::Sequence;
use crate::domain::shard::Shard;
use crate::feed::hub::Seat;
use crate::feed::ingest::Status;
use crate::feed::query::{self, Query};
use crate::feed::reader::Reader;

/// How long a question for the position waits for a feed that is starting.
const BEGIN_PATIENCE: Duration = Duration::from_secs(5);

/// The feed of this very process, as the dispatcher wants it.
pub(super) struct InProcess {
    reader: Reader,
    status: watch::Receiver<Status>,
    /// Kept from one question to the next: a change is known sooner, and costs less.
    seated: Mutex<Option<Arc<Seated>>>,
}

/// A seat for these shards.
struct Seated {
    shards: Vec<Shard>,
    scopes: Vec<Scope>,
    seat: Seat,
}

impl InProcess {
    /// What this reader reads, as far as it is there.
    pub(super) fn new(reader: Reader, status: watch::Receiver<Status>) -> Self {
        Self { reader, status, seated: Mutex::default() }
    }

    /// The seat of the last question where it is for the same shards, else a new one.
    fn seated(&self, shards: &[Shard]) -> Arc<Seated> {
        let mut seated = self.seated.lock();
        if let Some(seated) = seated.as_ref().filter(|seated| seated.shards == shards) {
            return seated.clone();
        }
        let parse = |shard: &Shard| Scope::parse(&shard.scope()).expect("a shard's scope is one");
        let mut scopes: Vec<Scope> = shards.iter().map(parse).collect();
        scopes.sort();
        let seat = self.reader.seat(&scopes);
        seated.insert(Arc::new(Seated { shards: shards.to_vec(), scopes, seat })).clone()
    }
}

impl ports::Feed for InProcess {
    async fn position(&self) -> Result<Sequence, FeedError> {
        // Before the slot is there, a position would promise news that nobody keeps.
        let mut status = self.status.clone();
        let began = status.wait_for(|status| !matches!(status, Status::Starting { .. }));
        match tokio::time::timeout(BEGIN_PATIENCE, began).await {
            Ok(Ok(_)) => {}
            Ok(Err(ended)) => return Err(unavailable("waiting for the feed to begin", ended.into())),
            Err(elapsed) => {
                let why = self.status.borrow().not_ready().unwrap_or_else(|| elapsed.to_string());
                return Err(unavailable("waiting for the feed to begin", why.into()));
            }
        }
        match self.reader.position() {
            Sequence::ZERO => Err(unavailable("waiting for the feed to begin", query::Error::NotBegun.into())),
            position => Ok(position),
        }
    }

    async fn follow(&self, shards: &[Shard], since: Sequence, wait: Duration) -> Result<News, FeedError> {
        let seated = self.seated(shards);
        let query =
            Query { scopes: seated.scopes.clone(), since, limit: limits::BATCH_ROWS_MAX, block: wait, snapshot: None };
        let page = self.reader.changes_at(&seated.seat, query).await.map_err(|error| match error {
            query::Error::TooOld => FeedError::Gap,
            query::Error::NotBegun | query::Error::Busy | query::Error::Journal(_) => {
                unavailable("following the feed", error.into())
            }
        })?;
        let entries = entries::entries(page.changes.iter().map(|change| &change.body[..]));
        Ok(News { entries, last: page.last })
    }
}

fn unavailable(doing: &'static str, source: Box<dyn std::error::Error + Send + Sync>) -> FeedError {
    FeedError::Unavailable(Unavailable { doing, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::journal;

    /// As with a disk that is full at the very first start: a load that began now would miss what commits before the slot.
    #[tokio::test]
    async fn there_is_no_position_before_the_feed_has_begun() {
        let folder = tempfile::tempdir().unwrap();
        let (_writer, journal) = journal::open(journal::Config::new(folder.path())).unwrap();
        let (_says, status) = watch::channel(Status::Blocked { why: "disk full".to_owned() });
        let feed = InProcess::new(Reader::new(journal.clone()), status);
        assert!(matches!(ports::Feed::position(&feed).await, Err(FeedError::Unavailable(_))));
        let origin = Sequence::new(1, crate::domain::sequence::Lsn(100), 0);
        journal.set_origin(origin).unwrap();
        assert_eq!(ports::Feed::position(&feed).await.unwrap(), origin);
    }

    #[tokio::test]
    async fn a_seat_is_kept_for_as_long_as_the_shards_are_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let (_writer, journal) = journal::open(journal::Config::new(folder.path())).unwrap();
        let origin = Sequence::new(1, crate::domain::sequence::Lsn(100), 0);
        journal.set_origin(origin).unwrap();
        let (_says, status) = watch::channel(Status::Blocked { why: "nobody asks".to_owned() });
        let feed = InProcess::new(Reader::new(journal), status);
        let seat = async |shards: &[Shard]| {
            let news = ports::Feed::follow(&feed, shards, origin, Duration::ZERO).await.unwrap();
            assert!(news.entries.is_empty());
            assert_eq!(feed.reader.waiters(), 1, "none is left behind");
            Arc::as_ptr(feed.seated.lock().as_ref().unwrap())
        };
        let all: Vec<Shard> = Shard::all().collect();
        let first = seat(&all).await;
        assert_eq!(seat(&all).await, first);
        assert_ne!(seat(&all[7..]).await, first);
    }
}
