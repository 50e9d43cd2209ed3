//! What `walclock dev` puts into its own database.

use super::{Error, Store};

const MAKE_DEMO_TABLE: &str = include_str!("../../sql/queries/dev/make_demo_table.sql");

/// Makes and publishes `public.notes`, unless it is there.
pub async fn make_demo_table(store: &Store) -> Result<(), Error> {
    let client = store.client().await?;
    client.ask("making the table notes", client.batch_execute(MAKE_DEMO_TABLE)).await
}
