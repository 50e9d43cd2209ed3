//! The fields of a JSON object that a client sent, taken one by one, so that each error can name its field.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::domain::invalid::head;

/// What is wrong with an object.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not a JSON object at all.
    #[error("the body must be a JSON object: {0}")]
    Malformed(#[source] serde_json::Error),
    /// It has a field that the server does not know.
    #[error("unknown field {name}, expected one of {known}")]
    Unknown {
        /// The field.
        name: String,
        /// What there is to choose from.
        known: String,
    },
    /// It has a field twice.
    #[error("duplicate field {name}")]
    Duplicate {
        /// The field.
        name: String,
    },
    /// It lacks a field.
    #[error("{name} is required")]
    Missing {
        /// The field.
        name: String,
    },
    /// A field's value is of a wrong kind.
    #[error("{name} must be {allowed}")]
    Wrong {
        /// The field.
        name: String,
        /// The value as it came, cut where it is long.
        value: String,
        /// What it must be.
        allowed: &'static str,
    },
}

impl Error {
    /// Says that `value` is no good for the field `name`, which must be `allowed`.
    pub fn wrong(name: impl Into<String>, value: &str, allowed: &'static str) -> Self {
        Self::Wrong { name: name.into(), value: head(value), allowed }
    }

    /// The same of an object that stands within another as `way`, whose text is `json`.
    pub fn within(self, way: &str, json: &str) -> Self {
        let named = |name: String| head(&format!("{way}.{name}"));
        match self {
            Self::Malformed(_) => Self::wrong(way, json, "an object"),
            Self::Unknown { name, known } => Self::Unknown { name: named(name), known },
            Self::Duplicate { name } => Self::Duplicate { name: named(name) },
            Self::Missing { name } => Self::Missing { name: named(name) },
            Self::Wrong { name, value, allowed } => Self::Wrong { name: named(name), value, allowed },
        }
    }

    /// The field that it is about, and the value where it is the value's fault.
    pub fn field(&self) -> Option<(&str, Option<&str>)> {
        match self {
            Self::Malformed(_) => None,
            Self::Unknown { name, .. } | Self::Duplicate { name } | Self::Missing { name } => Some((name, None)),
            Self::Wrong { name, value, .. } => Some((name, Some(value))),
        }
    }
}

/// The fields of an object that have not been taken yet. The values are the client's bytes.
#[derive(Debug)]
pub struct Fields<'a> {
    values: BTreeMap<String, &'a RawValue>,
    /// What stands before a field's name in an error: `retryPolicy.` in the object of that field.
    prefix: &'static str,
}

impl<'a> Fields<'a> {
    /// Reads an object that may have these fields, each at most once, and no others.
    pub fn parse(json: &'a [u8], known: &[&str]) -> Result<Self, Error> {
        Self::parse_within("", json, known)
    }

    /// The same for an object within another, whose fields an error names with `prefix` in front.
    pub fn parse_within(prefix: &'static str, json: &'a [u8], known: &[&str]) -> Result<Self, Error> {
        let Object { values, duplicate } = serde_json::from_slice(json).map_err(Error::Malformed)?;
        let named = |name: &str| head(&format!("{prefix}{name}"));
        if let Some(name) = duplicate {
            return Err(Error::Duplicate { name: named(&name) });
        }
        match values.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(Error::Unknown { name: named(name), known: known.join(", ") }),
            None => Ok(Self { values, prefix }),
        }
    }

    /// Takes a field as it came; null is a value here.
    pub fn raw(&mut self, name: &str) -> Option<&'a RawValue> {
        self.values.remove(name)
    }

    /// Takes a field that may be missing; null counts as missing. Of another kind, it must be `allowed`.
    pub fn optional<T: Deserialize<'a>>(&mut self, name: &str, allowed: &'static str) -> Result<Option<T>, Error> {
        let Some(value) = self.raw(name) else { return Ok(None) };
        serde_json::from_str(value.get()).map_err(|_| self.wrong(name, value.get(), allowed))
    }

    /// Takes a field that must be there.
    pub fn required<T: Deserialize<'a>>(&mut self, name: &str, allowed: &'static str) -> Result<T, Error> {
        self.optional(name, allowed)?.ok_or_else(|| Error::Missing { name: format!("{}{name}", self.prefix) })
    }

    /// Takes a field that must be an array of 1 to `max` values of any kind; `allowed` says so.
    pub fn list(&mut self, name: &str, max: usize, allowed: &'static str) -> Result<Vec<&'a RawValue>, Error> {
        let array: &RawValue = self.required(name, allowed)?;
        let mut values = serde_json::Deserializer::from_str(array.get());
        match values.deserialize_seq(ListVisitor { max }) {
            Ok(list) if !list.is_empty() => Ok(list),
            Ok(_) | Err(_) => Err(self.wrong(name, array.get(), allowed)),
        }
    }

    /// Takes a text field and reads it, if it is there.
    pub fn parsed<T, E>(
        &mut self,
        name: &str,
        allowed: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Error> {
        let Some(text) = self.optional::<String>(name, allowed)? else { return Ok(None) };
        parse(&text).map(Some).map_err(|_| self.wrong(name, &text, allowed))
    }

    fn wrong(&self, name: &str, value: &str, allowed: &'static str) -> Error {
        Error::wrong(format!("{}{name}", self.prefix), value, allowed)
    }
}

/// Takes no more than so many values in: an array of very many small ones would take much more memory than its text.
struct ListVisitor {
    max: usize,
}

impl<'de> Visitor<'de> for ListVisitor {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = seq.next_element()? {
            if list.len() >= self.max {
                return Err(A::Error::custom("too many"));
            }
            list.push(value);
        }
        Ok(list)
    }
}

