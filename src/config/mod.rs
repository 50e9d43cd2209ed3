//! Settings: flags, then environment, then a TOML file, then defaults. The only place that reads the environment.
//!
//! One table (`table.rs`) names every setting once; flags, variables, keys of the file and the documentation all come
//! from it. Nothing is guessed: an unknown key or a value that is not allowed is an error, and no secret is ever part of
//! its text.

mod environment;
mod flags;
mod layers;
mod settings;
mod table;
mod value;

use std::path::PathBuf;

pub use environment::{
    LogFormat, config_file, data_home, environment, log_filter, log_format, pg_programs, server_url,
};
pub use flags::{DatabaseFlags, DoctorFlags, ServeFlags, SettingFlags};
pub use layers::Layer;
pub use settings::{Role, Secret, Settings};
pub use table::{SETTINGS, Setting};

/// Why the settings are no good. Each text is one line and names key, value, where it came from and what is allowed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such setting.
    #[error("{origin}: there is no setting `{key}`{}", nearest.as_ref().map(|key| format!("; did you mean `{key}`?")).unwrap_or_default())]
    UnknownKey {
        /// The key as it was given.
        key: String,
        /// The setting with the most similar name.
        nearest: Option<&'static str>,
        /// Where it stands.
        origin: String,
    },
    /// The value is not one that is allowed.
    #[error("{origin}: `{key}` cannot be `{value}`: expected {allowed}")]
    BadValue {
        /// The setting.
        key: String,
        /// The value as it was given; stars for a secret.
        value: String,
        /// Where it stands.
        origin: String,
        /// What it may be.
        allowed: String,
    },
    /// A setting that has no default was not given.
    #[error("`{key}` is not set: give --{key}, the variable {variable} or `{key}` in a file (--config)")]
    Missing {
        /// The setting.
        key: &'static str,
        /// The variable that would set it.
        variable: String,
    },
    /// Two settings contradict each other.
    #[error("{0}")]
    Conflict(String),
    /// A file cannot be read.
    #[error("{origin}: `{}` cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What named it.
        origin: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{}, line {line}: not TOML: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
}

#[cfg(test)]
mod tests;
