//! The replication connection: it logs in, checks the slot, streams, and reports what is durable.
//!
//! `Server` is the ordinary connection beside it, for questions; `Connection` becomes `Stream` and `Reports`. What to do
//! with the answers is decided in `ingest`.

mod binding;
mod catalogs;
mod claim;
mod connection;
mod copy;
mod error;
mod login;
mod loss;
mod pace;
mod published;
mod server;
mod socket;
mod stream;

pub use claim::{Session, application_name};
pub use connection::{Connection, System};
pub use copy::{Event, Position};
pub use error::{Error, Refusal};
pub(in crate::feed) use login::FORMATS;
pub use loss::Loss;
pub use published::{Kinds, Member, Publication, Published};
pub use server::{Facts, Kept, Moment, Server, Slot, Wal, Walsender};
pub use stream::{Reports, Stream, start};

use std::time::{Duration, Instant};

use crate::pg::Settings;

/// Longest name of a slot or a publication, in bytes: PostgreSQL's bound on any name.
const NAME_BYTES_MAX: usize = 63;
/// How long a walsender may hold the slot after the end of its stream, and how often to look.
const RELEASE_MAX: Duration = Duration::from_secs(5);
const RELEASE_POLL: Duration = Duration::from_millis(50);
/// `object_in_use`.
const IN_USE: &str = "55006";

/// Where the stream comes from.
#[derive(Clone, Debug)]
pub struct Config {
    /// How to reach PostgreSQL. With several hosts, each is tried in turn.
    pub settings: Settings,
    /// The replication slot; made if it is not there.
    pub slot: String,
    /// The publications to read. They must be there before the slot.
    pub publications: Vec<String>,
}

impl Config {
    /// Refuses names that cannot stand in a replication command, which takes no parameters.
    pub fn validate(&self) -> Result<(), Error> {
        check_name("replication slot", &self.slot)?;
        self.publications.iter().try_for_each(|name| check_name("publication", name))
    }
}

/// Drops the slot of a server that goes for good, if it is there. A walsender that has only just been told that its
/// stream is over may hold the slot for another moment; that is waited for.
///
/// # Errors
/// Where the server cannot be reached, or somebody still streams from the slot.
pub async fn drop_slot(settings: &Settings, slot: &str) -> Result<(), Error> {
    check_name("replication slot", slot)?;
    let mut failure = None;
    for settings in settings.each_host() {
        match Server::connect(&settings).await {
            Ok(server) => return drop_when_free(&server, slot).await,
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or(Error::Ended))
}

async fn drop_when_free(server: &Server, slot: &str) -> Result<(), Error> {
    let deadline = Instant::now() + RELEASE_MAX;
    loop {
        match server.drop_slot(slot).await {
            Err(error) if error.code() == Some(IN_USE) && Instant::now() < deadline => {
                tokio::time::sleep(RELEASE_POLL).await;
            }
            end => return end,
        }
    }
}

fn check_name(what: &'static str, name: &str) -> Result<(), Error> {
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len());
    match fits && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
        true => Ok(()),
        false => Err(Error::Name { what, name: name.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_break_out_of_a_command_are_refused() {
        for (name, allowed) in [
            ("walclock_1", true),
            ("a", true),
            ("", false),
            ("A", false),
            ("a-b", false),
            ("a'b", false),
            ("a\"b", false),
            ("é", false),
        ] {
            assert_eq!(check_name("replication slot", name).is_ok(), allowed, "{name}");
        }
        assert!(check_name("publication", &"x".repeat(63)).is_ok());
        assert!(check_name("publication", &"x".repeat(64)).is_err());
    }
}
