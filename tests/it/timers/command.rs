//! `walclock timers`, run as a user runs it.

use std::process::Command;

use serde_json::{Value, json};

use super::face::Face;
use crate::support;

/// Runs the command, and returns whether it succeeded, what it printed, and what it printed as errors.
async fn timers(face: &Face, arguments: &[&str]) -> (bool, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walclock"));
    command.args(["--log", "off", "timers"]).args(arguments).args(["--database-url", &face.database_url]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_is_created_shown_listed_and_deleted() {
    let face = Face::start().await;
    let create = ["create", "--namespace", "n", "--id", "tea", "--url", "http://127.0.0.1:9/hook", "--in", "1h"];
    let (_, _, error) = timers(&face, &create).await;
    assert_eq!(error, "walclock: --namespace must be one that exists, and \"n\" does not: --make-namespace makes it\n");

    let long = "n".repeat(300);
    let (_, _, error) =
        timers(&face, &["create", "--namespace", &long, "--id", "tea", "--url", "http://x/", "--in", "1h"]).await;
    assert!(error.starts_with("walclock: --namespace must be 1 to 255 bytes") && !error.contains("--make-"), "{error}");

    let more = ["--make-namespace", "--payload", "{\"a\": 1}", "--max-attempts", "3"];
    let (done, out, error) = timers(&face, &[&create[..], &more[..]].concat()).await;
    assert!(done && out.starts_with("created n/tea, due 2"), "{out}{error}");

    let (_, out, _) = timers(&face, &["get", "--namespace", "n", "--id", "tea", "--json"]).await;
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&shown["payload"], &shown["retryPolicy"]["maxAttempts"]), (&json!({ "a": 1 }), &json!(3)));
    let (_, out, _) = timers(&face, &["get", "--namespace", "n", "--id", "tea"]).await;
    assert!(out.starts_with("timer         n/tea\nstatus        pending\n"), "{out}");

    face.create("coffee").await;
    face.claim("coffee", "failed").await;
    let (_, out, _) = timers(&face, &["list", "--namespace", "n"]).await;
    let lines: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["ID", "STATUS", "DUE", "ATTEMPTS", "URL"]);
    assert_eq!((lines[1][0], lines[1][1], lines[1][3]), ("coffee", "failed", "1"));
    assert_eq!((lines[2][0], lines[2][1], lines.len()), ("tea", "pending", 3));
    let (_, out, _) = timers(&face, &["list", "--namespace", "n", "--limit", "1", "--json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["id"], "coffee");

    let (_, out, _) = timers(&face, &["delete", "--namespace", "n", "--id", "tea", "--json"]).await;
    assert_eq!(out, "{\"id\":\"tea\",\"namespace\":\"n\"}\n");
    assert!(timers(&face, &create).await.0);
    let delete = ["delete", "--namespace", "n", "--id", "tea"];
    assert_eq!(timers(&face, &delete).await, (true, "deleted n/tea\n".to_owned(), String::new()));
    let error = "walclock: there is no timer n/tea\n".to_owned();
    assert_eq!(timers(&face, &delete).await, (false, String::new(), error));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_is_one_line_that_names_the_flag() {
    let face = Face::start().await;
    let create = ["create", "--make-namespace", "--id", "a"];
    for (more, line) in [
        (&["--url", "x", "--in", "1s"][..], "--url must be an absolute http or https URL, not \"x\""),
        (&["--url", "http://x/", "--in", "0s"][..], "--in or --at must be a future timestamp, not"),
        (&["--url", "http://x/", "--in", "1s", "--payload", "[]"][..], "--payload must be a JSON object, not \"[]\""),
        (&["--url", "http://x/", "--in", "1s", "--payload", "{"][..], "--payload must be a JSON object: EOF"),
        (&["--url", "http://x/", "--in", "1s", "--timeout", "301"][..], "--timeout must be a whole number of seconds"),
        (&["--url", "http://x/", "--in", "1s", "--timeout", "-1"][..], "--timeout must be a whole number of seconds"),
        (
            &["--url", "http://x/", "--in", "1s", "--timeout", "99999"][..],
            "--timeout must be a whole number of seconds",
        ),
        (&["--url", "http://x/", "--in", "1s", "--method", "post"][..], "--method must be one of GET, POST, PUT,"),
        (&["--url", "http://x/", "--in", "1s", "--header", "x"][..], "--header must be a name and a value, such as"),
        (&["--url", "http://x/", "--in", "1s", "--header", ": x"][..], "--header must be names and values that HTTP"),
        (
            &["--url", "http://x/", "--in", "1s", "--header", "a: 1", "--header", "A: 2"][..],
            "--header must have another",
        ),
        (&["--url", "http://x/", "--in", "1s", "--header", "Host: y"][..], "--header must be a header that belongs"),
        (
            &["--url", "http://x/", "--in", "1s", "--initial-interval", "0s"][..],
            "--initial-interval must be a duration",
        ),
        (
            &["--url", "http://x/", "--in", "1s", "--max-interval", "0s"][..],
            "--max-interval must be a duration from 1ms",
        ),
        (
            &["--url", "http://x/", "--in", "1s", "--backoff-multiplier", "0.5"][..],
            "--backoff-multiplier must be a number",
        ),
        (
            &["--url", "http://x/", "--in", "1s", "--backoff-multiplier", "x"][..],
            "--backoff-multiplier must be a number",
        ),
        (&["--url", "http://x/", "--in", "1s", "--backoff-multiplier", "NaN"][..], "--backoff-multiplier must be a"),
        (
            &["--url", "http://x/", "--in", "1s", "--max-attempts-duration", "4000000000s"][..],
            "--max-attempts-duration must be a duration from 0s to",
        ),
        (&["--url", "http://x/", "--in", "1s", "--max-attempts", "0"][..], "--max-attempts must be a whole number"),
        (&["--url", "http://x/", "--in", "1s", "--max-attempts", "-1"][..], "--max-attempts must be a whole number"),
        (
            &["--url", "http://x/", "--in", "1s", "--max-attempts", "5000000000"][..],
            "--max-attempts must be a whole number",
        ),
    ] {
        let (done, out, error) = timers(&face, &[&create[..], more].concat()).await;
        assert!(!done && out.is_empty() && error.lines().count() == 1, "{error}");
        assert!(error.starts_with(&format!("walclock: {line}")), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_timers_is_stored_line_by_line() {
    let face = Face::start().await;
    let line = |id: &str, more: &str| {
        format!(
            r#"{{"namespace":"n","id":"{id}","executeAt":"2090-01-02T03:04:05Z","callbackUrl":"https://example.com/"{more}}}"#
        )
    };
    let mut lines: Vec<String> = (0..2500).map(|n| line(&format!("t{n:04}"), "")).collect();
    lines[7] = line("past", r#","executeAt":1"#);
    lines[1200] = "not json".to_owned();
    lines[2000] = line("", "");
    lines[2400] = String::new();
    let file = support::scratch().join("timers.jsonl");
    std::fs::write(&file, lines.join("\n")).unwrap();
    let create = ["create", "--make-namespace", "--batch", file.to_str().unwrap()];
    let (done, out, error) = timers(&face, &create).await;
    assert_eq!((done, out.as_str()), (false, "created 2496 timers, and not 3\n"), "{error}");
    let errors: Vec<&str> = error.lines().collect();
    assert_eq!(errors[0], "walclock: line 8: duplicate field executeAt");
    assert!(errors[1].starts_with("walclock: line 1201: the body must be a JSON object: expected"), "{error}");
    assert_eq!(errors[2..], ["walclock: line 2001: id must be 1 to 255 characters, none a control character"]);
    let row = "select count(*), count(distinct xmin::text) from walclock.timers";
    let row = face.sql.query_one(row, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (2496, 3));

    std::fs::write(&file, lines[..2].join("\n")).unwrap();
    let (done, out, _) = timers(&face, &[&create[..], &["--json"]].concat()).await;
    assert!(done);
    let ids: Vec<Value> = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].clone()).collect();
    assert_eq!(ids, ["t0000", "t0001"]);

    let (done, _, error) = timers(&face, &["create", "--batch", "/nowhere"]).await;
    assert_eq!((done, error.as_str()), (false, "walclock: reading /nowhere: No such file or directory (os error 2)\n"));
    let (done, _, error) = timers(&face, &[&create[..], &["--id", "a"]].concat()).await;
    assert!(!done && error.contains("'--batch <FILE>' cannot be used with '--id <ID>'"), "{error}");

    face.sql.batch_execute("alter schema walclock rename to elsewhere").await.unwrap();
    let (done, _, error) = timers(&face, &create).await;
    let said = "walclock: storing lines 1 to 2; 0 timers are stored: the schema of walclock is missing or old at ";
    assert!(!done && error.starts_with(said), "{error}");
}

/// All flags that say how a timer calls; a value that begins with a dash is one.
const CALLING: [&str; 16] = [
    "--method",
    "PUT",
    "--header",
    "X-Tenant: 7",
    "--header",
    "Authorization: Bearer a:b",
    "--timeout",
    "7",
    "--max-attempts",
    "3",
    "--max-attempts-duration",
    "2h",
    "--backoff-multiplier",
    "1.5",
    "--max-interval",
    "1m",
];

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_call_is_a_flag_and_is_shown() {
    let face = Face::start().await;
    let create = ["create", "--make-namespace", "--id", "tea", "--url", "http://x/", "--at", "2090-01-02T03:04:05Z"];
    let more = ["--initial-interval", "300ms", "--payload", "{}", "--json"];
    let (done, out, error) = timers(&face, &[&create[..], &CALLING[..], &more[..]].concat()).await;
    assert!(done, "{error}");
    let expected = json!({
        "id": "tea", "namespace": "default", "executeAt": "2090-01-02T03:04:05Z", "callbackUrl": "http://x/", "payload": {},
        "retryPolicy": {"maxAttempts": 3, "maxAttemptsDuration": "2h", "initialInterval": "300ms",
            "backoffMultiplier": 1.5, "maxInterval": "1m"},
        "callbackTimeoutSeconds": 7, "callbackMethod": "PUT",
        "callbackHeaders": {"Authorization": "Bearer a:b", "X-Tenant": "7"},
    });
    let without_moments = |out: &str| {
        let mut shown: Value = serde_json::from_str(out).unwrap();
        for key in ["createdAt", "updatedAt", "status", "attempts", "nextAttemptAt"] {
            shown.as_object_mut().unwrap().remove(key);
        }
        shown
    };
    assert_eq!(without_moments(&out), expected);
    for look in [&["get", "--id", "tea", "--json"][..], &["list", "--json"]] {
        assert_eq!(without_moments(&timers(&face, look).await.1), expected, "{look:?}");
    }
    let (_, out, _) = timers(&face, &["get", "--id", "tea"]).await;
    let said = "url           http://x/\nmethod        PUT\nheader        Authorization: Bearer a:b\n\
        header        X-Tenant: 7\ntimeout       7s\n\
        retries       at most 3 attempts, for 2h; after 300ms, then 1.5 times the wait each, up to 1m\n\
        payload       {}\n";
    assert!(out.ends_with(said), "{out}");
    let row = "select callback_method, callback_headers::text, retry_interval_first::text from walclock.timers";
    let row = face.sql.query_one(row, &[]).await.unwrap();
    let stored: [&str; 3] = [row.get(0), row.get(1), row.get(2)];
    assert_eq!(stored, ["PUT", r#"{"X-Tenant": "7", "Authorization": "Bearer a:b"}"#, "00:00:00.3"]);

    // A create says all of it, as its help does: what it leaves out has its default again.
    assert!(timers(&face, &create).await.0);
    let (_, out, _) = timers(&face, &["get", "--id", "tea", "--json"]).await;
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&shown["callbackMethod"], &shown["callbackHeaders"]), (&json!("POST"), &json!({})));
    assert_eq!(shown["retryPolicy"]["maxAttempts"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_update_does_not_say_stays() {
    let face = Face::start().await;
    let create = ["create", "--make-namespace", "--id", "tea", "--url", "http://x/", "--at", "2090-01-02T03:04:05Z"];
    let (done, _, error) = timers(&face, &[&create[..], &CALLING[..], &["--payload", "{}"]].concat()).await;
    assert!(done, "{error}");
    let mut expected: Value = serde_json::from_str(&timers(&face, &["get", "--id", "tea", "--json"]).await.1).unwrap();

    let said = (true, "updated default/tea, due 2091-01-01T00:00:00Z\n".to_owned(), String::new());
    assert_eq!(timers(&face, &["update", "--id", "tea", "--at", "2091-01-01T00:00:00Z"]).await, said);
    (expected["executeAt"], expected["nextAttemptAt"]) = (json!("2091-01-01T00:00:00Z"), json!("2091-01-01T00:00:00Z"));
    for (given, pointer, value) in [
        (&["--url", "http://y/"][..], "/callbackUrl", json!("http://y/")),
        (&["--method", "PATCH"], "/callbackMethod", json!("PATCH")),
        (&["--header", "X-B: 1"], "/callbackHeaders", json!({ "X-B": "1" })),
        (&["--no-headers"], "/callbackHeaders", json!({})),
        (&["--timeout", "9"], "/callbackTimeoutSeconds", json!(9)),
        (&["--payload", "{\"a\":1}"], "/payload", json!({ "a": 1 })),
        (&["--max-attempts", "4"], "/retryPolicy/maxAttempts", json!(4)),
        (&["--max-attempts-duration", "3h"], "/retryPolicy/maxAttemptsDuration", json!("3h")),
        (&["--initial-interval", "5s"], "/retryPolicy/initialInterval", json!("5s")),
        (&["--backoff-multiplier", "3"], "/retryPolicy/backoffMultiplier", json!(3.0)),
        (&["--max-interval", "10m"], "/retryPolicy/maxInterval", json!("10m")),
    ] {
        let (done, _, error) = timers(&face, &[&["update", "--id", "tea"][..], given].concat()).await;
        assert!(done, "{given:?}: {error}");
        let (_, out, _) = timers(&face, &["get", "--id", "tea", "--json"]).await;
        let shown: Value = serde_json::from_str(&out).unwrap();
        *expected.pointer_mut(pointer).unwrap() = value;
        expected["updatedAt"] = shown["updatedAt"].clone();
        assert_eq!(shown, expected, "{given:?}");
    }
    let taken = ["update", "--id", "tea", "--payload", "null", "--max-attempts", "none", "--json"];
    let (_, out, error) = timers(&face, &taken).await;
    let shown: Value = serde_json::from_str(&out).expect(&error);
    assert_eq!((&shown["payload"], &shown["retryPolicy"]["maxAttempts"]), (&Value::Null, &Value::Null), "{out}");
    assert_eq!((&shown["callbackMethod"], &shown["retryPolicy"]["maxInterval"]), (&json!("PATCH"), &json!("10m")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_cannot_be_is_one_line() {
    let face = Face::start().await;
    face.create("tea").await;
    face.create("over").await;
    face.claim("over", "succeeded").await;
    let update = ["update", "--namespace", "n", "--id"];
    for (more, line) in [
        (&["tea"][..], "what is to be different must be given, such as --in, --at, --url or --payload\n"),
        (&["tea", "--in", "0s"], "--in or --at must be a future timestamp, not"),
        (&["tea", "--at", "2000-01-01T00:00:00Z"], "--in or --at must be a future timestamp, not"),
        (&["tea", "--url", "x"], "--url must be an absolute http or https URL, not \"x\"\n"),
        (&["tea", "--method", "get"], "--method must be one of GET, POST, PUT, PATCH, DELETE, not \"get\"\n"),
        (&["tea", "--header", "Host: x"], "--header must be a header that belongs neither to the connection nor"),
        (&["tea", "--timeout", "0"], "--timeout must be a whole number of seconds from 1 to 300"),
        (&["tea", "--max-interval", "0s"], "--max-interval must be a duration from 1ms"),
        (&["tea", "--payload", "[]"], "--payload must be a JSON object, not \"[]\"\n"),
        (&["over", "--in", "1h"], "timer n/over is not pending, it is succeeded\n"),
        (&["gone", "--in", "1h"], "there is no timer n/gone\n"),
    ] {
        let (done, out, error) = timers(&face, &[&update[..], more].concat()).await;
        assert!(!done && out.is_empty() && error.lines().count() == 1, "{more:?}: {error}");
        assert!(error.starts_with(&format!("walclock: {line}")), "{more:?}: {error}");
    }
}
