//! What drives schedules from moment to moment: a machine that asks which of them are near, and has settled what is decided
//! about them. Pure. It keeps nothing of them: the rows are the truth, and several machines may do the same at once.

#[cfg(test)]
mod tests;

use std::time::Duration;

use super::ports::{Due, DueRequest, Planned, Unavailable};
use crate::clock::Timestamp;
use crate::domain::limits;
use crate::domain::schedule::{self, Plan, Schedule};
use crate::domain::shard::Shard;

/// How often it looks for what it cannot know: schedules that are new or changed, and callbacks that are over.
const POLL: Duration = Duration::from_secs(1);
/// How long a schedule of a shard that another dispatcher holds may be overdue before it is taken in hand here.
const OVERDUE: Duration = Duration::from_secs(2);

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// The answer to [`Effect::Load`].
    Loaded(Result<Due, Unavailable>),
    /// The answer to [`Effect::Settle`]: which of them were settled.
    Settled(Result<Vec<bool>, Unavailable>),
}

/// What is to be done.
#[derive(Debug)]
pub enum Effect {
    /// Ask which schedules are near.
    Load(DueRequest),
    /// Have these settled.
    Settle(Vec<Planned>),
}

/// The machine. At most one effect is under way.
#[derive(Debug)]
pub struct Schedules {
    /// An effect is under way.
    is_asking: bool,
    /// When to ask again.
    wake_at: Timestamp,
    /// What was loaded was not all.
    is_more: bool,
}

impl Default for Schedules {
    fn default() -> Self {
        Self { is_asking: false, wake_at: Timestamp::MIN, is_more: false }
    }
}

impl Schedules {
    /// Takes in what happened at `now`, and returns what to do; `shards` are those that this dispatcher holds.
    pub fn step(&mut self, now: Timestamp, shards: &[Shard], event: Event) -> Option<Effect> {
        let effect = match event {
            Event::Tick if self.is_asking || now < self.wake_at => return None,
            Event::Tick => Some(Effect::Load(Self::request(now, shards))),
            Event::Loaded(Ok(due)) => self.plan(now, due),
            Event::Settled(Ok(settled)) => {
                // Where nothing came of a full batch, others are at it, or hold the rows: no reason to hurry.
                if self.is_more && settled.contains(&true) {
                    self.wake_at = now;
                }
                None
            }
            Event::Loaded(Err(_)) | Event::Settled(Err(_)) => {
                self.wake_at = now.after(POLL);
                None
            }
        };
        self.is_asking = effect.is_some();
        effect
    }

    /// When to step again at the latest, unless an effect is under way.
    pub fn next_wake(&self) -> Timestamp {
        self.wake_at
    }

    fn request(now: Timestamp, shards: &[Shard]) -> DueRequest {
        DueRequest {
            shards: shards.to_vec(),
            now,
            until: now.after(limits::SCHEDULE_LEAD),
            overdue: now.before(OVERDUE),
            limit: limits::BATCH_ROWS_MAX,
        }
    }

    /// Decides about what was loaded, as much as fits into one statement.
    fn plan(&mut self, now: Timestamp, due: Due) -> Option<Effect> {
        let count = due.schedules.len();
        let (mut planned, mut taken, mut occurrences) = (Vec::with_capacity(count), 0, 0);
        for schedule in due.schedules {
            if occurrences >= limits::OCCURRENCES_BATCH_MAX {
                break;
            }
            taken += 1;
            let plan = schedule::plan(&schedule, now, limits::SCHEDULE_LEAD);
            occurrences += plan.occurrences.len();
            if changes(&schedule, &plan) {
                planned.push(Planned { schedule, plan });
            }
        }
        self.is_more = taken < count || count >= limits::BATCH_ROWS_MAX;
        self.wake_at = due.next_at.map_or(Timestamp::MAX, |at| at.max(now)).min(now.after(POLL));
        (!planned.is_empty()).then_some(Effect::Settle(planned))
    }
}

/// Whether there is anything to write.
fn changes(schedule: &Schedule, plan: &Plan) -> bool {
    plan.next_at != schedule.next_at
        || !plan.occurrences.is_empty()
        || plan.buffered_at != schedule.buffered_at
        || plan.error.is_some()
}
