//! A timer as `walclock timers` prints it: lines and tables for people, JSON for programs.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;

use crate::cli::{callback, output};
use crate::domain::run::State;
use crate::domain::timer::{Definition, Status, Timer};
use crate::http;

/// Ids that are longer push their own line out of the columns, and no other.
const ID_WIDTH_MAX: usize = 60;

/// One timer, a line for each thing there is to say.
pub(super) fn lines(status: &Status, out: &mut impl Write) -> io::Result<()> {
    let timer = &status.timer;
    let Definition { key, execute_at, callback, payload, retry } = &timer.definition;
    let lines = [
        ("timer", Some(key.to_string())),
        ("status", Some(status.state.as_str().to_owned())),
        ("execute at", Some(execute_at.to_string())),
        ("next attempt", (status.state == State::Pending).then(|| timer.due_at().to_string())),
        ("executed at", status.executed_at.map(|at| at.to_string())),
        ("attempts", Some(timer.attempts.to_string())),
        ("last error", timer.last_error.clone()),
    ];
    output::lines(lines.into_iter().chain(callback::lines(callback, payload.as_deref(), retry)), out)
}

/// At most `limit` timers, a line each.
pub(super) fn table(listed: &[Status], limit: u32, out: &mut impl Write) -> io::Result<()> {
    let id = |status: &Status| output::printable(&status.timer.definition.key.id);
    let width = output::width(listed.iter().map(|status| id(status).chars().count()), ID_WIDTH_MAX);
    writeln!(out, "{:<width$}  {:<9}  {:<27}  {:>8}  URL", "ID", "STATUS", "DUE", "ATTEMPTS")?;
    for status in listed {
        let timer = &status.timer;
        let (state, due_at) = (status.state.as_str(), timer.due_at().to_string());
        let url = output::printable(&timer.definition.callback.url);
        writeln!(out, "{:<width$}  {state:<9}  {due_at:<27}  {:>8}  {url}", id(status), timer.attempts)?;
    }
    output::more(listed.iter().map(id), limit, out)
}

/// A timer as programs read it: in the words of the API, and what the API has no words for.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Json<'a, T> {
    #[serde(flatten)]
    timer: T,
    callback_method: &'a str,
    callback_headers: &'a BTreeMap<String, String>,
}

/// A timer that was stored or changed, as a line of JSON.
pub(super) fn json(timer: &Timer) -> String {
    render(http::timers::shown(timer), timer)
}

/// A timer as it stands, as a line of JSON.
pub(super) fn status_json(status: &Status) -> String {
    render(http::timers::shown_status(status), &status.timer)
}

fn render(shown: impl Serialize, timer: &Timer) -> String {
    let callback = &timer.definition.callback;
    let json = Json { timer: shown, callback_method: &callback.method, callback_headers: &callback.headers };
    serde_json::to_string(&json).expect("texts, numbers and a payload that is JSON can be written as JSON")
}
