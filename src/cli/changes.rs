//! `walclock changes`: reads the feed of a server, page by page, and prints each change.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use url::Url;

use super::{client, output};
use crate::config;
use crate::domain::invalid::head;
use crate::domain::limits;

/// How long one call of `--follow` waits for a change.
const BLOCK: Duration = Duration::from_secs(30);
/// The pause before a server that did not answer is asked again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// A scope that nothing belongs to: asking for it tells the newest sequence, and the TRUNCATEs, which go to all scopes.
const NO_SCOPE: &str = "walclock.no-such-scope";

/// The flags of this command.
#[derive(clap::Args)]
pub(super) struct Flags {
    /// The scope to read; several are OR'ed. Without one, the rows that have no scope.
    #[arg(long, value_name = "SCOPE")]
    scope: Vec<String>,
    /// Only changes behind this sequence; `now` skips what is there. [default: the oldest that is kept]
    #[arg(long, value_name = "SEQUENCE")]
    since: Option<String>,
    /// Go on waiting for changes, until interrupted.
    #[arg(long)]
    follow: bool,
    /// Print each change as a line of JSON.
    #[arg(long)]
    json: bool,
    /// The server to ask (or WALCLOCK_URL) [default: http://127.0.0.1:8080].
    #[arg(long, value_name = "URL")]
    url: Option<Url>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    last_sequence: String,
    changes: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Refusal {
    code: String,
    description: String,
    details: Option<Details>,
}

/// A parameter that breaks its rule.
#[derive(Deserialize)]
struct Details {
    parameter: String,
    value: String,
    allowed: String,
}

/// Reads and prints.
pub(super) async fn run(flags: Flags) -> anyhow::Result<()> {
    let base = client::base(flags.url.clone(), config::server_url())?;
    let client = client::Client::new();
    let mut since = flags.since.clone();
    if since.as_deref() == Some("now") {
        since = Some(newest(&client, &base).await?);
    }
    loop {
        let block = if flags.follow { BLOCK } else { Duration::ZERO };
        let page = match ask(&client, &page_url(&base, &flags.scope, since.as_deref(), block)).await {
            Ok(page) => page,
            Err(error) if flags.follow && error.is::<client::Unavailable>() => {
                tracing::warn!("{error:#}");
                tokio::time::sleep(RETRY_PAUSE).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        for change in &page.changes {
            output::line(&if flags.json { change.get().to_owned() } else { human(change)? })?;
        }
        // A page of large rows may have fewer changes than were asked for, and there be more.
        let over = page.changes.is_empty();
        since = Some(page.last_sequence);
        if over && !flags.follow {
            return Ok(());
        }
    }
}

/// The newest sequence. A page that is not empty may have ended before it.
async fn newest(client: &client::Client, base: &Url) -> anyhow::Result<String> {
    let mut since = None;
    loop {
        let page = ask(client, &page_url(base, &[NO_SCOPE.to_owned()], since.as_deref(), Duration::ZERO)).await?;
        if page.changes.is_empty() {
            return Ok(page.last_sequence);
        }
        since = Some(page.last_sequence);
    }
}

fn page_url(base: &Url, scopes: &[String], since: Option<&str>, block: Duration) -> Url {
    let mut url = client::join(base, "changes");
    let mut query = url.query_pairs_mut();
    for scope in scopes {
        query.append_pair("scope", scope);
    }
    if let Some(since) = since {
        query.append_pair("since", since);
    }
    query.append_pair("limit", &limits::CHANGES_LIMIT_DEFAULT.to_string());
    if !block.is_zero() {
        query.append_pair("block", &block.as_secs().to_string());
    }
    drop(query);
    url
}

async fn ask(client: &client::Client, url: &Url) -> anyhow::Result<Page> {
    let (status, body) = client.get(url).await?;
    if status == 200 {
        return serde_json::from_slice(&body).with_context(|| format!("reading the answer of {url}"));
    }
    let said = refusal(status, &body);
    match status {
        503 => Err(client::Unavailable::NotServing { url: url.to_string(), said }.into()),
        _ => bail!("{url} answered {said}"),
    }
}

/// What an answer says that is no page: in the feed's words, or, as of a process that is marked down, as text.
fn refusal(status: u16, body: &[u8]) -> String {
    if let Ok(Refusal { code, description, details }) = serde_json::from_slice(body) {
        let said = match details {
            Some(Details { parameter, value, allowed }) => format!("{parameter} must be {allowed}, not '{value}'"),
            None => description,
        };
        return format!("{status} {code}: {}", output::printable(&said));
    }
    let text = String::from_utf8_lossy(body);
    match text.trim() {
        // What stands between may answer with a page of its own.
        "" => status.to_string(),
        page if page.starts_with('<') => status.to_string(),
        text => format!("{status}: {}", output::printable(&head(text))),
    }
}

/// A change as a line for people: its sequence, what happened, where, and the row. Values are quoted; `null` and
/// `unchanged` are not, and so are no values.
fn human(change: &RawValue) -> anyhow::Result<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Change {
        operation: u8,
        table: String,
        sequence: String,
        new_row: Option<Row>,
        old_row: Option<Row>,
        #[serde(default)]
        unchanged_columns: Vec<String>,
    }
    let change: Change = serde_json::from_str(change.get()).context("reading a change")?;
    let operation = match change.operation {
        1 => "insert",
        2 => "update",
        3 => "delete",
        4 => "truncate",
        _ => "unknown",
    };
    let mut line = format!("{} {operation} {}", change.sequence, change.table);
    for (name, value) in change.new_row.or(change.old_row).unwrap_or_default().0 {
        let value = serde_json::to_string(&value).context("writing a value")?;
        line.push_str(&format!(" {}={value}", word(&name)));
    }
    for name in &change.unchanged_columns {
        line.push_str(&format!(" {}=unchanged", word(name)));
    }
    Ok(line)
}

/// A column's name, quoted where it would not be read as one word.
fn word(name: &str) -> Cow<'_, str> {
    match name.chars().all(|c| c.is_alphanumeric() || c == '_') {
        true => name.into(),
        false => format!("{name:?}").into(),
    }
}

/// The columns of a row, in the order of the table.
#[derive(Default)]
struct Row(Vec<(String, Option<String>)>);

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Column {
            value: Option<String>,
        }
        struct Columns;
        impl<'de> Visitor<'de> for Columns {
            type Value = Row;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the columns of a row")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
                let mut row = Row::default();
                while let Some((name, column)) = map.next_entry::<String, Column>()? {
                    row.0.push((name, column.value));
                }
                Ok(row)
            }
        }
        deserializer.deserialize_map(Columns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_a_line() {
        for (change, expected) in [
            (
                // As the table has the columns, with null apart from "null".
                r#"{"operation":2,"table":"public.notes","sequence":"0.a.1",
                    "newRow":{"id":{"value":"1","type":23},"body":{"value":null,"type":25}},"oldRow":{}}"#,
                r#"0.a.1 update public.notes id="1" body=null"#,
            ),
            (
                r#"{"operation":3,"table":"public.notes","sequence":"0.a.2",
                    "oldRow":{"my id":{"value":"null","type":23},"größe":{"value":"a\n\"b","type":25}}}"#,
                r#"0.a.2 delete public.notes "my id"="null" größe="a\n\"b""#,
            ),
            (
                r#"{"operation":1,"table":"public.notes","sequence":"0.a.3",
                    "newRow":{"id":{"value":"1","type":23}},"unchangedColumns":["body"]}"#,
                r#"0.a.3 insert public.notes id="1" body=unchanged"#,
            ),
            (r#"{"operation":4,"table":"public.notes","sequence":"0.a.4"}"#, "0.a.4 truncate public.notes"),
        ] {
            let change = RawValue::from_string(change.to_owned()).unwrap();
            assert_eq!(human(&change).unwrap(), expected);
        }
    }

    #[test]
    fn a_refusal_is_told_in_its_own_words() {
        let long = "x".repeat(limits::ERROR_VALUE_CHARS_MAX + 1);
        for (body, told) in [
            (r#"{"code":"NOT_READY","error":"The server is not ready","description":"wait"}"#, "503 NOT_READY: wait"),
            (
                r#"{"code":"C","error":"","description":"since","details":{"parameter":"since","value":"x\u001b","allowed":"a sequence"}}"#,
                "503 C: since must be a sequence, not 'x\\u{1b}'",
            ),
            ("Marked down", "503: Marked down"),
            ("", "503"),
            ("<html>gone</html>", "503"),
            (&long, &format!("503: {}…", &long[1..])),
        ] {
            assert_eq!(refusal(503, body.as_bytes()), told);
        }
    }

    #[test]
    fn the_call_says_what_the_flags_say() {
        let base = "http://h:1/prefix".parse().unwrap();
        let scopes = ["a".to_owned(), "b/c".to_owned()];
        let url = page_url(&base, &scopes, Some("0.1.2"), Duration::from_secs(30));
        let expected = "http://h:1/prefix/changes?scope=a&scope=b%2Fc&since=0.1.2&limit=100&block=30";
        assert_eq!(url.as_str(), expected);
    }
}
