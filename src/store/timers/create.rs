//! Storing new timers: one, or many in one transaction.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use tokio_postgres::types::{Json, ToSql};

use super::{Error, Written, attempts, refused, seconds};
use crate::clock::Timestamp;
use crate::domain::limits;
use crate::domain::timer::{Definition, check_execute_at};
use crate::store::pool::{self, Lent};
use crate::store::time::Span;

const CREATE: &str = include_str!("../../../sql/queries/timers/create.sql");
const CREATE_MANY: &str = include_str!("../../../sql/queries/timers/create_many.sql");

/// A part of a transaction that may be undone by itself, and leaves its name behind then.
const BEGIN_PART: &str = "savepoint part";
const KEEP_PART: &str = "release savepoint part";
const UNDO_PART: &str = "rollback to savepoint part; release savepoint part";
/// What is being done where those that can be stored are told from the others.
const ONE_BY_ONE: &str = "creating timers one by one";

/// How long one part of many timers waits for a row that another transaction holds, once it is known that there is trouble:
/// each such row may cost this wait several times.
const PART_LOCK_WAIT: Duration = Duration::from_millis(20);
/// How long it may take to find those of many timers that cannot be stored. The others are locked meanwhile.
const PARTS_TIME_MAX: Duration = Duration::from_secs(10);

/// Stores a timer whole, in place of the pending one of that name; returns the moment that counts as its creation.
/// A namespace that is not listed is made where `make_namespace` says so. `now` is PostgreSQL's unless it is given.
pub async fn create(
    client: &Lent,
    definition: &Definition,
    make_namespace: bool,
    now: Option<Timestamp>,
) -> Result<Written<Timestamp>, Error> {
    let Definition { key, execute_at, callback, payload, retry } = definition;
    let parameters: [&(dyn ToSql + Sync); 16] = [
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
    ];
    let written = client.ask("creating a timer", async {
        let statement = client.prepare_cached(CREATE).await?;
        let row = client.query_one(&statement, &parameters).await?;
        Ok::<_, tokio_postgres::Error>(created(definition, row.try_get("now")?, row.try_get("stored")?))
    });
    written.await.or_else(refused)
}

/// What became of a timer where PostgreSQL's clock showed `now`, and its namespace was there or not.
fn created(definition: &Definition, now: Timestamp, in_namespace: bool) -> Written<Timestamp> {
    match (check_execute_at(definition.execute_at, now), in_namespace) {
        (Err(invalid), _) => Written::Untimely(invalid),
        (Ok(()), false) => Written::Missing,
        (Ok(()), true) => Written::Done(now),
    }
}

/// What became of each of many timers, in their order. Where one cannot be written, its place says why.
pub type Many = Vec<Result<Written<Timestamp>, Error>>;

/// Stores timers as [`create`] would in their order, but in one transaction: those that cannot be stored are left out, and
/// all the others are there at once. A row that another transaction holds is waited for at most `lock_wait`.
pub async fn create_many(
    client: &Lent,
    definitions: &[&Definition],
    make_namespaces: bool,
    lock_wait: Duration,
    now: Option<Timestamp>,
) -> Result<Many, Error> {
    let batch = Batch { make_namespaces, lock_wait, now };
    match batch.store(client, definitions).await {
        Ok(stored) => Ok(stored.into_iter().map(Ok).collect()),
        Err(error) if error.is_about_one() => {
            Batch { lock_wait: lock_wait.min(PART_LOCK_WAIT), ..batch }.store_in_parts(client, definitions).await
        }
        Err(error) => Err(error),
    }
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
    async fn store(self, client: &Lent, definitions: &[&Definition]) -> Result<Vec<Written<Timestamp>>, Error> {
        let columns = Columns::of(definitions);
        let wait = format!("{}ms", self.lock_wait.as_millis());
        let mut parameters = columns.parameters();
        let ahead = Span(limits::EXECUTE_AT_AHEAD_MAX);
        let settings: [&(dyn ToSql + Sync); 4] = [&self.make_namespaces, &ahead, &wait, &self.now];
        parameters.extend(settings);
        let stored = client.ask("creating timers", async {
            let statement = client.prepare_cached(CREATE_MANY).await?;
            let row = client.query_one(&statement, &parameters).await?;
            let (now, unknown): (_, Vec<&str>) = (row.try_get("now")?, row.try_get("unknown_namespaces")?);
            let is_known = |definition: &Definition| !unknown.contains(&&*definition.key.namespace);
            Ok::<_, tokio_postgres::Error>(
                definitions.iter().map(|definition| created(definition, now, is_known(definition))).collect(),
            )
        });
        stored.await
    }

    /// Halves what fails until what is to blame stands alone. All in one transaction.
    async fn store_in_parts(self, client: &Lent, definitions: &[&Definition]) -> Result<Many, Error> {
        run(client, pool::BEGIN).await?;
        match self.store_parts(client, definitions).await {
            Ok(stored) => run(client, pool::COMMIT).await.map(|()| stored),
            Err(error) => {
                run(client, pool::ROLLBACK).await?;
                Err(error)
            }
        }
    }

    /// In the order of the timers: of two of one name the later is stored later.
    async fn store_parts(self, client: &Lent, definitions: &[&Definition]) -> Result<Many, Error> {
        let began = Instant::now();
        let mut stored = Vec::with_capacity(definitions.len());
        let mut parts = vec![definitions];
        while let Some(part) = parts.pop() {
            if began.elapsed() > PARTS_TIME_MAX {
                return Err(Error::unavailable(ONE_BY_ONE)("too many of them are held or refused"));
            }
            run(client, BEGIN_PART).await?;
            match (self.store(client, part).await, part) {
                (Ok(part), _) => {
                    run(client, KEEP_PART).await?;
                    stored.extend(part.into_iter().map(Ok));
                    continue;
                }
                (Err(error), _) if !error.is_about_one() => return Err(error),
                (Err(error), [_]) => stored.push(refused(error)),
                (Err(_), part) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
            }
            run(client, UNDO_PART).await?;
        }
        Ok(stored)
    }
}

async fn run(client: &Lent, statement: &'static str) -> Result<(), Error> {
    client.ask(ONE_BY_ONE, client.batch_execute(statement)).await
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
