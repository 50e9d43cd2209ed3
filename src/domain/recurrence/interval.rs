//! A fixed interval: moments at multiples of a span, whatever clocks show.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::domain::invalid::{Field, Invalid};
use crate::domain::{duration, limits};

/// The moments `anchor`, `anchor + span`, `anchor + 2 × span` and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    micros: i64,
    anchor: Timestamp,
}

impl Interval {
    /// The moments from `anchor` on.
    pub fn new(span: Duration, anchor: Timestamp) -> Result<Self, Invalid> {
        let (least, most) = (*limits::SCHEDULE_EVERY.start(), *limits::SCHEDULE_EVERY.end());
        let micros = i64::try_from(span.as_micros()).ok().filter(|_| limits::SCHEDULE_EVERY.contains(&span));
        match micros {
            Some(micros) => Ok(Self { micros, anchor }),
            None => {
                let allowed = format!("a duration from {} to {}", duration::format(least), duration::format(most));
                Err(Invalid::new(Field::Every, duration::format(span), allowed))
            }
        }
    }

    /// The first of them that is later than `after`.
    pub fn after(self, after: Timestamp) -> Option<Timestamp> {
        if after < self.anchor {
            return Some(self.anchor);
        }
        let passed = after.micros().checked_sub(self.anchor.micros())?;
        let next = (passed / self.micros).checked_add(1)?.checked_mul(self.micros)?;
        self.anchor.micros().checked_add(next).map(Timestamp::from_micros).filter(|at| *at <= limits::SCHEDULE_AT_MAX)
    }
}
