//! Between which two moments the database's clock stands, as far as its answers tell. Pure: instants are arguments.

use std::time::{Duration, Instant};

use super::Timestamp;

/// How many microseconds must go by until two machines' clocks may have drifted apart by one: quartzes differ by at most
/// some 100 millionths, and those that are disciplined by NTP by far less.
const MICROS_PER_DRIFT: u64 = 10_000;

/// What the database's clock said, and between which two instants of ours it was read.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// Just before the question left.
    pub asked: Instant,
    /// What it said.
    pub at: Timestamp,
    /// When the answer was here.
    pub answered: Instant,
}

/// What a reading told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// It is where it was thought to be, or it was read for the first time.
    Agrees,
    /// It was set, by at least so many microseconds; below zero where it was set back.
    Set(i64),
    /// The reading is older than what is known, and contradicts it: it counts for nothing.
    Outdated,
}

/// The database's clock stands between `low` and `high` at the instant `since`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    low: Timestamp,
    high: Timestamp,
    since: Instant,
    /// When the newest answer was here.
    pub(super) heard: Instant,
}

impl Bounds {
    /// What one reading tells. It was made somewhere on the way, so that the clock had gone on by up to the whole round trip
    /// when the answer was here.
    pub(super) fn of(reading: &Reading) -> Self {
        let Reading { asked, at, answered } = *reading;
        let way = answered.saturating_duration_since(asked);
        // What it says is cut off behind the microsecond.
        let high = at.after(way + drift(way) + Duration::from_micros(1));
        Self { low: at, high, since: answered, heard: answered }
    }

    /// Takes in another reading.
    pub(super) fn learn(&mut self, reading: &Reading) -> Learned {
        let new = Self::of(reading);
        // Answers may be heard in another order than they were given.
        let at = self.since.max(new.since);
        let ((low, high), (new_low, new_high)) = (self.at(at), new.at(at));
        let heard = self.heard.max(new.heard);
        let set = match () {
            () if new_low > high => new_low.micros().saturating_sub(high.micros()),
            () if new_high < low => new_high.micros().saturating_sub(low.micros()),
            () => {
                *self = Self { low: low.max(new_low), high: high.min(new_high), since: at, heard };
                return Learned::Agrees;
            }
        };
        // One that was asked for before the last answer came may have been given before the clock was set.
        if reading.asked < self.heard {
            return Learned::Outdated;
        }
        *self = new;
        Learned::Set(set)
    }

    /// The earliest and the latest that the database's clock may read at this instant.
    pub(super) fn at(&self, now: Instant) -> (Timestamp, Timestamp) {
        let gone = now.saturating_duration_since(self.since);
        (self.low.after(gone.saturating_sub(drift(gone))), self.high.after(gone + drift(gone)))
    }

    /// How long from `now` until the earliest that it may read is `at`.
    pub(super) fn until(&self, at: Timestamp, now: Instant) -> Duration {
        let wait = at.since(self.at(now).0);
        // The bound falls behind while it is waited for.
        let micros = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        wait.saturating_add(Duration::from_micros(micros.div_ceil(MICROS_PER_DRIFT - 1)))
    }
}

