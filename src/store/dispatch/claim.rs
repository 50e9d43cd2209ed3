//! From timers to runs, and from one owner's runs to the next one's.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::error::SqlState;

use super::under_way::UnderWay;
use super::{Leases, row};
use crate::dispatch::ports::{ClaimRequest, Claimed, Entry};
use crate::domain::causes;
use crate::domain::lease::{Epoch, Lease, Owner};
use crate::domain::limits;
use crate::domain::run::Run;
use crate::domain::timer::TimerKey;
use crate::domain::webhook::Secret;
use crate::store::pool::Lent;
use crate::store::time::Span;
use crate::store::{Error, partitions};

const CLAIM: &str = include_str!("../../../sql/queries/timers/claim.sql");
const CLAIM_ONE: &str = include_str!("../../../sql/queries/timers/claim_one.sql");
const FIND_LEFT: &str = include_str!("../../../sql/queries/timers/find_left.sql");
const ADOPT: &str = include_str!("../../../sql/queries/runs/adopt.sql");
const FORGET: &str = include_str!("../../../sql/queries/runs/forget.sql");
const READ_SECRETS: &str = include_str!("../../../sql/queries/namespaces/read_secrets.sql");

/// From what age on it is looked whether a claim is over: mostly, who made it has seen its end before, which costs less. If
/// the clock was set, it is looked earlier or later.
const CLAIM_AGE_MIN: Duration = Duration::from_secs(60);

/// Timers as the statements take them.
struct Wanted<'a> {
    leases: Leases,
    namespaces: Vec<&'a str>,
    ids: Vec<&'a str>,
    shards: Vec<i16>,
    epochs: Vec<i64>,
}

impl<'a> Wanted<'a> {
    fn new(timers: &'a [(TimerKey, Epoch)]) -> Self {
        Self {
            leases: timers.iter().map(|(key, epoch)| Lease { shard: key.shard(), epoch: *epoch }).collect(),
            namespaces: timers.iter().map(|(key, _)| &*key.namespace).collect(),
            ids: timers.iter().map(|(key, _)| &*key.id).collect(),
            shards: timers.iter().map(|(key, _)| i16::from(key.shard().0)).collect(),
            epochs: timers.iter().map(|(_, epoch)| epoch.0).collect(),
        }
    }
}

/// Moves timers to runs, and says of the others where they stand.
pub async fn claim(client: &Lent, under_way: &UnderWay, mut request: ClaimRequest) -> Result<Claimed, Error> {
    // In the order of the keys, as rows are best locked; each once, under the newest of its epochs.
    request.timers.sort_unstable_by(|a, b| (&a.0, b.1).cmp(&(&b.0, a.1)));
    request.timers.dedup_by(|later, earlier| later.0 == earlier.0);
    let claimer = Claimer { client, under_way, request: &request };
    let mut claimed = Claimed::default();
    for timers in request.timers.chunks(limits::BATCH_ROWS_MAX) {
        let runs = match claimer.take_at_once(timers).await {
            Err(error) if error.is_about_rows() => claimer.take_apart(timers).await?,
            answer => answer?,
        };
        if runs.len() < timers.len() {
            let taken: BTreeSet<&TimerKey> = runs.iter().map(|run| &run.key.timer).collect();
            let rest: Vec<_> = timers.iter().filter(|(key, _)| !taken.contains(key)).cloned().collect();
            claimed.left.extend(find_left(client, &request.owner, &Wanted::new(&rest)).await?);
        }
        claimed.runs.extend(runs);
    }
    Ok(claimed)
}

/// Takes timers of one request.
struct Claimer<'a> {
    client: &'a Lent,
    under_way: &'a UnderWay,
    request: &'a ClaimRequest,
}

