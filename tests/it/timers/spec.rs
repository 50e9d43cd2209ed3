//! The specification, as far as it says what an answer looks like. It is read from the file that users get.

use std::collections::BTreeMap;

use serde_json::Value;
use walclock::domain::moment;

const FILE: &str = include_str!("../../../docs/api/timer-service.openapi.yaml");

/// What the specification does not have and `get` tells besides.
const MORE_OF_A_TIMER: &[&str] = &["status", "attempts", "lastError", "nextAttemptAt"];

/// Checks that the specification knows this answer of an operation.
pub fn check(operation: &str, status: u16, body: Option<&Value>) {
    let statuses = statuses(operation);
    assert!(statuses.contains(&status), "{operation} answered {status}, the specification has {statuses:?}");
    match (status, body) {
        (200, Some(body)) => check_schema("Timer", body, MORE_OF_A_TIMER),
        (204, None) => {}
        (400.., Some(body)) => check_schema("Error", body, &[]),
        (_, body) => panic!("{operation} answered {status} with {body:?}"),
    }
}

/// A schema: which properties it requires, and the lines that describe each.
struct Schema {
    required: Vec<&'static str>,
    properties: BTreeMap<&'static str, BTreeMap<&'static str, &'static str>>,
}

fn check_schema(name: &str, value: &Value, more: &[&str]) {
    let schema = schema(name);
    let object = value.as_object().unwrap_or_else(|| panic!("{name} is no object: {value}"));
    for required in &schema.required {
        assert!(object.contains_key(*required), "{name} lacks {required}: {value}");
    }
    for (field, value) in object {
        let Some(property) = schema.properties.get(field.as_str()) else {
            assert!(more.contains(&field.as_str()), "{name} has no {field}: {value}");
            continue;
        };
        if let Some(other) = property.get("$ref") {
            check_schema(other.trim_matches('\'').rsplit('/').next().unwrap(), value, &[]);
            continue;
        }
        let fits = match *property.get("type").unwrap_or_else(|| panic!("{name}.{field} has no type")) {
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            "object" => value.is_object(),
            other => panic!("{name}.{field} has the unknown type {other}"),
        };
        assert!(fits, "{name}.{field} is {value}");
        if property.get("format") == Some(&"date-time") {
            assert!(moment::parse(value.as_str().unwrap()).is_ok(), "{name}.{field} is {value}");
        }
    }
}

/// The statuses that an operation may answer.
fn statuses(operation: &str) -> Vec<u16> {
    let operation = below(&FILE.lines().collect::<Vec<_>>(), &format!("  /timers/{operation}:"));
    let keys = below(&operation, "      responses:").into_iter().filter(|line| indent(line) == 8);
    keys.map(|line| line.trim().trim_matches(['\'', ':']).parse().unwrap()).collect()
}

fn schema(name: &str) -> Schema {
    let lines = below(&FILE.lines().collect::<Vec<_>>(), &format!("    {name}:"));
    let required =
        below(&lines, "      required:").into_iter().map(|line| line.trim().trim_start_matches("- ")).collect();
    let mut properties = BTreeMap::<_, BTreeMap<_, _>>::new();
    let mut property = "";
    for line in below(&lines, "      properties:") {
        let (key, value) = line.trim().split_once(':').unwrap_or((line.trim(), ""));
        match indent(line) {
            8 => property = key,
            10 => _ = properties.entry(property).or_default().insert(key, value.trim()),
            _ => {}
        }
    }
    Schema { required, properties }
}

/// The lines that stand deeper than the heading, up to the first that does not.
fn below(lines: &[&'static str], heading: &str) -> Vec<&'static str> {
    let behind =
        lines.iter().copied().skip_while(|line| *line != heading).skip(1).filter(|line| !line.trim().is_empty());
    behind.take_while(|line| indent(line) > indent(heading)).collect()
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

#[test]
fn the_specification_is_read_right() {
    assert_eq!(statuses("create"), [200, 400, 500]);
    assert_eq!(statuses("delete"), [204, 400, 404, 500]);
    let timer = schema("Timer");
    assert_eq!(timer.required, ["id", "namespace", "executeAt", "callbackUrl", "createdAt", "updatedAt"]);
    assert_eq!(timer.properties.len(), 10);
    assert_eq!(timer.properties["retryPolicy"]["$ref"], "'#/components/schemas/RetryPolicy'");
    assert_eq!(timer.properties["executedAt"]["format"], "date-time");
}
