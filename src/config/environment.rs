//! The environment: `WALCLOCK_*`, `DATABASE_URL`, and the few variables that are not settings of the server.

use std::ffi::OsString;
use std::path::PathBuf;

use super::{Error, Layer, Setting, layers};

/// Variables of ours that are not in the table: they are read before, or beside, the settings.
const OTHERS: [&str; 5] = ["WALCLOCK_CONFIG", "WALCLOCK_LOG", "WALCLOCK_LOG_FORMAT", "WALCLOCK_PG_BIN", "WALCLOCK_URL"];

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Human where the output is a terminal, JSON otherwise.
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// The variables of this process.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
pub fn environment() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os()
}

/// The settings among some variables. `DATABASE_URL` counts where `WALCLOCK_DATABASE_URL` is absent.
pub(super) fn layer(variables: impl Iterator<Item = (OsString, OsString)>) -> Result<Layer, Error> {
    let mut own = Layer::default();
    let mut general = Layer::default();
    for (name, value) in variables {
        let Ok(name) = name.into_string() else { continue };
        if name == "DATABASE_URL" {
            let setting = Setting::find("database-url").expect("the key stands in the table");
            general.add_variable(setting, &name, text(setting, &name, value)?);
            continue;
        }
        let Some(rest) = name.strip_prefix("WALCLOCK_") else { continue };
        let key = rest.to_ascii_lowercase().replace('_', "-");
        if OTHERS.contains(&name.as_str()) || is_kubernetes_link(rest, &value) {
            continue;
        }
        let setting = Setting::find(&key).ok_or_else(|| layers::unknown(&key, format!("variable {name}")))?;
        own.add_variable(setting, &name, text(setting, &name, value)?);
    }
    let names_file = own.has("database-url-file");
    Ok(if names_file { own } else { own.over(general) })
}

fn text(setting: &'static Setting, name: &str, value: OsString) -> Result<String, Error> {
    value.into_string().map_err(|_| Error::BadValue {
        key: setting.key.to_owned(),
        value: "(not UTF-8)".to_owned(),
        origin: format!("variable {name}"),
        allowed: setting.allowed.to_owned(),
    })
}

/// Kubernetes sets such variables for a service that is named walclock; they are not meant for us.
fn is_kubernetes_link(rest: &str, value: &OsString) -> bool {
    let link = value.to_str().is_some_and(|value| value.starts_with("tcp://"));
    rest.starts_with("SERVICE_") || rest.starts_with("PORT_") || (rest == "PORT" && link)
}

/// The file of settings that the environment names.
pub fn config_file() -> Option<PathBuf> {
    variable("WALCLOCK_CONFIG").map(PathBuf::from)
}

/// What is logged: `info`, `walclock=debug,warn`, in the form of tracing's filters.
pub fn log_filter() -> Option<String> {
    variable("WALCLOCK_LOG").map(|filter| filter.to_string_lossy().into_owned())
}

/// How log lines look, by the environment.
pub fn log_format() -> Result<Option<LogFormat>, Error> {
    let Some(value) = variable("WALCLOCK_LOG_FORMAT") else { return Ok(None) };
    let value = value.to_string_lossy().into_owned();
    let format = <LogFormat as clap::ValueEnum>::from_str(&value, false);
    format.map(Some).map_err(|_| Error::BadValue {
        key: "log-format".to_owned(),
        value,
        origin: "variable WALCLOCK_LOG_FORMAT".to_owned(),
        allowed: "auto, human or json".to_owned(),
    })
}

/// The folder of PostgreSQL's programs, where it is neither in PATH nor in Debian's place.
pub fn pg_programs() -> Option<PathBuf> {
    variable("WALCLOCK_PG_BIN").map(PathBuf::from)
}

/// The server that the client commands talk to.
pub fn server_url() -> Option<String> {
    variable("WALCLOCK_URL").map(|url| url.to_string_lossy().into_owned())
}

/// The folder for the data of this user's programs, by the XDG rules; none where there is no home either.
pub fn data_home() -> Option<PathBuf> {
    let absolute = |path: PathBuf| path.is_absolute().then_some(path);
    let xdg = variable("XDG_DATA_HOME").map(PathBuf::from).and_then(absolute);
    xdg.or_else(|| variable("HOME").map(PathBuf::from).and_then(absolute).map(|home| home.join(".local/share")))
}

fn variable(name: &str) -> Option<OsString> {
    environment().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value)
}
