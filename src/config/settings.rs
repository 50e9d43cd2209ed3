//! The settings, checked.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use crate::domain::{causes, limits};

use super::{Error, Layer, environment, layers, value};

/// Text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides the text from logs and messages.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Something that a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads the slot, keeps the journal, answers `/changes`.
    Changeserver,
    /// Leases shards, fires timers.
    Dispatcher,
    /// Answers the calls that write and read timers.
    Api,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Changeserver, Self::Dispatcher, Self::Api];

    /// The word for it in settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Changeserver => "changeserver",
            Self::Dispatcher => "dispatcher",
            Self::Api => "api",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

/// All settings of a server. The table in `config::SETTINGS` says what each means.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each field is a line of the table, which documents it")]
pub struct Settings {
    pub database_url: Option<Secret>,
    pub roles: BTreeSet<Role>,
    pub bind: IpAddr,
    pub port: u16,
    pub management_port: Option<u16>,
    pub path_prefix: String,
    pub connections_max: usize,
    pub data_dir: Option<PathBuf>,
    pub slot: String,
    pub publications: Vec<String>,
    pub selector_columns: Vec<String>,
    pub max_age: Duration,
    pub max_size_bytes: u64,
    pub block_max: Duration,
    pub changes_url: Option<Url>,
    pub callback_allow: Vec<IpNet>,
    pub callbacks_max: usize,
    pub callbacks_per_host_max: usize,
    pub callbacks_per_host_rate_max: Option<u32>,
    pub callbacks_per_host_failures: u32,
    pub auto_create_namespaces: bool,
    pub lease_ttl: Duration,
    pub clock_age_max: Duration,
    pub clock_error_max: Duration,
    pub clock_offset_max: Duration,
    pub retention: Duration,
    pub database_connections: usize,
    pub drain_max: Duration,
}

impl Settings {
    /// The settings from flags, environment and file, in this order. `config` is the file that `--config` names.
    pub fn load(flags: Layer, config: Option<&Path>) -> Result<Self, Error> {
        Self::from_sources(flags, config, environment::environment())
    }

