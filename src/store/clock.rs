//! PostgreSQL's clock: what is due goes by it, and who wants to know whether PostgreSQL answers asks for it.

use super::pool::Lent;
use super::{Error, Store};
use crate::clock::Timestamp;

const READ_CLOCK: &str = include_str!("../../sql/queries/session/read_clock.sql");

/// This moment by PostgreSQL's clock.
pub async fn read(client: &Lent) -> Result<Timestamp, Error> {
    let row = client.ask("reading the database's clock", async {
        let statement = client.prepare_cached(READ_CLOCK).await?;
        client.query_one(&statement, &[]).await
    });
    Ok(row.await?.get(0))
}

/// Ends once PostgreSQL has answered. It is asked on a connection of its own: that this process has much to ask it, or waits
/// for a lock on every other connection, is no outage.
pub async fn ping(store: &Store) -> Result<(), Error> {
    read(&Lent::from(&store.watch).await?).await.map(drop)
}
