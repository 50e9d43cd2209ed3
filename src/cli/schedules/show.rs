//! A schedule as `walclock schedules` prints it: lines and tables for people, JSON for programs. In JSON every moment is
//! RFC 3339 and every span what the flags take; what there is none of is left out.

use std::collections::BTreeMap;
use std::io::{self, Write};

use anyhow::Context;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::cli::{callback, output};
use crate::clock::Timestamp;
use crate::domain::duration;
use crate::domain::schedule::{CatchUp, Definition, Rule, When};
use crate::http::timers::{Policy, policy};
use crate::service::schedules::Status;

/// Ids that are longer push their own line out of the columns, and no other.
const ID_WIDTH_MAX: usize = 40;

/// How a schedule stands.
fn state(status: &Status) -> &'static str {
    match status.next_at {
        _ if status.error.is_some() => "error",
        _ if status.definition.paused => "paused",
        Timestamp::MAX => "over",
        _ => "active",
    }
}

/// The next moment, where it is known and there is one.
fn next_at(status: &Status) -> Option<Timestamp> {
    let is_known = status.next_at != Timestamp::MIN && status.next_at != Timestamp::MAX;
    (is_known && state(status) == "active").then_some(status.next_at)
}

/// When it recurs, as a person writes it.
fn when(rule: &Rule) -> String {
    match &rule.when {
        When::Cron(cron) => format!("{cron} ({})", rule.time_zone),
        When::Every(span) => format!("every {}", duration::format(*span)),
    }
}

/// What it does about missed moments, as a person says it.
fn catch_up(rule: &Rule) -> String {
    let (word, window) = (rule.catch_up.as_str(), duration::format(rule.catch_up_window));
    match rule.catch_up {
        CatchUp::None => word.to_owned(),
        CatchUp::Last => format!("{word}, of the last {window}"),
        CatchUp::All => format!("{word}, of the last {window}, at most {} at once", rule.catch_up_max),
    }
}

/// At most `limit` schedules, a line each.
pub(super) fn table(listed: &[Status], limit: u32, out: &mut impl Write) -> io::Result<()> {
    let id = |status: &Status| output::printable(&status.definition.key.id);
    let width = output::width(listed.iter().map(|status| id(status).chars().count()), ID_WIDTH_MAX);
    writeln!(out, "{:<width$}  {:<6}  {:<27}  RECURS", "ID", "STATUS", "NEXT")?;
    for status in listed {
        let next = next_at(status).map_or_else(|| "-".to_owned(), |at| at.to_string());
        let when = output::printable(&when(&status.definition.rule));
        writeln!(out, "{:<width$}  {:<6}  {next:<27}  {when}", id(status), state(status))?;
    }
    output::more(listed.iter().map(id), limit, out)
}

/// One schedule, a line for each thing there is to say.
pub(super) fn lines(status: &Status, out: &mut impl Write) -> io::Result<()> {
    let Definition { key, rule, callback, payload, retry, .. } = &status.definition;
    let at = |at: Option<Timestamp>| at.map(|at| at.to_string());
    let lines = [
        ("schedule", Some(key.to_string())),
        ("status", Some(state(status).to_owned())),
        ("recurs", Some(when(rule))),
        ("start", at(rule.start_at)),
        ("end", at(rule.end_at)),
        ("jitter", (!rule.jitter.is_zero()).then(|| duration::format(rule.jitter))),
        ("next", at(next_at(status))),
        ("last fired", at(status.fired_at)),
        ("overlap", Some(rule.overlap.as_str().to_owned())),
        ("waiting", at(status.buffered_at)),
        ("catch-up", Some(catch_up(rule))),
        ("error", status.error.clone()),
    ];
    output::lines(lines.into_iter().chain(callback::lines(callback, payload.as_deref(), retry)), out)
}

/// One schedule as programs read it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Json<'a> {
    namespace: &'a str,
    id: &'a str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_fired_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    buffered_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cron: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    every: Option<String>,
    time_zone: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_at: Option<Timestamp>,
    jitter: String,
    overlap: &'static str,
    catch_up: &'static str,
    catch_up_window: String,
    catch_up_max: u32,
    paused: bool,
    callback_url: &'a str,
    callback_method: &'a str,
    callback_headers: &'a BTreeMap<String, String>,
    callback_timeout_seconds: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
    retry_policy: Policy,
    created_at: Timestamp,
    updated_at: Timestamp,
}

/// Prints a schedule as a line of JSON.
pub(super) fn json(status: &Status, out: &mut impl Write) -> anyhow::Result<()> {
    let Definition { key, rule, paused, callback, payload, retry } = &status.definition;
    let (cron, every) = match &rule.when {
        When::Cron(cron) => (Some(cron.as_str()), None),
        When::Every(span) => (None, Some(duration::format(*span))),
    };
    let json = Json {
        namespace: &key.namespace,
        id: &key.id,
        status: state(status),
        next_at: next_at(status),
        last_fired_at: status.fired_at,
        buffered_at: status.buffered_at,
        error: status.error.as_deref(),
        cron,
        every,
        time_zone: &rule.time_zone,
        start_at: rule.start_at,
        end_at: rule.end_at,
        jitter: duration::format(rule.jitter),
        overlap: rule.overlap.as_str(),
        catch_up: rule.catch_up.as_str(),
        catch_up_window: duration::format(rule.catch_up_window),
        catch_up_max: rule.catch_up_max,
        paused: *paused,
        callback_url: &callback.url,
        callback_method: &callback.method,
        callback_headers: &callback.headers,
        callback_timeout_seconds: callback.timeout.as_secs(),
        payload: payload.as_deref(),
        retry_policy: policy(retry),
        created_at: status.created_at,
        updated_at: status.updated_at,
    };
    writeln!(out, "{}", serde_json::to_string(&json)?).context("printing")
}
