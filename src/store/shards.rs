//! The ring as it stands: who holds which shards, for people.

use tokio_postgres::Row;

use super::Error;
use super::pool;
use crate::clock::Timestamp;
use crate::domain::lease::{Epoch, Owner};
use crate::domain::shard::Shard;
use crate::pg;

const LIST: &str = include_str!("../../sql/queries/shards/list.sql");
const LIST_DISPATCHERS: &str = include_str!("../../sql/queries/shards/list_dispatchers.sql");

/// A shard, and its lease.
#[derive(Clone, Debug)]
pub struct Held {
    /// The shard.
    pub shard: Shard,
    /// Who holds it, or held it last until its lease ran out; none where it was given up.
    pub owner: Option<Owner>,
    /// How often it has been acquired.
    pub epoch: Epoch,
    /// When the lease runs out, by PostgreSQL's clock.
    pub expires_at: Timestamp,
    /// Callbacks under way.
    pub runs: i64,
}

/// A dispatcher that is alive, or was a short time ago.
#[derive(Clone, Debug)]
pub struct Dispatcher {
    /// Who it is.
    pub owner: Owner,
    /// When it asked for shards first.
    pub started_at: Timestamp,
    /// Until when it counts as alive; the moment at which it began to leave, where it leaves.
    pub expires_at: Timestamp,
    /// The host that it runs on, as that calls itself.
    pub host: Option<String>,
    /// Its process on that host.
    pub pid: Option<i32>,
}

/// All shards, and all dispatchers.
#[derive(Clone, Debug)]
pub struct Ring {
    /// PostgreSQL's clock when this was read.
    pub now: Timestamp,
    /// All shards, in order.
    pub shards: Vec<Held>,
    /// Those that began first in front.
    pub dispatchers: Vec<Dispatcher>,
}

/// Reads the ring of this database.
pub async fn read(settings: &pg::Settings) -> Result<Ring, Error> {
    let client = pool::connect(settings).await?;
    let (doing, doing_more) = ("listing shards", "listing dispatchers");
    let shards = client.query(LIST, &[]).await.map_err(Error::unavailable(doing))?;
    let dispatchers = client.query(LIST_DISPATCHERS, &[]).await.map_err(Error::unavailable(doing_more))?;
    let now = shards.first().map_or(Ok(Timestamp::MIN), |row| row.try_get("now"));
    Ok(Ring {
        now: now.map_err(Error::unavailable(doing))?,
        shards: shards.iter().map(held).collect::<Result<_, _>>().map_err(Error::unavailable(doing))?,
        dispatchers: dispatchers
            .iter()
            .map(dispatcher)
            .collect::<Result<_, _>>()
            .map_err(Error::unavailable(doing_more))?,
    })
}

fn held(row: &Row) -> Result<Held, tokio_postgres::Error> {
    let shard: i16 = row.try_get("shard")?;
    Ok(Held {
        // A check constraint keeps it within 0 to 255.
        shard: Shard(u8::try_from(shard).unwrap_or(u8::MAX)),
        owner: row.try_get::<_, Option<String>>("owner")?.map(Owner),
        epoch: Epoch(row.try_get("epoch")?),
        expires_at: row.try_get("expires_at")?,
        runs: row.try_get("runs")?,
    })
}

fn dispatcher(row: &Row) -> Result<Dispatcher, tokio_postgres::Error> {
    Ok(Dispatcher {
        owner: Owner(row.try_get("owner")?),
        started_at: row.try_get("started_at")?,
        expires_at: row.try_get("expires_at")?,
        host: row.try_get("host")?,
        pid: row.try_get("pid")?,
    })
}
