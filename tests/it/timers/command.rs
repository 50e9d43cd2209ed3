//! `walclock timers`, run as a user runs it.

use std::process::Command;

use serde_json::{Value, json};

use super::face::Face;

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
    assert_eq!(error, "walclock: --namespace must be one that exists, and \"n\" does not\n");

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
        (&["--url", "http://x/", "--in", "1s", "--max-attempts", "0"][..], "--max-attempts must be a whole number"),
    ] {
        let (done, out, error) = timers(&face, &[&create[..], more].concat()).await;
        assert!(!done && out.is_empty() && error.lines().count() == 1, "{error}");
        assert!(error.starts_with(&format!("walclock: {line}")), "{error}");
    }
}
