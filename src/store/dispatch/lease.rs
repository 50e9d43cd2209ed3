//! Who holds which shards.

use tokio_postgres::Row;

use crate::dispatch::ports::{LeaseGrant, LeaseRequest};
use crate::domain::lease::{Epoch, Lease, Owner};
use crate::domain::shard::Shard;
use crate::store::Error;
use crate::store::pool::Lent;
use crate::store::time::Span;

const LEASE: &str = include_str!("../../../sql/queries/shards/lease.sql");
const LEAVE: &str = include_str!("../../../sql/queries/shards/leave.sql");

/// Where this process runs: told to people, who may want to find it. Nothing is decided by it.
#[derive(Clone, Debug)]
pub struct Process {
    host: String,
    pid: i32,
}

impl Process {
    /// This process.
    pub fn own() -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self { host, pid: i32::try_from(std::process::id()).unwrap_or(0) }
    }
}

/// Announces the owner, gives up, renews and acquires.
pub async fn lease(client: &Lent, request: &LeaseRequest, process: &Process) -> Result<LeaseGrant, Error> {
    // What is to be free is not to be held on.
    let anew = request.anew.iter().filter(|lease| !request.release.contains(lease));
    let all = request.release.iter().map(|lease| (lease, false)).chain(anew.map(|lease| (lease, true)));
    let (given_up, anew): (Vec<Lease>, Vec<bool>) = all.unzip();
    let shards: Vec<i16> = given_up.iter().map(|lease| i16::from(lease.shard.0)).collect();
    let epochs: Vec<i64> = given_up.iter().map(|lease| lease.epoch.0).collect();
    let shards_max = i64::try_from(request.shards_max).unwrap_or(i64::MAX);
    let row = client.ask("leasing shards", async {
        let statement = client.prepare_cached(LEASE).await?;
        let (owner, ttl, Process { host, pid }) = (&request.owner.0, Span(request.ttl), process);
        client.query_one(&statement, &[owner, &ttl, &shards, &epochs, &anew, &shards_max, host, pid]).await
    });
    Ok(grant(&row.await?))
}

/// Gives up all that the owner holds, and its announcement.
pub async fn leave(client: &Lent, owner: &Owner) -> Result<(), Error> {
    let left = client.ask("giving up the shards", async {
        let statement = client.prepare_cached(LEAVE).await?;
        client.execute(&statement, &[&owner.0]).await
    });
    left.await.map(drop)
}

fn grant(row: &Row) -> LeaseGrant {
    let (owners_alive, rank): (i64, i64) = (row.get(1), row.get(2));
    let (shards, epochs): (Vec<i16>, Vec<i64>) = (row.get(3), row.get(4));
    // A check constraint keeps shards within 0 to 255.
    let lease = |(shard, epoch)| Some(Lease { shard: Shard(u8::try_from(shard).ok()?), epoch: Epoch(epoch) });
    LeaseGrant {
        held: shards.into_iter().zip(epochs).filter_map(lease).collect(),
        owners_alive: usize::try_from(owners_alive).unwrap_or(1),
        rank: usize::try_from(rank).unwrap_or(0),
        // None of nobody.
        others_left: row.get::<_, Option<Span>>(5).map(|Span(span)| span),
        now: row.get(0),
    }
}
