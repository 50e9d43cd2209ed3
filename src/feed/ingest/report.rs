//! Reports to the walsender, on a timer of their own: they leave on time under back-pressure and in the middle of a huge
//! transaction alike. The one place that acknowledges.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::domain::sequence::Lsn;
use crate::feed::journal::Journal;
use crate::feed::source::{Error, Position, Reports};

/// Longest span between two reports: how far the slot lags behind what is durable.
const EVERY_MAX: Duration = Duration::from_secs(1);

/// What the reading side tells the reporting side.
#[derive(Debug, Default)]
pub(super) struct Received {
    end: AtomicU64,
    wanted: Notify,
    /// The next report asks for an answer.
    answer_wanted: AtomicBool,
}

impl Received {
    /// Everything up to here has arrived.
    pub fn advance(&self, to: Lsn) {
        self.end.fetch_max(to.0, Ordering::Relaxed);
    }

    /// How far it has arrived.
    pub fn end(&self) -> Lsn {
        Lsn(self.end.load(Ordering::Relaxed))
    }

    /// The walsender wants a report at once.
    pub fn ask(&self) {
        self.wanted.notify_one();
    }

    /// We want an answer from the walsender.
    pub fn ask_back(&self) {
        self.answer_wanted.store(true, Ordering::Relaxed);
        self.ask();
    }

    /// Whether the report that asks for it has still to leave.
    pub fn is_asking(&self) -> bool {
        self.answer_wanted.load(Ordering::Relaxed)
    }
}

/// Reports until `done`, then once more and ends the stream.
pub(super) async fn run(
    mut reports: Reports,
    journal: Journal,
    received: Arc<Received>,
    walsender_timeout: Duration,
    done: CancellationToken,
) -> Result<(), Error> {
    let mut timer = tokio::time::interval(EVERY_MAX.min(walsender_timeout / 3));
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = done.cancelled() => break,
            _ = timer.tick() => {}
            () = received.wanted.notified() => {}
        }
        let reply = received.is_asking();
        reports.send(position(&journal, &received), reply).await?;
        if reply {
            received.answer_wanted.store(false, Ordering::Relaxed);
        }
    }
    reports.send(position(&journal, &received), false).await?;
    reports.end().await
}

/// What may be said: only what the journal has made durable is acknowledged, whatever has been received.
fn position(journal: &Journal, received: &Received) -> Position {
    Position { received: received.end(), acknowledged: journal.durable() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::journal;

    /// Whatever has arrived: before it is durable it may be reported, not acknowledged.
    #[tokio::test]
    async fn only_what_is_durable_is_acknowledged() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut writer, journal) = journal::open(journal::Config::new(folder.path())).expect("a new journal");
        let received = Received::default();
        received.advance(Lsn(1000));
        received.advance(Lsn(900));
        writer.advance(Lsn(700));
        let expected = Position { received: Lsn(1000), acknowledged: Lsn(0) };
        assert_eq!(position(&journal, &received), expected, "it has not even been written");
        writer.flush().expect("room");
        journal.watch_durable().wait_for(|end| *end == Lsn(700)).await.expect("the writer lives");
        let expected = Position { received: Lsn(1000), acknowledged: Lsn(700) };
        assert_eq!(position(&journal, &received), expected);
    }
}
