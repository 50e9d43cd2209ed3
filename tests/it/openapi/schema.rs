//! Reads the document, and checks values against its schemas: as much of JSON Schema as the document uses. A keyword that
//! is not known here fails, so that nothing is passed over.

use std::collections::BTreeSet;

use serde_json::Value;
use walclock::domain::moment;
use walclock::http::openapi;

/// Words that say nothing about a value.
const SILENT: &[&str] = &["description", "title", "default", "examples", "example", "required", "additionalProperties"];

/// The description of the API.
pub struct Document {
    pub json: Value,
}

impl Document {
    pub fn of_the_code() -> Self {
        Self { json: serde_json::from_str(&openapi::text("")).unwrap() }
    }

    /// All operations: path, method, description.
    pub fn operations(&self) -> Vec<(&str, &str, &Value)> {
        let paths = self.json["paths"].as_object().unwrap().iter();
        let operations = paths.flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().iter().filter(|(key, _)| *key != "servers");
            methods.map(|(method, operation)| (path.as_str(), method.as_str(), operation))
        });
        operations.collect()
    }

    pub fn parameter(&self, path: &str, name: &str) -> &Value {
        let parameters = self.json["paths"][path]["get"]["parameters"].as_array().unwrap();
        parameters.iter().find(|parameter| parameter["name"] == name).unwrap()
    }

    /// Where a value does not fit a schema; empty where it fits.
    pub fn misfits(&self, schema: &Value, value: &Value) -> Vec<String> {
        let mut found = Vec::new();
        self.check(schema, value, "", &mut found);
        self.check_known(schema, value, "", &mut found);
        found
    }

    fn check(&self, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
        for (keyword, rule) in schema.as_object().unwrap() {
            let fits = match keyword.as_str() {
                "$ref" => {
                    self.check(self.resolve(rule), value, at, found);
                    true
                }
                "allOf" => {
                    rule.as_array().unwrap().iter().for_each(|schema| self.check(schema, value, at, found));
                    true
                }
                "oneOf" => {
                    let fitting =
                        rule.as_array().unwrap().iter().filter(|schema| self.misfits(schema, value).is_empty());
                    fitting.count() == 1
                }
                "type" => match rule {
                    Value::Array(kinds) => kinds.iter().any(|kind| is_of(kind, value)),
                    kind => is_of(kind, value),
                },
                "enum" => rule.as_array().unwrap().contains(value),
                "minimum" => value.as_f64().is_none_or(|number| number >= rule.as_f64().unwrap()),
                "maximum" => value.as_f64().is_none_or(|number| number <= rule.as_f64().unwrap()),
                "minLength" => value.as_str().is_none_or(|text| text.chars().count() as u64 >= rule.as_u64().unwrap()),
                "maxLength" => value.as_str().is_none_or(|text| text.chars().count() as u64 <= rule.as_u64().unwrap()),
                "minItems" => value.as_array().is_none_or(|items| items.len() as u64 >= rule.as_u64().unwrap()),
                "maxItems" => value.as_array().is_none_or(|items| items.len() as u64 <= rule.as_u64().unwrap()),
                "format" => is_formatted(rule.as_str().unwrap(), value),
                "properties" => {
                    for (name, schema) in rule.as_object().unwrap() {
                        if let Some(value) = value.get(name) {
                            self.check_whole(schema, value, &format!("{at}/{name}"), found);
                        }
                    }
                    true
                }
                "items" => {
                    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.check_whole(rule, item, &format!("{at}/{index}"), found);
                    }
                    true
                }
                "propertyNames" => rule == &serde_json::json!({ "type": "string" }),
                silent => {
                    assert!(SILENT.contains(&silent), "the keyword {silent} is not known here");
                    true
                }
            };
            if !fits {
                found.push(format!("{at}: {value} is not {keyword} {rule}"));
            }
        }
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            if value.get(name.as_str().unwrap()).is_none() {
                found.push(format!("{at}: {name} is missing"));
            }
        }
    }

    fn check_whole(&self, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
        self.check(schema, value, at, found);
        self.check_known(schema, value, at, found);
    }

    /// What an object has, its schema must know, unless it allows anything.
    fn check_known(&self, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
        let Some(object) = value.as_object() else { return };
        let (mut names, mut others) = (BTreeSet::new(), None);
        self.known(schema, &mut names, &mut others);
        for (name, value) in object.iter().filter(|(name, _)| !names.contains(name.as_str())) {
            match others {
                Some(Value::Bool(true)) => {}
                Some(schema @ Value::Object(_)) => self.check_whole(schema, value, &format!("{at}/{name}"), found),
                _ if names.is_empty() => {}
                _ => found.push(format!("{at}: {name} is not described")),
            }
        }
    }

    fn known<'a>(&'a self, schema: &'a Value, names: &mut BTreeSet<&'a str>, others: &mut Option<&'a Value>) {
        if let Some(reference) = schema.get("$ref") {
            self.known(self.resolve(reference), names, others);
        }
        for schema in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            self.known(schema, names, others);
        }
        names.extend(
            schema.get("properties").and_then(Value::as_object).into_iter().flatten().map(|(name, _)| name.as_str()),
        );
        *others = others.or(schema.get("additionalProperties"));
    }

    fn resolve(&self, reference: &Value) -> &Value {
        self.json.pointer(reference.as_str().unwrap().trim_start_matches('#')).unwrap()
    }
}

