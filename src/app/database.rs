//! Watches the database: whether it answers, and whether it has the schema that this binary needs.

use std::time::Duration;

use anyhow::{Context, anyhow};

use crate::pg;
use crate::service::health::{Check, Condition};
use crate::store::{Store, clock, migrate};

/// How long PostgreSQL may take for one look. Less than a connection may take to be made: that it does not answer says more
/// than that there is no connection yet.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(4);

/// What is known of the database.
pub(super) struct Watch {
    settings: pg::Settings,
    store: Store,
    check: Check,
    /// The schema has been seen complete.
    migrated: bool,
}

impl Watch {
    /// A watch that knows nothing yet.
    pub(super) fn new(settings: pg::Settings, store: Store, check: Check) -> Self {
        Self { settings, store, check, migrated: false }
    }

    /// Looks once. An outage after a good start takes nobody out of service: the journal is still served.
    pub(super) async fn look(&mut self) -> anyhow::Result<()> {
        let answer = async { if self.migrated { self.ping().await } else { self.look_at_schema().await } };
        // A server that hangs takes connections and says nothing.
        let seen = tokio::time::timeout(ANSWER_WAIT_MAX, answer).await;
        match seen.unwrap_or_else(|_| Err(anyhow!("PostgreSQL has not answered within {ANSWER_WAIT_MAX:?}"))) {
            Ok(condition) => {
                self.check.set(condition);
                Ok(())
            }
            Err(error) => {
                let reason = format!("{error:#}");
                self.check.set(if self.migrated { Condition::Degraded(reason) } else { Condition::NotReady(reason) });
                Err(error)
            }
        }
    }

    async fn look_at_schema(&mut self) -> anyhow::Result<Condition> {
        let missing = migrate::dry_run(&self.settings).await?;
        if missing.is_empty() {
            self.migrated = true;
            return Ok(Condition::Ready);
        }
        anyhow::bail!("the schema lacks {}: run `walclock migrate`", missing.join(", "))
    }

    async fn ping(&self) -> anyhow::Result<Condition> {
        clock::ping(&self.store).await.context("the database does not answer")?;
        Ok(Condition::Ready)
    }
}
