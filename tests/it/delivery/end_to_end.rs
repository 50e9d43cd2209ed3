//! The whole server, as the receiver of its callbacks meets it: whose signatures it finds, which request a row asks for, that
//! its wish to be left alone for a while is heard, and what is kept of its answers.

use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::http::StatusCode;
use tokio_postgres::Client;
use walclock::clock::{Timestamp, wall};
use walclock::domain::run::Outcome;
use walclock::domain::timer::TimerKey;
use walclock::pg;
use walclock::service::timers::{Config, Timers};
use walclock::store::{self, Store};

use super::receiver::{Act, Receiver, Request, answer, ok};
use super::{OTHER_SECRET, SECRET, hmac_sha256};
use crate::support::server::{Server, folder};
use crate::support::{self, PATIENCE, connect, database, eventually};

struct World {
    sql: Client,
    timers: Timers,
    _server: Server,
}

impl World {
    async fn new() -> Self {
        let url = database().await;
        let server = Server::start(&url, &folder()).await;
        let store = Store::new(store::Config::new(pg::Settings::parse(&url).unwrap())).unwrap();
        let timers = Timers::new(Config::default(), store);
        Self { sql: connect(&url).await, timers, _server: server }
    }

    /// A client inserts a timer that is due at once, with further columns.
    async fn set(&self, namespace: &str, id: &str, receiver: &Receiver, columns: &str, values: &str) {
        let insert = format!(
            "insert into walclock.timers (namespace, id, execute_at, callback_url, payload {columns})
             values ('{namespace}', '{id}', now(), '{}', '{{\"n\": 1}}' {values})",
            receiver.url()
        );
        self.sql.batch_execute(&insert).await.unwrap();
    }
}

/// What the documented lines of shell print for a request.
fn signed_by_hand(secret: &str, request: &Request) -> String {
    let page = include_str!("../../../docs/api/callbacks.md");
    let lines = page.split("```sh\n").nth(1).and_then(|block| block.split("```").next()).unwrap();
    let mut shell = Command::new("bash");
    shell.args(["-c", lines]).env("secret", secret).env("body", std::str::from_utf8(&request.body).unwrap());
    for (name, header) in [("id", "webhook-id"), ("timestamp", "webhook-timestamp")] {
        shell.env(name, &request.headers[header]);
    }
    let output = shell.output().unwrap();
    let signature = String::from_utf8(output.stdout).unwrap();
    assert_eq!(signature.len(), 44, "a SHA-256 in base64: {signature:?} {}", String::from_utf8_lossy(&output.stderr));
    signature
}

