//! The scopes that a call asks for, under either of their parameter's two names.

use super::parameters::{Text, given};
use super::refusal::{Details, Refusal};
use crate::domain::limits::SCOPES_MAX;
use crate::domain::scope::Scope;

/// The scopes of a call as they came, those without a value left out.
#[derive(Debug, Default)]
pub struct Given<'a>(Vec<(&'static str, Text<'a>)>);

/// What is wrong with the scopes of a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A scope has a character that none may have, is too long, or cannot be decoded.
    #[error("Invalid char in {name} param")]
    Character {
        /// The name that it came under.
        name: &'static str,
        /// It, decoded where it can be.
        value: String,
    },
    /// More than [`SCOPES_MAX`].
    #[error("{name}: {count} scopes, exceeds max {SCOPES_MAX}")]
    TooMany {
        /// The name that the first one came under.
        name: &'static str,
        /// How many there are, without duplicates.
        count: usize,
    },
}

impl<'a> Given<'a> {
    /// Takes a parameter if it names a scope; gives it back if it does not.
    pub fn take(&mut self, name: &str, value: Text<'a>) -> Option<Text<'a>> {
        let name = match name {
            "scope" => "scope",
            "selector" => "selector",
            _ => return Some(value),
        };
        if value.as_deref() != Ok("") {
            self.0.push((name, value));
        }
        None
    }

    /// All of them, sorted and without duplicates; none where none was given.
    ///
    /// # Errors
    ///
    /// [`Invalid`] says under which name the first wrong one came, or that there are too many.
    pub fn parse(&self) -> Result<Vec<Scope>, Invalid> {
        let read = |(name, text): &(&'static str, Text<'_>)| {
            let scope = text.as_deref().ok().and_then(|text| Scope::parse(text).ok());
            scope.ok_or_else(|| Invalid::Character { name, value: given(text).to_owned() })
        };
        let mut scopes = self.0.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        scopes.sort_unstable();
        scopes.dedup();
        match (scopes.len(), self.0.first()) {
            (count, Some((name, _))) if count > SCOPES_MAX => Err(Invalid::TooMany { name, count }),
            _ => Ok(scopes),
        }
    }
}

impl From<Invalid> for Refusal {
    fn from(error: Invalid) -> Self {
        let details = match &error {
            Invalid::Character { name, value } => Details::new(name, value, Scope::allowed()),
            Invalid::TooMany { name, count } => {
                Details::new(name, &format!("{count} scopes"), format!("at most {SCOPES_MAX} scopes"))
            }
        };
        Self::parameter(error.to_string(), details)
    }
}
