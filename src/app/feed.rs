//! The change feed of this process: the journal, what fills it, and the way of the dispatcher to it.

use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::parts::Parts;
use super::ticks;
use crate::clock;
use crate::config::Settings;
use crate::delivery::changes::entries;
use crate::dispatch::ports::{self, FeedError, News, Unavailable};
use crate::domain::limits;
use crate::domain::scope::Scope;
use crate::domain::sequence::Sequence;
use crate::domain::shard::Shard;
use crate::feed::ingest::{self, Ingest, Status};
use crate::feed::journal::{self, Journal};
use crate::feed::query::{self, Query};
use crate::feed::reader::Reader;
use crate::feed::snapshots::{self, Snapshots};
use crate::feed::{assemble, source};
use crate::pg;
use crate::service::health::{Check, Condition};

/// How often the journal is purged at most and at least.
const PURGE_INTERVALS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// How long a question for the position waits for a feed that is starting.
const BEGIN_PATIENCE: Duration = Duration::from_secs(5);
/// How long a slot may still be in use after the stream has ended.
const SLOT_PATIENCE: Duration = Duration::from_secs(10);
/// The pause before a slot that is still in use is tried again.
const SLOT_PAUSE: Duration = Duration::from_millis(100);

/// The feed, opened and not yet running.
pub(super) struct Feed {
    ingest: Ingest,
    journal: Journal,
    snapshots: Snapshots,
    max_age: Duration,
}

impl Feed {
    /// Opens the journal, which may take a moment.
    pub(super) async fn open(settings: &Settings, database: &pg::Settings) -> anyhow::Result<Self> {
        let config = journal::Config {
            max_age: settings.max_age,
            max_bytes: settings.max_size_bytes,
            ..journal::Config::new(settings.data_dir()?.join("journal"))
        };
        let place = format!("opening the journal in {} (--data-dir)", config.folder.display());
        let opened = tokio::task::spawn_blocking(move || journal::open(config)).await;
        let (writer, journal) = opened.context("opening the journal")?.context(place)?;
        let config = ingest::Config {
            source: source::Config {
                settings: database.clone(),
                slot: settings.slot.clone(),
                publications: settings.publications.clone(),
            },
            assemble: assemble::Config { selector_columns: settings.selector_columns.clone() },
            intervals: ingest::Intervals::default(),
        };
        config.validate()?;
        let snapshots = snapshots::Config::new(
            database.clone(),
            config.source.publications.clone(),
            config.assemble.selector_columns.clone(),
        );
        let snapshots = Snapshots::new(snapshots, journal.clone());
        let ingest = Ingest::new(config, writer, journal.clone());
        Ok(Self { ingest, journal, snapshots, max_age: settings.max_age })
    }

    /// What readers begin with.
    pub(super) fn snapshots(&self) -> Snapshots {
        self.snapshots.clone()
    }

    /// What answers readers.
    pub(super) fn reader(&self) -> Reader {
        Reader::new(self.journal.clone())
    }

    /// What the dispatcher of the same process follows.
    pub(super) fn in_process(&self) -> InProcess {
        InProcess { reader: self.reader(), status: self.ingest.status() }
    }

    /// Starts the stream, what tells of it, and the purge.
    pub(super) fn start(self, parts: &mut Parts, check: Check) {
        let Self { ingest, journal, max_age, snapshots: _ } = self;
        let (status, warning) = (ingest.status(), ingest.warning());
        parts.start("feed", |stop| async move { Ok(ingest.run_apart(stop).await.context("filling the journal")??) });
        parts.start("feed's state", |stop| async move {
            stop.run_until_cancelled(report(status, warning, check)).await;
            Ok(())
        });
        let (least, most) = PURGE_INTERVALS;
        let interval = (max_age / 20).clamp(least, most);
        parts.start("purge", move |stop| purge(journal, interval, stop));
    }
}

