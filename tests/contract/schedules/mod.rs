//! What every `dispatch::ports::ScheduleStore` must do, and what the tables do by themselves when a client writes them: the same
//! cases run against PostgreSQL and against the model that the simulation of schedules relies on.
//!
//! A [`World`] is a store without schedules, and what stands behind its back: clients, and the callbacks of what has fired.
//! Plans are written by hand here, or made by the rule; what a store must do does not depend on it.

mod cancels;
mod clients;
mod looks;
mod settles;

use std::time::Duration;

use walclock::clock::Timestamp;
use walclock::dispatch::ports::{Due, DueRequest, Planned, ScheduleStore};
use walclock::domain::schedule::{Occurrence, Outcome, Overlap, Plan, Reason, Rule, Schedule, When};
use walclock::domain::shard::Shard;
use walclock::domain::timer::TimerKey;

pub use cancels::*;
pub use clients::*;
pub use looks::*;
pub use settles::*;

/// A store without schedules, and what happens to its tables without it. All schedules are of one namespace.
pub trait World {
    /// The store under test.
    type Store: ScheduleStore;
    /// What another session's open transaction has locked.
    type Hold;

    /// The store under test.
    fn store(&self) -> &Self::Store;

    /// The database's clock.
    async fn now(&self) -> Timestamp;

    /// A client writes a schedule whole, in place of the one of that name.
    async fn put(&self, id: &str, rule: &Rule, paused: bool);

    /// A client deletes a schedule.
    async fn delete(&self, id: &str);

    /// A client fires a schedule now; whether there is one of that name.
    async fn trigger(&self, id: &str) -> bool;

    /// Somebody sets back what the server keeps with a schedule, behind its back: as a row of an older backup would.
    async fn set_back(&self, id: &str, next_at: Timestamp, buffered_at: Option<Timestamp>);

    /// Another client locks a schedule's row in an open transaction.
    async fn hold(&self, id: &str) -> Self::Hold;

    /// That transaction ends.
    async fn end(&self, hold: Self::Hold);

    /// From now on the database refuses every timer of this schedule.
    async fn refuse(&self, id: &str);

    /// A client makes a timer of its own, under the very id that the one of a moment has.
    async fn put_timer(&self, id: &str, at: Timestamp, due_at: Timestamp);

    /// The callback of a moment gets under way.
    async fn claim(&self, id: &str, at: Timestamp);

    /// The callback under way fails, and is to be tried again at a moment.
    async fn retry(&self, id: &str, at: Timestamp, again_at: Timestamp);

    /// The callback under way comes to its end.
    async fn finish(&self, id: &str, at: Timestamp);

    /// What stands with a moment was written so long ago.
    async fn age(&self, id: &str, at: Timestamp, span: Duration);

    /// What became of moments is deleted where the retention has passed it.
    async fn purge(&self, retention: Duration);

    /// The row of a schedule.
    async fn row(&self, id: &str) -> Option<Row>;

    /// What stands with the moments of a schedule, in their order.
    async fn moments(&self, id: &str) -> Vec<Moment>;

    /// The callback of a moment, while it is not over.
    async fn callback(&self, id: &str, at: Timestamp) -> Option<Callback>;
}

/// A schedule at rest: what the server keeps with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub paused: bool,
    pub next_at: Timestamp,
    pub buffered_at: Option<Timestamp>,
    pub changed_at: Timestamp,
    pub revision: i64,
    pub error: Option<String>,
}

/// What stands with a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    pub scheduled_for: Timestamp,
    pub state: State,
    pub reason: Option<String>,
    pub through: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Fired,
    Buffered,
    Skipped,
    Cancelled,
}

/// A callback that is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Callback {
    pub due_at: Timestamp,
    pub attempts: u32,
    pub running: bool,
    /// It is under way, and not tried again.
    pub cancelled: bool,
}

/// The namespace of all schedules.
pub const NAMESPACE: &str = "n";
/// Between two moments of a schedule here.
pub const MINUTE: Duration = Duration::from_secs(60);
/// The most that a look asks for here.
pub const LIMIT: usize = 100;
/// A reason that cancelled moments have.
pub const OVERTAKEN: &str = "a later occurrence takes its place";

/// The name of a schedule.
pub fn key(id: &str) -> TimerKey {
    TimerKey::new(NAMESPACE, id)
}

/// Every minute, with this policy.
pub fn minutely(overlap: Overlap) -> Rule {
    Rule { overlap, ..Rule::new(When::Every(MINUTE)) }
}

/// A moment that lies so many minutes ahead by the store's clock, or behind: far from it either way.
pub async fn minute(world: &impl World, number: i32) -> Timestamp {
    let minutes = MINUTE * number.unsigned_abs();
    let now = world.now().await;
    if number < 0 { now.before(minutes) } else { now.after(minutes) }
}

/// So many moments in a row, a minute apart; the first one lies `first` minutes ahead.
pub async fn minutes<const COUNT: usize>(world: &impl World, first: i32) -> [Timestamp; COUNT] {
    let first = minute(world, first).await;
    std::array::from_fn(|index| first.after(MINUTE * u32::try_from(index).unwrap()))
}

/// Looks for what is due at `now`, as one who holds all shards.
pub async fn look(world: &impl World, now: Timestamp, until: Timestamp) -> Due {
    let shards = Shard::all().collect();
    let request = DueRequest { shards, now, until, overdue: now.before(MINUTE), limit: LIMIT };
    world.store().due(request).await.unwrap()
}