/// By how much two clocks may have drifted apart in this span, rounded up.
fn drift(span: Duration) -> Duration {
    let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(micros.div_ceil(MICROS_PER_DRIFT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);
    const HOUR: i64 = 3_600_000_000;

    fn micros(count: u64) -> Duration {
        Duration::from_micros(count)
    }

    /// A reading of a clock that read `START` at `origin`, and was set by `set` since: asked and answered so many
    /// microseconds after the origin, and read in between.
    fn reading(origin: Instant, set: i64, [asked, read, answered]: [u64; 3]) -> Reading {
        let at = Timestamp::from_micros(START.after(micros(read)).micros() + set);
        Reading { asked: origin + micros(asked), at, answered: origin + micros(answered) }
    }

    #[test]
    fn a_reading_counts_as_of_its_answer_and_never_ahead() {
        let origin = Instant::now();
        let bounds = Bounds::of(&reading(origin, 0, [0, 100, 300]));
        let (low, high) = bounds.at(origin + micros(300));
        assert_eq!((low.micros() - START.micros(), high.micros() - START.micros()), (100, 402));
        // A second later the clocks may have drifted apart.
        let (low, high) = bounds.at(origin + micros(1_000_300));
        assert_eq!((low.micros() - START.micros(), high.micros() - START.micros()), (1_000_000, 1_000_502));
    }

    #[test]
    fn readings_narrow_each_other() {
        let origin = Instant::now();
        let mut bounds = Bounds::of(&reading(origin, 0, [0, 10, 5_000]));
        assert_eq!(bounds.learn(&reading(origin, 0, [6_000, 6_900, 7_000])), Learned::Agrees);
        let (low, high) = bounds.at(origin + micros(7_000));
        assert_eq!((low.micros() - START.micros(), high.micros() - START.micros()), (6_900, 7_013));
        // A slow one says little, and takes nothing away.
        assert_eq!(bounds.learn(&reading(origin, 0, [8_000, 8_001, 900_000])), Learned::Agrees);
        let (low, high) = bounds.at(origin + micros(900_000));
        assert!(high.since(low) < micros(1_200), "{:?}", high.since(low));
    }

    #[test]
    fn a_clock_that_was_set_is_followed_at_once() {
        for set in [HOUR, -HOUR, 50_000, -50_000] {
            let origin = Instant::now();
            let mut bounds = Bounds::of(&reading(origin, 0, [0, 100, 200]));
            let Learned::Set(by) = bounds.learn(&reading(origin, set, [1_000, 1_100, 1_200])) else {
                panic!("a step of {set} went unnoticed")
            };
            assert!((by - set).abs() <= 300, "{by} is not about {set}");
            let (low, _) = bounds.at(origin + micros(1_200));
            assert_eq!(low.micros() - START.micros(), 1_100 + set);
        }
    }

    #[test]
    fn an_answer_from_before_the_clock_was_set_counts_for_nothing() {
        let origin = Instant::now();
        let mut bounds = Bounds::of(&reading(origin, 0, [0, 100, 200]));
        assert!(matches!(bounds.learn(&reading(origin, -HOUR, [1_000, 1_100, 1_200])), Learned::Set(_)));
        let slow = reading(origin, 0, [300, 400, 2_000]);
        assert_eq!(bounds.learn(&slow), Learned::Outdated);
        assert!(bounds.at(origin + micros(2_000)).0 < START);
    }

    proptest! {
        /// Whatever the ways take and however the clocks drift within the bound, the lower bound is never ahead.
        #[test]
        fn it_is_never_ahead(ways in prop::collection::vec((0..3_000_000_u64, 0..5_000_u64, 0..5_000_u64), 1..40), ppm in -99..=99_i64) {
            let origin = Instant::now();
            let drifted = |gone: u64| i64::try_from(gone).unwrap() * ppm / 1_000_000;
            let (mut bounds, mut gone) = (None::<Bounds>, 0);
            for (pause, there, back) in ways {
                let asked = gone + pause;
                let read = asked + there;
                gone = read + back;
                let reading = reading(origin, drifted(read), [asked, read, gone]);
                match &mut bounds {
                    Some(bounds) => prop_assert_eq!(bounds.learn(&reading), Learned::Agrees),
                    None => bounds = Some(Bounds::of(&reading)),
                }
                let (low, high) = bounds.unwrap().at(origin + micros(gone));
                let truth = START.micros() + i64::try_from(gone).unwrap() + drifted(gone);
                prop_assert!(low.micros() <= truth + 1, "{} ahead", low.micros() - truth);
                prop_assert!(high.micros() >= truth - 1, "{} behind", truth - high.micros());
            }
        }

        #[test]
        fn waiting_is_long_enough(wait in 0..100_000_000_u64, pause in 0..100_000_000_u64) {
            let origin = Instant::now();
            let bounds = Bounds::of(&reading(origin, 0, [0, 0, 0]));
            let (now, at) = (origin + micros(pause), START.after(micros(pause + wait)));
            let wakes = now + bounds.until(at, now);
            prop_assert!(bounds.at(wakes).0 >= at);
            prop_assert!(bounds.at(wakes).0 <= at.after(drift(micros(pause + wait)) + micros(3)));
        }
    }
}
