//! The ordinary connection beside the stream: what the server is, how the slot stands, and what to change about it.

use std::time::{Duration, Instant};

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};
use tracing::debug;

use super::error::Error;
use super::loss::Loss;
use crate::clock::{Reading, Timestamp};
use crate::domain::sequence::Lsn;
use crate::domain::snapshot::Snapshot;
use crate::pg::Settings;

const READ_SERVER: &str = include_str!("../../../sql/queries/feed/read_server.sql");
const READ_RECOVERY: &str = include_str!("../../../sql/queries/feed/read_recovery.sql");
const LIST_MISSING_PUBLICATIONS: &str = include_str!("../../../sql/queries/feed/list_missing_publications.sql");
const READ_SLOT: &str = include_str!("../../../sql/queries/feed/read_slot.sql");
const CREATE_SLOT: &str = include_str!("../../../sql/queries/feed/create_slot.sql");
const CREATE_FAILOVER_SLOT: &str = include_str!("../../../sql/queries/feed/create_failover_slot.sql");
const DROP_SLOT: &str = include_str!("../../../sql/queries/feed/drop_slot.sql");
const LIST_WRITERS: &str = include_str!("../../../sql/queries/feed/list_writers.sql");
const READ_SNAPSHOT: &str = include_str!("../../../sql/queries/feed/read_snapshot.sql");
const FIND_WALSENDER: &str = include_str!("../../../sql/queries/feed/find_walsender.sql");
const READ_WAL: &str = include_str!("../../../sql/queries/feed/read_wal.sql");
const SET_CONNECTION_CHECK: &str = include_str!("../../../sql/queries/feed/set_connection_check.sql");
const SET_STATEMENT_TIMEOUT: &str = include_str!("../../../sql/queries/feed/set_statement_timeout.sql");
const EMIT_HEARTBEAT: &str = include_str!("../../../sql/queries/feed/emit_heartbeat.sql");

/// How long a question may take; each is small.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// The timeout that counts where `wal_sender_timeout` is turned off: PostgreSQL's default.
const WALSENDER_TIMEOUT: Duration = Duration::from_secs(60);
/// The oldest version with what the stream needs.
const VERSION_MIN: i32 = 14;
/// From here on a slot can follow to a standby.
const VERSION_FAILOVER: i32 = 17;
/// `query_canceled`, which is what a statement time-out gives.
const CANCELED: &str = "57014";

/// An ordinary connection to the server that the stream comes from. Ends when dropped.
pub struct Server {
    client: Client,
}

/// What the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its major version.
    pub major: i32,
    /// It is a standby.
    pub standby: bool,
    /// How long it waits for a sign of life from us before it ends the stream.
    pub walsender_timeout: Duration,
    /// Its next 64-bit transaction id.
    pub txid: u64,
}

/// How a slot stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The walsender that streams from it.
    pub active_pid: Option<i32>,
    /// It can never stream again, for this reason.
    pub lost: Option<Loss>,
    /// Up to here it has been told that it may forget.
    pub confirmed: Lsn,
}

/// A moment of the server.
#[derive(Clone, Debug)]
pub struct Moment {
    /// Which transactions are over.
    pub snapshot: Snapshot,
    /// What its clock says.
    pub clock: Reading,
}

/// How far a server's WAL has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wal {
    /// Where it ends; on a standby, how far it is replayed.
    pub end: Lsn,
    /// What the slot keeps of it; none where there is no slot.
    pub kept: Option<Kept>,
}

/// How much WAL a slot keeps from being removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// So many bytes.
    pub bytes: u64,
    /// So many more may be written before the slot is lost: 0 where the next checkpoint may take it, none where PostgreSQL
    /// sets no bound.
    pub left: Option<u64>,
}

