//! The dispatcher's port on PostgreSQL: leases, the near future, claims and settles.

mod claim;
mod lease;
pub(super) mod load;
mod row;
mod settle;
mod under_way;

pub(super) use lease::Process;
pub(super) use under_way::UnderWay;

use std::collections::BTreeSet;

use super::pool::Lent;
use super::{Store, clock};
use crate::clock::Timestamp;
use crate::dispatch::ports::{
    self, ClaimRequest, Claimed, Entry, LeaseGrant, LeaseRequest, LoadRequest, Unavailable, Written,
};
use crate::domain::lease::{Lease, Owner};
use crate::domain::run::{Run, Settlement};

impl ports::Store for Store {
    async fn now(&self) -> Result<Timestamp, Unavailable> {
        let client = Lent::from(&self.dispatch).await?;
        Ok(clock::read(&client).await?)
    }

    async fn lease(&self, request: LeaseRequest) -> Result<LeaseGrant, Unavailable> {
        let client = Lent::from(&self.dispatch).await?;
        Ok(lease::lease(&client, &request, &self.process).await?)
    }

    async fn load(&self, request: LoadRequest) -> Result<Vec<Entry>, Unavailable> {
        let client = Lent::from(&self.dispatch).await?;
        Ok(load::load(&client, &request).await?)
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Claimed, Unavailable> {
        let client = Lent::from(&self.claims).await?;
        Ok(claim::claim(&client, &self.under_way, request).await?)
    }

    async fn adopt(&self, owner: &Owner, leases: &[Lease], limit: usize) -> Result<Vec<Run>, Unavailable> {
        let client = Lent::from(&self.dispatch).await?;
        Ok(claim::adopt(&client, &self.under_way, owner, leases, limit).await?)
    }

    async fn settle(&self, owner: &Owner, settlements: &[Settlement]) -> Result<Vec<Written>, Unavailable> {
        let client = Lent::from(&self.dispatch).await?;
        let written = settle::settle(&client, &self.under_way, owner, settlements).await?;
        Ok(written.into_iter().map(|written| written.map_err(Unavailable::from)).collect())
    }

    async fn leave(&self, owner: &Owner) -> Result<(), Unavailable> {
        let client = Lent::from(&self.dispatch).await?;
        Ok(lease::leave(&client, owner).await?)
    }
}

/// Leases as the statements take them: each once, as two arrays.
struct Leases {
    shards: Vec<i16>,
    epochs: Vec<i64>,
}

impl FromIterator<Lease> for Leases {
    fn from_iter<I: IntoIterator<Item = Lease>>(leases: I) -> Self {
        let leases: BTreeSet<Lease> = leases.into_iter().collect();
        let (shards, epochs) = leases.iter().map(|lease| (i16::from(lease.shard.0), lease.epoch.0)).unzip();
        Self { shards, epochs }
    }
}
