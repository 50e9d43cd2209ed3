//! The dispatcher's port for schedules: what is near, and what becomes of it.

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::rows;
use crate::clock::Timestamp;
use crate::dispatch::ports::{Due, DueRequest, Planned, ScheduleStore, Unavailable};
use crate::domain::causes;
use crate::domain::limits;
use crate::domain::schedule::{Outcome, Plan, Reason, Schedule};
use crate::domain::stored;
use crate::store::dispatch::load::bits;
use crate::store::pool::{self, Lent};
use crate::store::{Error, Store};

const LOAD_DUE: &str = include_str!("../../../sql/queries/schedules/load_due.sql");
const LOAD_RELEASED: &str = include_str!("../../../sql/queries/schedules/load_released.sql");
const FIND_NEXT: &str = include_str!("../../../sql/queries/schedules/find_next.sql");
const SETTLE: &str = include_str!("../../../sql/queries/schedules/settle.sql");
const CANCEL_OTHERS: &str = include_str!("../../../sql/queries/schedules/cancel_others.sql");
/// Why a moment does not fire whose timer's id is taken.
const TAKEN: &str = Reason::Taken.as_str();
/// Where each is settled by itself, a wait for a row that somebody holds holds up all the others.
const BEGIN_APART: &str = "begin; set local lock_timeout = '5ms'";

impl ScheduleStore for Store {
    async fn due(&self, request: DueRequest) -> Result<Due, Unavailable> {
        let client = Lent::from(&self.schedules).await?;
        let DueRequest { shards, now, until, overdue, limit } = request;
        let (shards, limit) = (bits(&shards), i64::try_from(limit).unwrap_or(i64::MAX));
        let (due, released, next) = client
            .ask("looking for schedules", async {
                let (load_due, load_released, find_next) = tokio::try_join!(
                    client.prepare_cached(LOAD_DUE),
                    client.prepare_cached(LOAD_RELEASED),
                    client.prepare_cached(FIND_NEXT)
                )?;
                let due: [&(dyn ToSql + Sync); 5] = [&shards, &now, &until, &overdue, &limit];
                let released: [&(dyn ToSql + Sync); 2] = [&shards, &limit];
                let next: [&(dyn ToSql + Sync); 3] = [&shards, &now, &until];
                // All are on their way at once: one round trip.
                tokio::try_join!(
                    client.query(&load_due, &due),
                    client.query(&load_released, &released),
                    client.query_opt(&find_next, &next)
                )
            })
            .await?;
        let mut schedules: Vec<Schedule> = due.iter().chain(&released).filter_map(readable).collect();
        // The one that is due and waits too was read twice, and planned once it is for both.
        let mut seen = std::collections::BTreeSet::new();
        schedules.retain(|schedule| seen.insert(schedule.key.clone()));
        Ok(Due { schedules, next_at: next.map(|row| row.get(0)) })
    }

    async fn settle(&self, planned: &[Planned]) -> Result<Vec<Option<u64>>, Unavailable> {
        let client = Lent::from(&self.schedules).await?;
        let mut settled = vec![None; planned.len()];
        match settle_at_once(&client, planned, &mut settled, None).await {
            Err(error) if error.is_about_one() => {}
            answer => return answer.map(|()| settled).map_err(Unavailable::from),
        }
        for (one, settled) in planned.iter().zip(&mut settled) {
            let (one, settled) = (std::slice::from_ref(one), std::slice::from_mut(settled));
            match settle_at_once(&client, one, settled, Some(BEGIN_APART)).await {
                // One that the database refuses holds up itself only, and is told why, also where it is the only one.
                Err(error) if error.is_about_rows() => refuse(&client, &one[0], &error).await?,
                // Somebody holds a timer or a run that it is to end, or the id of the timer that it is to make. Nothing is
                // wrong with it: it is left for the next time.
                Err(error) if error.is_about_one() => {
                    let (schedule, cause) = (&one[0].schedule.key, causes::innermost(&error));
                    tracing::debug!(%schedule, cause, "a schedule is left for the next time");
                }
                answer => answer?,
            }
        }
        Ok(settled)
    }
}

/// A schedule that cannot be read holds up no other.
fn readable(row: &Row) -> Option<Schedule> {
    let schedule = rows::schedule(row).inspect_err(|error| {
        let id: &str = row.try_get("id").unwrap_or_default();
        tracing::error!(schedule = id, %error, "a schedule cannot be read");
    });
    schedule.ok()
}

/// Notes with the schedule why nothing can be made of it.
async fn refuse(client: &Lent, Planned { schedule, .. }: &Planned, error: &Error) -> Result<(), Error> {
    let cause = causes::innermost(error);
    tracing::error!(schedule = %schedule.key, cause, "a schedule's timers cannot be made");
    metrics::counter!("walclock_schedule_errors_total").increment(1);
    let error = Some(stored::text(&cause, limits::ERROR_BYTES_MAX));
    let (next_at, buffered_at) = (schedule.next_at, schedule.buffered_at);
    let plan = Plan { next_at, buffered_at, error, ..Plan::default() };
    settle_at_once(client, &[Planned { schedule: schedule.clone(), plan }], &mut [None], None).await
}

