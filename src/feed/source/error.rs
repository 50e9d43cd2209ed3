//! What can go wrong between us and PostgreSQL, each in one line that says what to do about it.

use std::fmt;
use std::io;
use std::time::Duration;

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::ErrorFields;

use crate::pg;

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings are no good.
    #[error(transparent)]
    Settings(#[from] pg::Error),
    /// The name of a slot or a publication.
    #[error("{what} {name:?} is not allowed; allowed are 1 to 63 of the characters a-z 0-9 _")]
    Name {
        /// Slot or publication.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The server cannot be reached.
    #[error("cannot reach PostgreSQL at {server}: {source}")]
    Connect {
        /// The server.
        server: String,
        /// Why.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection to PostgreSQL broke: {0}")]
    Broken(#[source] io::Error),
    /// The server has no TLS, and the settings ask for it.
    #[error("{server} offers no TLS: turn it on there (ssl = on), or set sslmode=prefer")]
    NoTls {
        /// The server.
        server: String,
    },
    /// The TLS handshake failed.
    #[error(
        "no TLS with {server}: {source}; check sslmode, sslrootcert and that the certificate is for this very host"
    )]
    Tls {
        /// The server.
        server: String,
        /// Why.
        source: io::Error,
    },
    /// The server wants to see a password in a form that we do not give.
    #[error("{server} asks for {asked}, which is not given away: {advice}")]
    Authentication {
        /// The server.
        server: String,
        /// What it asks for.
        asked: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// The server said no.
    #[error("{doing}: {refusal}")]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// What it said.
        refusal: Refusal,
    },
    /// A query failed on our side of the connection.
    #[error("{doing}")]
    Query {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: tokio_postgres::Error,
    },
    /// A query was not answered in time.
    #[error("{doing}: PostgreSQL did not answer within {waited:?}")]
    Unanswered {
        /// What was being done.
        doing: &'static str,
        /// How long it had.
        waited: Duration,
    },
    /// The server sent what the protocol does not know.
    #[error("PostgreSQL sent what the protocol does not know: {what}")]
    Protocol {
        /// What it was.
        what: &'static str,
    },
    /// The server is too old.
    #[error("PostgreSQL {major} is too old: 14 or newer is needed")]
    Version {
        /// Its major version.
        major: i32,
    },
    /// The server writes too little into its WAL.
    #[error("wal_level is {found}: set wal_level = logical in postgresql.conf and restart PostgreSQL")]
    WalLevel {
        /// The setting as it is.
        found: String,
    },
    /// A publication is not there. The slot must not be made before it.
    #[error("publication {names} does not exist: run `walclock migrate`, or create publication {names}")]
    NoPublication {
        /// The names.
        names: String,
    },
    /// The slot is not one of ours.
    #[error(
        "replication slot {slot} belongs to plugin {plugin} and database {database}: name another one, or drop it with select pg_drop_replication_slot('{slot}')"
    )]
    ForeignSlot {
        /// The slot.
        slot: String,
        /// Its plugin.
        plugin: String,
        /// Its database.
        database: String,
    },
    /// Somebody who is no walclock of this role streams from the slot.
    #[error(
        "replication slot {slot} is in use by process {pid}, which is not ours: name another slot, or end it with select pg_terminate_backend({pid})"
    )]
    SlotInUse {
        /// The slot.
        slot: String,
        /// The walsender that has it.
        pid: i32,
    },
    /// Another walclock lives on the slot.
    #[error(
        "another walclock has claimed replication slot {slot}: give each its own (--slot), or stop the other; one that has died is given up after 20 seconds"
    )]
    SlotClaimed {
        /// The slot.
        slot: String,
    },
    /// An earlier connection of this walclock's own was ended, and is still there.
    #[error("process {pid}, left behind by an earlier connection of ours, has not ended within {waited:?}")]
    Lingers {
        /// The process of PostgreSQL that serves it.
        pid: i32,
        /// For how long.
        waited: Duration,
    },
    /// The creation of the slot waits for transactions that do not end.
    #[error("creating replication slot {slot} waits for transactions that are under way: end them (pids {pids})")]
    SlotWaits {
        /// The slot.
        slot: String,
        /// Who is in the way.
        pids: String,
    },
    /// One of several hosts seems to have fallen behind, or to be another cluster's, and not all the others could be asked.
    #[error(
        "{server} is passed over while not every host of the database URL can be asked: {why}; name it alone if it is the one to follow"
    )]
    PassedOver {
        /// The host.
        server: String,
        /// What speaks against it.
        why: String,
        /// Why another one could not be asked.
        #[source]
        other: Box<Error>,
    },
    /// The stream may begin behind what we have.
    #[error(
        "replication slot {slot} was moved while it was being opened, or is looked at on another server than the stream comes from: the database URL must lead to one server, without a pooler between"
    )]
    SlotMoved {
        /// The slot.
        slot: String,
    },
    /// The standby that the stream comes from was promoted: its timeline is another one now.
    #[error("the standby was promoted: its timelines are read again")]
    Promoted,
    /// The server sends on without a publication (PostgreSQL 18): changes were left out.
    #[error("PostgreSQL left changes out of the stream: {notice}")]
    Skipped {
        /// What it said.
        notice: String,
    },
    /// Nothing arrives, although the walsender was asked for an answer and is free to give one.
    #[error("PostgreSQL's walsender waits, and nothing has come from it for {waited:?}: something between swallows it")]
    Swallowed {
        /// For how long.
        waited: Duration,
    },
    /// Nothing comes on the connection for questions, although PostgreSQL has answered, or has nothing to answer.
    #[error("PostgreSQL answers on a new connection, but not on the one for questions: something between swallows it")]
    Deserted,
    /// Nothing comes, and a new connection does not get through either.
    #[error("PostgreSQL has sent nothing for {waited:?}, and a new connection does not get through either")]
    Unreachable {
        /// For how long.
        waited: Duration,
        /// Why not.
        #[source]
        other: Box<Error>,
    },
    /// The server fell silent and its walsender is gone.
    #[error("PostgreSQL sent nothing for {waited:?} and its walsender is gone")]
    Silent {
        /// For how long.
        waited: Duration,
    },
    /// The server ended the stream.
    #[error("PostgreSQL ended the stream")]
    Ended,
}