impl Kept {
    /// How much of what it may keep that is: all of it where nothing is left, and none to say where PostgreSQL sets no bound.
    pub fn percent(&self) -> Option<u8> {
        let (kept, left) = (u128::from(self.bytes), u128::from(self.left?));
        let percent = if left == 0 { 100 } else { kept * 100 / (kept + left) };
        Some(u8::try_from(percent).unwrap_or(100))
    }
}

/// What a walsender is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walsender {
    /// It is not there.
    Gone,
    /// It waits for WAL, or for us to take what it has: it would answer.
    Waiting,
    /// It reads its way through the WAL, perhaps for long, and may be too busy to answer.
    Working,
}

impl Server {
    /// Connects to the one host of the settings. `connect_timeout` bounds all of it, as in libpq: the driver bounds the
    /// socket alone, and a frozen server or a proxy takes that and never answers.
    pub async fn connect(settings: &Settings) -> Result<Self, Error> {
        let (client, connection) = Self::dial(settings).await?;
        tokio::spawn(connection);
        Ok(Self { client })
    }

    /// The same for who drives the connection: it works while the future is polled, and ends when it is dropped.
    pub(in crate::feed) async fn dial(
        settings: &Settings,
    ) -> Result<(Client, impl Future<Output = ()> + Send + use<>), Error> {
        const DOING: &str = "connecting to PostgreSQL";
        let waited = settings.config().get_connect_timeout().copied().unwrap_or(ANSWER_MAX);
        let connecting = settings.config().connect(settings.connector()?);
        let (client, connection) = match tokio::time::timeout(waited, connecting).await {
            Ok(connected) => connected.map_err(|e| Self::refusal(DOING, settings, e))?,
            Err(_) => return Err(Error::Unanswered { doing: DOING, waited }),
        };
        let driven = async move {
            if let Err(error) = connection.await {
                debug!(%error, "a connection for queries broke");
            }
        };
        Ok((client, driven))
    }

    /// Whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// The driver says "error connecting" alone; the cause decides what to do.
    fn refusal(doing: &'static str, settings: &Settings, error: tokio_postgres::Error) -> Error {
        let server = settings.to_string();
        if error.as_db_error().is_some() {
            return Error::query(doing, error);
        }
        let shown = error.to_string();
        let source = match error.into_source().map(|cause| cause.downcast::<std::io::Error>()) {
            Some(Ok(cause)) => *cause,
            Some(Err(cause)) if cause.to_string().contains("does not support TLS") => return Error::NoTls { server },
            Some(Err(cause)) => std::io::Error::other(cause),
            None => std::io::Error::other(shown.clone()),
        };
        match shown.contains("TLS") {
            true => Error::Tls { server, source },
            false => Error::Connect { server, source },
        }
    }

    /// What the server is. Fails where it is none that the feed can be read from.
    pub async fn facts(&self) -> Result<Facts, Error> {
        const DOING: &str = "asking the server what it is";
        let row = self.one(DOING, READ_SERVER, &[]).await?;
        let version: i32 = get(DOING, &row, 0)?;
        let wal_level: String = get(DOING, &row, 1)?;
        let timeout: i64 = get(DOING, &row, 3)?;
        let txid: i64 = get(DOING, &row, 4)?;
        let major = version / 10_000;
        if major < VERSION_MIN {
            return Err(Error::Version { major });
        }
        if wal_level != "logical" {
            return Err(Error::WalLevel { found: wal_level });
        }
        let walsender_timeout = match u64::try_from(timeout) {
            Ok(0) | Err(_) => WALSENDER_TIMEOUT,
            Ok(milliseconds) => Duration::from_millis(milliseconds),
        };
        Ok(Facts { major, standby: get(DOING, &row, 2)?, walsender_timeout, txid: txid.cast_unsigned() })
    }

    /// Whether it is a standby at this moment. What has arrived from it before it says so is of its history up to now.
    pub async fn is_standby(&self) -> Result<bool, Error> {
        const DOING: &str = "asking whether the server is a standby";
        get(DOING, &self.one(DOING, READ_RECOVERY, &[]).await?, 0)
    }

