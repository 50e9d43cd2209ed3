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
