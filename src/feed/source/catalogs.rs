//! Where the stream of a new slot knows the tables as they are.
//!
//! While PostgreSQL makes a slot it overlooks what some of the transactions that are under way do to its catalogs (14 to 18: see
//! ADR 21). The stream then leaves out a column that was added, or fails for ever at a row of a table that was truncated. The next
//! change of any catalog ends that for all that begins behind it.

use std::time::Duration;

use super::error::Error;
use super::server::{Server, get};
use crate::domain::sequence::Lsn;

const CHANGE_CATALOG: &str = include_str!("../../../sql/queries/feed/change_catalog.sql");
const TAKE_TXID: &str = include_str!("../../../sql/queries/feed/take_txid.sql");
const MARK_BEGINNING: &str = include_str!("../../../sql/queries/feed/mark_beginning.sql");

/// How often to look whether they are over.
const POLL: Duration = Duration::from_millis(20);

impl Server {
    /// Changes a catalog behind the creation of a slot, waits for the transactions that began before that, and says where
    /// in the WAL they are over: what commits from there on is decoded as it was written.
    ///
    /// # Errors
    /// Where the server cannot be asked, or may not be written to, as a standby.
    pub async fn settle_catalogs(&self) -> Result<Lsn, Error> {
        const DOING: &str = "waiting for what began with the replication slot";
        self.one(DOING, CHANGE_CATALOG, &[]).await?;
        let text: String = get(DOING, &self.one(DOING, TAKE_TXID, &[]).await?, 0)?;
        let txid: u64 = text.parse().map_err(|_| Error::Protocol { what: "a transaction id" })?;
        while self.moment().await?.snapshot.xmin <= txid {
            tokio::time::sleep(POLL).await;
        }
        self.position(DOING, MARK_BEGINNING).await
    }
}
