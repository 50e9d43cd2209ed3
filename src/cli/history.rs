//! `walclock timers history`: the attempts of one timer, as an operator looks for what went wrong.

use std::io::{self, Write};

use serde::Serialize;

use super::output::printable;
use crate::clock::Timestamp;
use crate::domain::run::PastAttempt;

/// Prints the attempts, oldest first, a line each; an answer that says more goes below its attempt.
pub(super) fn table(attempts: &[PastAttempt], out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "{:>7}  {:<11}  {:<27}  {:>10}  {:>10}  {:>6}  ERROR",
        "ATTEMPT", "OUTCOME", "DUE", "LATE", "TOOK", "STATUS"
    )?;
    for attempt in attempts {
        let took = attempt.sent_at.zip(attempt.answered_at).map(|(sent, answered)| millis(sent, answered));
        let late = attempt.sent_at.map(|sent| millis(attempt.due_at, sent));
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let (late, took, status) =
            (or_none(late), or_none(took), or_none(attempt.status.map(|status| status.to_string())));
        let error = attempt.error.as_deref().map_or_else(String::new, printable);
        let (outcome, due_at) = (attempt.outcome.as_str(), attempt.due_at.to_string());
        let line =
            format!("{:>7}  {outcome:<11}  {due_at:<27}  {late:>10}  {took:>10}  {status:>6}  {error}", attempt.number);
        writeln!(out, "{}", line.trim_end())?;
        if let Some(reply) = attempt.reply.as_deref().filter(|reply| !reply.is_empty()) {
            writeln!(out, "{:>9}{}", "", printable(reply))?;
        }
    }
    Ok(())
}

/// Milliseconds, to the hundredth.
fn millis(from: Timestamp, to: Timestamp) -> String {
    format!("{:.2}ms", to.since(from).as_secs_f64() * 1e3)
}

/// An attempt as programs read it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    attempt: u32,
    outcome: &'static str,
    due_at: Timestamp,
    claimed_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answered_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply: Option<&'a str>,
}

/// Prints the attempts as JSON, oldest first, a line each.
pub(super) fn json(attempts: &[PastAttempt], out: &mut impl Write) -> io::Result<()> {
    for attempt in attempts {
        let line = Line {
            attempt: attempt.number,
            outcome: attempt.outcome.as_str(),
            due_at: attempt.due_at,
            claimed_at: attempt.claimed_at,
            sent_at: attempt.sent_at,
            answered_at: attempt.answered_at,
            status: attempt.status,
            error: attempt.error.as_deref(),
            reply: attempt.reply.as_deref(),
        };
        serde_json::to_writer(&mut *out, &line).map_err(io::Error::other)?;
        writeln!(out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::run::Outcome;
    use std::time::Duration;

    #[test]
    fn attempts_are_shown_a_line_each() {
        let due_at = Timestamp::from_micros(1_700_000_000_000_000);
        let failed = PastAttempt {
            number: 1,
            outcome: Outcome::Retried,
            due_at,
            claimed_at: due_at,
            sent_at: Some(due_at.after(Duration::from_micros(1_230))),
            answered_at: Some(due_at.after(Duration::from_micros(31_240))),
            status: Some(503),
            error: Some("answered 503".to_owned()),
            reply: Some("down\u{1b}[2J".to_owned()),
        };
        let running = PastAttempt {
            number: 2,
            outcome: Outcome::Running,
            sent_at: None,
            answered_at: None,
            status: None,
            error: None,
            reply: None,
            ..failed.clone()
        };
        let attempts = [failed, running];
        let mut out = Vec::new();
        table(&attempts, &mut out).expect("it is written to memory");
        let expected = "\
ATTEMPT  OUTCOME      DUE                                LATE        TOOK  STATUS  ERROR
      1  retried      2023-11-14T22:13:20Z             1.23ms     30.01ms     503  answered 503
         down\\u{1b}[2J
      2  running      2023-11-14T22:13:20Z                  -           -       -
";
        let shown = String::from_utf8(out).expect("text");
        assert_eq!(shown, expected, "{shown}");
        let mut out = Vec::new();
        json(&attempts, &mut out).expect("it is written to memory");
        let lines = String::from_utf8(out).expect("text");
        let last =
            r#"{"attempt":2,"outcome":"running","dueAt":"2023-11-14T22:13:20Z","claimedAt":"2023-11-14T22:13:20Z"}"#;
        assert_eq!(lines.lines().last(), Some(last));
    }
}