    /// Fails where a publication is not there.
    pub async fn check_publications(&self, names: &[String]) -> Result<(), Error> {
        const DOING: &str = "looking for the publications";
        let rows = self.all(DOING, LIST_MISSING_PUBLICATIONS, &[&names]).await?;
        let missing = rows.iter().map(|row| get(DOING, row, 0)).collect::<Result<Vec<String>, _>>()?;
        match missing.is_empty() {
            true => Ok(()),
            false => Err(Error::NoPublication { names: missing.join(", ") }),
        }
    }

    /// How the slot stands; none where there is none. Fails where it is of another kind or database.
    pub async fn slot(&self, name: &str, database: &str) -> Result<Option<Slot>, Error> {
        const DOING: &str = "looking at the replication slot";
        let rows = self.all(DOING, READ_SLOT, &[&name]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let plugin: Option<String> = get(DOING, row, 0)?;
        let owner: Option<String> = get(DOING, row, 1)?;
        if plugin.as_deref() != Some("pgoutput") || owner.as_deref() != Some(database) {
            return Err(Error::ForeignSlot {
                slot: name.to_owned(),
                plugin: plugin.unwrap_or_else(|| "none (it is physical)".to_owned()),
                database: owner.unwrap_or_else(|| "none".to_owned()),
            });
        }
        let active_pid: Option<i32> = get(DOING, row, 2)?;
        let wal_status: Option<String> = get(DOING, row, 3)?;
        let confirmed: Option<String> = get(DOING, row, 4)?;
        let reason: Option<String> = get(DOING, row, 5)?;
        let lost = (wal_status.as_deref() == Some("lost")).then(|| Loss::parse(reason.as_deref()));
        let confirmed = match confirmed.map(|text| text.parse()) {
            Some(Ok(lsn)) => lsn,
            // A slot without a position is still being made, by whom it says in active_pid.
            None => Lsn(0),
            Some(Err(_)) => return Err(Error::Protocol { what: "a slot's position" }),
        };
        Ok(Some(Slot { active_pid, lost, confirmed }))
    }

    /// Makes the slot and says where its stream begins. It has to wait for the transactions under way: at most
    /// `patience`, then it fails and names them.
    pub async fn create_slot(&self, name: &str, facts: &Facts, patience: Duration) -> Result<Lsn, Error> {
        const DOING: &str = "creating the replication slot";
        let sql = match facts.major >= VERSION_FAILOVER && !facts.standby {
            true => CREATE_FAILOVER_SLOT,
            false => CREATE_SLOT,
        };
        self.bound_statements(patience).await?;
        // Or the server would go on with it after we have left. Where it cannot look, it does go on.
        if let Err(error) = self.one("having the connection looked at", SET_CONNECTION_CHECK, &[]).await {
            debug!(error = &error as &dyn std::error::Error, "the server does not look whether we are there");
        }
        let answer_max = patience.saturating_add(ANSWER_MAX);
        let created = self.within(DOING, answer_max, self.client.query_one(sql, &[&name])).await;
        self.bound_statements(Duration::ZERO).await?;
        match created {
            Ok(row) => {
                let lsn: String = get(DOING, &row, 0)?;
                lsn.parse().map_err(|_| Error::Protocol { what: "a slot's position" })
            }
            Err(error) if error.code() == Some(CANCELED) => {
                Err(Error::SlotWaits { slot: name.to_owned(), pids: self.writers().await? })
            }
            Err(error) => Err(error),
        }
    }

    async fn bound_statements(&self, span: Duration) -> Result<(), Error> {
        let milliseconds = span.as_millis().to_string();
        self.one("bounding a statement", SET_STATEMENT_TIMEOUT, &[&milliseconds]).await.map(drop)
    }

    /// Drops the slot, if it is there.
    pub async fn drop_slot(&self, name: &str) -> Result<(), Error> {
        self.all("dropping the replication slot", DROP_SLOT, &[&name]).await.map(drop)
    }

    /// The processes whose transactions have written and are not over, as text.
    pub async fn writers(&self) -> Result<String, Error> {
        const DOING: &str = "asking who is in the way";
        let rows = self.all(DOING, LIST_WRITERS, &[]).await?;
        let pids = rows.iter().map(|row| get(DOING, row, 0)).collect::<Result<Vec<String>, _>>()?;
        Ok(pids.join(", "))
    }

    /// What this walsender is doing.
    pub async fn walsender(&self, pid: i32) -> Result<Walsender, Error> {
        const DOING: &str = "looking for the walsender";
        let rows = self.all(DOING, FIND_WALSENDER, &[&pid]).await?;
        let Some(row) = rows.first() else { return Ok(Walsender::Gone) };
        Ok(if get(DOING, row, 0)? { Walsender::Waiting } else { Walsender::Working })
    }

    /// Which transactions are over at this moment, and which one that is.
    pub async fn moment(&self) -> Result<Moment, Error> {
        const DOING: &str = "asking for a snapshot";
        let asked = Instant::now();
        let row = self.one(DOING, READ_SNAPSHOT, &[]).await?;
        let (text, micros): (String, i64) = (get(DOING, &row, 0)?, get(DOING, &row, 1)?);
        let snapshot = text.parse().map_err(|_| Error::Protocol { what: "a snapshot" })?;
        let clock = Reading { asked, at: Timestamp::from_micros(micros), answered: Instant::now() };
        Ok(Moment { snapshot, clock })
    }

    /// How far the WAL has come, and what the slot keeps of it.
    pub async fn wal(&self, slot: &str) -> Result<Wal, Error> {
        const DOING: &str = "asking how far the WAL has come";
        let row = self.one(DOING, READ_WAL, &[&slot]).await?;
        let (end, bytes, left): (String, Option<i64>, Option<i64>) =
            (get(DOING, &row, 0)?, get(DOING, &row, 1)?, get(DOING, &row, 2)?);
        let end = end.parse().map_err(|_| Error::Protocol { what: "a position in the WAL" })?;
        let positive = |bytes: i64| bytes.max(0).cast_unsigned();
        Ok(Wal { end, kept: bytes.map(|bytes| Kept { bytes: positive(bytes), left: left.map(positive) }) })
    }

    /// Writes a message that the slot sends on, and says where it stands in the WAL.
    pub async fn heartbeat(&self) -> Result<Lsn, Error> {
        self.position("writing a heartbeat", EMIT_HEARTBEAT).await
    }

    /// The position in the WAL that a statement answers with.
    pub(super) async fn position(&self, doing: &'static str, sql: &str) -> Result<Lsn, Error> {
        let text: String = get(doing, &self.one(doing, sql, &[]).await?, 0)?;
        text.parse().map_err(|_| Error::Protocol { what: "a position in the WAL" })
    }

    pub(super) async fn one(
        &self,
        doing: &'static str,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Row, Error> {
        self.within(doing, ANSWER_MAX, self.client.query_one(sql, values)).await
    }

    pub(super) async fn all(
        &self,
        doing: &'static str,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        self.within(doing, ANSWER_MAX, self.client.query(sql, values)).await
    }

    async fn within<T>(
        &self,
        doing: &'static str,
        waited: Duration,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(waited, work).await {
            Ok(result) => result.map_err(|e| Error::query(doing, e)),
            Err(_) => Err(Error::Unanswered { doing, waited }),
        }
    }
}

pub(super) fn get<'a, T: tokio_postgres::types::FromSql<'a>>(
    doing: &'static str,
    row: &'a Row,
    at: usize,
) -> Result<T, Error> {
    row.try_get(at).map_err(|e| Error::query(doing, e))
}
