//! `walclock namespaces`, run as a user runs it, and what its receivers notice.

use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tokio_postgres::Client;
use walclock::domain::webhook::Secret;

use crate::support::receiver::{Call, Receiver};
use crate::support::server::{Server, folder};
use crate::support::{PATIENCE, connect, eventually, migrated, scratch};

/// Runs the command, and returns whether it succeeded, what it printed, and what it printed as errors.
async fn namespaces(url: &str, arguments: &[&str]) -> (bool, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walclock"));
    command.args(["--log", "off", "namespaces"]).args(arguments).args(["--database-url", url]).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

/// What the command prints as JSON.
async fn answer(url: &str, arguments: &[&str]) -> Value {
    let (done, out, error) = namespaces(url, &[arguments, &["--json"]].concat()).await;
    assert!(done, "{arguments:?}: {error}");
    serde_json::from_str(&out).unwrap()
}

/// The line that it ends with, having done nothing.
async fn refusal(url: &str, arguments: &[&str]) -> String {
    let (done, out, error) = namespaces(url, arguments).await;
    assert!(!done && out.is_empty() && error.lines().count() == 1, "{arguments:?}: {out}{error}");
    error.trim_end().strip_prefix("walclock: ").unwrap().to_owned()
}

async fn secrets(sql: &Client, name: &str) -> Vec<String> {
    sql.query_one("select secrets from walclock.namespaces where name = $1", &[&name]).await.unwrap().get(0)
}

async fn insert_timer(sql: &Client, namespace: &str, id: &str, execute_at: &str, url: &str) {
    let insert = format!(
        "insert into walclock.timers (namespace, id, execute_at, callback_url)
         values ('{namespace}', '{id}', {execute_at}, '{url}')"
    );
    sql.batch_execute(&insert).await.unwrap();
}

/// The signatures that these secrets make for a callback.
fn signatures(secrets: &[&str], call: &Call) -> String {
    let (id, timestamp) = (call.header("webhook-id"), call.header("webhook-timestamp").parse().unwrap());
    let sign = |secret: &&str| secret.parse::<Secret>().unwrap().sign(id, timestamp, &call.raw);
    secrets.iter().map(sign).collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_created_shown_listed_and_deleted() {
    let url = migrated().await;
    let sql = connect(&url).await;
    assert_eq!(namespaces(&url, &["create", "plain"]).await, (true, "created plain\n".to_owned(), String::new()));
    assert_eq!(refusal(&url, &["create", "plain"]).await, "namespace plain is there already");
    let (done, out, error) = namespaces(&url, &["create", "shop", "--make-secret"]).await;
    assert!(done, "{error}");
    let made = out.trim_end().strip_prefix("created shop: ").unwrap().to_owned();
    assert_eq!(secrets(&sql, "shop").await, [made.as_str()]);

    let (_, out, _) = namespaces(&url, &["list"]).await;
    let lines: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().take(2).collect()).collect();
    assert_eq!(lines, [["NAME", "SECRETS"], ["plain", "0"], ["shop", "1"]]);
    let (_, out, _) = namespaces(&url, &["list", "--limit", "1"]).await;
    assert!(out.ends_with("there may be more: --after 'plain'\n"), "{out}");
    let (_, out, _) = namespaces(&url, &["list", "--after", "plain", "--json"]).await;
    assert!(
        out.starts_with("{\"namespace\":\"shop\",\"secrets\":1,\"createdAt\":\"2") && out.lines().count() == 1,
        "{out}"
    );

    insert_timer(&sql, "shop", "a", "now() + interval '1 hour'", "http://x/").await;
    let schedule =
        "insert into walclock.schedules (namespace, id, every, callback_url) values ('shop', 's', '1 h', 'http://x/')";
    sql.batch_execute(schedule).await.unwrap();
    let run = "insert into walclock.runs
        select namespace, 'r', now(), shard, 1, 'running', execute_at, retry_at, due_at, callback_url, callback_method,
            callback_headers, callback_timeout_seconds, payload, retry_attempts_max, retry_duration, retry_interval_first,
            retry_multiplier, retry_interval_max, 1, now(), now(), now() from walclock.timers";
    sql.batch_execute(run).await.unwrap();
    let (_, out, _) = namespaces(&url, &["get", "shop"]).await;
    let said =
        "namespace     shop\nsecrets       1\ntimers        1 pending\nschedules     1\nruns          1 under way\n";
    assert!(out.starts_with(said) && !out.contains("whsec_"), "{out}");
    let shown = answer(&url, &["get", "shop"]).await;
    assert_eq!((&shown["pendingTimers"], &shown["schedules"], &shown["running"]), (&json!(1), &json!(1), &json!(1)));

    let busy = "namespace shop has 1 pending timer, 1 schedule and 1 run under way: try again when they are over";
    assert_eq!(refusal(&url, &["delete", "shop"]).await, busy);
    let run = "namespace shop has 1 run under way: try again when they are over";
    assert_eq!(refusal(&url, &["delete", "shop", "--cascade"]).await, run);
    sql.batch_execute("update walclock.runs set state = 'succeeded', answered_at = now()").await.unwrap();
    insert_timer(&sql, "shop", "a", "now() + interval '1 hour'", "http://x/").await;
    insert_timer(&sql, "plain", "a", "now() + interval '1 hour'", "http://x/").await;
    let full = "namespace shop has 1 pending timer: --cascade deletes and cancels them with it";
    assert_eq!(refusal(&url, &["delete", "shop"]).await, full);
    assert_eq!(answer(&url, &["delete", "shop", "--cascade"]).await, json!({ "namespace": "shop" }));
    let left = "select string_agg(namespace, ' ') from walclock.timers";
    assert_eq!(sql.query_one(left, &[]).await.unwrap().get::<_, &str>(0), "plain");
    for act in [&["get", "shop"][..], &["retire", "shop"], &["rotate", "shop", "--make-secret"], &["delete", "shop"]] {
        assert_eq!(refusal(&url, act).await, "there is no namespace shop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_named_and_no_secret_is_shown() {
    let url = migrated().await;
    let sql = connect(&url).await;
    let file = |name: &str, text: &str| {
        let path = scratch().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (short, good) = (file("short", "whsec_QUJDREVG\n"), file("good", &format!("whsec_{}\n", "QUJD".repeat(8))));
    let allowed = "--secret-file must hold whsec_ and the base64 of 24 to 64 bytes, and nothing else";
    for (arguments, said) in [
        (&["create", ""][..], "NAME must be 1 to 255 bytes without control characters, not \"\"".to_owned()),
        (&["create", "n", "--secret-file", &short], format!("reading {short}: {allowed}, not of 6")),
        (&["create", "n", "--secret-file", "/nowhere"], "reading /nowhere: No such file".to_owned()),
        (&["rotate", "n", "--secret-file", &good], "there is no namespace n".to_owned()),
    ] {
        let error = refusal(&url, arguments).await;
        assert!(error.starts_with(&said) && !error.contains("QUJD"), "{error}");
    }
    // Whatever is logged, and whoever looks at the list of processes.
    for act in ["create", "rotate"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_walclock"));
        command.args(["--log", "trace", "namespaces", act, "n", "--make-secret", "--database-url", &url]);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let (out, log) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(out.contains(": whsec_") && log.contains("walclock.namespaces") && !log.contains("whsec_"), "{log}");
    }
    let error = refusal(&url, &["rotate", "n", "--make-secret"]).await;
    let said = "namespace n has two secrets already: retire the older one first, with walclock namespaces retire n";
    assert_eq!(error, said);
    assert!(namespaces(&url, &["retire", "n"]).await.0);
    assert_eq!(refusal(&url, &["retire", "n"]).await, "namespace n has one secret: there is no older one to retire");
    // Padded or not, it is the same one.
    sql.batch_execute("update walclock.namespaces set secrets = array['whsec_' || repeat('QUJD', 8) || 'QUI']")
        .await
        .unwrap();
    let same = file("same", &format!("whsec_{}QUI=", "QUJD".repeat(8)));
    assert_eq!(refusal(&url, &["rotate", "n", "--secret-file", &same]).await, "namespace n has this secret already");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_namespace_signs_twice_until_the_older_secret_is_retired() {
    let url = migrated().await;
    let sql = connect(&url).await;
    let server = Server::start(&url, &folder()).await;
    let receiver = Receiver::start().await;
    let fired = async |id: &str| {
        insert_timer(&sql, "shop", id, "now()", &receiver.url()).await;
        let called = async || receiver.calls().into_iter().find(|call| call.timer() == id);
        eventually(PATIENCE, "the callback", called).await
    };
    let old = answer(&url, &["create", "shop", "--make-secret"]).await["secret"].as_str().unwrap().to_owned();
    let call = fired("first").await;
    assert_eq!(call.header("webhook-signature"), signatures(&[&old], &call));
    let rotated = answer(&url, &["rotate", "shop", "--make-secret"]).await;
    let new = rotated["secret"].as_str().unwrap().to_owned();
    assert_eq!((secrets(&sql, "shop").await, &rotated["secrets"]), (vec![new.clone(), old.clone()], &json!(2)));
    let call = fired("second").await;
    assert_eq!(call.header("webhook-signature"), signatures(&[&new, &old], &call));
    let retired = answer(&url, &["retire", "shop"]).await;
    assert_eq!((&retired["secrets"], retired.get("secret")), (&json!(1), None));
    let call = fired("third").await;
    assert_eq!(call.header("webhook-signature"), signatures(&[&new], &call));
    drop(server);
}
