//! The pulse beside the stream: how far behind it is, which transactions are over, what time it is there, and a heartbeat that
//! moves an idle slot.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use metrics::gauge;
use tokio::time::MissedTickBehavior;
use tracing::warn;

use super::Intervals;
use super::lookout::Signs;
use super::meter::Meter;
use super::published::Watch;
use super::report::Received;
use crate::clock::Clock;
use crate::domain::sequence::Lsn;
use crate::feed::journal::Journal;
use crate::feed::source::{Error, Server};

/// WAL that has to grow before a heartbeat is worth its own few bytes.
const HEARTBEAT_BYTES: u64 = 64 * 1024;
/// Most remembered positions: over two hours of lag are told as two hours.
const MARKS_MAX: usize = 4096;

/// What it asks, and whom it tells.
pub(super) struct Pulse<'a> {
    pub server: &'a Server,
    /// A standby cannot write a heartbeat; its primary's own traffic has to do.
    pub standby: bool,
    pub received: &'a Received,
    pub meter: &'a mut Meter,
    pub published: &'a mut Watch,
    /// Is told which transactions are over: a purge needs to know.
    pub journal: &'a Journal,
    /// Is told the server's time: the age of changes goes by it.
    pub clock: &'a Clock,
    /// Is told whether it was answered.
    pub signs: &'a Signs,
    pub intervals: Intervals,
}

/// The last heartbeat.
struct Beat {
    at: Instant,
    wal: Lsn,
    received: Lsn,
}

impl Pulse<'_> {
    /// Asks and tells until the connection fails.
    pub async fn run(mut self) -> Error {
        let mut timer = tokio::time::interval(self.intervals.pulse);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut lag = Lag::default();
        let mut beat = Beat { at: Instant::now(), wal: self.received.end(), received: self.received.end() };
        loop {
            timer.tick().await;
            match self.once(&mut lag, &mut beat).await {
                Ok(()) => self.signs.answered(),
                // A slow answer, or a no, is no reason to cut a stream that flows.
                Err(error @ (Error::Unanswered { .. } | Error::Refused { .. })) if !self.server.is_closed() => {
                    match error {
                        Error::Unanswered { .. } => self.signs.unanswered(),
                        _ => self.signs.answered(),
                    }
                    warn!(error = &error as &dyn std::error::Error, "no pulse");
                }
                Err(error) => return error,
            }
        }
    }

    async fn once(&mut self, lag: &mut Lag, beat: &mut Beat) -> Result<(), Error> {
        let (wal, received) = (self.meter.look(self.server).await?, self.received.end());
        let moment = self.server.moment().await?;
        self.clock.learn(&moment.clock);
        self.journal.note_snapshot(moment.snapshot);
        let now = Instant::now();
        self.published.look(self.server, now).await?;
        let (bytes, span) = lag.measure(wal, received, now);
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and lag is far below 2^53 bytes")]
        gauge!("walclock_feed_lag_bytes").set(bytes as f64);
        gauge!("walclock_feed_lag_seconds").set(span.as_secs_f64());
        let grown = wal.0.saturating_sub(beat.wal.0) >= HEARTBEAT_BYTES;
        if grown && !self.standby && now.duration_since(beat.at) >= self.intervals.heartbeat {
            let idle = received == beat.received;
            let wal = if idle { self.server.heartbeat().await? } else { wal };
            *beat = Beat { at: now, wal, received };
        }
        Ok(())
    }
}

/// Since when the end of the WAL has been ahead of what was received.
#[derive(Debug, Default)]
struct Lag {
    marks: VecDeque<(Lsn, Instant)>,
}

impl Lag {
    /// The lag in bytes and in time; `wal` is where the WAL ends now.
    fn measure(&mut self, wal: Lsn, received: Lsn, now: Instant) -> (u64, Duration) {
        if self.marks.len() < MARKS_MAX {
            self.marks.push_back((wal, now));
        }
        while self.marks.front().is_some_and(|(mark, _)| *mark <= received) {
            self.marks.pop_front();
        }
        let span = self.marks.front().map(|(_, since)| now.duration_since(*since)).unwrap_or_default();
        (wal.0.saturating_sub(received.0), span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_how_long_the_oldest_unreceived_wal_has_been_there() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut lag = Lag::default();
        for (seconds, wal, received, bytes, span) in [
            (0, 10, 10, 0, 0),
            (2, 20, 10, 10, 0),
            (4, 30, 10, 20, 2),
            (6, 40, 25, 15, 2),
            (8, 40, 40, 0, 0),
            (10, 40, 41, 0, 0),
        ] {
            let measured = lag.measure(Lsn(wal), Lsn(received), at(seconds));
            assert_eq!(measured, (bytes, Duration::from_secs(span)), "at {seconds} s");
        }
    }

    #[test]
    fn its_memory_is_bounded() {
        let (start, mut lag) = (Instant::now(), Lag::default());
        for second in 0..10_000 {
            lag.measure(Lsn(second), Lsn(0), start);
        }
        assert_eq!(lag.marks.len(), MARKS_MAX);
    }
}
