//! Who holds which shards.

use tokio_postgres::Row;

use super::Leases;
use crate::dispatch::ports::{LeaseGrant, LeaseRequest};
use crate::domain::lease::{Epoch, Lease, Owner};
use crate::domain::shard::Shard;
use crate::store::Error;
use crate::store::pool::Lent;
use crate::store::time::Span;

const LEASE: &str = include_str!("../../../sql/queries/shards/lease.sql");
const LEAVE: &str = include_str!("../../../sql/queries/shards/leave.sql");

/// Announces the owner, gives up, renews and acquires.
pub async fn lease(client: &Lent, request: &LeaseRequest) -> Result<LeaseGrant, Error> {
    let release: Leases = request.release.iter().copied().collect();
    let shards_max = i64::try_from(request.shards_max).unwrap_or(i64::MAX);
    let row = client.ask("leasing shards", async {
        let statement = client.prepare_cached(LEASE).await?;
        let ttl = Span(request.ttl);
        client.query_one(&statement, &[&request.owner.0, &ttl, &release.shards, &release.epochs, &shards_max]).await
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
        now: row.get(0),
    }
}
