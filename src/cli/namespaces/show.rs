//! A namespace as `walclock namespaces` prints it: lines and tables for people, JSON for programs. Its secrets are counted.

use std::io::{self, Write};

use anyhow::Context;
use serde::Serialize;
use serde_json::json;

use crate::cli::output;
use crate::clock::Timestamp;
use crate::domain::limits;
use crate::service::namespaces::{Contents, Namespace};

/// Names that are longer push their own line out of the columns, and no other.
const NAME_WIDTH_MAX: usize = 40;

/// At most `limit` namespaces, a line each.
pub(super) fn table(listed: &[Namespace], limit: u32, out: &mut impl Write) -> io::Result<()> {
    let name = |namespace: &Namespace| output::printable(&namespace.name);
    let width = output::width(listed.iter().map(|namespace| name(namespace).chars().count()), NAME_WIDTH_MAX).max(4);
    writeln!(out, "{:<width$}  {:>7}  CREATED", "NAME", "SECRETS")?;
    for namespace in listed {
        writeln!(out, "{:<width$}  {:>7}  {}", name(namespace), namespace.secrets, namespace.created_at)?;
    }
    output::more(listed.iter().map(name), limit, out)
}

/// One namespace, a line for each thing there is to say.
pub(super) fn lines(namespace: &Namespace, contents: &Contents, out: &mut impl Write) -> io::Result<()> {
    let count = |count: u32, word: &str| match count {
        limits::NAMESPACE_COUNT_MAX.. => Some(format!("{count} {word} or more")),
        _ => Some(format!("{count} {word}")),
    };
    let lines = [
        ("namespace", Some(namespace.name.clone())),
        ("secrets", Some(namespace.secrets.to_string())),
        ("timers", count(contents.timers, "pending")),
        ("schedules", Some(contents.schedules.to_string())),
        ("runs", count(contents.runs, "under way")),
        ("created", Some(namespace.created_at.to_string())),
    ];
    output::lines(lines, out)
}

/// One namespace as programs read it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Json<'a> {
    namespace: &'a str,
    secrets: u32,
    created_at: Timestamp,
    /// The secret that was just made.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pending_timers: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schedules: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    running: Option<u32>,
}

/// Prints a namespace as a line of JSON, with what is in it where that was looked at, and the secret that was just made.
pub(super) fn json(
    namespace: &Namespace,
    contents: Option<&Contents>,
    secret: Option<&str>,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let json = Json {
        namespace: &namespace.name,
        secrets: namespace.secrets,
        created_at: namespace.created_at,
        secret,
        pending_timers: contents.map(|contents| contents.timers),
        schedules: contents.map(|contents| contents.schedules),
        running: contents.map(|contents| contents.runs),
    };
    writeln!(out, "{}", serde_json::to_string(&json)?).context("printing")
}

/// What a program reads of one that is no more.
pub(super) fn name_json(name: &str, out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(out, "{}", json!({ "namespace": name })).context("printing")
}
