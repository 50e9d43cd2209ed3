//! A scope: what a reader of the feed asks for and what a row belongs to.

use std::fmt;
use std::sync::Arc;

use super::limits;

/// The name of a scope as a reader may ask for it, or the empty scope of rows that have none. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(Arc<str>);

/// The text has a character outside `[0-9A-Za-z_.:/-]`, or is not 1 to 255 bytes long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a scope: expected {}", Scope::allowed())]
pub struct ParseScopeError;

impl Scope {
    /// The scope of rows whose scope column is null, empty or absent.
    pub fn empty() -> Self {
        Self(Arc::from(""))
    }

    /// Checks the text of a scope that a reader asks for.
    pub fn parse(text: &str) -> Result<Self, ParseScopeError> {
        match Self::allows(text) {
            true => Ok(Self(Arc::from(text))),
            false => Err(ParseScopeError),
        }
    }

    /// Whether a reader may ask for this text.
    pub fn allows(text: &str) -> bool {
        let fits = !text.is_empty() && text.len() <= limits::SCOPE_BYTES_MAX;
        fits && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:/-".contains(&b))
    }

    /// What a reader may ask for, in words.
    pub fn allowed() -> String {
        format!("1 to {} of the characters 0-9 A-Z a-z _ . : / -", limits::SCOPE_BYTES_MAX)
    }

    /// The text of the scope; empty for the empty scope.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
