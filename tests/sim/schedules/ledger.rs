//! What really became of the moments of schedules, and whether it was allowed. It computes the moments by an arithmetic of
//! its own, and judges what is settled by the policies as they are promised, not by how they are planned.

use std::collections::BTreeMap;
use std::time::Duration;

use walclock::clock::Timestamp;
use walclock::dispatch::ports::Planned;
use walclock::domain::limits;
use walclock::domain::schedule::{CatchUp, Occurrence, Outcome, Overlap, Reason, Schedule, When};

use super::model::{Model, Moment, Row, Settled};

/// How late what has come may be settled when all is calm: until a schedule counts as overdue, until somebody looks, and the
/// way there and back.
const CALM_LATE_MAX: Duration = Duration::from_secs(5);
const INSTANT: Duration = Duration::from_micros(1);

/// A timer that was made for a moment.
#[derive(Clone, Copy, Debug)]
struct Firing {
    due_at: Timestamp,
    claims: u32,
    /// A later moment has ended it when it had so many claims.
    ended: Option<u32>,
}

/// When a plan was made.
#[derive(Clone, Copy, Debug)]
pub struct Moments {
    /// When the schedules were read.
    pub loaded_at: Timestamp,
    /// What the clock of its process read.
    pub planned_at: Timestamp,
}

/// The record of a world.
#[derive(Debug, Default)]
pub struct Ledger {
    firings: BTreeMap<Moment, Firing>,
    /// Since when no callback of a schedule has come to an end.
    idle_since: BTreeMap<String, Timestamp>,
    pub broken: Vec<String>,
    pub fired: u64,
    pub missed: u64,
    pub overlapped: u64,
    pub released: u64,
}

impl Ledger {
    /// A plan was carried out.
    pub fn settled(&mut self, model: &Model, planned: &Planned, moments: Moments, settled: &Settled) {
        let row = &settled.before;
        self.moments_are_the_rules(row, planned);
        self.misses_are_the_policys(model.now, row, planned, moments.planned_at);
        self.overlaps_are_the_policys(model, planned, moments.loaded_at, settled);
        for (at, due_at) in &settled.made {
            self.made(row, *at, *due_at);
        }
    }

    fn moments_are_the_rules(&mut self, row: &Row, planned: &Planned) {
        let fires = planned.plan.occurrences.iter().filter(|occurrence| occurrence.outcome == Outcome::Fire);
        for Occurrence { scheduled_for: at, .. } in fires {
            let is_moment = next(&row.schedule, at.before(INSTANT)) == Some(*at) && *at > row.schedule.changed_at;
            self.unless(is_moment, || format!("it fires at {at}, which is no moment of it as it stands"));
        }
        self.unless(!row.paused, || format!("{} is settled while it is paused", row.schedule.key));
    }

    /// What is missed and left out, and what is made up for.
    fn misses_are_the_policys(&mut self, now: Timestamp, row: &Row, planned: &Planned, planned_at: Timestamp) {
        let (schedule, plan) = (&row.schedule, &planned.plan);
        let first = match schedule.next_at {
            Timestamp::MIN => next(schedule, schedule.changed_at),
            known => Some(known).filter(|at| *at < Timestamp::MAX),
        };
        let moments: Vec<Timestamp> = std::iter::successors(first, |at| next(schedule, *at))
            .take_while(|at| *at < plan.next_at && *at <= now.after(2 * limits::SCHEDULE_LEAD))
            .collect();
        let in_time = planned_at.before(limits::SCHEDULE_MISSED_AFTER);
        let window = planned_at.before(schedule.rule.catch_up_window);
        let missed: Vec<Timestamp> = moments.iter().copied().filter(|at| *at < in_time).collect();
        let follows = moments.iter().any(|at| *at >= in_time && *at <= planned_at);
        let most = match schedule.rule.catch_up {
            CatchUp::None => 0,
            CatchUp::Last => usize::from(!follows),
            CatchUp::All => usize::try_from(schedule.rule.catch_up_max).unwrap(),
        };
        let made_up: Vec<Timestamp> = missed.iter().rev().take(most).copied().filter(|at| *at >= window).collect();
        for at in &moments {
            let found = plan.occurrences.iter().filter(|occurrence| covers(occurrence, *at)).collect::<Vec<_>>();
            let [occurrence] = found[..] else {
                self.broken.push(format!("{} at {at} is settled {} times", schedule.key, found.len()));
                continue;
            };
            let is_left_out = occurrence.outcome == Outcome::Skip(Reason::Missed);
            let may_be = missed.contains(at) && !made_up.contains(at);
            self.missed += u64::from(is_left_out);
            self.unless(is_left_out == may_be, || {
                format!("catch-up: {} at {at}: {occurrence:?} by {:?}", schedule.key, schedule.rule.catch_up)
            });
            let has_come = *at <= now || occurrence.outcome == Outcome::Fire;
            self.unless(has_come, || format!("{} at {at} is left out before it has come", schedule.key));
        }
        let goes_on = plan.next_at == Timestamp::MAX || is_moment(schedule, plan.next_at);
        self.unless(goes_on, || format!("{} goes on at {}, which is no moment of it", schedule.key, plan.next_at));
    }

