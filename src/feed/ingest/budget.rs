//! The slot's budget: how much it keeps of the WAL that PostgreSQL lets it keep, and how soon it is lost. Pure.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use crate::domain::sequence::Lsn;
use crate::domain::{duration, limits};
use crate::feed::source::Wal;

/// The present rate of writing is that of this span.
const WINDOW: Duration = Duration::from_secs(60);
/// Most remembered positions: one every second of the window.
const MARKS_MAX: usize = 64;
/// A level is left only when so much less of the budget is used, in percent: nothing flickers at a threshold.
const RELIEF: u8 = 5;

/// How much of the budget is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// Less than half, or there is no bound.
    Fine,
    /// Half of it: time to look.
    Half,
    /// Four fifths: time to act.
    Most,
}

/// How the slot stands at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// How serious it is.
    pub level: Level,
    /// The level of before, where it was another.
    pub was: Option<Level>,
    /// The WAL that the slot keeps, in bytes.
    pub kept: u64,
    /// How much of the budget that is, in percent; none where there is no bound.
    pub percent: Option<u8>,
    /// When the slot is lost if it does not move and writing goes on as in the last minute; none where nothing is
    /// written, or there is no bound.
    pub left: Option<Duration>,
}

/// What is remembered from look to look.
#[derive(Debug)]
pub(super) struct Budget {
    level: Level,
    /// Where the WAL ended, oldest first.
    marks: VecDeque<(Instant, Lsn)>,
}

impl Default for Budget {
    fn default() -> Self {
        Self { level: Level::Fine, marks: VecDeque::new() }
    }
}

impl Level {
    /// The level at so many percent, when it was `before` until now.
    fn at(percent: u8, before: Self) -> Self {
        let holds = |(level, from): &(Self, u8)| {
            let from = if *level <= before { from.saturating_sub(RELIEF) } else { *from };
            percent >= from
        };
        let [half, most] = limits::SLOT_WAL_PERCENTS;
        let steps = [(Self::Most, most), (Self::Half, half)];
        steps.into_iter().find(holds).map_or(Self::Fine, |(level, _)| level)
    }
}

impl Budget {
    /// Takes what the server says now; none where there is no slot.
    pub fn measure(&mut self, wal: &Wal, now: Instant) -> Option<Standing> {
        let rate = self.rate(wal.end, now);
        let Some(kept) = wal.kept else {
            self.level = Level::Fine;
            return None;
        };
        let percent = kept.percent();
        let level = percent.map_or(Level::Fine, |percent| Level::at(percent, self.level));
        let was = (level != self.level).then_some(self.level);
        self.level = level;
        let left = kept.left.zip(rate).map(|(left, rate)| Duration::from_secs(left / rate));
        Some(Standing { level, was, kept: kept.bytes, percent, left })
    }

    /// Bytes of WAL that are written in a second; none where it is not known or none are.
    fn rate(&mut self, end: Lsn, now: Instant) -> Option<u64> {
        let is_old = |mark: Option<&(Instant, Lsn)>| mark.is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW);
        // The newest of those that are older than the window stays: the span is never shorter than that.
        while is_old(self.marks.get(1))
            || self.marks.len() >= MARKS_MAX
            || self.marks.front().is_some_and(|m| m.1 > end)
        {
            self.marks.pop_front();
        }
        self.marks.push_back((now, end));
        let (at, from) = self.marks.front()?;
        let span = u64::try_from(now.duration_since(*at).as_millis()).ok().filter(|span| *span > 0)?;
        let rate = end.0.saturating_sub(from.0).saturating_mul(1000) / span;
        (rate > 0).then_some(rate)
    }
}

