//! A place's clocks: where they were put forward or back, and what a cron expression makes of it.

use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone, TimeZoneDatabase};

use super::cron::Cron;
use crate::clock::Timestamp;
use crate::domain::invalid::{Field, Invalid};
use crate::domain::limits;

/// A place, by its name in the IANA database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Zone {
    /// The place of that name, `Europe/Berlin`. Case does not matter.
    pub fn parse(name: &str) -> Result<Self, Invalid> {
        // What the binary was built with, and not what the machine has: the same everywhere, and nothing is read.
        let known = TimeZoneDatabase::bundled();
        let allowed = "the name of an IANA time zone, such as UTC or Europe/Berlin";
        known.get(name).map(Self).map_err(|_| Invalid::new(Field::TimeZone, name, allowed))
    }

    /// What the clocks of the place show at a moment; RFC 3339 with the offset.
    pub fn show(&self, at: Timestamp) -> String {
        match jiff::Timestamp::from_microsecond(at.micros()) {
            Ok(moment) => moment.display_with_offset(self.0.to_offset(moment)).to_string(),
            Err(_) => at.to_string(),
        }
    }
}

/// A stretch of time in which the clocks of a place were left alone.
struct Stretch {
    /// Its first second; none where it has none.
    start: Option<jiff::Timestamp>,
    /// The first second behind it.
    end: Option<jiff::Timestamp>,
    offset: Offset,
    /// The offset of the stretch before it.
    offset_before: Offset,
}

impl Stretch {
    /// The one that has this second.
    fn with(zone: &TimeZone, second: jiff::Timestamp) -> Self {
        let next = second.checked_add(SECOND).ok();
        // Looks for changes before a moment, and one at this very second belongs to it.
        let start = next.and_then(|next| zone.preceding(next).next()).map(|change| change.timestamp());
        Self::from(zone, start, zone.to_offset(second), second)
    }

    fn from(zone: &TimeZone, start: Option<jiff::Timestamp>, offset: Offset, within: jiff::Timestamp) -> Self {
        let before = start.and_then(|start| start.checked_sub(SECOND).ok());
        let offset_before = before.map_or(offset, |before| zone.to_offset(before));
        let end = zone.following(within).next().map(|change| change.timestamp());
        Self { start, end, offset, offset_before }
    }

    /// The one behind it.
    fn next(&self, zone: &TimeZone) -> Option<Self> {
        let start = self.end?;
        Some(Self::from(zone, Some(start), zone.to_offset(start), start))
    }

    /// The first moment of the expression in it that is not before `from`.
    fn first(&self, cron: &Cron, from: jiff::Timestamp) -> Option<jiff::Timestamp> {
        let mut local = self.offset.to_datetime(from);
        if let Some(start) = self.start.filter(|start| *start >= from && cron.is_fixed_time()) {
            let (shown_before, shown) = (self.offset_before.to_datetime(start), self.offset.to_datetime(start));
            // What was skipped runs right after it.
            if shown_before < shown && cron.first(shown_before, shown).is_some() {
                return Some(start);
            }
        }
        if let Some(start) = self.start.filter(|_| cron.is_fixed_time()) {
            // What the clocks have shown before they were put back has run.
            local = local.max(self.offset_before.to_datetime(start));
        }
        let end = self.end.map_or(DateTime::MAX, |end| self.offset.to_datetime(end));
        self.offset.to_timestamp(cron.first(local, end)?).ok()
    }
}

const SECOND: jiff::SignedDuration = jiff::SignedDuration::from_secs(1);

/// The first moment later than `after` at which the clocks of the place show what the expression says.
pub fn after(cron: &Cron, zone: &Zone, after: Timestamp) -> Option<Timestamp> {
    let earliest = jiff::Timestamp::MIN.as_second().saturating_add(1);
    let second = after.micros().div_euclid(1_000_000).saturating_add(1).max(earliest);
    let from = jiff::Timestamp::from_second(second).ok()?;
    let mut stretch = Stretch::with(&zone.0, from);
    loop {
        // An expression that fits any day fits one within this time: see the parser.
        if stretch.start.is_some_and(|start| start.as_second() - second > limits::CRON_GAP_SECONDS_MAX) {
            return None;
        }
        let lower = stretch.start.map_or(from, |start| start.max(from));
        if let Some(found) = stretch.first(cron, lower) {
            return Some(Timestamp::from_micros(found.as_microsecond())).filter(|at| *at <= limits::SCHEDULE_AT_MAX);
        }
        stretch = stretch.next(&zone.0)?;
    }
}
