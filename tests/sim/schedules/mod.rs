//! Schedules in the simulation: several dispatchers settle the moments of the same schedules, with the machine that the
//! binary runs, against a model of the store.

mod ledger;
mod model;
mod store;
mod world;

use walclock::clock::Timestamp;
use walclock::dispatch::schedules::{Effect, Event};
use walclock::domain::schedule::{CatchUp, Overlap, Schedule};

use crate::{SEEDS_TO_FIND, check, run};
use world::{Outcome, World};

/// Seeds of the normal test.
const SEEDS: u64 = 1_000;

/// A defence that a simulated process, or the store, goes without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// None: everything is as it should be.
    Nothing,
    /// The store makes a timer also for a moment that has its row.
    IgnoresKeys,
    /// The store carries out what was planned on an older row.
    SettlesStalePlans,
    /// The store takes a schedule for one that had its name before.
    TakesSuccessors,
    /// The store lets go what waits whatever is not over.
    ReleasesAtOnce,
    /// The store leaves what was made ahead where a schedule changes.
    WithdrawsNothing,
    /// The store does not end what a later moment ends.
    EndsNoOther,
    /// The store tries again what a later moment has ended.
    RetriesWhatIsEnded,
    /// The clock runs ahead of PostgreSQL's.
    ClockAhead,
    /// Schedules of other dispatchers are never looked at.
    LeavesToOthers,
    /// All are taken for over.
    OverlooksActive,
    /// None is taken for over.
    OverlooksEnds,
    /// All may overlap.
    AllowsOverlap,
    /// Another moment may wait while one does.
    OverlooksWaiting,
    /// What was missed is always made up for.
    MakesUpForAll,
    /// What was missed is never made up for.
    MakesUpForNothing,
    /// What was missed counts however long ago it was.
    WindowIsOpen,
    /// Of a plan of several moments the first one is lost.
    LosesMoments,
}

impl Planted {
    /// What a process is told, without the defence.
    fn left_out_of(self, event: Event) -> Event {
        match event {
            Event::Loaded(Ok(mut due)) => {
                due.schedules.iter_mut().for_each(|schedule| self.mislead(schedule));
                Event::Loaded(Ok(due))
            }
            event => event,
        }
    }

    fn mislead(self, schedule: &mut Schedule) {
        let rule = &mut schedule.rule;
        match self {
            Self::OverlooksActive => schedule.active = false,
            Self::OverlooksEnds => schedule.active = true,
            Self::OverlooksWaiting if schedule.active => schedule.buffered_at = None,
            Self::AllowsOverlap => rule.overlap = Overlap::Allow,
            Self::MakesUpForAll => rule.catch_up = CatchUp::All,
            Self::MakesUpForNothing => rule.catch_up = CatchUp::None,
            Self::WindowIsOpen => rule.catch_up_window = std::time::Duration::from_secs(86_400),
            _ => {}
        }
    }

    /// What a process asks for, without the defence.
    fn left_out_of_what_is_asked(self, effect: Effect) -> Effect {
        match (self, effect) {
            (Self::LeavesToOthers, Effect::Load(mut request)) => {
                request.overdue = Timestamp::MIN;
                Effect::Load(request)
            }
            (Self::LosesMoments, Effect::Settle(mut planned)) => {
                for one in planned.iter_mut().filter(|one| one.plan.occurrences.len() > 1) {
                    one.plan.occurrences.remove(0);
                }
                Effect::Settle(planned)
            }
            (_, effect) => effect,
        }
    }
}

#[test]
fn schedules_keep_their_promises_under_every_fault() {
    let outcomes = check(SEEDS, |seed| judged(World::run(seed, Planted::Nothing)));
    let sum = |count: fn(&Outcome) -> u64| outcomes.iter().map(count).sum::<u64>();
    let worlds = u64::try_from(outcomes.len()).unwrap();
    // A simulation in which nothing happens proves nothing.
    if worlds > 100 {
        for (what, count, least) in [
            ("plans", sum(|outcome| outcome.settled), 10 * worlds),
            ("plans that came too late", sum(|outcome| outcome.stale), worlds / 2),
            ("timers", sum(|outcome| outcome.ledger.fired), 10 * worlds),
            ("missed moments", sum(|outcome| outcome.ledger.missed), worlds),
            ("overlaps", sum(|outcome| outcome.ledger.overlapped), worlds),
            ("moments that have waited", sum(|outcome| outcome.ledger.released), worlds / 2),
        ] {
            assert!(count > least, "{count} {what} in {worlds} worlds");
        }
    }
}

fn judged(mut outcome: Outcome) -> (Outcome, Vec<String>) {
    let broken = std::mem::take(&mut outcome.ledger.broken);
    (outcome, broken)
}

/// Each defence is left out in turn, and the simulation must see it by what the defence is for.
fn finds(planted: Planted, words: &str) {
    let seeds: Vec<u64> = (0..SEEDS_TO_FIND).collect();
    let (_, failed) = run(&seeds, |seed| judged(World::run(seed, planted)));
    let (seed, broken) = failed.unwrap_or_else(|| panic!("{planted:?} is not found within {SEEDS_TO_FIND} seeds"));
    let is_it = |what: &String| what.contains(words) && !what.starts_with("panic");
    assert!(broken.iter().any(is_it), "SEED={seed} finds of {planted:?}: {broken:?}");
}

macro_rules! finds {
    ($($name:ident: $planted:ident by $words:literal;)*) => {
        $(#[test]
        fn $name() {
            finds(Planted::$planted, $words);
        })*
    };
}

finds! {
    finds_that_a_moment_has_two_timers: IgnoresKeys by "has two timers";
    finds_that_old_plans_are_carried_out: SettlesStalePlans by "";
    finds_that_a_successor_is_taken_for_a_schedule: TakesSuccessors by "as it stands";
    finds_that_what_waits_is_let_go_at_once: ReleasesAtOnce by "overlap:";
    finds_that_nothing_is_withdrawn: WithdrawsNothing by "though it was withdrawn";
    finds_that_the_last_one_is_not_ended: EndsNoOther by "overlap:";
    finds_that_what_is_ended_is_tried_again: RetriesWhatIsEnded by "though it was ended";
    finds_that_moments_are_settled_before_they_have_come: ClockAhead by "before it has come";
    finds_that_nobody_minds_the_schedules_of_the_gone: LeavesToOthers by "stands at";
    finds_that_nobody_minds_what_is_not_over: OverlooksActive by "overlap:";
    finds_that_nobody_minds_what_is_over: OverlooksEnds by "overlap:";
    finds_that_schedules_overlap_against_their_policy: AllowsOverlap by "overlap:";
    finds_that_several_wait: OverlooksWaiting by "overlap:";
    finds_that_too_much_is_made_up_for: MakesUpForAll by "catch-up:";
    finds_that_nothing_is_made_up_for: MakesUpForNothing by "catch-up:";
    finds_that_the_window_is_open: WindowIsOpen by "catch-up:";
    finds_that_moments_are_lost: LosesMoments by "is settled 0 times";
}
