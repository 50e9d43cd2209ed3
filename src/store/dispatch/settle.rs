//! How runs end.

use tokio_postgres::types::ToSql;

use super::Leases;
use super::under_way::UnderWay;
use crate::clock::Timestamp;
use crate::domain::callback::Verdict;
use crate::domain::lease::{Lease, Owner};
use crate::domain::limits;
use crate::domain::run::{Ending, RunKey, Settlement, State};
use crate::domain::stored;
use crate::store::Error;
use crate::store::pool::Lent;
use crate::store::time::{EARLIEST, LATEST};

const FINISH: &str = include_str!("../../../sql/queries/runs/finish.sql");
const PUT_BACK: &str = include_str!("../../../sql/queries/runs/put_back.sql");

/// How long one run that is put back alone waits for a row that another transaction holds: all of a batch may have to, and the
/// whole call has some seconds.
const PART_LOCK_WAIT: &str = "5ms";

/// A settlement, its place in the caller's list, and what it comes to.
struct Placed<'a, T> {
    place: usize,
    settlement: &'a Settlement,
    outcome: T,
}

impl<T> Placed<'_, T> {
    fn run(&self) -> &RunKey {
        &self.settlement.run.key
    }
}

/// When a timer that is put back is due again.
#[derive(Clone, Copy)]
struct Again {
    at: Timestamp,
    /// As a timer without attempts.
    anew: bool,
    /// As before its claim: no attempt was made.
    deferred: bool,
}

/// Writes back how runs ended. Says of each whether it was written, or why it could not be while others were.
pub async fn settle(
    client: &Lent,
    under_way: &UnderWay,
    owner: &Owner,
    settlements: &[Settlement],
) -> Result<Vec<Result<bool, Error>>, Error> {
    let (mut over, mut back) = (Vec::new(), Vec::new());
    for (place, settlement) in settlements.iter().enumerate() {
        let mut finish = |outcome: State| over.push(Placed { place, settlement, outcome });
        let mut put_back = |at: Timestamp, anew, deferred| {
            let outcome = Again { at: at.clamp(EARLIEST, LATEST), anew, deferred };
            back.push(Placed { place, settlement, outcome });
        };
        match settlement.ending {
            Ending::Succeeded => finish(State::Succeeded),
            Ending::Failed | Ending::GivenUp => finish(State::Failed),
            Ending::RetryAt(at) => put_back(at, false, false),
            Ending::Reschedule(at) => put_back(at, true, false),
            Ending::Defer(at) => put_back(at, false, true),
        }
    }
    let writer = Writer { client, under_way, owner };
    let mut written: Vec<_> = settlements.iter().map(|_| Ok(false)).collect();
    for batch in over.chunks(limits::BATCH_ROWS_MAX) {
        mark(&mut written, writer.finish(batch).await?);
    }
    for batch in back.chunks(limits::BATCH_ROWS_MAX) {
        writer.put_back(batch, &mut written).await?;
    }
    Ok(written)
}

fn mark(written: &mut [Result<bool, Error>], places: Vec<usize>) {
    for place in places {
        written[place] = Ok(true);
    }
}

/// What both statements take of each settlement.
struct Attempts<'a> {
    leases: Leases,
    namespaces: Vec<&'a str>,
    ids: Vec<&'a str>,
    claimed_at: Vec<Timestamp>,
    shards: Vec<i16>,
    epochs: Vec<i64>,
    sent_at: Vec<Option<Timestamp>>,
    answered_at: Vec<Timestamp>,
    status: Vec<Option<i16>>,
    reply: Vec<String>,
    errors: Vec<Option<String>>,
}

impl<'a> Attempts<'a> {
    fn new<T>(batch: &[Placed<'a, T>]) -> Self {
        fn column<'a, T, C>(batch: &[Placed<'a, T>], pick: impl Fn(&'a Settlement) -> C) -> Vec<C> {
            batch.iter().map(|placed| pick(placed.settlement)).collect()
        }
        let lease = |s: &Settlement| Lease { shard: s.run.key.timer.shard(), epoch: s.run.epoch };
        Self {
            leases: batch.iter().map(|placed| lease(placed.settlement)).collect(),
            namespaces: column(batch, |s| &*s.run.key.timer.namespace),
            ids: column(batch, |s| &*s.run.key.timer.id),
            claimed_at: column(batch, |s| s.run.key.claimed_at),
            shards: column(batch, |s| i16::from(s.run.key.timer.shard().0)),
            epochs: column(batch, |s| s.run.epoch.0),
            sent_at: column(batch, |s| Some(s.attempt.sent_at).filter(|_| s.ending != Ending::GivenUp)),
            answered_at: column(batch, |s| s.attempt.answered_at),
            status: column(batch, |s| s.attempt.status.and_then(|status| i16::try_from(status).ok())),
            reply: column(batch, |s| stored::text(&s.attempt.reply_head, limits::REPLY_HEAD_BYTES_MAX)),
            errors: column(batch, |s| {
                error(&s.attempt.verdict).map(|error| stored::text(error, limits::ERROR_BYTES_MAX))
            }),
        }
    }

