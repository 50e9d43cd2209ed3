//! Moments and the clock. Nothing else in the crate reads a clock, so that tests and the simulation own time.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rustix::time::ClockId;

/// A moment: microseconds since 1970-01-01 00:00 UTC, PostgreSQL's resolution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest moment that can be written down; sorts before every real one.
    pub const MIN: Self = Self(i64::MIN);
    /// The latest moment that can be written down; sorts behind every real one.
    pub const MAX: Self = Self(i64::MAX);

    /// The moment `micros` microseconds after 1970-01-01 00:00 UTC.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since 1970-01-01 00:00 UTC.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// The moment `span` later; stays at the end of time instead of overflowing.
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)))
    }

    /// The moment `span` earlier; stays at the beginning of time instead of overflowing.
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)))
    }

    /// The span from `earlier` to this moment, zero when `earlier` is in fact later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with as many fractional digits as needed, `2026-11-21T09:30:00.25Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(moment) => write!(f, "{moment}"),
            Err(_) => write!(f, "{} µs since 1970", self.0),
        }
    }
}

impl FromStr for Timestamp {
    type Err = jiff::Error;

    /// Reads RFC 3339 with an offset; what is finer than a microsecond is cut off.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.parse::<jiff::Timestamp>()?.as_microsecond()))
    }
}

/// What tells the time. Cheap to clone; clones share their setting.
///
/// It runs on the monotonic clock from one anchor, so a step of the machine's wall clock never moves it. The dispatcher
/// re-anchors it to PostgreSQL's clock (`align`), which makes "now" the database's now.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Mutex<Anchor>>);

#[derive(Debug)]
struct Anchor {
    at: Timestamp,
    since: Instant,
}

impl Clock {
    /// A clock anchored to the machine's wall clock at this moment.
    pub fn system() -> Self {
        Self(Arc::new(Mutex::new(Anchor { at: wall(), since: Instant::now() })))
    }

    /// This moment.
    pub fn now(&self) -> Timestamp {
        let anchor = self.0.lock();
        anchor.at.after(anchor.since.elapsed())
    }

    /// Says that the moment is now `at`, and returns by how many microseconds the clock had been ahead of it.
    pub fn align(&self, at: Timestamp) -> i64 {
        let mut anchor = self.0.lock();
        let before = anchor.at.after(anchor.since.elapsed());
        *anchor = Anchor { at, since: Instant::now() };
        before.micros().saturating_sub(at.micros())
    }

    /// The instant of the monotonic clock at which this clock will read `at`; at once when that has passed.
    pub fn instant_of(&self, at: Timestamp) -> Instant {
        let anchor = self.0.lock();
        let now = Instant::now();
        let reads = anchor.at.after(now.duration_since(anchor.since));
        now.checked_add(at.since(reads)).unwrap_or(now)
    }
}

/// The machine's wall clock. For what leaves the process as a wall-clock figure; never for a decision.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
pub fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// How long the machine has been up, the time during which it was suspended included. A span of it is never shorter than what
/// went by for other machines, but for the drift of a quartz; so it is what a promise to others is measured with.
///
/// [`Instant`] stands still during a suspension: who held a lease before it would believe that it still does.
pub fn since_boot() -> Duration {
    Duration::try_from(rustix::time::clock_gettime(BOOT)).expect("it counts from zero upwards")
}

#[cfg(target_os = "linux")]
const BOOT: ClockId = ClockId::Boottime;
/// Elsewhere the monotonic clock goes on during a suspension, or there is none better.
#[cfg(not(target_os = "linux"))]
const BOOT: ClockId = ClockId::Monotonic;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_keeps_its_microseconds_through_text() {
        for micros in [0, 1, -1, 1_700_000_000_123_456, 4_102_444_800_000_000] {
            let at = Timestamp::from_micros(micros);
            assert_eq!(at.to_string().parse::<Timestamp>().expect("own text"), at);
        }
    }

    #[test]
    fn arithmetic_stays_within_time() {
        assert_eq!(Timestamp::MAX.after(Duration::from_secs(1)), Timestamp::MAX);
        assert_eq!(Timestamp::MIN.before(Duration::from_secs(1)), Timestamp::MIN);
        assert_eq!(Timestamp::MIN.since(Timestamp::MAX), Duration::ZERO);
    }

    #[test]
    fn the_time_since_boot_goes_on() {
        let (before, since) = (since_boot(), Instant::now());
        while since.elapsed() < Duration::from_millis(2) {
            std::hint::spin_loop();
        }
        assert!(since_boot() >= before + Duration::from_millis(2));
    }

    #[test]
    fn an_aligned_clock_reads_the_given_moment_and_goes_on() {
        let clock = Clock::system();
        let at = Timestamp::from_micros(1_000_000);
        clock.align(at);
        assert!(clock.now() >= at);
        assert!(clock.now() < at.after(Duration::from_secs(60)));
    }
}