    /// The same with the environment as an argument.
    pub(super) fn from_sources(
        flags: Layer,
        config: Option<&Path>,
        variables: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Error> {
        let mut variables: Vec<_> = variables.collect();
        let named = variables.iter().find(|(name, value)| name == "WALCLOCK_CONFIG" && !value.is_empty());
        let file = match (config, named) {
            (Some(path), _) => Some((path.to_owned(), "flag --config")),
            (None, Some((_, value))) => Some((PathBuf::from(value), "variable WALCLOCK_CONFIG")),
            (None, None) => None,
        };
        let file = file.map(|(path, origin)| read_file(&path, origin)).transpose()?.unwrap_or_default();
        let layer = flags.over(environment::layer(variables.drain(..))?).over(file);
        let settings = Self::resolve(&layer)?;
        settings.validate()?;
        Ok(settings)
    }

    /// Every setting at its default.
    pub fn defaults() -> Self {
        Self::resolve(&Layer::default()).expect("the defaults in the table are allowed values")
    }

    /// The URL of the database, or what to say where there is none.
    pub fn database_url(&self) -> Result<&Secret, Error> {
        self.database_url.as_ref().ok_or_else(|| layers::missing("database-url"))
    }

    /// The base of the data folder, or what to say where there is none.
    pub fn data_dir(&self) -> Result<PathBuf, Error> {
        let default = || environment::data_home().map(|home| home.join("walclock/serve"));
        self.data_dir.clone().or_else(default).ok_or_else(|| layers::missing("data-dir"))
    }

    /// Whether this process has the role.
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    fn resolve(layer: &Layer) -> Result<Self, Error> {
        let (none, second, hour) = (Duration::ZERO, Duration::from_secs(1), Duration::from_secs(3600));
        let (minute, day) = (Duration::from_secs(60), Duration::from_secs(86_400));
        Ok(Self {
            database_url: database_url(layer)?,
            roles: layer.many("roles", Role::parse)?.into_iter().collect(),
            bind: layer.one("bind", |text| text.parse().ok())?,
            port: layer.one("port", |text| text.parse().ok())?,
            management_port: layer.optional("management-port", |text| text.parse().ok())?,
            path_prefix: layer.one("path-prefix", value::prefix)?,
            connections_max: layer.one("connections-max", |text| value::count(text, 1..=1_000_000))?,
            data_dir: layer.optional("data-dir", |text| (!text.is_empty()).then(|| PathBuf::from(text)))?,
            slot: layer.one("slot", value::slot)?,
            publications: layer.many("publication", value::publication)?,
            selector_columns: layer.many("selector-column", value::column)?,
            max_age: layer.one("max-age", value::span_within(second, Duration::MAX))?,
            max_size_bytes: layer.one("max-size", |text| value::size(text).filter(|size| *size >= 1 << 20))?,
            block_max: layer.one("block-max", value::span_within(none, hour))?,
            changes_url: layer.optional("changes-url", value::web_url)?,
            callback_allow: layer.many("callback-allow", value::range)?,
            callbacks_max: layer.one("callbacks-max", |text| value::count(text, 1..=100_000))?,
            callbacks_per_host_max: layer.one("callbacks-per-host-max", |text| value::count(text, 1..=100_000))?,
            callbacks_per_host_rate_max: layer.optional("callbacks-per-host-rate-max", |text| {
                value::count(text, 1..=1_000_000).and_then(|rate| u32::try_from(rate).ok())
            })?,
            callbacks_per_host_failures: layer.one("callbacks-per-host-failures", |text| {
                value::count(text, 0..=1_000_000).and_then(|failures| u32::try_from(failures).ok())
            })?,
            auto_create_namespaces: layer.one("auto-create-namespaces", value::switch)?,
            lease_ttl: layer
                .one("lease-ttl", value::span_within(*limits::LEASE_TTL.start(), *limits::LEASE_TTL.end()))?,
            clock_age_max: layer.one("clock-age-max", value::span_within(second * 2, hour))?,
            clock_error_max: layer.one("clock-error-max", value::span_within(second / 100, minute))?,
            clock_offset_max: layer.one("clock-offset-max", value::span_within(second, Duration::MAX))?,
            retention: layer.one("retention", value::span_within(day, Duration::MAX))?,
            database_connections: layer.one("database-connections", |text| value::count(text, 2..=1000))?,
            drain_max: layer.one("drain-max", value::span_within(none, hour))?,
        })
    }

    fn validate(&self) -> Result<(), Error> {
        for (key, empty) in [("roles", self.roles.is_empty()), ("publication", self.publications.is_empty())] {
            if empty {
                return Err(Error::Conflict(format!("`{key}` is an empty list: give at least one")));
            }
        }
        if self.has(Role::Dispatcher) && !self.has(Role::Changeserver) && self.changes_url.is_none() {
            let message = "`roles` has dispatcher without changeserver: give `changes-url`, the changeserver to follow";
            return Err(Error::Conflict(message.to_owned()));
        }
        if self.management_port.is_some_and(|port| port != 0 && port == self.port) {
            let message = format!("`management-port` and `port` are both {}: they must differ", self.port);
            return Err(Error::Conflict(message));
        }
        Ok(())
    }
}

fn read_file(path: &Path, origin: &str) -> Result<Layer, Error> {
    let text = read(path, origin)?;
    Layer::of_file(path, &text)
}

fn read(path: &Path, origin: &str) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::Unreadable {
        path: path.to_owned(),
        origin: origin.to_owned(),
        source,
    })
}

/// The URL of the database, or the one in the file named for it.
fn database_url(layer: &Layer) -> Result<Option<Secret>, Error> {
    let text = match (layer.text("database-url"), layer.text("database-url-file")) {
        (Some((_, here)), Some((_, there))) => {
            let message = format!("`database-url` ({here}) and `database-url-file` ({there}) are both set: give one");
            return Err(Error::Conflict(message));
        }
        (Some((text, origin)), None) => Some((text.to_owned(), origin)),
        (None, Some((path, origin))) => Some((read(Path::new(path), &origin)?.trim().to_owned(), origin)),
        (None, None) => None,
    };
    let Some((text, origin)) = text else { return Ok(None) };
    match crate::pg::Settings::parse(&text) {
        Ok(_) => Ok(Some(Secret(text))),
        Err(error) => {
            Err(Error::Conflict(format!("{origin}: `database-url` cannot be `***`: {}", causes::chain(&error))))
        }
    }
}