/// All that is referred to within a value.
pub fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").map(|reference| reference.as_str().unwrap().to_owned()));
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

fn is_of(kind: &Value, value: &Value) -> bool {
    match kind.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("there is no type {other}"),
    }
}

fn is_formatted(format: &str, value: &Value) -> bool {
    match format {
        "date-time" => value.as_str().is_none_or(|text| moment::parse(text).is_ok()),
        "int32" | "int64" | "uint8" | "uint32" | "uint64" | "double" => value.is_number(),
        "binary" => value.is_string(),
        other => panic!("there is no format {other}"),
    }
}

#[test]
fn what_does_not_fit_is_found() {
    let document = Document {
        json: serde_json::json!({ "components": { "schemas": { "Named": {
            "type": "object", "required": ["name"],
            "properties": { "name": { "type": "string", "maxLength": 3 }, "at": { "type": "string", "format": "date-time" } }
        } } } }),
    };
    let narrowed = serde_json::json!({ "allOf": [
        { "$ref": "#/components/schemas/Named" },
        { "type": "object", "properties": { "name": { "type": "string", "enum": ["a", "b"] } } }
    ] });
    let map =
        serde_json::json!({ "type": "object", "additionalProperties": { "type": ["integer", "null"], "minimum": 1 } });
    let one = serde_json::json!({ "oneOf": [narrowed, map] });
    for (schema, value, misfits) in [
        (&narrowed, serde_json::json!({ "name": "a", "at": "2026-01-02T03:04:05Z" }), 0),
        (&narrowed, serde_json::json!({ "name": "c" }), 1),
        (&narrowed, serde_json::json!({ "name": "long" }), 2),
        (&narrowed, serde_json::json!({ "name": "a", "at": "now" }), 1),
        (&narrowed, serde_json::json!({}), 1),
        (&narrowed, serde_json::json!({ "name": "a", "other": 1 }), 1),
        (&narrowed, serde_json::json!("a"), 3),
        (&map, serde_json::json!({ "x": 1, "y": null }), 0),
        (&map, serde_json::json!({ "x": 0 }), 1),
        (&map, serde_json::json!({ "x": "1" }), 1),
        (&one, serde_json::json!({ "x": 1 }), 0),
        (&one, serde_json::json!({ "name": "b" }), 0),
        (&one, serde_json::json!({ "name": "c" }), 1),
        (&one, serde_json::json!({}), 0),
    ] {
        let found = document.misfits(schema, &value);
        assert_eq!(found.len(), misfits, "{value}: {found:?}");
    }
}
