//! Who may stream from a slot: one walclock at a time. The claim is a lock that the session of the questions holds; who
//! has it knows that a walsender of ours on the slot serves nobody any more, and may end it.

use std::time::{Duration, Instant};

use tracing::warn;

use super::error::Error;
use super::server::{Server, get};
use super::{RELEASE_MAX, RELEASE_POLL};

const CLAIM_SLOT: &str = include_str!("../../../sql/queries/feed/claim_slot.sql");
const READ_SESSION: &str = include_str!("../../../sql/queries/feed/read_session.sql");
const FIND_SESSION: &str = include_str!("../../../sql/queries/feed/find_session.sql");
const END_SESSION: &str = include_str!("../../../sql/queries/feed/end_session.sql");
const END_WALSENDER: &str = include_str!("../../../sql/queries/feed/end_walsender.sql");

/// How long the claim of a session that has just ended may outlive it.
const CLAIM_MAX: Duration = Duration::from_secs(1);

/// One session of one server, told from a later one with the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    pid: i32,
    /// In microseconds since 1970, by the server's clock.
    began: i64,
}

/// The name that both connections of a slot's walclock go by in `pg_stat_activity`.
pub fn application_name(slot: &str) -> String {
    format!("walclock {slot}")
}

impl Server {
    /// This session.
    pub async fn session(&self) -> Result<Session, Error> {
        const DOING: &str = "asking which session this is";
        let row = self.one(DOING, READ_SESSION, &[]).await?;
        Ok(Session { pid: get(DOING, &row, 0)?, began: get(DOING, &row, 1)? })
    }

    /// Whether a session has waited for its client for so long, or is gone.
    pub async fn is_deserted(&self, session: Session, idle_min: Duration) -> Result<bool, Error> {
        const DOING: &str = "looking for the session of the questions";
        let seconds = idle_min.as_secs_f64();
        let rows = self.all(DOING, FIND_SESSION, &[&session.pid, &session.began, &seconds]).await?;
        rows.first().map_or(Ok(true), |row| get(DOING, row, 0))
    }

    /// Ends an earlier session of this very process, whose end the server may not have noticed, and waits until it is
    /// gone: who has the claim then is somebody else.
    ///
    /// # Errors
    /// [`Error::Lingers`] where it does not go.
    pub async fn end_session(&self, session: Session) -> Result<(), Error> {
        let Session { pid, began } = session;
        let deadline = Instant::now() + RELEASE_MAX;
        while !self.all("ending the session of before", END_SESSION, &[&pid, &began]).await?.is_empty() {
            if Instant::now() >= deadline {
                return Err(Error::Lingers { pid, waited: RELEASE_MAX });
            }
            tokio::time::sleep(RELEASE_POLL).await;
        }
        Ok(())
    }

    /// Claims the slot until this session ends, which it does when it says nothing for `idle_max`.
    ///
    /// # Errors
    /// [`Error::SlotClaimed`] where another walclock has it.
    pub async fn claim(&self, slot: &str, idle_max: Duration) -> Result<(), Error> {
        const DOING: &str = "claiming the replication slot";
        let (deadline, idle_max) = (Instant::now() + CLAIM_MAX, idle_max.as_millis().to_string());
        while !get::<bool>(DOING, &self.one(DOING, CLAIM_SLOT, &[&slot, &idle_max]).await?, 1)? {
            if Instant::now() >= deadline {
                return Err(Error::SlotClaimed { slot: slot.to_owned() });
            }
            tokio::time::sleep(RELEASE_POLL).await;
        }
        Ok(())
    }

    /// Ends the walsender that has the slot, where it is one of ours, and waits until the slot is free. Only for who has
    /// claimed the slot: no live walclock streams from it then.
    ///
    /// # Errors
    /// [`Error::SlotInUse`] where it is not ours, and [`Error::Lingers`] where it does not let go.
    pub async fn end_stale(&self, slot: &str, database: &str, pid: i32) -> Result<(), Error> {
        let name = application_name(slot);
        let ended = !self.all("ending a stale walsender", END_WALSENDER, &[&pid, &name]).await?.is_empty();
        if ended {
            warn!(slot, pid, "ended a walsender that an earlier connection of ours had left behind");
        }
        let deadline = Instant::now() + RELEASE_MAX;
        // One that was not found among ours may have been, and have ended by itself just before.
        while self.slot(slot, database).await?.is_some_and(|slot| slot.active_pid == Some(pid)) {
            match ended {
                false => return Err(Error::SlotInUse { slot: slot.to_owned(), pid }),
                true if Instant::now() >= deadline => return Err(Error::Lingers { pid, waited: RELEASE_MAX }),
                true => tokio::time::sleep(RELEASE_POLL).await,
            }
        }
        Ok(())
    }
}