    fn overlaps_are_the_policys(&mut self, model: &Model, planned: &Planned, loaded_at: Timestamp, settled: &Settled) {
        let (schedule, plan) = (&settled.before.schedule, &planned.plan);
        let (id, overlap) = (&schedule.key.id.to_string(), schedule.rule.overlap);
        // A callback that came to its end since the schedule was read counts as not over.
        let was_active = !settled.active.is_empty() || self.idle_since.get(id).is_some_and(|at| *at >= loaded_at);
        let mut fired = plan.release_at.is_some();
        let mut waits = schedule.buffered_at.is_some() && plan.release_at.is_none();
        let last = plan.occurrences.last().map(|occurrence| occurrence.scheduled_for);
        for Occurrence { scheduled_for: at, outcome, .. } in &plan.occurrences {
            let is_active = was_active || fired;
            let is_allowed = match (outcome, overlap) {
                (Outcome::Skip(Reason::Missed), _) | (Outcome::Fire, Overlap::Allow) => true,
                (Outcome::Fire, Overlap::CancelOther) => last == Some(*at),
                (Outcome::Skip(Reason::Overtaken), Overlap::CancelOther) => last > Some(*at),
                (Outcome::Fire, Overlap::Skip | Overlap::BufferOne) => !fired,
                (Outcome::Skip(Reason::Overlap), Overlap::Skip) => is_active,
                (Outcome::Buffer, Overlap::BufferOne) => is_active && !waits,
                (Outcome::Skip(Reason::Waiting), Overlap::BufferOne) => is_active && waits,
                _ => false,
            };
            self.overlapped += u64::from(matches!(outcome, Outcome::Skip(Reason::Overlap | Reason::Waiting)));
            self.unless(is_allowed, || format!("overlap: {id} at {at}: {outcome:?} by {overlap:?}"));
            fired |= *outcome == Outcome::Fire;
            waits |= *outcome == Outcome::Buffer;
        }
        self.released += u64::from(plan.release_at.is_some());
        if matches!(overlap, Overlap::Skip | Overlap::BufferOne) && !settled.made.is_empty() {
            let alone = settled.active.is_empty() && settled.made.len() == 1;
            self.unless(alone, || format!("overlap: {id}: {:?} beside {:?}", settled.made, settled.active));
        }
        let fired = plan.occurrences.iter().rfind(|occurrence| occurrence.outcome == Outcome::Fire);
        if let (Some(fired), Overlap::CancelOther) = (fired, overlap) {
            let earlier = |at: &Timestamp| *at < fired.scheduled_for;
            // Where more than are looked at were not over, the rest has its turn at the next moment.
            let after = model.active(id);
            let left: Vec<&Timestamp> = settled.active.iter().filter(|at| earlier(at) && after.contains(at)).collect();
            self.unless(left.is_empty(), || format!("overlap: {id} at {} does not end {left:?}", fired.scheduled_for));
            for at in settled.active.iter().copied().filter(earlier) {
                if let Some(firing) = self.firings.get_mut(&(id.clone(), at)) {
                    firing.ended = Some(firing.claims);
                }
            }
        }
    }

    /// A timer was made for a moment.
    fn made(&mut self, row: &Row, at: Timestamp, due_at: Timestamp) {
        let is_within = due_at >= at && due_at <= at.after(row.schedule.rule.jitter.max(limits::SCHEDULE_LEAD));
        self.unless(is_within, || format!("{} at {at} would leave at {due_at}", row.schedule.key));
        self.fires(&row.schedule.key.id, at, due_at);
    }

    /// A client fired a schedule.
    pub fn triggered(&mut self, id: &str, at: Timestamp) {
        self.fires(id, at, at);
    }

