//! Storing new timers: one, or many in one transaction.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use deadpool_postgres::{Client, GenericClient};
use serde_json::value::RawValue;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{Json, ToSql};

use super::{Error, Written, attempts, refused, seconds};
use crate::clock::Timestamp;
use crate::domain::limits;
use crate::domain::timer::{Definition, check_execute_at};
use crate::store::time::Span;

const CREATE: &str = include_str!("../../../sql/queries/timers/create.sql");
const CREATE_MANY: &str = include_str!("../../../sql/queries/timers/create_many.sql");

/// How long one part of many timers waits for a row that another transaction holds, once it is known that there is trouble:
/// each such row may cost this wait several times.
const PART_LOCK_WAIT: Duration = Duration::from_millis(20);
/// How long it may take to find those of many timers that cannot be stored. The others are locked meanwhile.
const PARTS_TIME_MAX: Duration = Duration::from_secs(10);

/// Stores a timer whole, in place of the pending one of that name; returns the moment that counts as its creation.
/// A namespace that is not listed is made where `make_namespace` says so. `now` is PostgreSQL's unless it is given.
pub async fn create(
    client: &impl GenericClient,
    definition: &Definition,
    make_namespace: bool,
    now: Option<Timestamp>,
) -> Result<Written<Timestamp>, Error> {
    let doing = "creating a timer";
    let statement = client.prepare_cached(CREATE).await.map_err(Error::unavailable(doing))?;
    let Definition { key, execute_at, callback, payload, retry } = definition;
    let row = client
        .query_one(
            &statement,
            &[
                &&*key.namespace,
                &&*key.id,
                execute_at,
                &callback.url,
                &callback.method,
                &Json(&callback.headers),
                &seconds(callback.timeout),
                &payload.as_deref().map(Json::<&RawValue>),
                &retry.attempts_max.map(attempts),
                &Span(retry.attempts_duration),
                &Span(retry.interval_first),
                &retry.multiplier,
                &Span(retry.interval_max),
                &make_namespace,
                &Span(limits::EXECUTE_AT_AHEAD_MAX),
                &now,
            ],
        )
        .await;
    let row = match row {
        Ok(row) => row,
        Err(error) => return refused(Error::unavailable(doing)(error)),
    };
    let (now, stored) = both(&row, "now", "stored").map_err(Error::unavailable(doing))?;
    Ok(created(definition, now, stored))
}

/// What became of a timer where PostgreSQL's clock showed `now`, and its namespace was there or not.
fn created(definition: &Definition, now: Timestamp, in_namespace: bool) -> Written<Timestamp> {
    match (check_execute_at(definition.execute_at, now), in_namespace) {
        (Err(invalid), _) => Written::Untimely(invalid),
        (Ok(()), false) => Written::Missing,
        (Ok(()), true) => Written::Done(now),
    }
}

fn both<'a, A, B>(row: &'a Row, first: &str, second: &str) -> Result<(A, B), tokio_postgres::Error>
where
    A: tokio_postgres::types::FromSql<'a>,
    B: tokio_postgres::types::FromSql<'a>,
{
    Ok((row.try_get(first)?, row.try_get(second)?))
}

/// What became of each of many timers, in their order. Where one cannot be written, its place says why.
pub type Many = Vec<Result<Written<Timestamp>, Error>>;

/// Stores timers as [`create`] would in their order, but in one transaction: those that cannot be stored are left out, and
/// all the others are there at once. A row that another transaction holds is waited for at most `lock_wait`.
pub async fn create_many(
    client: &mut Client,
    definitions: &[&Definition],
    make_namespaces: bool,
    lock_wait: Duration,
    now: Option<Timestamp>,
) -> Result<Many, Error> {
    let batch = Batch { make_namespaces, lock_wait, now };
    match batch.store(&*client, definitions).await {
        Ok(stored) => Ok(stored.into_iter().map(Ok).collect()),
        Err(error) if is_about_one(&error) => {
            Batch { lock_wait: lock_wait.min(PART_LOCK_WAIT), ..batch }.store_in_parts(client, definitions).await
        }
        Err(error) => Err(error),
    }
}

/// Whether a statement failed for the sake of one of its rows.
fn is_about_one(error: &Error) -> bool {
    let locked = [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED];
    error.is_about_rows() || error.sql_state().is_some_and(|state| locked.contains(state))
}

/// How many timers are stored.
#[derive(Clone, Copy)]
struct Batch {
    make_namespaces: bool,
    lock_wait: Duration,
    now: Option<Timestamp>,
}