    fn parameters<'b>(&'b self, owner: &'b Owner) -> Vec<&'b (dyn ToSql + Sync)> {
        vec![
            &owner.0,
            &self.leases.shards,
            &self.leases.epochs,
            &self.namespaces,
            &self.ids,
            &self.claimed_at,
            &self.shards,
            &self.epochs,
            &self.sent_at,
            &self.answered_at,
            &self.status,
            &self.reply,
            &self.errors,
        ]
    }
}

/// Writes batches of outcomes.
struct Writer<'a> {
    client: &'a Lent,
    under_way: &'a UnderWay,
    owner: &'a Owner,
}

impl Writer<'_> {
    /// Ends runs in place; returns the places of those that were.
    async fn finish(&self, batch: &[Placed<'_, State>]) -> Result<Vec<usize>, Error> {
        let states: Vec<&str> = batch.iter().map(|placed| placed.outcome.as_str()).collect();
        let attempts = Attempts::new(batch);
        let mut parameters = attempts.parameters(self.owner);
        parameters.push(&states);
        self.write("settling runs", FINISH, batch, parameters).await
    }

    /// Moves runs back to timers, and marks those that were moved, or superseded.
    ///
    /// A client that has inserted the same id and not yet committed makes the whole batch wait until the lock times out, and
    /// what one row cannot be written for fails all. Then each is tried alone, so that one holds up itself only; its place says
    /// why.
    async fn put_back(&self, batch: &[Placed<'_, Again>], written: &mut [Result<bool, Error>]) -> Result<(), Error> {
        match self.put_back_at_once(batch, None).await {
            Err(error) if error.is_about_one() => {}
            places => {
                mark(written, places?);
                return Ok(());
            }
        }
        for one in batch {
            match self.put_back_at_once(std::slice::from_ref(one), Some(PART_LOCK_WAIT)).await {
                Ok(places) => mark(written, places),
                Err(error) if error.is_about_one() => written[one.place] = Err(error),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits for a row that another transaction holds at most `lock_wait`, as PostgreSQL writes it, or as its session does.
    async fn put_back_at_once(
        &self,
        batch: &[Placed<'_, Again>],
        lock_wait: Option<&str>,
    ) -> Result<Vec<usize>, Error> {
        let again_at: Vec<Timestamp> = batch.iter().map(|placed| placed.outcome.at).collect();
        let anew: Vec<bool> = batch.iter().map(|placed| placed.outcome.anew).collect();
        let deferred: Vec<bool> = batch.iter().map(|placed| placed.outcome.deferred).collect();
        let attempts = Attempts::new(batch);
        let mut parameters = attempts.parameters(self.owner);
        parameters.extend([&again_at as &(dyn ToSql + Sync), &anew, &deferred, &lock_wait]);
        self.write("putting timers back", PUT_BACK, batch, parameters).await
    }

    /// Runs a statement that settles these runs, and whose last parameter is the claims that are over then; returns the places of
    /// the runs that it has settled.
    async fn write<T>(
        &self,
        doing: &'static str,
        statement: &str,
        batch: &[Placed<'_, T>],
        mut parameters: Vec<&(dyn ToSql + Sync)>,
    ) -> Result<Vec<usize>, Error> {
        let over = self.under_way.over_with(batch.iter().map(Placed::run));
        parameters.push(&over);
        let rows = self.client.ask(doing, async {
            let statement = self.client.prepare_cached(statement).await?;
            self.client.query(&statement, &parameters).await
        });
        let settled: Vec<_> = rows.await?.iter().filter_map(|row| numbered(batch, row)).collect();
        let forgotten = if settled.len() == batch.len() { &*over } else { &[] };
        self.under_way.settled(settled.iter().map(|placed| placed.run()), forgotten);
        Ok(settled.iter().map(|placed| placed.place).collect())
    }
}

/// The one that the number of this row, counted from 1 within the batch, stands for.
fn numbered<'a, 'b, T>(batch: &'a [Placed<'b, T>], row: &tokio_postgres::Row) -> Option<&'a Placed<'b, T>> {
    let number = usize::try_from(row.get::<_, i64>(0)).ok()?;
    batch.get(number.checked_sub(1)?)
}

fn error(verdict: &Verdict) -> Option<&str> {
    match verdict {
        Verdict::Succeeded | Verdict::Reschedule(_) => None,
        Verdict::Retry { error, .. } | Verdict::Failed { error } => Some(error),
    }
}