/// Settles all of them in one statement, and marks those that were by how many of their moments are left out. `begin` opens the
/// transaction where it is to be another than usual.
async fn settle_at_once(
    client: &Lent,
    planned: &[Planned],
    settled: &mut [Option<u64>],
    begin: Option<&str>,
) -> Result<(), Error> {
    let batch = Batch::new(planned);
    let cancels = planned.iter().any(|planned| planned.plan.cancel);
    let numbers = client.ask("settling schedules", async {
        let statement = client.prepare_cached(SETTLE).await?;
        // What is ended and what takes its place come to pass together or not at all.
        let Some(begin) = begin.or(cancels.then_some(pool::BEGIN)) else {
            return client.query(&statement, &batch.parameters()).await;
        };
        client.batch_execute(begin).await?;
        let both = async {
            let numbers = client.query(&statement, &batch.parameters()).await?;
            if cancels {
                cancel_others(client, planned, &numbers).await?;
            }
            client.batch_execute(pool::COMMIT).await?;
            Ok(numbers)
        };
        match both.await {
            Ok(numbers) => Ok(numbers),
            Err(error) => {
                client.batch_execute(pool::ROLLBACK).await?;
                Err(error)
            }
        }
    });
    for number in numbers.await? {
        let Some(place) = place(&number) else { continue };
        if let Some(settled) = settled.get_mut(place) {
            *settled = Some(clashes(&number));
        }
        if let Some(planned) = planned.get(place).filter(|_| clashes(&number) > 0) {
            let schedule = &planned.schedule.key;
            tracing::warn!(%schedule, "a moment of a schedule is left out: another timer has the id that its own would have");
        }
    }
    Ok(())
}

/// Ends the callbacks before those that were fired.
async fn cancel_others(client: &Lent, planned: &[Planned], numbers: &[Row]) -> Result<(), tokio_postgres::Error> {
    let fired = |plan: &Plan| plan.occurrences.iter().rfind(|o| o.outcome == Outcome::Fire).map(|o| o.scheduled_for);
    // What is left out ends nothing.
    let done =
        numbers.iter().filter(|number| clashes(number) == 0).filter_map(place).filter_map(|place| planned.get(place));
    let cancelling = done.filter(|planned| planned.plan.cancel);
    let moments: Vec<(&Planned, Timestamp)> =
        cancelling.filter_map(|planned| Some((planned, fired(&planned.plan)?))).collect();
    let namespaces: Vec<&str> = moments.iter().map(|(planned, _)| &*planned.schedule.key.namespace).collect();
    let ids: Vec<&str> = moments.iter().map(|(planned, _)| &*planned.schedule.key.id).collect();
    let moments: Vec<Timestamp> = moments.iter().map(|(_, at)| *at).collect();
    let statement = client.prepare_cached(CANCEL_OTHERS).await?;
    // A claim that the first one has waited for shows its run to the second one only.
    for _ in 0..2 {
        client.execute(&statement, &[&namespaces, &ids, &moments]).await?;
    }
    Ok(())
}

/// The place in the batch of a number from 1.
fn place(row: &Row) -> Option<usize> {
    usize::try_from(row.get::<_, i64>(0)).ok()?.checked_sub(1)
}

/// How many moments are left out because their timers' ids are taken.
fn clashes(row: &Row) -> u64 {
    u64::try_from(row.get::<_, i64>(1)).unwrap_or(0)
}

/// What was decided, as the statement takes it.
#[derive(Default)]
struct Batch<'a> {
    namespaces: Vec<&'a str>,
    ids: Vec<&'a str>,
    revisions: Vec<i64>,
    read_at: Vec<Timestamp>,
    next_at: Vec<Timestamp>,
    buffered_at: Vec<Option<Timestamp>>,
    errors: Vec<Option<String>>,
    release_at: Vec<Option<Timestamp>>,
    numbers: Vec<i64>,
    scheduled_for: Vec<Timestamp>,
    execute_at: Vec<Timestamp>,
    states: Vec<&'static str>,
    reasons: Vec<Option<&'static str>>,
    through_at: Vec<Option<Timestamp>>,
    changed_at: Vec<Timestamp>,
}

impl<'a> Batch<'a> {
    fn new(planned: &'a [Planned]) -> Self {
        let mut batch = Self::default();
        for (number, Planned { schedule, plan }) in (1_i64..).zip(planned) {
            batch.namespaces.push(&schedule.key.namespace);
            batch.ids.push(&schedule.key.id);
            batch.revisions.push(schedule.revision);
            batch.read_at.push(schedule.next_at);
            batch.changed_at.push(schedule.changed_at);
            batch.next_at.push(plan.next_at);
            batch.buffered_at.push(plan.buffered_at);
            batch.errors.push(plan.error.as_deref().map(|error| stored::text(error, limits::ERROR_BYTES_MAX)));
            batch.release_at.push(plan.release_at);
            for occurrence in &plan.occurrences {
                let (state, reason) = match occurrence.outcome {
                    Outcome::Fire => ("fired", None),
                    Outcome::Buffer => ("buffered", None),
                    Outcome::Skip(reason) => ("skipped", Some(reason.as_str())),
                };
                batch.numbers.push(number);
                batch.scheduled_for.push(occurrence.scheduled_for);
                batch.execute_at.push(occurrence.execute_at);
                batch.states.push(state);
                batch.reasons.push(reason);
                batch.through_at.push(occurrence.through);
            }
        }
        batch
    }

    fn parameters(&self) -> [&(dyn ToSql + Sync); 16] {
        [
            &self.namespaces,
            &self.ids,
            &self.revisions,
            &self.read_at,
            &self.next_at,
            &self.buffered_at,
            &self.errors,
            &self.release_at,
            &self.numbers,
            &self.scheduled_for,
            &self.execute_at,
            &self.states,
            &self.reasons,
            &self.through_at,
            &self.changed_at,
            &TAKEN,
        ]
    }
}
