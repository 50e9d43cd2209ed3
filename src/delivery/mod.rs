//! Outgoing HTTP: callbacks, and the change feed of another process. Nothing here decides what follows an attempt.

mod body;
pub mod changes;
mod client;
mod connect;
pub mod guard;
mod heard;
mod pool;
mod reply;
mod request;
mod resolve;
mod routes;
mod shortage;
mod transport;

use std::io;

pub use client::{Client, Config, InvalidConfig};
pub use resolve::{Resolver, system_resolver};

/// Why a request got no whole answer.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("callback {0} not allowed")]
    Callback(&'static str),
    #[error("callback header not allowed: {0}")]
    Header(String),
    #[error(transparent)]
    Blocked(#[from] guard::Blocked),
    #[error("host not found")]
    Resolve(#[source] io::Error),
    #[error("too many names are being looked up")]
    NoLookup,
    #[error("no file, port or memory for a connection")]
    NoSocket(#[source] io::Error),
    #[error("not connected in time")]
    ConnectTimedOut,
    #[error("not connected")]
    Connect(#[source] io::Error),
    #[error("no secure connection")]
    Tls(#[source] io::Error),
    #[error("no answer")]
    Exchange(#[source] hyper::Error),
    #[error("answer cut off")]
    Cut(#[source] hyper::Error),
}

impl Error {
    /// Whether there was no connection to send the request over.
    fn is_of_connecting(&self) -> bool {
        match self {
            Self::Resolve(_)
            | Self::NoLookup
            | Self::NoSocket(_)
            | Self::ConnectTimedOut
            | Self::Connect(_)
            | Self::Tls(_) => true,
            Self::Callback(_) | Self::Header(_) | Self::Blocked(_) | Self::Exchange(_) | Self::Cut(_) => false,
        }
    }

    /// What this process itself was short of, so that it says nothing of the server; none where it was short of nothing.
    fn shortage(&self) -> Option<&'static str> {
        match self {
            Self::NoLookup => Some("lookups"),
            Self::NoSocket(_) => Some("sockets"),
            Self::Resolve(_)
            | Self::ConnectTimedOut
            | Self::Connect(_)
            | Self::Tls(_)
            | Self::Callback(_)
            | Self::Header(_)
            | Self::Blocked(_)
            | Self::Exchange(_)
            | Self::Cut(_) => None,
        }
    }
}
