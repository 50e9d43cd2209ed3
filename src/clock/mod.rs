//! Moments and the clock. Nothing else in the crate reads a wall clock, so that tests and the simulation own time, and no
//! decision depends on what becomes of the machine's.

mod bounds;
mod doubt;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rustix::time::ClockId;
use serde::{Serialize, Serializer};

use bounds::Bounds;
pub use bounds::{Learned, Reading};
pub use doubt::{Doubt, Limits};

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

/// 400 years in microseconds, after which the calendar repeats itself. The library's moments end 26 hours before the year 9999
/// does, and that end is what many write for "never": it is read and written like the one 400 years before.
const CALENDAR_CYCLE: i64 = 146_097 * 86_400 * 1_000_000;

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with as many fractional digits as needed, `2026-11-21T09:30:00.25Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Ok(moment) = jiff::Timestamp::from_microsecond(self.0) {
            return write!(f, "{moment}");
        }
        let earlier = jiff::Timestamp::from_microsecond(self.0.saturating_sub(CALENDAR_CYCLE));
        match earlier.map(|moment| moment.to_string()).as_deref() {
            Ok(text) if let Some(rest) = text.strip_prefix("9599") => write!(f, "9999{rest}"),
            _ => write!(f, "{} µs since 1970", self.0),
        }
    }
}

impl Serialize for Timestamp {
    /// As it is displayed.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Timestamp {
    type Err = jiff::Error;

    /// Reads RFC 3339 with an offset; what is finer than a microsecond is cut off.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = |text: &str| text.parse::<jiff::Timestamp>().map(jiff::Timestamp::as_microsecond);
        read(text).map(Self).or_else(|error| match text.strip_prefix("9999") {
            Some(rest) => Ok(Self(read(&format!("9599{rest}"))?.saturating_add(CALENDAR_CYCLE))),
            None => Err(error),
        })
    }
}

/// What tells the time. Cheap to clone; clones share their setting.
///
/// It runs on the monotonic clock from what the database's clock was read at last (`learn`), so a step of the machine's own
/// wall clock never moves it. It reads the earliest that the database's may read: so it is never ahead of it.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: Limits,
    /// The wall clock when this one was made, and the time since boot then.
    started: (Timestamp, Duration),
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    bounds: Bounds,
    is_read: bool,
    /// By how much the database's clock and this machine's are apart, where that is more than the limit.
    far: Option<Duration>,
}

/// How the clock stands to the database's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// By how many microseconds the machine's wall clock is ahead of the database's.
    pub offset: i64,
    /// How wrong that may be, on either side.
    pub error: Duration,
    /// How long ago the database's clock was read last.
    pub age: Duration,
}

impl Clock {
    /// A clock that reads what the machine's wall clock says, until it has learned of another one.
    pub fn system() -> Self {
        Self::with_limits(Limits::default())
    }

    /// The same with limits of its own to what is trusted.
    pub fn with_limits(limits: Limits) -> Self {
        let (at, now) = (wall(), Instant::now());
        let bounds = Bounds::of(&Reading { asked: now, at, answered: now });
        let state = Mutex::new(State { bounds, is_read: false, far: None });
        Self(Arc::new(Inner { limits, started: (at, since_boot()), state }))
    }

    /// This moment; never ahead of the database's, once that has been read.
    pub fn now(&self) -> Timestamp {
        self.0.state.lock().bounds.at(Instant::now()).0
    }

    /// This moment by the database's clock, never ahead of it; none before that was read.
    pub fn known(&self) -> Option<Timestamp> {
        let state = self.0.state.lock();
        state.is_read.then(|| state.bounds.at(Instant::now()).0)
    }

    /// This moment, and why nothing is to be fired at it, if that is so.
    pub fn judged(&self) -> (Timestamp, Option<Doubt>) {
        let (state, now) = (self.0.state.lock(), Instant::now());
        let (low, high) = state.bounds.at(now);
        let (error, age) = (high.since(low) / 2, now.saturating_duration_since(state.bounds.heard));
        let limits = &self.0.limits;
        let doubt = match state.far {
            _ if !state.is_read => Some(Doubt::Unread),
            _ if age > limits.age_max => Some(Doubt::Old { limit: limits.age_max }),
            _ if error > limits.error_max => Some(Doubt::Vague { limit: limits.error_max }),
            Some(offset) => Some(Doubt::Far { offset, limit: limits.offset_max }),
            None => None,
        };
        (low, doubt)
    }

    /// Takes in what the database's clock said.
    pub fn learn(&self, reading: &Reading) -> Learned {
        let mut state = self.0.state.lock();
        let learned = match state.is_read {
            true => state.bounds.learn(reading),
            false => {
                state.bounds = Bounds::of(reading);
                Learned::Agrees
            }
        };
        state.is_read = true;
        state.far = self.far(&state.bounds);
        learned
    }

    /// Says that the moment is now `at`.
    pub fn align(&self, at: Timestamp) {
        let now = Instant::now();
        let mut state = self.0.state.lock();
        state.bounds = Bounds::of(&Reading { asked: now, at, answered: now });
        (state.is_read, state.far) = (true, None);
    }

    /// How it stands to the database's clock; none before that was read.
    pub fn standing(&self) -> Option<Standing> {
        let (state, now) = (self.0.state.lock(), Instant::now());
        let (low, high) = state.bounds.at(now);
        let error = high.since(low) / 2;
        let offset = wall().micros().saturating_sub(low.after(error).micros());
        let age = now.saturating_duration_since(state.bounds.heard);
        state.is_read.then_some(Standing { offset, error, age })
    }

    /// The instant of the monotonic clock at which this clock will read `at`; at once when that has passed.
    pub fn instant_of(&self, at: Timestamp) -> Instant {
        let (state, now) = (self.0.state.lock(), Instant::now());
        now.checked_add(state.bounds.until(at, now)).unwrap_or(now)
    }

    /// By how much the database's clock is away from this machine's, where that is more than the limit.
    ///
    /// This machine's is the wall clock, or what it was at the start and the time that has gone by since: the nearer one
    /// counts. So whatever the wall clock does later changes nothing, and one that was wrong at the start may be set right.
    fn far(&self, bounds: &Bounds) -> Option<Duration> {
        let (low, _) = bounds.at(Instant::now());
        let (started_at, booted) = self.0.started;
        let own = started_at.after(since_boot().saturating_sub(booted));
        let away = |from: Timestamp| from.since(low).max(low.since(from));
        Some(away(own).min(away(wall()))).filter(|away| *away > self.0.limits.offset_max)
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

    fn reading(at: Timestamp) -> Reading {
        let now = Instant::now();
        Reading { asked: now, at, answered: now }
    }

    /// A clock that has read the database's, which agrees with the machine's.
    fn read(limits: Limits) -> Clock {
        let clock = Clock::with_limits(limits);
        clock.learn(&reading(wall()));
        clock
    }

    #[test]
    fn a_clock_that_was_never_read_is_not_trusted() {
        let clock = Clock::system();
        assert_eq!((clock.judged().1, clock.standing(), clock.known()), (Some(Doubt::Unread), None, None));
        clock.learn(&reading(wall()));
        assert_eq!(clock.judged().1, None);
        assert!(clock.known().is_some_and(|known| known <= clock.now()));
        assert!(clock.standing().is_some_and(|standing| standing.error < Duration::from_secs(60)));
    }

    #[test]
    fn what_was_heard_too_long_ago_is_not_trusted() {
        let limit = Duration::ZERO;
        let clock = read(Limits { age_max: limit, ..Limits::default() });
        while clock.standing().is_some_and(|standing| standing.age.is_zero()) {
            std::hint::spin_loop();
        }
        assert_eq!(clock.judged().1, Some(Doubt::Old { limit }));
    }

    #[test]
    fn an_answer_that_took_too_long_is_not_trusted() {
        let limit = Duration::from_millis(400);
        let clock = Clock::with_limits(Limits { error_max: limit, ..Limits::default() });
        let answered = Instant::now();
        let asked = answered.checked_sub(Duration::from_secs(1)).expect("a machine that has been up for a second");
        clock.learn(&Reading { asked, at: wall(), answered });
        assert_eq!(clock.judged().1, Some(Doubt::Vague { limit }));
        clock.learn(&reading(wall()));
        assert_eq!(clock.judged().1, None);
    }

    /// The database's clock may be set by hours, as NTP does, and is followed; not by years.
    #[test]
    fn a_database_that_is_far_away_is_not_trusted_until_it_comes_back() {
        let hour = Duration::from_secs(3600);
        let clock = read(Limits::default());
        for at in [wall().after(hour), wall().before(hour)] {
            assert!(matches!(clock.learn(&reading(at)), Learned::Set(_)));
            assert!(clock.now() >= at && clock.judged().1.is_none());
        }
        clock.learn(&reading(wall().after(10_000 * hour)));
        assert!(matches!(clock.judged().1, Some(Doubt::Far { .. })));
        clock.learn(&reading(wall()));
        assert_eq!(clock.judged().1, None);
    }

    /// What the wall clock says now is not asked for where the one of the start agrees, and the other way round.
    #[test]
    fn either_of_the_own_clocks_may_agree() {
        let day = Duration::from_secs(86_400);
        for wrong in [wall().after(100 * day), wall().before(100 * day)] {
            let state = Mutex::new(State { bounds: Bounds::of(&reading(wall())), is_read: false, far: None });
            let clock = Clock(Arc::new(Inner { limits: Limits::default(), started: (wrong, since_boot()), state }));
            for at in [wall(), wrong] {
                clock.learn(&reading(at));
                assert_eq!(clock.judged().1, None, "{at}");
            }
            clock.learn(&reading(wrong.after(50 * day)));
            assert!(matches!(clock.judged().1, Some(Doubt::Far { .. })));
        }
    }
}