/// An object's fields, and the first that came twice.
struct Object<'a> {
    values: BTreeMap<String, &'a RawValue>,
    duplicate: Option<String>,
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;

        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut object = Object { values: BTreeMap::new(), duplicate: None };
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    match object.values.entry(name) {
                        Entry::Vacant(place) => _ = place.insert(value),
                        Entry::Occupied(first) => _ = object.duplicate.get_or_insert_with(|| first.key().clone()),
                    }
                }
                Ok(object)
            }
        }

        deserializer.deserialize_map(ObjectVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KNOWN: &[&str] = &["name", "count"];

    #[test]
    fn an_error_names_the_field() {
        let deep = format!("{{\"name\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
        for (json, expected) in [
            ("", "the body must be a JSON object: EOF while parsing a value at line 1 column 0"),
            ("[]", "the body must be a JSON object: invalid type: sequence, expected an object at line 1 column 0"),
            ("{\"name\":1,}", "the body must be a JSON object: trailing comma at line 1 column 11"),
            ("{} {}", "the body must be a JSON object: trailing characters at line 1 column 4"),
            ("\u{feff}{}", "the body must be a JSON object: expected value at line 1 column 1"),
            ("{\"size\":1}", "unknown field size, expected one of name, count"),
            ("{\"count\":1,\"name\":\"a\",\"count\":1}", "duplicate field count"),
            ("{\"count\":1}", "name is required"),
            ("{\"name\":null}", "name is required"),
            ("{\"name\":7}", "name must be a text"),
            (&deep, "name must be a text"),
            ("{\"name\":\"\\ud800\"}", "name must be a text"),
            ("{\"name\":\"a\",\"count\":1.5}", "count must be a number"),
        ] {
            let error = read(json.as_bytes()).expect_err(json);
            assert_eq!(error.to_string(), expected, "{}", head(json));
        }
        assert!(matches!(read(b"{\"name\":\"\xff\"}"), Err(Error::Malformed(_))));
        assert_eq!(read(b" {\"name\":\"\\u0061\",\"count\":null}\n").expect("good"), ("a".to_owned(), None));
    }

    #[test]
    fn a_field_within_a_field_is_named_by_its_way() {
        let mut fields = Fields::parse_within("outer.", b"{\"count\":true}", KNOWN).expect("good");
        let error = fields.optional::<u32>("count", "a number").expect_err("it is no number");
        assert_eq!(error.field(), Some(("outer.count", Some("true"))));
        let error = fields.required::<u32>("name", "a text").expect_err("there is none");
        assert_eq!(error.to_string(), "outer.name is required");
    }

    fn read(json: &[u8]) -> Result<(String, Option<u32>), Error> {
        let mut fields = Fields::parse(json, KNOWN)?;
        Ok((fields.required("name", "a text")?, fields.optional("count", "a number")?))
    }

    proptest! {
        #[test]
        fn reading_never_panics(json: Vec<u8>) {
            let _ = read(&json);
        }

        #[test]
        fn what_is_there_is_found(name in "\\PC*", count: u32) {
            let json = serde_json::json!({ "name": name, "count": count }).to_string();
            prop_assert_eq!(read(json.as_bytes()).expect("good"), (name, Some(count)));
        }
    }
}
