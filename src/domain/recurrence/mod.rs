//! When a schedule's occurrences are: a cron expression in a time zone, or a fixed interval. Pure; the time zones are those
//! that the binary was built with, so that every process that runs it computes the same moments.

pub mod cron;
mod interval;
mod zone;

#[cfg(test)]
mod tests;

use std::time::Duration;

use super::invalid::Invalid;
use crate::clock::Timestamp;
use cron::Cron;
use interval::Interval;
pub use zone::Zone;

/// An endless row of moments. What bounds it in time is the schedule's.
#[derive(Clone, Debug)]
pub enum Recurrence {
    /// When the clocks of a place show what the expression says.
    Cron {
        /// What it says.
        cron: Cron,
        /// The place.
        zone: Zone,
    },
    /// Every so often from a first moment on, whatever clocks show.
    Every(Interval),
}

impl Recurrence {
    /// The moments of a cron expression of five fields, or of six with seconds first, in an IANA time zone.
    ///
    /// # Errors
    ///
    /// Where one of them cannot be read, and where the expression fits no day at all.
    pub fn cron(expression: &str, time_zone: &str) -> Result<Self, Invalid> {
        Ok(Self::Cron { cron: Cron::parse(expression)?, zone: Zone::parse(time_zone)? })
    }

    /// The moments a multiple of `span` after `anchor`, which is the first.
    ///
    /// # Errors
    ///
    /// Where the span is outside of `limits::SCHEDULE_EVERY`.
    pub fn every(span: Duration, anchor: Timestamp) -> Result<Self, Invalid> {
        Interval::new(span, anchor).map(Self::Every)
    }

    /// The first moment that is later than `after`; none where there is none before the end of the year 9999.
    ///
    /// The rule of Vixie cron for changes of time: an expression whose minute and hour are both without a leading `*` has a
    /// fixed time. It runs once right after a change that skips it, and once where its hour comes twice. Any other goes by
    /// what the clocks show, as often as they show it: not in a skipped hour, and in both passes of a repeated one.
    pub fn after(&self, after: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Cron { cron, zone } => zone::after(cron, zone, after),
            Self::Every(interval) => interval.after(after),
        }
    }

    /// The last moment that is not later than `until` and not earlier than `from`, found without walking all between them.
    pub fn last_within(&self, from: Timestamp, until: Timestamp) -> Option<Timestamp> {
        // A first moment behind `low` exists up to the last one: halve until nothing lies between.
        let mut found = self.after(from.before(Duration::from_micros(1))).filter(|at| *at <= until)?;
        let (mut low, mut high) = (found.micros(), until.micros());
        while low < high {
            let middle = low + (high - low) / 2 + (high - low) % 2;
            match self.after(Timestamp::from_micros(middle - 1)).filter(|at| *at <= until) {
                Some(at) => {
                    found = at;
                    low = at.micros();
                }
                None => high = middle - 1,
            }
        }
        Some(found)
    }
}