async fn report(mut status: watch::Receiver<Status>, mut warning: watch::Receiver<Option<String>>, check: Check) {
    loop {
        let seen = status.borrow_and_update().clone();
        let warned = warning.borrow_and_update().clone();
        check.set(condition(&seen, warned));
        let changed = tokio::select! {
            changed = status.changed() => changed,
            changed = warning.changed() => changed,
        };
        if changed.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// What a reason makes of the feed.
type Grade = fn(String) -> Condition;

/// What the feed says of itself: what is wrong with the stream, and what will be wrong with the slot.
fn condition(status: &Status, warning: Option<String>) -> Condition {
    let (grade, wrong): (Grade, _) = match status {
        Status::Streaming => (Condition::Degraded, None),
        Status::Waiting { why } => (Condition::Degraded, Some(why.clone())),
        Status::Failed { why } => (Condition::Failed, Some(why.clone())),
        Status::Starting { .. }
        | Status::CatchingUp
        | Status::Stale { .. }
        | Status::Blocked { .. }
        | Status::Stopped => (Condition::NotReady, status.not_ready()),
    };
    let reasons: Vec<String> = wrong.into_iter().chain(warning).collect();
    match reasons.is_empty() {
        true => Condition::Ready,
        false => grade(reasons.join("; ")),
    }
}

async fn purge(journal: Journal, interval: Duration, stop: CancellationToken) -> anyhow::Result<()> {
    let purge = || {
        let journal = journal.clone();
        async move {
            let purged = tokio::task::spawn_blocking(move || journal.purge(clock::wall())).await;
            purged.context("purging the journal")?.map(|_segments| ()).context("purging the journal")
        }
    };
    // By then the server has usually said which transactions are over; a purge that knows keeps more snapshots good.
    stop.run_until_cancelled(tokio::time::sleep(interval)).await;
    ticks::drive("purge", interval, stop, purge).await;
    Ok(())
}

/// Drops the slot of a process that goes for good. PostgreSQL may need a moment to see that nobody streams any more.
pub(super) async fn drop_slot(database: &pg::Settings, slot: &str) -> anyhow::Result<()> {
    let trying = async {
        loop {
            match source::drop_slot(database, slot).await {
                Ok(()) => return,
                Err(error) => tracing::debug!(slot, %error, "the replication slot cannot be dropped yet"),
            }
            tokio::time::sleep(SLOT_PAUSE).await;
        }
    };
    let dropped = tokio::time::timeout(SLOT_PATIENCE, trying).await;
    dropped.with_context(|| format!("the replication slot {slot} could not be dropped: it keeps WAL until it is"))?;
    tracing::info!(slot, "dropped the replication slot");
    Ok(())
}

/// The feed of this very process, as the dispatcher wants it.
pub(super) struct InProcess {
    reader: Reader,
    status: watch::Receiver<Status>,
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
        let parse = |shard: &Shard| Scope::parse(&shard.scope()).expect("a shard's scope is one");
        let mut scopes: Vec<Scope> = shards.iter().map(parse).collect();
        scopes.sort();
        let query = Query { scopes, since, limit: limits::BATCH_ROWS_MAX, block: wait, snapshot: None };
        let page = self.reader.changes(query).await.map_err(|error| match error {
            query::Error::TooOld => FeedError::Gap,
            query::Error::NotBegun | query::Error::Journal(_) => unavailable("following the feed", error.into()),
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

    #[test]
    fn what_is_wrong_with_the_stream_and_what_will_be_with_the_slot_are_both_told() {
        use Condition::{Degraded, Failed, NotReady, Ready};
        let why = || "why".to_owned();
        let table: [(Status, Grade, Option<&str>); 8] = [
            (Status::Streaming, Degraded, None),
            (Status::Waiting { why: why() }, Degraded, Some("why")),
            (Status::Starting { why: why() }, NotReady, Some("starting: why")),
            (Status::CatchingUp, NotReady, Some("catching up")),
            (Status::Stale { why: why() }, NotReady, Some("stale: why")),
            (Status::Blocked { why: why() }, NotReady, Some("why")),
            (Status::Stopped, NotReady, Some("shutting down")),
            (Status::Failed { why: why() }, Failed, Some("why")),
        ];
        for (status, grade, reason) in table {
            let alone = reason.map_or(Ready, |reason| grade(reason.to_owned()));
            assert_eq!(condition(&status, None), alone, "{status:?}");
            let both = reason.map_or("half".to_owned(), |reason| format!("{reason}; half"));
            assert_eq!(condition(&status, Some("half".to_owned())), grade(both), "{status:?} and a warning");
        }
    }

    /// As with a disk that is full at the very first start: a load that began now would miss what commits before the slot.
    #[tokio::test]
    async fn there_is_no_position_before_the_feed_has_begun() {
        let folder = tempfile::tempdir().unwrap();
        let (_writer, journal) = journal::open(journal::Config::new(folder.path())).unwrap();
        let (_says, status) = watch::channel(Status::Blocked { why: "disk full".to_owned() });
        let feed = InProcess { reader: Reader::new(journal.clone()), status };
        assert!(matches!(ports::Feed::position(&feed).await, Err(FeedError::Unavailable(_))));
        let origin = Sequence::new(1, crate::domain::sequence::Lsn(100), 0);
        journal.set_origin(origin).unwrap();
        assert_eq!(ports::Feed::position(&feed).await.unwrap(), origin);
    }
}
