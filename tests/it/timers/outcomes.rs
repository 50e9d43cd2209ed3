//! What each operation answers, and what it leaves in the tables.

use serde_json::{Value, json};
use walclock::localpg::free_port;
use walclock::service::timers::Config;

use super::face::{AHEAD, Face, claim, create_request, selection, timeless, with};
use crate::support;

/// What a timer looks like that was created with no more than is required.
fn plain(id: &str) -> Value {
    json!({
        "id": id, "namespace": "n", "executeAt": AHEAD, "callbackUrl": "https://example.com/hook",
        "retryPolicy": {
            "maxAttemptsDuration": "24h", "initialInterval": "1s", "backoffMultiplier": 2.0, "maxInterval": "5m",
        },
        "callbackTimeoutSeconds": 30,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_answers_the_timer_with_its_defaults() {
    let face = Face::start().await;
    let created = face.create("a").await;
    assert_eq!(timeless(&created), plain("a"));
    assert_eq!(created.json["createdAt"], created.json["updatedAt"]);

    let got = face.call("get", &selection("a")).await;
    assert_eq!(got.status, 200);
    let status = json!({ "status": "pending", "attempts": 0, "nextAttemptAt": AHEAD });
    assert_eq!(timeless(&got), with(plain("a"), status));
    assert_eq!(got.json["createdAt"], created.json["createdAt"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_keeps_all_that_is_given() {
    let face = Face::start().await;
    let request = with(
        create_request("a"),
        json!({
            "executeAt": "2090-01-02T04:04:05.0000069+01:00", "payload": {"b": [1, null]}, "callbackTimeoutSeconds": 300,
            "retryPolicy": {
                "maxAttempts": 3, "maxAttemptsDuration": "1h30m", "initialInterval": "300ms",
                "backoffMultiplier": 1.5, "maxInterval": "1d",
            },
        }),
    );
    let expected = with(
        request.clone(),
        json!({ "executeAt": AHEAD, "retryPolicy": {
            "maxAttempts": 3, "maxAttemptsDuration": "1h30m", "initialInterval": "300ms",
            "backoffMultiplier": 1.5, "maxInterval": "24h",
        }}),
    );
    let created = face.call("create", &request).await;
    assert_eq!((created.status, timeless(&created)), (200, expected.clone()));
    let status = json!({ "status": "pending", "attempts": 0, "nextAttemptAt": AHEAD });
    assert_eq!(timeless(&face.call("get", &selection("a")).await), with(expected, status));
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_are_attempts_without_the_first() {
    let face = Face::start().await;
    let request = with(create_request("a"), json!({ "retryPolicy": { "maxRetries": 3, "initialInterval": "30s" } }));
    assert_eq!(face.call("create", &request).await.json["retryPolicy"]["maxAttempts"], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_overwrites_whole() {
    let face = Face::start().await;
    let rich = json!({
        "payload": {"old": true}, "callbackTimeoutSeconds": 7,
        "retryPolicy": { "maxAttempts": 1, "initialInterval": "7s" },
    });
    face.call("create", &with(create_request("a"), rich)).await;
    tried_once(&face, "a").await;
    face.sql.execute("update walclock.timers set created_at = '2020-01-01Z'", &[]).await.unwrap();

    let created = face.create("a").await;
    assert_eq!(timeless(&created), plain("a"));
    let got = face.call("get", &selection("a")).await;
    let status = json!({ "status": "pending", "attempts": 0, "nextAttemptAt": AHEAD });
    assert_eq!(timeless(&got), with(plain("a"), status));
    assert_eq!(got.json["createdAt"], created.json["createdAt"]);
    assert!(got.json["createdAt"].as_str().unwrap() > "2026");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_after_the_end_is_a_new_timer() {
    let face = Face::start().await;
    for state in ["running", "succeeded", "failed"] {
        face.create(state).await;
        face.claim(state, state).await;
        face.create(state).await;
        let got = face.call("get", &selection(state)).await;
        assert_eq!((&got.json["status"], &got.json["attempts"]), (&json!("pending"), &json!(0)), "{state}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_tells_how_the_run_stands() {
    let face = Face::start().await;
    for (state, more) in [
        ("running", json!({})),
        ("succeeded", json!({ "executedAt": "2026-01-02T03:04:05.5Z" })),
        ("failed", json!({ "lastError": "answered 404" })),
    ] {
        face.create(state).await;
        face.claim(state, state).await;
        let got = face.call("get", &selection(state)).await;
        let expected = with(with(plain(state), json!({ "status": state, "attempts": 1 })), more);
        assert_eq!((got.status, timeless(&got)), (200, expected));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_tells_of_a_retry() {
    let face = Face::start().await;
    face.create("a").await;
    tried_once(&face, "a").await;
    let got = face.call("get", &selection("a")).await;
    let retry = json!({
        "status": "pending", "attempts": 1, "lastError": "answered 500", "nextAttemptAt": "2091-01-01T00:00:00Z",
    });
    assert_eq!(timeless(&got), with(plain("a"), retry));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_runs_the_latest_counts() {
    let face = Face::start().await;
    for (state, days_ago) in [("failed", 1), ("succeeded", 0), ("running", 1)] {
        face.create("a").await;
        face.claim("a", state).await;
        let back = "update walclock.runs set claimed_at = claimed_at - $1 * interval '1 day' where state = $2";
        face.sql.execute(back, &[&f64::from(days_ago), &state]).await.unwrap();
    }
    assert_eq!(face.call("get", &selection("a")).await.json["status"], "succeeded");
    face.sql.execute("delete from walclock.runs where state = 'succeeded'", &[]).await.unwrap();
    assert_eq!(face.call("get", &selection("a")).await.json["status"], "running");
}

/// The row as it is after a failed attempt.
async fn tried_once(face: &Face, id: &str) {
    let retry = "update walclock.timers set attempts = 1, retry_at = '2091-01-01Z', first_attempt_at = '2020-01-01Z',
        last_error = 'answered 500' where id = $1";
    assert_eq!(face.sql.execute(retry, &[&id]).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_changes_what_it_names_and_nothing_else() {
    let face = Face::start().await;
    let rich = json!({
        "payload": {"old": true}, "callbackTimeoutSeconds": 7, "retryPolicy": { "maxAttempts": 1, "maxInterval": "7s" },
    });
    let default = plain("a")["retryPolicy"].clone();
    for (update, expected) in [
        (json!({}), json!({})),
        (json!({ "executeAt": "2089-01-01T00:00:00Z" }), json!({ "executeAt": "2089-01-01T00:00:00Z" })),
        (json!({ "callbackUrl": "http://other.example/" }), json!({ "callbackUrl": "http://other.example/" })),
        (json!({ "payload": {} }), json!({ "payload": {} })),
        (json!({ "callbackTimeoutSeconds": 1 }), json!({ "callbackTimeoutSeconds": 1 })),
        (json!({ "retryPolicy": {} }), json!({ "retryPolicy": default })),
        (
            json!({ "retryPolicy": { "maxAttempts": 9 } }),
            json!({ "retryPolicy": with(default.clone(), json!({ "maxAttempts": 9 })) }),
        ),
    ] {
        let created = face.call("create", &with(create_request("a"), rich.clone())).await;
        let updated = face.call("update", &with(selection("a"), update)).await;
        assert_eq!((updated.status, timeless(&updated)), (200, with(timeless(&created), expected)));
        assert_eq!(updated.json["createdAt"], created.json["createdAt"]);
        assert!(updated.json["updatedAt"].as_str() > created.json["updatedAt"].as_str());
    }
    let cleared = face.call("update", &with(selection("a"), json!({ "payload": null }))).await;
    assert_eq!((cleared.status, cleared.json.get("payload")), (200, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_moment_and_only_that_counts_the_attempts_anew() {
    let face = Face::start().await;
    let row = "select attempts, retry_at is null, first_attempt_at is null, last_error is null from walclock.timers";
    for (update, anew) in [
        (json!({ "payload": {} }), false),
        (json!({ "callbackUrl": "http://other.example/", "retryPolicy": {} }), false),
        (json!({ "executeAt": AHEAD }), true),
    ] {
        face.create("a").await;
        tried_once(&face, "a").await;
        face.call("update", &with(selection("a"), update.clone())).await;
        let row = face.sql.query_one(row, &[]).await.unwrap();
        let found = (row.get::<_, i32>(0) == 0, row.get::<_, bool>(1), row.get::<_, bool>(2), row.get::<_, bool>(3));
        assert_eq!(found, (anew, anew, anew, anew), "{update}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_cancels() {
    let face = Face::start().await;
    face.create("a").await;
    let deleted = face.call("delete", &selection("a")).await;
    assert_eq!((deleted.status, deleted.text.as_str()), (204, ""));
    let rows = face.sql.query_one("select count(*) from walclock.timer_status", &[]).await.unwrap();
    assert_eq!(rows.get::<_, i64>(0), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn deletes_mark_the_run_that_is_under_way_once() {
    let face = Face::start().await;
    face.create("a").await;
    face.claim("a", "running").await;
    let mut written = Vec::new();
    for _ in 0..2 {
        face.create("a").await;
        assert_eq!(face.call("delete", &selection("a")).await.status, 204);
        let row = face.sql.query_one("select cancelled, xmin::text from walclock.runs", &[]).await.unwrap();
        assert!(row.get::<_, bool>(0));
        written.push(row.get::<_, String>(1));
    }
    assert_eq!(written[0], written[1], "the second one has nothing to write");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_not_found() {
    let face = Face::start().await;
    for operation in ["get", "update", "delete"] {
        let answer = face.call(operation, &selection("user-notification-123")).await;
        let expected = json!({
            "error": "TIMER_NOT_FOUND", "message": "Timer with ID 'user-notification-123' not found",
            "details": { "namespace": "n", "timerId": "user-notification-123" },
        });
        assert_eq!((answer.status, timeless(&answer)), (404, expected), "{operation}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_pending_cannot_be_changed() {
    let face = Face::start().await;
    for state in ["running", "succeeded", "failed"] {
        face.create(state).await;
        face.claim(state, state).await;
        for operation in ["update", "delete"] {
            let answer = face.call(operation, &selection(state)).await;
            let expected = json!({
                "error": "TIMER_NOT_PENDING", "message": format!("Timer with ID '{state}' is not pending, it is {state}"),
                "details": { "status": state },
            });
            assert_eq!((answer.status, timeless(&answer)), (400, expected), "{operation}");
        }
        assert_eq!(face.call("get", &selection(state)).await.json["status"], state);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_must_exist_unless_it_makes_itself() {
    let face = Face::start_with(Config::default()).await;
    let refused = face.call("create", &create_request("a")).await;
    let expected = json!({
        "error": "INVALID_INPUT", "message": "namespace must be one that exists, and \"n\" does not",
        "details": { "field": "namespace", "value": "n" },
    });
    assert_eq!((refused.status, timeless(&refused)), (400, expected));
    let rows = "select (select count(*) from walclock.timers), (select count(*) from walclock.namespaces)";
    let row = face.sql.query_one(rows, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (0, 0));

    face.sql.execute("insert into walclock.namespaces (name) values ('n')", &[]).await.unwrap();
    face.create("a").await;

    let open = Face::start().await;
    open.create("a").await;
    open.create("b").await;
    let row = open.sql.query_one(rows, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_comes_back_byte_for_byte() {
    let face = Face::start().await;
    for payload in [
        "{}",
        "{ \"b\" : 1 ,\n\t\"a\":2, \"b\": 3 }",
        r#"{"a":"\ud800","b":"\u0000\u0001","c":"\/\u00e9é字👩‍🚀"}"#,
        r#"{"n":[1e400,-0,0.10,12345678901234567890123456789,1E+2]}"#,
        &format!(r#"{{"a":"{}"}}"#, "x".repeat(100 * 1024 - 8)),
    ] {
        let head = r#""namespace":"n","executeAt":"2090-01-01T00:00:00Z","callbackUrl":"https://example.com/""#;
        let created = face.call_text("create", format!(r#"{{{head},"id":"a","payload": {payload} }}"#)).await;
        assert_eq!(created.status, 200, "{}", created.text);
        let updated =
            face.call_text("update", format!(r#"{{"namespace":"n","timerId":"a","payload":{payload}}}"#)).await;
        let got = face.call("get", &selection("a")).await;
        for answer in [created, updated, got] {
            assert!(answer.text.contains(&format!(r#""payload":{payload},""#)), "{payload} became {}", answer.text);
        }
        let row = face.sql.query_one("select payload::text from walclock.timers", &[]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), payload);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_plain_sql_writes_is_read() {
    let face = Face::start().await;
    let insert = "insert into walclock.timers (namespace, id, execute_at, callback_url, payload, callback_headers,
        retry_duration) values ('n', 'a', now(), 'HTTP://127.1:9', '[1]', '{\"x-a\": \"b\"}', '1 mon')";
    face.sql.execute(insert, &[]).await.unwrap();
    // The specification has only objects as payload, so this answer is not checked against it.
    let request = face.request("POST", "/api/v1/timers/get").header("content-type", "application/json");
    let got = face.send(request, selection("a").to_string()).await;
    assert_eq!((got.status, &got.json["payload"]), (200, &json!([1])));
    assert_eq!(got.json["retryPolicy"]["maxAttemptsDuration"], "720h");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_only_the_database_has_is_a_refusal() {
    let face = Face::start().await;
    face.sql.execute("alter table walclock.timers add constraint no_b check (id <> 'b')", &[]).await.unwrap();
    let refused = face.call("create", &create_request("b")).await;
    let expected = json!({ "error": "INVALID_INPUT", "message": "the database's check no_b forbids it" });
    assert_eq!((refused.status, timeless(&refused)), (400, expected));
    face.create("a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_database_the_store_is_unavailable() {
    let working = Face::start().await;
    let nowhere = format!("postgres://postgres@127.0.0.1:{}/x", free_port().unwrap());
    let face = working.beside(&nowhere).await;
    for (operation, body) in [
        ("create", create_request("a")),
        ("get", selection("a")),
        ("update", selection("a")),
        ("delete", selection("a")),
    ] {
        let answer = face.call(operation, &body).await;
        let expected = json!({ "error": "INTERNAL_ERROR", "message": "the store is unavailable, try again" });
        assert_eq!((answer.status, timeless(&answer)), (500, expected), "{operation}");
    }
    // What is wrong with the request is told without the database.
    assert_eq!(face.call("get", &selection("")).await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_goes_page_by_page_over_timers_and_runs() {
    use walclock::domain::run::State;
    use walclock::service::timers::ListRequest;

    let face = Face::start().await;
    for (id, ending) in
        [("a", None), ("b", Some("failed")), ("c", Some("succeeded")), ("d", None), ("e", Some("failed"))]
    {
        face.create(id).await;
        if let Some(state) = ending {
            face.claim(id, state).await;
        }
    }
    // Another run of c, and a new timer over the failed run of e.
    face.create("c").await;
    claim(&face.sql, "c", "failed").await;
    face.create("e").await;
    let list = async |after: &str, limit: u32, state: Option<State>| {
        let request = ListRequest { namespace: "n".to_owned(), after: after.to_owned(), limit, state };
        let listed = face.timers.list(request).await.unwrap();
        let word = |status: &walclock::domain::timer::Status| {
            format!("{} {}", status.timer.definition.key.id, status.state.as_str())
        };
        listed.iter().map(word).collect::<Vec<_>>()
    };
    assert_eq!(list("", 3, None).await, ["a pending", "b failed", "c failed"]);
    assert_eq!(list("c", 3, None).await, ["d pending", "e pending"]);
    assert_eq!(list("e", 3, None).await, [""; 0]);
    assert_eq!(list("", 9, Some(State::Failed)).await, ["b failed", "c failed"]);
    assert_eq!(list("a", 1, Some(State::Pending)).await, ["d pending"]);
    assert_eq!(list("", 9, Some(State::Succeeded)).await, [""; 0]);
    assert_eq!(
        support::connect(&face.database_url).await.query("select from walclock.runs", &[]).await.unwrap().len(),
        4
    );
}
