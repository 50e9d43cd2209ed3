//! The change feed of this process: the journal, and what fills it.

use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::in_process::InProcess;
use super::parts::{Part, Parts};
use super::ticks;
use crate::clock::{Clock, Timestamp};
use crate::config::Settings;
use crate::feed::ingest::{self, Ingest, Status};
use crate::feed::journal::{self, Journal};
use crate::feed::reader::Reader;
use crate::feed::snapshots::{self, Snapshots};
use crate::feed::{assemble, source};
use crate::pg;
use crate::service::health::{Check, Condition};

/// How often the journal is purged at most and at least.
const PURGE_INTERVALS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
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
    files_max: usize,
}

impl Feed {
    /// Opens the journal, which may take a moment.
    pub(super) async fn open(settings: &Settings, database: &pg::Settings) -> anyhow::Result<Self> {
        let config = journal::Config {
            max_age: settings.max_age,
            max_bytes: settings.max_size_bytes,
            ..journal::Config::new(settings.data_dir()?.join("journal"))
        };
        let files_max = config.files_max();
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
        Ok(Self { ingest, journal, snapshots, max_age: settings.max_age, files_max })
    }

    /// What readers begin with.
    pub(super) fn snapshots(&self) -> Snapshots {
        self.snapshots.clone()
    }

    /// How many files its journal may have open.
    pub(super) fn files_max(&self) -> usize {
        self.files_max
    }

    /// What answers readers.
    pub(super) fn reader(&self) -> Reader {
        Reader::new(self.journal.clone())
    }

    /// What the dispatcher of the same process follows.
    pub(super) fn in_process(&self) -> InProcess {
        InProcess::new(self.reader(), self.ingest.status())
    }

    /// Starts the stream, what tells of it, and the purge.
    pub(super) fn start(self, parts: &mut Parts, check: Check) {
        let Self { ingest, journal, max_age, .. } = self;
        let (status, clock) = (ingest.status(), ingest.clock());
        let warnings = [ingest.warning(), ingest.unpublished()];
        parts
            .start(Part::Feed, |stop| async move { Ok(ingest.run_apart(stop).await.context("filling the journal")??) });
        parts.start(Part::FeedState, |stop| async move {
            stop.run_until_cancelled(report(status, warnings, check)).await;
            Ok(())
        });
        let (least, most) = PURGE_INTERVALS;
        let interval = (max_age / 20).clamp(least, most);
        parts.start(Part::Purge, move |stop| purge(journal, clock, interval, stop));
    }
}

