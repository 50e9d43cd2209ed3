//! The days of history: partitions ahead of the claims that need them, and none behind the retention.

use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::pool::Lent;
use super::time::Span;
use super::{Error, Store};

const MAKE: &str = include_str!("../../sql/queries/partitions/make.sql");
const DROP: &str = include_str!("../../sql/queries/partitions/drop.sql");

/// How often [`tick`] is due: often enough to find, among a busy table's readers, a moment for dropping a day.
pub const INTERVAL: Duration = Duration::from_secs(3600);

/// Makes the partitions from yesterday to the end of the coming week; returns how many were missing.
pub(super) async fn make(client: &Lent) -> Result<i32, Error> {
    let made: i32 = client.ask("making partitions", client.query_one(MAKE, &[])).await?.get(0);
    if made > 0 {
        tracing::info!(partitions.made = made, "made partitions");
    }
    Ok(made)
}

/// Makes the partitions of the coming week, and drops the days that lie behind `retention` as a whole and have no run
/// under way. Due at the start of a dispatcher or API, and every [`INTERVAL`] then; harmless at any time, by many at once.
pub async fn tick(store: &Store, retention: Duration) -> Result<(), Error> {
    let client = Lent::from(&store.general).await?;
    make(&client).await?;
    match client.ask("dropping partitions", client.query_one(DROP, &[&Span(retention)])).await {
        Ok(row) if row.get::<_, i32>(0) > 0 => {
            tracing::info!(days.dropped = row.get::<_, i32>(0), "dropped what the retention has passed");
            Ok(())
        }
        Ok(_) => Ok(()),
        // Somebody reads such a day. Claims must not queue up behind our wait for it.
        Err(error) if error.sql_state() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            tracing::debug!("a day that the retention has passed is still being read");
            Ok(())
        }
        Err(error) => Err(error),
    }
}
