//! Layers of given values, and the one that wins: a flag before a variable before the file before the default.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::{Error, Setting};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    Flag(&'static str),
    Variable(String),
    File(PathBuf),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(key) => write!(f, "flag --{key}"),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

#[derive(Clone, Debug)]
struct Given {
    values: Vec<String>,
    origin: Origin,
}

/// Values as text, each with its origin. Only settings of the table get in. Never printed: it may hold secrets.
#[derive(Clone, Default)]
pub struct Layer(BTreeMap<&'static str, Given>);

impl Layer {
    /// Adds what a flag was given.
    pub(super) fn add_flag(&mut self, setting: &'static Setting, values: Vec<String>) {
        self.0.insert(setting.key, Given { values, origin: Origin::Flag(setting.key) });
    }

    /// Adds a variable that sets this setting. An empty one counts as not set.
    pub(super) fn add_variable(&mut self, setting: &'static Setting, name: &str, value: String) {
        if !value.is_empty() {
            self.0.insert(setting.key, Given { values: vec![value], origin: Origin::Variable(name.to_owned()) });
        }
    }

    /// Reads a TOML file of `key = value` lines.
    pub(super) fn of_file(path: &Path, text: &str) -> Result<Self, Error> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let before = text.get(..error.span().map_or(0, |span| span.start)).unwrap_or(text);
            let line = before.matches('\n').count().saturating_add(1);
            Error::Syntax { path: path.to_owned(), line, message: error.message().replace('\n', " ") }
        })?;
        let mut layer = Self::default();
        for (key, value) in table {
            let origin = Origin::File(path.to_owned());
            let setting = Setting::find(&key).ok_or_else(|| unknown(&key, origin.to_string()))?;
            let values = texts(value, setting).map_err(|shown| Error::BadValue {
                key,
                value: mask(setting, &shown),
                origin: origin.to_string(),
                allowed: setting.allowed.to_owned(),
            })?;
            layer.0.insert(setting.key, Given { values, origin });
        }
        Ok(layer)
    }

    /// This layer, with the other one's values where it has none.
    pub(super) fn over(mut self, other: Self) -> Self {
        for (key, given) in other.0 {
            self.0.entry(key).or_insert(given);
        }
        self
    }

    /// Whether the setting was given, not merely left at its default.
    pub(super) fn has(&self, key: &'static str) -> bool {
        self.0.contains_key(key)
    }

    /// The one value of a setting that has a default.
    pub(super) fn one<T>(&self, key: &'static str, parse: impl Fn(&str) -> Option<T>) -> Result<T, Error> {
        self.optional(key, parse)?.ok_or_else(|| missing(key))
    }

    /// The value of a setting that may be absent.
    pub(super) fn optional<T>(&self, key: &'static str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Error> {
        let (setting, given) = self.given(key);
        let Some(given) = given else { return Ok(None) };
        // Given twice as a flag: the last one counts, as everywhere.
        let value = given.values.last().map_or("", String::as_str);
        parse(value).map(Some).ok_or_else(|| bad(setting, value, &given.origin))
    }

    /// The values of a setting that may have several; what stands between commas counts as one each.
    pub(super) fn many<T>(&self, key: &'static str, parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, Error> {
        let (setting, given) = self.given(key);
        let Some(given) = given else { return Ok(Vec::new()) };
        let values = given.values.iter().flat_map(|value| value.split(',')).map(str::trim);
        values.map(|value| parse(value).ok_or_else(|| bad(setting, value, &given.origin))).collect()
    }

    /// The text of a setting and where it stands.
    pub(super) fn text(&self, key: &'static str) -> Option<(&str, String)> {
        let given = self.0.get(key)?;
        Some((given.values.last()?.as_str(), given.origin.to_string()))
    }

    fn given(&self, key: &'static str) -> (&'static Setting, Option<Given>) {
        let setting = Setting::find(key).expect("the key stands in the table");
        let default = || setting.default.map(|text| Given { values: vec![text.to_owned()], origin: Origin::Default });
        (setting, self.0.get(key).cloned().or_else(default))
    }
}

/// What to say of a key that is not in the table.
pub(super) fn unknown(key: &str, origin: String) -> Error {
    let alike = |setting: &&Setting| {
        let (a, b) = (setting.key.replace('-', ""), key.replace(['-', '_'], "").to_ascii_lowercase());
        a == b || (b.len() >= 4 && (a.contains(&b) || b.contains(&a)))
    };
    let nearest = super::SETTINGS.iter().find(alike).map(|setting| setting.key);
    Error::UnknownKey { key: key.to_owned(), nearest, origin }
}

/// What to say of a setting that is needed and not given.
pub(super) fn missing(key: &'static str) -> Error {
    let variable = Setting::find(key).map(Setting::variable).unwrap_or_default();
    Error::Missing { key, variable }
}

fn bad(setting: &Setting, value: &str, origin: &Origin) -> Error {
    Error::BadValue {
        key: setting.key.to_owned(),
        value: mask(setting, value),
        origin: origin.to_string(),
        allowed: setting.allowed.to_owned(),
    }
}

fn mask(setting: &Setting, value: &str) -> String {
    match setting.secret {
        true => "***".to_owned(),
        false => value.escape_debug().to_string(),
    }
}

/// The value of a key of the file as texts; for what cannot be one, its kind, to be shown.
fn texts(value: toml::Value, setting: &Setting) -> Result<Vec<String>, String> {
    match value {
        toml::Value::String(text) => Ok(vec![text]),
        toml::Value::Integer(number) => Ok(vec![number.to_string()]),
        toml::Value::Boolean(switch) => Ok(vec![switch.to_string()]),
        toml::Value::Array(items) if setting.many => {
            let texts = items.into_iter().map(|item| match item {
                toml::Value::String(text) => Ok(text),
                other => Err(format!("a TOML {}", other.type_str())),
            });
            texts.collect()
        }
        other => Err(format!("a TOML {}", other.type_str())),
    }
}