impl Batch {
    /// All by one statement.
    async fn store(
        self,
        client: &impl GenericClient,
        definitions: &[&Definition],
    ) -> Result<Vec<Written<Timestamp>>, Error> {
        let doing = "creating timers";
        let statement = client.prepare_cached(CREATE_MANY).await.map_err(Error::unavailable(doing))?;
        let columns = Columns::of(definitions);
        let wait = format!("{}ms", self.lock_wait.as_millis());
        let mut parameters = columns.parameters();
        let ahead = Span(limits::EXECUTE_AT_AHEAD_MAX);
        let settings: [&(dyn ToSql + Sync); 4] = [&self.make_namespaces, &ahead, &wait, &self.now];
        parameters.extend(settings);
        let row = client.query_one(&statement, &parameters).await.map_err(Error::unavailable(doing))?;
        let (now, unknown): (_, Vec<&str>) =
            both(&row, "now", "unknown_namespaces").map_err(Error::unavailable(doing))?;
        let is_known = |definition: &Definition| !unknown.contains(&&*definition.key.namespace);
        Ok(definitions.iter().map(|definition| created(definition, now, is_known(definition))).collect())
    }

    /// Halves what fails until what is to blame stands alone. All in one transaction, in the order of the timers: of two of
    /// one name the later is stored later.
    async fn store_in_parts(self, client: &mut Client, definitions: &[&Definition]) -> Result<Many, Error> {
        let doing = "creating timers one by one";
        let began = Instant::now();
        let mut transaction = client.transaction().await.map_err(Error::unavailable(doing))?;
        let mut stored = Vec::with_capacity(definitions.len());
        let mut parts = vec![definitions];
        while let Some(part) = parts.pop() {
            if began.elapsed() > PARTS_TIME_MAX {
                return Err(Error::unavailable(doing)("too many of them are held or refused"));
            }
            let savepoint = transaction.transaction().await.map_err(Error::unavailable(doing))?;
            match (self.store(&savepoint, part).await, part) {
                (Ok(part), _) => {
                    savepoint.commit().await.map_err(Error::unavailable(doing))?;
                    stored.extend(part.into_iter().map(Ok));
                    continue;
                }
                (Err(error), _) if !is_about_one(&error) => return Err(error),
                (Err(error), [_]) => stored.push(refused(error)),
                (Err(_), part) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
            }
            savepoint.rollback().await.map_err(Error::unavailable(doing))?;
        }
        transaction.commit().await.map_err(Error::unavailable(doing))?;
        Ok(stored)
    }
}

/// The definitions as the columns of a statement.
struct Columns<'a> {
    namespaces: Vec<&'a str>,
    ids: Vec<&'a str>,
    execute_at: Vec<Timestamp>,
    urls: Vec<&'a str>,
    methods: Vec<&'a str>,
    headers: Vec<Json<&'a BTreeMap<String, String>>>,
    timeouts: Vec<i16>,
    payloads: Vec<Option<Json<&'a RawValue>>>,
    attempts_max: Vec<Option<i32>>,
    durations: Vec<Span>,
    intervals_first: Vec<Span>,
    multipliers: Vec<f64>,
    intervals_max: Vec<Span>,
}

impl<'a> Columns<'a> {
    fn of(definitions: &[&'a Definition]) -> Self {
        fn column<'a, C>(definitions: &[&'a Definition], pick: impl Fn(&'a Definition) -> C) -> Vec<C> {
            definitions.iter().map(|definition| pick(definition)).collect()
        }
        Self {
            namespaces: column(definitions, |timer| &*timer.key.namespace),
            ids: column(definitions, |timer| &*timer.key.id),
            execute_at: column(definitions, |timer| timer.execute_at),
            urls: column(definitions, |timer| timer.callback.url.as_str()),
            methods: column(definitions, |timer| timer.callback.method.as_str()),
            headers: column(definitions, |timer| Json(&timer.callback.headers)),
            timeouts: column(definitions, |timer| seconds(timer.callback.timeout)),
            payloads: column(definitions, |timer| timer.payload.as_deref().map(Json)),
            attempts_max: column(definitions, |timer| timer.retry.attempts_max.map(attempts)),
            durations: column(definitions, |timer| Span(timer.retry.attempts_duration)),
            intervals_first: column(definitions, |timer| Span(timer.retry.interval_first)),
            multipliers: column(definitions, |timer| timer.retry.multiplier),
            intervals_max: column(definitions, |timer| Span(timer.retry.interval_max)),
        }
    }

    /// The first parameters of the statement, in its order.
    fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        vec![
            &self.namespaces,
            &self.ids,
            &self.execute_at,
            &self.urls,
            &self.methods,
            &self.headers,
            &self.timeouts,
            &self.payloads,
            &self.attempts_max,
            &self.durations,
            &self.intervals_first,
            &self.multipliers,
            &self.intervals_max,
        ]
    }
}