/// The check that a receiver makes, by the rules of Standard Webhooks and apart from the code under test: one of the
/// signatures must be that of its secret.
fn is_signed_by(secret: &str, request: &Request) -> bool {
    use base64::Engine;
    let base64 = base64::engine::general_purpose::STANDARD;
    let mut content =
        format!("{}.{}.", request.headers["webhook-id"], request.headers["webhook-timestamp"]).into_bytes();
    content.extend_from_slice(&request.body);
    let key = base64.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let expected = format!("v1,{}", base64.encode(hmac_sha256(&key, &content)));
    request.headers["webhook-signature"].split(' ').any(|signature| signature == expected)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespaces_secret_is_replaced_without_a_callback_that_nobody_can_check() {
    let world = World::new().await;
    let mut receiver = Receiver::start(|_, _| ok()).await;
    // (the secrets of the namespace, whether a receiver with the old one and with the new one accepts the callback)
    let steps = [
        (format!("{{{SECRET}}}"), true, false),
        (format!("{{{SECRET},{OTHER_SECRET}}}"), true, true),
        (format!("{{{OTHER_SECRET}}}"), false, true),
    ];
    for (step, (secrets, by_old, by_new)) in steps.iter().enumerate() {
        let set = format!(
            "insert into walclock.namespaces (name, secrets) values ('shop', '{secrets}')
             on conflict (name) do update set secrets = excluded.secrets"
        );
        world.sql.batch_execute(&set).await.unwrap();
        world.set("shop", &format!("s{step}"), &receiver, "", "").await;
        let request = receiver.request().await;
        assert_eq!(
            (is_signed_by(SECRET, &request), is_signed_by(OTHER_SECRET, &request)),
            (*by_old, *by_new),
            "{secrets}"
        );
        let by_hand = |secret| request.headers["webhook-signature"].contains(&signed_by_hand(secret, &request));
        assert_eq!((by_hand(SECRET), by_hand(OTHER_SECRET)), (*by_old, *by_new), "{secrets}");
        let sent: i64 = request.headers["webhook-timestamp"].parse().unwrap();
        assert!((wall().micros() / 1_000_000 - sent).abs() < 300, "within what receivers commonly bear");
        // What was changed on the way is not signed.
        let forged = Request { body: b"{}".to_vec(), ..request };
        assert!(!is_signed_by(SECRET, &forged) && !is_signed_by(OTHER_SECRET, &forged));
    }
    world.set("other", "unsigned", &receiver, "", "").await;
    assert!(!receiver.request().await.headers.contains_key("webhook-signature"), "another namespace has no secret");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_names_the_method_and_headers_of_its_request() {
    let world = World::new().await;
    let mut receiver = Receiver::start(|_, _| ok()).await;
    for (method, has_body) in [("POST", true), ("PUT", true), ("PATCH", true), ("DELETE", true), ("GET", false)] {
        let values =
            format!(r#", '{method}', '{{"Authorization": "Bearer x", "Content-Type": "application/vnd.shop+json"}}'"#);
        world.set("shop", method, &receiver, ", callback_method, callback_headers", &values).await;
        let request = receiver.request().await;
        assert_eq!(request.line, format!("{method} /hook?a=b HTTP/1.1"));
        assert_eq!(request.headers["authorization"], "Bearer x");
        assert_eq!(request.headers["content-type"], "application/vnd.shop+json");
        assert_eq!(!request.body.is_empty(), has_body, "{method}");
    }
}

/// How far two clocks of a busy machine may be apart: far less than the time that a receiver names.
const CLOCKS_APART_MAX: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_names_a_time_is_left_alone_until_then() {
    let world = World::new().await;
    // What the header says, and until when the receiver is to be left alone by it.
    let wish = |form: usize| {
        let now = wall();
        match form {
            0 => ("2".to_owned(), now.after(Duration::from_secs(2))),
            _ => {
                // A date has whole seconds.
                let at = Timestamp::from_micros((now.micros() / 1_000_000 + 3) * 1_000_000);
                let date = jiff::Timestamp::from_microsecond(at.micros()).unwrap();
                (date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string(), at)
            }
        }
    };
    for form in [0, 1] {
        let asked = Arc::new(OnceLock::new());
        let named = Arc::clone(&asked);
        let mut receiver = Receiver::start(move |_, _| {
            let (wish, until) = wish(form);
            match named.set(until) {
                Ok(()) => Act::Send(answer(503, &format!("retry-after: {wish}\r\n"), "closed")),
                Err(_) => ok(),
            }
        })
        .await;
        let id = format!("r{form}");
        world.set("shop", &id, &receiver, ", retry_interval_first", ", '10 ms'").await;
        let (first, second) = (receiver.request().await, receiver.request().await);
        assert_eq!((&*first.headers["walclock-attempt"], &*second.headers["walclock-attempt"]), ("1", "2"));
        assert_eq!(first.headers["webhook-id"], second.headers["webhook-id"]);
        // History tells both attempts whole, and when the second one left.
        let over = async || {
            let query = "select attempt, outcome, http_status, reply, error, took >= '0 s',
                                sent_at
                         from walclock.timer_history where id = $1 order by claimed_at";
            let rows = world.sql.query(query, &[&id]).await.unwrap();
            (rows.len() == 2 && rows[1].get::<_, &str>(1) == "succeeded").then_some(rows)
        };
        let rows = eventually(PATIENCE, "both attempts are in the history", over).await;
        type Row<'a> = (i32, &'a str, Option<i16>, Option<&'a str>, Option<&'a str>, Option<bool>);
        let row = |index: usize| -> Row<'_> {
            let row = &rows[index];
            (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4), row.get(5))
        };
        assert_eq!(row(0), (1, "retried", Some(503), Some("closed"), Some("answered 503"), Some(true)));
        assert_eq!(row(1), (2, "succeeded", Some(200), Some(r#"{"ok":true}"#), None, Some(true)));
        // The moments are of two clocks: walclock knows that of PostgreSQL only as well as the machine answers.
        let (sent_at, until): (Timestamp, Timestamp) = (rows[1].get(6), *asked.get().unwrap());
        assert!(sent_at >= until.before(CLOCKS_APART_MAX), "{sent_at}, not from {until} on, in the form {form}");
    }
}

/// Whatever an attempt came to, what it was answered is kept: also where the receiver asked for another moment.
#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_moved_its_timer_is_in_the_history_like_any_other() {
    const FIRST: &str = "2020-01-01T00:00:00Z";
    const ELSEWHEN: &str = r#"{"ok":false,"nextExecuteAt":"2020-01-02T00:00:00Z"}"#;
    const OK: &str = r#"{"ok":true}"#;
    let world = World::new().await;
    // The same request has the same answer, also where it comes again.
    let receiver = support::receiver::Receiver::answering(|call| {
        let is_first = call.body["executeAt"] == FIRST;
        let (status, body) = match call.header("walclock-attempt") {
            "1" if is_first => (StatusCode::SERVICE_UNAVAILABLE, "closed"),
            _ if is_first => (StatusCode::OK, ELSEWHEN),
            _ => (StatusCode::OK, OK),
        };
        Box::pin(async move { (status, body.to_owned()) })
    })
    .await;
    let insert = "insert into walclock.timers (namespace, id, execute_at, callback_url, retry_interval_first)
                  values ('shop', 'moved', $1::text::timestamptz, $2, '10 ms')";
    world.sql.execute(insert, &[&FIRST, &receiver.url()]).await.unwrap();
    let key = TimerKey::new("shop", "moved");
    let over = async || {
        let attempts = world.timers.history(&key, 10).await.unwrap();
        attempts.last().is_some_and(|last| last.outcome == Outcome::Succeeded).then_some(attempts)
    };
    let attempts = eventually(PATIENCE, "the timer is over", over).await;
    assert!(attempts.iter().all(|attempt| attempt.sent_at.unwrap() <= attempt.answered_at.unwrap()), "{attempts:?}");
    let told = attempts.iter().map(|attempt| {
        (attempt.number, attempt.outcome, attempt.status, attempt.error.as_deref(), attempt.reply.as_deref())
    });
    let expected = [
        (1, Outcome::Retried, Some(503), Some("answered 503"), Some("closed")),
        (2, Outcome::Rescheduled, Some(200), None, Some(ELSEWHEN)),
        (1, Outcome::Succeeded, Some(200), None, Some(OK)),
    ];
    assert_eq!(told.collect::<Vec<_>>(), expected);
}