impl Claimer<'_> {
    async fn take_at_once(&self, timers: &[(TimerKey, Epoch)]) -> Result<Vec<Run>, Error> {
        match self.take(timers).await {
            // There is no partition for today: the clock was set, or nobody has made any for a week. No reason to stop.
            Err(error) if error.sql_state() == Some(&SqlState::CHECK_VIOLATION) => {
                partitions::make(self.client).await?;
                self.take(timers).await
            }
            answer => answer,
        }
    }

    /// Claims each timer alone, so that one whose row cannot be moved stays behind by itself. What the database refuses has not
    /// happened: nothing of it is in doubt.
    async fn take_apart(&self, timers: &[(TimerKey, Epoch)]) -> Result<Vec<Run>, Error> {
        let mut runs = Vec::with_capacity(timers.len());
        for (key, epoch) in timers {
            match self.take_one(key, *epoch).await {
                Ok(run) => runs.extend(run),
                Err(error) if error.is_about_rows() => {
                    let cause = causes::innermost(&error);
                    tracing::error!(timer = %key, cause, "a timer cannot be claimed");
                    metrics::counter!("walclock_unclaimable_timers_total").increment(1);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(runs)
    }

    async fn take(&self, timers: &[(TimerKey, Epoch)]) -> Result<Vec<Run>, Error> {
        match timers {
            [(key, epoch)] => self.take_one(key, *epoch).await,
            _ => self.take_all(&Wanted::new(timers)).await,
        }
    }

    async fn take_one(&self, key: &TimerKey, epoch: Epoch) -> Result<Vec<Run>, Error> {
        let rows = self.client.ask("claiming a timer", async {
            let statement = self.client.prepare_cached(CLAIM_ONE).await?;
            let shard = i16::from(key.shard().0);
            let (namespace, id) = (&*key.namespace, &*key.id);
            let request = self.request;
            self.client.query(&statement, &[&request.owner.0, &shard, &epoch.0, &namespace, &id, &request.until]).await
        });
        let rows = rows.await?;
        let secrets = rows.iter().map(|row| (&*key.namespace, row::secrets(row, "secrets"))).collect();
        self.taken(&rows, &secrets)
    }

    async fn take_all(&self, wanted: &Wanted<'_>) -> Result<Vec<Run>, Error> {
        let namespaces: BTreeSet<&str> = wanted.namespaces.iter().copied().collect();
        let only = namespaces.first().filter(|_| namespaces.len() == 1);
        let (rows, secrets) = self
            .client
            .ask("claiming timers", async {
                let statement = self.client.prepare_cached(CLAIM).await?;
                let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 9] = [
                    &self.request.owner.0,
                    &wanted.leases.shards,
                    &wanted.leases.epochs,
                    &wanted.namespaces,
                    &wanted.ids,
                    &wanted.shards,
                    &wanted.epochs,
                    &self.request.until,
                    &only,
                ];
                let claim = self.client.query(&statement, &parameters);
                match only {
                    // Few timers are mostly of one namespace, and in a hurry: one statement.
                    Some(_) => Ok((claim.await?, Vec::new())),
                    // Both are on their way at once: one round trip.
                    None => tokio::try_join!(claim, read_secrets(self.client, &namespaces)),
                }
            })
            .await?;
        let secrets = match (only, rows.first()) {
            (Some(namespace), Some(row)) => HashMap::from([(*namespace, row::secrets(row, "secrets"))]),
            _ => by_namespace(&secrets),
        };
        self.taken(&rows, &secrets)
    }

    /// The runs that one statement has made, and their claim.
    fn taken(&self, rows: &[Row], secrets: &HashMap<&str, Arc<[Secret]>>) -> Result<Vec<Run>, Error> {
        let runs = runs(rows, secrets)?;
        if let Some(row) = rows.first() {
            self.under_way.claimed(row.get("claim"), runs.iter().map(|run| &run.key));
        }
        Ok(runs)
    }
}

async fn find_left(client: &Lent, owner: &Owner, wanted: &Wanted<'_>) -> Result<Vec<Entry>, Error> {
    let rows = client.ask("looking for timers that were not claimed", async {
        let statement = client.prepare_cached(FIND_LEFT).await?;
        let Wanted { leases, namespaces, ids, shards, epochs } = wanted;
        client.query(&statement, &[&owner.0, &leases.shards, &leases.epochs, namespaces, ids, shards, epochs]).await
    });
    Ok(rows.await?.iter().map(row::entry).collect())
}

/// Takes over what older epochs left running in the shards that are held. It is looked for among the claims: so those that are
/// over are forgotten first, for which this is asked for often enough. Where there is more than the limit, whoever asks again for
/// the same leases goes on from there.
pub async fn adopt(
    client: &Lent,
    under_way: &UnderWay,
    owner: &Owner,
    held: &[Lease],
    limit: usize,
) -> Result<Vec<Run>, Error> {
    let begin = match under_way.adopts_from(held) {
        Some(number) => number,
        None => {
            forget(client).await?;
            0
        }
    };
    let leases: Leases = held.iter().copied().collect();
    let rows_max = i64::try_from(limit).unwrap_or(i64::MAX);
    let (rows, secrets) = client
        .ask("adopting runs", async {
            let statement = client.prepare_cached(ADOPT).await?;
            let rows = client.query(&statement, &[&owner.0, &leases.shards, &leases.epochs, &rows_max, &begin]).await?;
            let namespaces: BTreeSet<&str> = rows.iter().map(|row| row.get(0)).collect();
            let secrets = read_secrets(client, &namespaces).await?;
            Ok::<_, tokio_postgres::Error>((rows, secrets))
        })
        .await?;
    let mut runs = runs(&rows, &by_namespace(&secrets))?;
    for (run, row) in runs.iter_mut().zip(&rows) {
        run.unwanted = row.get("unwanted");
    }
    if let Some(last) = rows.iter().map(|row| row.get("claim")).max().filter(|_| rows.len() >= limit) {
        under_way.adopted(held, last);
    }
    Ok(runs)
}

/// Forgets the claims of which nothing is under way any more.
async fn forget(client: &Lent) -> Result<(), Error> {
    let mut behind = 0_i64;
    loop {
        let row = client.ask("looking for claims that are over", async {
            let statement = client.prepare_cached(FORGET).await?;
            client.query_one(&statement, &[&behind, &limits::CLAIMS_LOOKED_AT_MAX, &Span(CLAIM_AGE_MIN)]).await
        });
        let row = row.await?;
        let (looked_at, last): (i64, Option<i64>) = (row.get(0), row.get(1));
        behind = last.unwrap_or(behind);
        if looked_at < limits::CLAIMS_LOOKED_AT_MAX {
            return Ok(());
        }
    }
}

async fn read_secrets(client: &Lent, namespaces: &BTreeSet<&str>) -> Result<Vec<Row>, tokio_postgres::Error> {
    let statement = client.prepare_cached(READ_SECRETS).await?;
    client.query(&statement, &[&Vec::from_iter(namespaces)]).await
}

fn by_namespace(rows: &[Row]) -> HashMap<&str, Arc<[Secret]>> {
    rows.iter().map(|row| (row.get("name"), row::secrets(row, "secrets"))).collect()
}

fn runs(rows: &[Row], secrets: &HashMap<&str, Arc<[Secret]>>) -> Result<Vec<Run>, Error> {
    let signed = |row| {
        let mut run = row::run(row).map_err(Error::unavailable("reading runs"))?;
        if let Some(secrets) = secrets.get(&*run.key.timer.namespace) {
            run.secrets = Arc::clone(secrets);
        }
        Ok(run)
    };
    rows.iter().map(signed).collect()
}