impl Standing {
    /// How much the slot keeps, and how much of what it may keep that is: all there is to say where nothing is wrong.
    pub fn share(&self) -> String {
        let kept = format!("the replication slot keeps {} MiB of WAL", self.kept >> 20);
        match self.percent {
            Some(percent) => format!("{kept}, {percent} % of what max_slot_wal_keep_size allows"),
            None => kept,
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if (self.kept, self.percent) == (0, Some(100)) {
            return write!(f, "the replication slot has lost its WAL, and changes with it");
        }
        f.write_str(&self.share())?;
        let Some(percent) = self.percent else { return Ok(()) };
        match (percent, self.left) {
            (100.., _) => write!(f, ": the next checkpoint may take it, and changes with it"),
            (_, Some(left)) => write!(f, ": at the present rate it is lost in {}", duration::format(coarse(left))),
            (_, None) => Ok(()),
        }
    }
}

/// To the second, or where it is long, to the minute.
fn coarse(span: Duration) -> Duration {
    let seconds = span.as_secs();
    Duration::from_secs(if seconds >= 600 { seconds / 60 * 60 } else { seconds })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::source::Kept;

    const MIB: u64 = 1 << 20;

    fn wal(end: u64, kept: u64, left: Option<u64>) -> Wal {
        Wal { end: Lsn(end), kept: Some(Kept { bytes: kept, left }) }
    }

    #[test]
    fn each_crossing_is_told_once_and_nothing_flickers_at_a_threshold() {
        use Level::{Fine, Half, Most};
        let (mut budget, now) = (Budget::default(), Instant::now());
        for (kept, left, level, was) in [
            (0, Some(100), Fine, None),
            (49, Some(51), Fine, None),
            (50, Some(50), Half, Some(Fine)),
            (79, Some(21), Half, None),
            (49, Some(51), Half, None),
            (80, Some(20), Most, Some(Half)),
            (76, Some(24), Most, None),
            (74, Some(26), Half, Some(Most)),
            (44, Some(56), Fine, Some(Half)),
            // Straight to the end: past its bound, or the whole of it.
            (120, Some(0), Most, Some(Fine)),
            (0, Some(0), Most, None),
            (0, Some(1), Fine, Some(Most)),
            // Without a bound there is no budget.
            (1 << 50, None, Fine, None),
        ] {
            let standing = budget.measure(&wal(1, kept, left), now).expect("there is a slot");
            assert_eq!((standing.level, standing.was), (level, was), "{kept} of {left:?}");
        }
        budget.measure(&wal(1, 90, Some(10)), now);
        assert_eq!(budget.measure(&Wal { end: Lsn(1), kept: None }, now), None);
        let anew = budget.measure(&wal(1, 90, Some(10)), now).expect("there is a slot");
        assert_eq!(anew.was, Some(Fine), "a slot made anew is told of anew");
    }

    #[test]
    fn the_time_left_follows_the_rate_of_the_last_minute() {
        let (mut budget, start) = (Budget::default(), Instant::now());
        for (second, end, left, expected) in [
            // The first look knows no rate.
            (0, 0, 100 * MIB, None),
            (2, 2 * MIB, 98 * MIB, Some(98)),
            (60, 60 * MIB, 40 * MIB, Some(40)),
            // The first minute is forgotten: ten times as fast in the last.
            (120, 660 * MIB, 40 * MIB, Some(4)),
            (180, 660 * MIB, 40 * MIB, None),
            // A WAL that ends earlier than before is another one.
            (182, 10 * MIB, 40 * MIB, None),
            (184, 12 * MIB, 40 * MIB, Some(40)),
        ] {
            let now = start + Duration::from_secs(second);
            let standing = budget.measure(&wal(end, MIB, Some(left)), now).expect("there is a slot");
            assert_eq!(standing.left.map(|left| left.as_secs()), expected, "at {second} s");
        }
    }

    #[test]
    fn its_memory_is_bounded_and_no_numbers_make_it_panic() {
        let (mut budget, now) = (Budget::default(), Instant::now());
        for n in [0, 1, u64::MAX].into_iter().chain(0..1000) {
            budget.measure(&wal(n, u64::MAX, Some(n)), now + Duration::from_millis(n % 7));
        }
        assert!(budget.marks.len() <= MARKS_MAX);
    }

    #[test]
    fn it_says_how_much_of_what_and_how_long() {
        let standing = |percent, left| Standing { level: Level::Half, was: None, kept: 412 * MIB, percent, left };
        for (standing, expected) in [
            (
                standing(Some(61), Some(Duration::from_secs(3725))),
                "61 % of what max_slot_wal_keep_size allows: at the present rate it is lost in 1h2m",
            ),
            (
                standing(Some(100), None),
                "100 % of what max_slot_wal_keep_size allows: the next checkpoint may take it, and changes with it",
            ),
            (standing(Some(61), None), "412 MiB of WAL, 61 % of what max_slot_wal_keep_size allows"),
            (standing(None, None), "the replication slot keeps 412 MiB of WAL"),
        ] {
            assert!(standing.to_string().ends_with(expected), "{standing}");
        }
        let share = standing(Some(3), Some(Duration::from_secs(9))).share();
        assert!(share.ends_with("3 % of what max_slot_wal_keep_size allows"), "relief is no alarm: {share}");
        let lost = Standing { kept: 0, ..standing(Some(100), None) };
        assert!(lost.to_string().contains("has lost its WAL"), "{lost}");
    }
}
