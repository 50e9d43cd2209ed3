//! How to reach PostgreSQL: settings from a URL or libpq's words, and TLS. For the replication stream and the queries
//! alike. The password never leaves this module in text.

mod settings;
mod tls;
mod words;

pub use settings::Settings;
pub use tls::TlsMode;

use std::path::PathBuf;

/// Why the settings are no good. No message ever shows the password.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is neither a URL nor libpq's `key=value` words.
    #[error("the database URL cannot be read: expected postgres://user:password@host:port/database or key=value words")]
    Parse(#[source] tokio_postgres::Error),
    /// A word has no value, or a quote is never closed.
    #[error("the database URL cannot be read: {what} behind {after:?}")]
    Syntax {
        /// What is wrong.
        what: &'static str,
        /// The key that it is about, as far as it could be read.
        after: String,
    },
    /// It is neither of the two forms. What it is instead is not shown, for a password may be in it.
    #[error("the database URL cannot be read: expected postgres://user:password@host:port/database or key=value words")]
    Form,
    /// The key is not known.
    #[error("database URL: unknown key {key}; known are {known}")]
    Key {
        /// The key.
        key: String,
        /// All known keys.
        known: String,
    },
    /// The key is known, its value is not.
    #[error("database URL: {key}={value} is not allowed; allowed is {allowed}")]
    Value {
        /// The key.
        key: String,
        /// The value; masked for a password.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// Something that must be there is not.
    #[error("database URL: {key} is missing; {hint}")]
    Missing {
        /// The key.
        key: &'static str,
        /// What to write.
        hint: &'static str,
    },
    /// The file of trusted certificates is of no use.
    #[error("database URL: sslrootcert={path} cannot be used; allowed is a file with PEM certificates, or `system`", path = path.display())]
    Roots {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The machine has no trusted certificates, and the mode needs some.
    #[error("sslmode={mode} needs trusted certificates and this machine has none: name a file with sslrootcert=…")]
    NoRoots {
        /// The mode.
        mode: TlsMode,
    },
}