    fn fires(&mut self, id: &str, at: Timestamp, due_at: Timestamp) {
        let firing = Firing { due_at, claims: 0, ended: None };
        let other = self.firings.insert((id.to_owned(), at), firing);
        self.fired += 1;
        self.unless(other.is_none(), || format!("{id} at {at} has two timers"));
    }

    /// A client changes, pauses or deletes a schedule: what was made ahead of its moment and is not under way is withdrawn.
    pub fn withdrawn(&mut self, id: &str, now: Timestamp) {
        self.firings.retain(|(of, at), firing| of != id || *at <= now || firing.claims > 0);
        self.is_over(id, now);
    }

    /// A callback of a schedule came to its end.
    pub fn is_over(&mut self, id: &str, now: Timestamp) {
        self.idle_since.insert(id.to_owned(), now);
    }

    pub fn claimed(&mut self, moment: &Moment) {
        if let Some(firing) = self.firings.get_mut(moment) {
            firing.claims += 1;
        }
    }

    /// The callback of a moment leaves.
    pub fn called(&mut self, moment: &Moment, attempt: u32, now: Timestamp) {
        let (id, at) = moment;
        let Some(firing) = self.firings.get(moment).copied() else {
            self.broken.push(format!("{id} at {at} is called though it was withdrawn"));
            return;
        };
        self.unless(now >= firing.due_at && now >= *at, || format!("{id} at {at} is called at {now}"));
        let is_ended = firing.ended.is_some_and(|claims| attempt > claims);
        self.unless(!is_ended, || format!("{id} at {at} is called for the {attempt}. time though it was ended"));
    }

    /// Each moment since the rule was last changed has its row, up to the first that is not settled.
    pub fn covers_all(&mut self, model: &Model, id: &str) {
        let Some(Row { schedule, .. }) = model.rows.get(id) else { return };
        let rows: Vec<_> = model.of(id).map(|(at, occurrence)| (at, occurrence.through.unwrap_or(at))).collect();
        let mut at = next(schedule, schedule.changed_at);
        while let Some(moment) = at.filter(|at| *at < schedule.next_at && *at < model.now.after(CALM_LATE_MAX)) {
            let has_row = rows.iter().any(|(from, through)| (*from..=*through).contains(&moment));
            self.unless(has_row, || format!("{id} at {moment} is forgotten"));
            at = next(schedule, moment);
        }
    }

    /// The world is over: whatever has come is settled, and nothing waits for what is over.
    pub fn close(&mut self, model: &Model, are_all_held: bool) {
        for (id, Row { schedule, paused, .. }) in &model.rows {
            self.covers_all(model, id);
            let settled_to = model.now.before(CALM_LATE_MAX);
            let is_on_time = *paused || schedule.next_at > settled_to || next(schedule, schedule.changed_at).is_none();
            self.unless(is_on_time, || format!("{id} stands at {} at {}", schedule.next_at, model.now));
            let idle = self.idle_since.get(id).copied().unwrap_or(Timestamp::MIN);
            let waits = schedule.buffered_at.filter(|_| !paused && are_all_held && idle < settled_to);
            if let Some(at) = waits.filter(|_| model.active(id).is_empty()) {
                self.broken.push(format!("{id} at {at} waits for nothing"));
            }
        }
    }

    fn unless(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.broken.push(what());
        }
    }
}

/// Whether a row stands for this moment.
fn covers(occurrence: &Occurrence, at: Timestamp) -> bool {
    (occurrence.scheduled_for..=occurrence.through.unwrap_or(occurrence.scheduled_for)).contains(&at)
}

fn is_moment(schedule: &Schedule, at: Timestamp) -> bool {
    next(schedule, at.before(INSTANT)) == Some(at)
}

/// The first moment later than `after`: of an interval, or of an expression that names every so many seconds of a minute.
fn next(schedule: &Schedule, after: Timestamp) -> Option<Timestamp> {
    let rule = &schedule.rule;
    let from = after.micros() + 1;
    let from = rule.start_at.map_or(from, |start| from.max(start.micros()));
    let (anchor, span) = match &rule.when {
        When::Every(span) => (rule.start_at.unwrap_or(schedule.created_at).micros(), span.as_micros()),
        When::Cron(cron) => {
            let seconds: u128 = cron.strip_prefix("*/").unwrap().split(' ').next().unwrap().parse().unwrap();
            (0, seconds * 1_000_000)
        }
    };
    let span = i64::try_from(span).unwrap();
    let times = (from - anchor + span - 1).div_euclid(span).max(0);
    Some(Timestamp::from_micros(anchor + times * span)).filter(|at| rule.end_at.is_none_or(|end| *at <= end))
}