impl Error {
    /// Whether the same may succeed later without anybody changing our settings or the rights in PostgreSQL.
    pub fn may_heal(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Broken(_)
            | Self::Query { .. }
            | Self::Unanswered { .. }
            | Self::Protocol { .. }
            | Self::NoPublication { .. }
            | Self::SlotInUse { .. }
            | Self::SlotClaimed { .. }
            | Self::Lingers { .. }
            | Self::Swallowed { .. }
            | Self::Deserted
            | Self::Unreachable { .. }
            | Self::SlotWaits { .. }
            | Self::SlotMoved { .. }
            | Self::PassedOver { .. }
            | Self::Promoted
            | Self::Skipped { .. }
            | Self::Silent { .. }
            | Self::Ended => true,
            Self::Settings(_)
            | Self::Name { .. }
            | Self::NoTls { .. }
            | Self::Tls { .. }
            | Self::Authentication { .. }
            | Self::Version { .. }
            | Self::WalLevel { .. }
            | Self::ForeignSlot { .. } => false,
            Self::Refused { refusal, .. } => refusal.may_heal(),
        }
    }

    /// Whether somebody else lives on the slot and moves it on.
    pub fn is_anothers(&self) -> bool {
        matches!(self, Self::SlotClaimed { .. } | Self::SlotInUse { .. })
    }

    /// The SQLSTATE, where the server said no.
    pub fn code(&self) -> Option<&str> {
        if let Self::Refused { refusal, .. } = self { Some(&refusal.code) } else { None }
    }

    /// What a query over the driver failed with: the server's own words where it gave some.
    pub(in crate::feed) fn query(doing: &'static str, source: tokio_postgres::Error) -> Self {
        match source.as_db_error() {
            Some(error) => Self::Refused {
                doing,
                refusal: Refusal {
                    code: error.code().code().to_owned(),
                    message: error.message().to_owned(),
                    detail: error.detail().map(str::to_owned),
                    file: error.file().map(str::to_owned),
                },
            },
            None => Self::Query { doing, source },
        }
    }
}

/// An error of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// Its SQLSTATE.
    pub code: String,
    /// Its words.
    pub message: String,
    /// More of them.
    pub detail: Option<String>,
    /// The file of PostgreSQL's source that it comes from. Unlike its words it is the same in every language.
    pub file: Option<String>,
}

impl Refusal {
    /// Reads an ErrorResponse or a NoticeResponse; what cannot be read is left out.
    pub(super) fn read(mut fields: ErrorFields<'_>) -> Self {
        let mut refusal = Self::default();
        while let Ok(Some(field)) = fields.next() {
            let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
            match field.type_() {
                b'C' => refusal.code = value,
                b'M' => refusal.message = value,
                b'D' => refusal.detail = Some(value),
                b'F' => refusal.file = Some(value),
                _ => {}
            }
        }
        refusal
    }

    fn may_heal(&self) -> bool {
        let class = self.code.get(..2).unwrap_or_default();
        !(matches!(class, "28" | "3D" | "0A") || matches!(self.code.as_str(), "42501" | "08P01" | "42601"))
    }

    /// What to do about it.
    fn advice(&self) -> Option<&'static str> {
        Some(match self.code.as_str() {
            "28P01" => "check user and password in the database URL",
            "28000" if self.message.contains("pg_hba.conf") => {
                "add a line for this user, database and address to pg_hba.conf and reload it"
            }
            "28000" => "check the user in the database URL",
            "3D000" => "check the database in the database URL",
            "42501" if self.message.starts_with("permission denied for database") => {
                "the role may not connect: run `grant connect on database … to …` as its owner, or use another role"
            }
            "42501" => {
                "the role needs the right to replicate: run `alter role … replication` as a superuser, or use another role"
            }
            "53400" => {
                "raise max_replication_slots, or drop a slot that nobody uses (select * from pg_replication_slots)"
            }
            "53300" => "raise max_wal_senders or max_connections, or end connections that nobody uses",
            "08P01" | "0A000" => "connect to PostgreSQL itself: a pooler between does not pass replication on",
            "42704" => "a publication or the slot is gone",
            "57P01" => {
                "PostgreSQL restarts, or somebody or a checkpoint ended the walsender: the slot is looked at again"
            }
            "57P02" | "57P03" => "PostgreSQL restarts",
            _ => return None,
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        if let Some(detail) = &self.detail {
            write!(f, " ({detail})")?;
        }
        write!(f, " [{}]", self.code)?;
        match self.advice() {
            Some(advice) => write!(f, ": {advice}"),
            None => Ok(()),
        }
    }
}
