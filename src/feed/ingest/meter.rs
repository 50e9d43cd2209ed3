//! Tells of the slot's budget: in metrics at every look, in the log when a threshold is crossed, and in one line for who
//! asks after readiness.

use std::time::Instant;

use metrics::gauge;
use tokio::sync::watch;
use tracing::{info, warn};

use super::budget::{Budget, Level, Standing};
use crate::domain::sequence::Lsn;
use crate::feed::source::{Error, Server};

/// Looks at the slot and tells.
pub(super) struct Meter {
    slot: String,
    budget: Budget,
    warning: watch::Sender<Option<String>>,
}

impl Meter {
    pub fn new(slot: &str) -> Self {
        Self { slot: slot.to_owned(), budget: Budget::default(), warning: watch::channel(None).0 }
    }

    /// What somebody should know of the budget; none while there is plenty.
    pub fn warning(&self) -> watch::Receiver<Option<String>> {
        self.warning.subscribe()
    }

    /// Asks the server, tells, and returns where its WAL ends.
    pub async fn look(&mut self, server: &Server) -> Result<Lsn, Error> {
        let wal = server.wal(&self.slot).await?;
        let standing = self.budget.measure(&wal, Instant::now());
        let (kept, percent) = standing.map_or((0, None), |standing| (standing.kept, standing.percent));
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and a slot keeps far below 2^53 bytes")]
        gauge!("walclock_feed_slot_retained_bytes").set(kept as f64);
        gauge!("walclock_feed_slot_budget_ratio").set(f64::from(percent.unwrap_or(0)) / 100.0);
        if let Some(standing) = &standing {
            self.log(standing);
        }
        let warning = standing.filter(|standing| standing.level > Level::Fine).map(|standing| standing.to_string());
        self.warning.send_if_modified(|told| {
            let news = *told != warning;
            *told = warning;
            news
        });
        Ok(wal.end)
    }

    fn log(&self, standing: &Standing) {
        let slot = &self.slot;
        match standing.was {
            Some(was) if was < standing.level => warn!(slot, "{standing}"),
            Some(_) => info!(slot, "{}: less than before", standing.share()),
            None => {}
        }
    }
}
