//! `walclock schedules`, run as a user runs it.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::{connect, migrated};

/// Runs the command, and returns whether it succeeded, what it printed, and what it printed as errors.
async fn schedules(url: &str, arguments: &[&str]) -> (bool, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walclock"));
    command.args(["--log", "off", "schedules"]).args(arguments).args(["--database-url", url]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_is_created_shown_paused_triggered_and_deleted() {
    let url = migrated().await;
    let create =
        ["create", "--id", "tea", "--cron", "0 16 * * *", "--time-zone", "Europe/London", "--url", "http://x/"];
    let error = "walclock: --namespace must be one that exists, and \"default\" does not: --make-namespace makes it\n";
    assert_eq!(schedules(&url, &create).await, (false, String::new(), error.to_owned()));
    let made = schedules(&url, &[&create[..], &["--make-namespace"]].concat()).await;
    assert_eq!(made, (true, "created default/tea\n".to_owned(), String::new()));
    // Now that it is there, a create need not say so.
    assert_eq!(schedules(&url, &create).await, (true, "created default/tea\n".to_owned(), String::new()));
    let (_, out, _) = schedules(&url, &["get", "--id", "tea"]).await;
    assert!(
        out.starts_with("schedule      default/tea\nstatus        active\nrecurs        0 16 * * * (Europe/London)\n"),
        "{out}"
    );
    for (act, said) in [("pause", "paused default/tea\n"), ("resume", "resumed default/tea\n")] {
        assert_eq!(schedules(&url, &[act, "--id", "tea"]).await.1, said);
        let status = if act == "pause" { "paused" } else { "active" };
        let (_, out, _) = schedules(&url, &["get", "--id", "tea", "--json"]).await;
        let shown: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((&shown["paused"], &shown["status"]), (&json!(act == "pause"), &json!(status)));
    }
    let (_, out, _) = schedules(&url, &["trigger", "--id", "tea"]).await;
    assert!(out.starts_with("triggered default/tea: timer tea@2") && out.ends_with("Z\n"), "{out}");
    let (_, out, _) = schedules(&url, &["list"]).await;
    let lines: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["ID", "STATUS", "NEXT", "RECURS"]);
    assert_eq!(lines[1..], [["tea", "active", "-", "0", "16", "*", "*", "*", "(Europe/London)"]]);
    let (_, out, _) = schedules(&url, &["list", "--limit", "1"]).await;
    assert!(out.ends_with("there may be more: --after 'tea'\n"), "{out}");
    let delete = ["delete", "--id", "tea"];
    assert_eq!(schedules(&url, &delete).await, (true, "deleted default/tea\n".to_owned(), String::new()));
    for act in ["delete", "get", "pause", "resume", "trigger"] {
        let error = "walclock: there is no schedule default/tea\n".to_owned();
        assert_eq!(schedules(&url, &[act, "--id", "tea"]).await, (false, String::new(), error));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_act_answers_programs_in_json() {
    let url = migrated().await;
    let sql = connect(&url).await;
    let create = ["create", "--id", "tea", "--every", "90s", "--url", "http://x/", "--json", "--payload", "{\"a\": 1}"];
    let more = ["--make-namespace", "--jitter", "5s", "--end-at", "2090-01-02T03:04:05Z", "--max-attempts", "3"];
    let json = |out: &str| serde_json::from_str::<Value>(out).unwrap();
    let (done, out, error) = schedules(&url, &[&create[..], &more[..]].concat()).await;
    assert!(done, "{error}");
    let created = json(&out);
    for (key, expected) in [
        ("id", json!("tea")),
        ("status", json!("active")),
        ("every", json!("1m30s")),
        ("jitter", json!("5s")),
        ("endAt", json!("2090-01-02T03:04:05Z")),
        ("catchUpWindow", json!("24h")),
        ("payload", json!({ "a": 1 })),
        ("callbackTimeoutSeconds", json!(30)),
        ("cron", Value::Null),
        ("nextAt", Value::Null),
        ("lastFiredAt", Value::Null),
    ] {
        assert_eq!(created[key], expected, "{key}: {out}");
    }
    assert_eq!(created["retryPolicy"]["maxAttempts"], 3);

    let (_, out, _) = schedules(&url, &["trigger", "--id", "tea", "--json"]).await;
    let fired = json(&out)["timerId"].as_str().unwrap().strip_prefix("tea@").unwrap().to_owned();
    // A moment ahead for which the timer has been made already has not fired yet.
    let ahead = "insert into walclock.occurrences (namespace, schedule, scheduled_for, state, timer_id) \
        values ('default', 'tea', now() + interval '1 hour', 'fired', 'tea@ahead')";
    sql.execute(ahead, &[]).await.unwrap();
    let ahead = "update walclock.schedules set next_at = '2090-01-01', buffered_at = '2030-01-01 00:00:00+00'";
    sql.execute(ahead, &[]).await.unwrap();
    for (act, status, next_at) in [
        ("pause", "paused", Value::Null),
        ("resume", "active", json!("2090-01-01T00:00:00Z")),
        ("get", "active", json!("2090-01-01T00:00:00Z")),
    ] {
        let (_, out, error) = schedules(&url, &[act, "--id", "tea", "--json"]).await;
        let shown = json(&out);
        assert_eq!((&shown["status"], &shown["nextAt"]), (&json!(status), &next_at), "{act}: {out}{error}");
        assert_eq!(shown["lastFiredAt"], json!(fired), "{out}");
        assert_eq!(shown["bufferedAt"], "2030-01-01T00:00:00Z", "{out}");
    }
    let (_, listed, _) = schedules(&url, &["list", "--json"]).await;
    assert_eq!((json(&listed)["id"].clone(), listed.lines().count()), (json!("tea"), 1));
    let deleted = schedules(&url, &["delete", "--id", "tea", "--json"]).await;
    assert_eq!(deleted, (true, "{\"id\":\"tea\",\"namespace\":\"default\"}\n".to_owned(), String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_is_one_line_that_names_the_flag() {
    let url = migrated().await;
    let create = ["create", "--make-namespace", "--id", "a", "--url", "http://x/"];
    for (more, line) in [
        (&["--cron", "0 25 * * *"][..], "--cron must be a cron expression; its hour \"25\""),
        (&["--cron", "* * * * *", "--time-zone", "Mars"][..], "--time-zone must be the name of an IANA time zone"),
        (&["--every", "1ms"][..], "--every must be a duration from 1s to"),
        (&["--every", "1m", "--overlap", "no"][..], "--overlap must be skip, allow, buffer_one or cancel_other"),
        (&["--every", "1m", "--catch-up", "no"][..], "--catch-up must be none, last or all"),
        (&["--every", "1m", "--catch-up-max", "0"][..], "--catch-up-max must be a whole number from 1 to 1000"),
        (&["--every", "1m", "--jitter", "25h"][..], "--jitter must be a duration of at most 24h"),
        (&["--every", "1m", "--timeout", "0"][..], "--timeout must be a whole number of seconds"),
        (&["--every", "1m", "--method", "HEAD"][..], "--method must be one of GET, POST, PUT, PATCH, DELETE"),
        (&["--every", "1m", "--header", "Webhook-Id: 1"][..], "--header must be a header that belongs neither to"),
        (&["--every", "1m", "--header", "X"][..], "--header must be a name and a value, such as"),
        (&["--every", "1m", "--max-attempts", "few"][..], "--max-attempts must be a whole number from 1 to"),
        (&["--every", "1m", "--backoff-multiplier", "101"][..], "--backoff-multiplier must be a number from 1.0 to"),
        (&["--every", "1m", "--initial-interval", "0s"][..], "--initial-interval must be a duration from 1ms to"),
        (&["--every", "1m", "--payload", "[]"][..], "--payload must be a JSON object"),
    ] {
        let (done, out, error) = schedules(&url, &[&create[..], more].concat()).await;
        assert!(!done && out.is_empty() && error.lines().count() == 1, "{error}");
        assert!(error.starts_with(&format!("walclock: {line}")), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_call_is_a_flag_and_goes_to_its_timers() {
    let url = migrated().await;
    let sql = connect(&url).await;
    let create = ["create", "--make-namespace", "--id", "tea", "--every", "1h", "--url", "http://x/", "--json"];
    let call = ["--method", "DELETE", "--header", "X-Tenant: 7", "--header", "x-trace:a:b", "--timeout", "7"];
    let retry = ["--max-attempts", "3", "--max-attempts-duration", "2h", "--initial-interval", "5s"];
    let waits = ["--backoff-multiplier", "1.5", "--max-interval", "1m"];
    let (done, out, error) = schedules(&url, &[&create[..], &call, &retry, &waits].concat()).await;
    assert!(done, "{error}");
    let shown: Value = serde_json::from_str(&out).unwrap();
    let policy = json!({"maxAttempts": 3, "maxAttemptsDuration": "2h", "initialInterval": "5s",
        "backoffMultiplier": 1.5, "maxInterval": "1m"});
    assert_eq!((&shown["callbackMethod"], &shown["callbackTimeoutSeconds"]), (&json!("DELETE"), &json!(7)));
    assert_eq!(shown["callbackHeaders"], json!({ "X-Tenant": "7", "x-trace": "a:b" }));
    assert_eq!((&shown["retryPolicy"], &shown["createdAt"]), (&policy, &shown["updatedAt"]));
    let (_, out, _) = schedules(&url, &["get", "--id", "tea"]).await;
    let said = "url           http://x/\nmethod        DELETE\nheader        X-Tenant: 7\n\
        header        x-trace: a:b\ntimeout       7s\n\
        retries       at most 3 attempts, for 2h; after 5s, then 1.5 times the wait each, up to 1m\n";
    assert!(out.ends_with(said), "{out}");

    assert!(schedules(&url, &["trigger", "--id", "tea"]).await.0);
    let timer = "select callback_method || callback_headers::text || retry_interval_max from walclock.timers";
    let timer = sql.query_one(timer, &[]).await.unwrap().get::<_, String>(0);
    assert_eq!(timer, r#"DELETE{"x-trace": "a:b", "X-Tenant": "7"}00:01:00"#);

    // A create says all of it, as its help does: what it leaves out has its default again.
    let (_, out, _) = schedules(&url, &create).await;
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&shown["callbackMethod"], &shown["callbackHeaders"]), (&json!("POST"), &json!({})), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_moments_of_a_schedule_that_is_stored() {
    let url = migrated().await;
    let sql = connect(&url).await;
    let rows =
        "insert into walclock.schedules (namespace, id, cron, every, time_zone, start_at, end_at, callback_url) values
        ('n', 'tea', '30 2 * * *', null, 'Europe/Berlin', null, '2026-03-31 00:30:00+00', 'http://x/'),
        ('n', 'poll', null, '90s', 'Mars', '2030-01-01 00:00:00+00', null, 'http://x/'),
        ('n', 'bad', '* * * * *', null, 'Mars', null, null, 'http://x/')";
    sql.batch_execute(rows).await.unwrap();
    let next = async |id: &str, more: &[&str]| {
        schedules(&url, &[&["next", "--namespace", "n", "--id", id], more].concat()).await
    };
    let after = ["--after", "2026-03-28T12:00:00Z"];
    let moments = "2026-03-29T03:00:00+02:00\n2026-03-30T02:30:00+02:00\n2026-03-31T02:30:00+02:00\n";
    // It ends with the last of them.
    assert_eq!(next("tea", &after).await, (true, moments.to_owned(), String::new()));
    let (_, out, _) = next("poll", &["--after", "2026-03-28T12:00:00Z", "--count", "2", "--json"]).await;
    let moments: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (&moments[0]["at"], &moments[1]["at"]),
        (&json!("2030-01-01T00:00:00Z"), &json!("2030-01-01T00:01:30Z"))
    );
    let (done, out, error) = next("bad", &[]).await;
    assert!(!done && out.is_empty(), "{out}");
    assert!(
        error.starts_with("walclock: nothing is made of the schedule n/bad: time_zone must be the name"),
        "{error}"
    );
    let error = "walclock: there is no schedule n/gone\n".to_owned();
    assert_eq!(next("gone", &[]).await, (false, String::new(), error));
}