async fn report(mut status: watch::Receiver<Status>, warnings: [watch::Receiver<Option<String>>; 2], check: Check) {
    let [mut slot, mut published] = warnings;
    loop {
        let seen = status.borrow_and_update().clone();
        let warned = [&mut slot, &mut published].map(|warning| warning.borrow_and_update().clone());
        check.set(condition(&seen, warned));
        let changed = tokio::select! {
            changed = status.changed() => changed,
            changed = slot.changed() => changed,
            changed = published.changed() => changed,
        };
        if changed.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// What a reason makes of the feed.
type Grade = fn(String) -> Condition;

/// What the feed says of itself: what is wrong with the stream, and what will be wrong with the slot, or was with what is
/// published.
fn condition(status: &Status, warnings: [Option<String>; 2]) -> Condition {
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
    let reasons: Vec<String> = wrong.into_iter().chain(warnings.into_iter().flatten()).collect();
    match reasons.is_empty() {
        true => Condition::Ready,
        false => grade(reasons.join("; ")),
    }
}

async fn purge(journal: Journal, clock: Clock, interval: Duration, stop: CancellationToken) -> anyhow::Result<()> {
    // By then the server has usually said which transactions are over; a purge that knows keeps more snapshots good.
    stop.run_until_cancelled(tokio::time::sleep(interval)).await;
    ticks::drive(Part::Purge, interval, stop, || purge_once(journal.clone(), &clock)).await;
    Ok(())
}

/// Ages go by the clock that stamped the commits. Until it has been read nothing is too old, and what is too much goes.
fn purge_once(journal: Journal, clock: &Clock) -> impl Future<Output = anyhow::Result<()>> + use<> {
    let now = clock.known().unwrap_or(Timestamp::MIN);
    async move {
        let purged = tokio::task::spawn_blocking(move || journal.purge(now)).await;
        purged.context("purging the journal")?.map(|_segments| ()).context("purging the journal")
    }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::body::Body;
    use axum::http::Request;
    use tokio_util::task::AbortOnDropHandle;
    use tower::ServiceExt;

    use super::*;
    use crate::domain::sequence::Lsn;
    use crate::feed::sink::{Head, Row, Sink};
    use crate::http::manage;
    use crate::service::health::Health;

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
            assert_eq!(condition(&status, [None, None]), alone, "{status:?}");
            let both = reason.map_or("half".to_owned(), |reason| format!("{reason}; half"));
            assert_eq!(condition(&status, [Some("half".to_owned()), None]), grade(both), "{status:?} and a warning");
            let all = reason.map_or("half; less".to_owned(), |reason| format!("{reason}; half; less"));
            let warnings = ["half", "less"].map(|warning| Some(warning.to_owned()));
            assert_eq!(condition(&status, warnings), grade(all), "{status:?} and two");
        }
    }

    /// What the way in says, up to what is answered. Only what no attempt can mend is an end of health: else a supervisor
    /// would restart a server that serves.
    #[tokio::test]
    async fn health_ends_with_the_way_in_and_not_before() {
        let health = Health::new();
        let (says, status) = watch::channel(Status::Streaming);
        let [(_warns, warning), (_shows, shrunk)] = [watch::channel(None), watch::channel(None)];
        let _reports = AbortOnDropHandle::new(tokio::spawn(report(status, [warning, shrunk], health.add("feed"))));
        let routes = manage::routes(health.clone(), Arc::new(String::new));
        let ask = async |path| {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let answer = routes.clone().oneshot(request).await.unwrap();
            let code = answer.status().as_u16();
            let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
            (code, String::from_utf8(body.to_vec()).unwrap())
        };
        health.until_ready().await;
        let why = || "a change of 4294967296 bytes does not fit into the journal".to_owned();
        for (status, [healthy, ready]) in [
            (Status::Waiting { why: why() }, [200, 200]),
            (Status::Stale { why: why() }, [200, 503]),
            (Status::Blocked { why: why() }, [200, 503]),
            (Status::Failed { why: why() }, [503, 503]),
        ] {
            says.send_replace(status.clone());
            while !health.parts().iter().any(|(_, said)| *said == condition(&status, [None, None])) {
                tokio::task::yield_now().await;
            }
            let told = [ask("/health").await, ask("/ready").await];
            assert_eq!(told.each_ref().map(|(code, _)| *code), [healthy, ready], "{status:?}");
            assert!(told.iter().all(|(code, body)| *code == 200 || body.contains(&why())), "{status:?}: {told:?}");
        }
    }

    /// As after a start while PostgreSQL is away: what the own clock says of the changes of 1970 does not count.
    #[tokio::test]
    async fn nothing_is_too_old_before_the_databases_clock_was_read() {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, journal) = journal::open(journal::Config::new(folder.path())).unwrap();
        for lsn in [10, 20] {
            let committed_at = Timestamp::from_micros(0);
            writer.begin(&Head { timeline: 1, commit_lsn: Lsn(lsn), txid: lsn, committed_at }).unwrap();
            let row = Row { index: 0, scopes: &[], to_everyone: true, body: b"{}", left_body: &[], entered_body: &[] };
            writer.push(&row).and_then(|()| writer.commit(Lsn(lsn + 1))).unwrap();
        }
        writer.flush().unwrap();
        let first = || journal.range().first.lsn;
        let clock = Clock::system();
        purge_once(journal.clone(), &clock).await.unwrap();
        assert_eq!(first(), Lsn(10));
        clock.align(crate::clock::wall());
        purge_once(journal.clone(), &clock).await.unwrap();
        assert_eq!(first(), Lsn(20), "both are gone, and the newest is all that is known");
    }
}