/// The ids of what a look finds, in its order.
pub fn ids(due: &Due) -> Vec<String> {
    due.schedules.iter().map(|schedule| schedule.key.id.to_string()).collect()
}

/// The schedule of this name, as a look reads it once its moment has come.
pub async fn read(world: &impl World, id: &str) -> Schedule {
    let next_at = world.row(id).await.expect("there is such a schedule").next_at;
    let now = next_at.max(world.now().await);
    let found = look(world, now, now).await.schedules.into_iter().find(|schedule| *schedule.key.id == *id);
    found.unwrap_or_else(|| panic!("{id} is due at {now}"))
}

/// A plan that goes on at `next_at`.
pub fn go_on(next_at: Timestamp, occurrences: Vec<Occurrence>) -> Plan {
    Plan { next_at, occurrences, ..Plan::default() }
}

/// A moment that fires.
pub fn fire(at: Timestamp) -> Occurrence {
    Occurrence { scheduled_for: at, through: None, execute_at: at, outcome: Outcome::Fire }
}

/// A moment that waits.
pub fn buffer(at: Timestamp) -> Occurrence {
    Occurrence { outcome: Outcome::Buffer, ..fire(at) }
}

/// A moment that is left out.
pub fn skip(at: Timestamp, reason: Reason) -> Occurrence {
    Occurrence { outcome: Outcome::Skip(reason), ..fire(at) }
}

/// Settles a plan for the schedule as it stands; whether it was.
pub async fn settle(world: &impl World, id: &str, plan: Plan) -> bool {
    let planned = Planned { schedule: read(world, id).await, plan };
    settle_all(world, &[planned]).await[0]
}

pub async fn settle_all(world: &impl World, planned: &[Planned]) -> Vec<bool> {
    world.store().settle(planned).await.unwrap().iter().map(Option::is_some).collect()
}

/// Has a moment fire, and the schedule go on at the one behind it.
pub async fn fired(world: &impl World, id: &str, at: Timestamp) {
    assert!(settle(world, id, go_on(at.after(MINUTE), vec![fire(at)])).await);
}

/// The moments that stand with a schedule, and their states.
pub async fn states(world: &impl World, id: &str) -> Vec<(Timestamp, State)> {
    world.moments(id).await.into_iter().map(|moment| (moment.scheduled_for, moment.state)).collect()
}

/// Makes a test of every case; `$test` is a macro that takes a case's name and makes its test.
macro_rules! for_each_schedule_case {
    ($test:ident) => {
        $test! { a_look_returns_the_whole_schedule }
        $test! { what_has_come_is_found_in_its_order_and_what_lies_ahead_behind_it }
        $test! { a_look_keeps_to_its_limit }
        $test! { what_lies_ahead_is_found_where_no_callback_is_in_its_way }
        $test! { a_callback_is_in_the_way_until_it_is_over }
        $test! { so_many_of_the_last_callbacks_are_looked_at }
        $test! { a_schedule_of_another_shard_is_left_alone_until_it_is_overdue }
        $test! { the_first_moment_ahead_is_told }
        $test! { what_waits_is_found_once_no_callback_is_in_its_way }
        $test! { what_is_due_and_waits_is_found_once }
        $test! { a_paused_schedule_is_not_found }
        $test! { what_was_decided_is_written }
        $test! { a_schedule_without_a_further_moment_rests }
        $test! { of_two_plans_of_one_revision_one_is_settled }
        $test! { what_was_planned_before_a_change_changes_nothing }
        $test! { what_was_planned_for_one_changes_no_other_that_has_its_name }
        $test! { what_was_planned_from_another_moment_changes_nothing }
        $test! { a_moment_whose_key_is_taken_makes_no_second_timer }
        $test! { a_timer_that_has_the_id_already_is_left_as_it_is }
        $test! { what_has_waited_leaves_once }
        $test! { what_waits_under_a_key_that_is_taken_does_not_leave }
        $test! { what_waits_leaves_while_another_begins_to_wait }
        $test! { what_comes_too_late_lets_go_nothing }
        $test! { each_of_a_batch_is_settled_by_itself }
        $test! { one_that_is_named_twice_is_settled_once }
        $test! { what_the_database_refuses_holds_up_itself_only }
        $test! { what_makes_no_sense_is_told_and_rests_until_it_is_changed }
        $test! { a_schedule_that_another_transaction_holds_is_left_for_the_next_time }
        $test! { a_later_moment_ends_those_before_it }
        $test! { what_was_ended_under_way_is_not_tried_again }
        $test! { a_moment_ends_no_later_one_and_no_other_schedules }
        $test! { a_plan_that_comes_too_late_ends_nothing }
        $test! { what_was_made_ahead_is_withdrawn_by_a_change }
        $test! { what_has_begun_or_come_is_not_withdrawn }
        $test! { a_change_of_when_it_recurs_counts_from_then_on }
        $test! { a_change_keeps_what_waits }
        $test! { a_pause_withdraws_what_lies_ahead_and_goes_on_there }
        $test! { a_deletion_withdraws_what_lies_ahead_and_leaves_the_rest }
        $test! { a_trigger_fires_now_besides_the_moments }
        $test! { a_trigger_needs_a_schedule_and_no_more }
        $test! { occurrences_go_with_the_retention }
        $test! { what_waits_still_stays }
        $test! { what_waited_for_a_schedule_that_is_gone_goes }
    };
}

pub(crate) use for_each_schedule_case;
