//! Every operation, called with good and with bad input.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_postgres::Client as Sql;
use tokio_util::task::AbortOnDropHandle;
use walclock::http::manage;
use walclock::service::health::{Condition, Health};

use super::client::Client;
use crate::support::events::Events;
use crate::support::server::{Server, folder};
use crate::support::{PATIENCE, connect, database, eventually};

const JSON: (&str, &str) = ("accept", "application/json");
const PROTOBUF: (&str, &str) = ("accept", "application/transicator+protobuf");
const SENDS_JSON: (&str, &str) = ("content-type", "application/json");

/// Answers that take a broken disk, a missing right or a bug; the tests of those faults look at them.
const TAKE_A_FAULT: [(&str, &str, u16); 2] = [("/changes", "get", 500), ("/snapshots", "get", 500)];

async fn calls_for_changes(client: &mut Client, base: &str, sql: &Sql) {
    for query in [
        "",
        "?scope=a",
        "?selector=a&scope=b&limit=0",
        "?scope=a&pretty",
        "?scope=a&limit=1&snapshot=99999999:99999999:",
    ] {
        client.expect(200, base, &format!("GET /changes{query}"), &[], "").await;
    }
    sql.batch_execute(
        "insert into notes values (1, repeat('one', 1000), true, 'a'); update notes set body = null; delete from notes; truncate notes",
    )
    .await
    .unwrap();
    let call = "GET /changes?scope=a&block=30";
    let told = async || {
        let answer = client.expect(200, base, call, &[], "").await;
        let page: Value = serde_json::from_slice(&answer.body).unwrap();
        (page["changes"].as_array().unwrap().len() == 4).then(|| answer.header("etag").to_owned())
    };
    let tag = eventually(PATIENCE, "all changes", told).await;
    client.expect(304, base, call, &[("if-none-match", &tag)], "").await;
    client.expect(200, base, call, &[PROTOBUF], "").await;
    client.expect(200, base, call, &[("authorization", "x")], "").await;
    for accept in [JSON, PROTOBUF] {
        compressed(client, base, call, accept).await;
    }
    for query in
        ["limit=x", "limit=100001", "limit=-1", "block=x", "scope=a%20b", "since=0", "snapshot=x", "since=0.1.0"]
    {
        client.expect(400, base, &format!("GET /changes?{query}"), &[], "").await;
    }
    client.expect(400, base, "GET /changes", &[("accept", "text/event-stream"), ("last-event-id", "x")], "").await;
    client.expect(405, base, "POST /changes", &[], "").await;
    client.expect(415, base, "GET /changes", &[("accept", "text/html")], "").await;
}

/// Makes a call for an answer of some size in every coding that there is.
async fn compressed(client: &mut Client, base: &str, call: &str, accept: (&str, &str)) {
    for (asked, sent) in [("identity", ""), ("gzip", "gzip"), ("zstd", "zstd"), ("gzip, zstd", "zstd")] {
        let answer = client.expect(200, base, call, &[accept, ("accept-encoding", asked)], "").await;
        assert_eq!(answer.header("content-encoding"), sent, "{call} {accept:?} {asked}");
    }
}

async fn event_stream(client: &mut Client, base: &str) {
    let mut events = Events::open(base, "scope=a", "").await.ok().unwrap();
    let schema = json!({ "$ref": "#/components/schemas/Change" });
    for operation in 1..=4 {
        let change = events.change().await;
        assert_eq!(change["operation"], operation);
        assert_eq!(client.document.misfits(&schema, &change), Vec::<String>::new(), "{change}");
    }
    client.check("GET /changes", 200, &events.headers, Some(""), b"");
}

async fn calls_for_snapshots(client: &mut Client, base: &str, sql: &Sql) {
    sql.batch_execute("insert into notes values (2, null, false, 'a'), (3, 'three', true, 'b')").await.unwrap();
    let answer = client.expect(200, base, "GET /snapshots?scope=a", &[], "").await;
    let snapshot: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(snapshot["tables"][0]["rows"][0]["body"]["value"], Value::Null);
    client.expect(200, base, "GET /snapshots?selector=nobody&scope=x", &[JSON], "").await;
    for accept in [JSON, PROTOBUF] {
        compressed(client, base, "GET /snapshots?scope=a&scope=b", accept).await;
    }
    for query in ["", "scope=", "scope=a%20b", "sc%ffope=a"] {
        client.expect(400, base, &format!("GET /snapshots?{query}"), &[], "").await;
    }
    client.expect_of_http_1_0(505, base, "/snapshots?scope=a", PROTOBUF).await;
    client.expect(405, base, "DELETE /snapshots", &[], "").await;
    client.expect(415, base, "GET /snapshots?scope=a", &[("accept", "text/event-stream")], "").await;
}

fn timer(id: &str, callback_url: &str) -> Value {
    json!({ "namespace": "n", "id": id, "executeAt": "2090-01-02T03:04:05Z", "callbackUrl": callback_url })
}

async fn calls_for_timers(client: &mut Client, base: &str) {
    let mut full = timer("a", "https://example.com/hook");
    let more = json!({ "payload": { "cup": 1 }, "callbackTimeoutSeconds": 7,
                       "retryPolicy": { "maxAttempts": 3, "initialInterval": "1m" } });
    full.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let selection = json!({ "namespace": "n", "timerId": "a" });
    let mut absent = selection.clone();
    absent["timerId"] = json!("absent");
    for (status, operation, body) in [
        (200, "create", full.clone()),
        (200, "create", timer("a", "https://example.com/hook")),
        (200, "create-batch", json!({ "timers": [full, timer("", "x"), { "unknown": 1 }, 7] })),
        (400, "create-batch", json!({ "timers": [] })),
        (400, "create-batch", json!({ "timers": [full], "atomic": true })),
        (200, "get", selection.clone()),
        (200, "update", json!({ "namespace": "n", "timerId": "a", "payload": null, "callbackTimeoutSeconds": 9 })),
        (400, "create", json!({})),
        (400, "create", json!({ "unknown": 1 })),
        (400, "create", timer("", "https://example.com/hook")),
        (400, "create", timer("b", "ftp://example.com")),
        (400, "get", json!([])),
        (400, "update", json!({ "namespace": "n", "timerId": "a", "callbackTimeoutSeconds": 0 })),
        (400, "delete", json!({ "namespace": 7, "timerId": "a" })),
        (404, "get", absent.clone()),
        (404, "update", absent.clone()),
        (404, "delete", absent),
        (204, "delete", selection),
    ] {
        let call = format!("POST /api/v1/timers/{operation}");
        client.expect(status, base, &call, &[SENDS_JSON], &body.to_string()).await;
    }
    for operation in ["create", "create-batch", "get", "update", "delete"] {
        client.expect(405, base, &format!("GET /api/v1/timers/{operation}"), &[], "").await;
        client.expect(400, base, &format!("POST /api/v1/timers/{operation}"), &[], "{}").await;
    }
}

/// A timer that is over: its callback goes to a call of management, which refuses it.
async fn calls_for_a_finished_timer(client: &mut Client, base: &str, sql: &Sql) {
    let insert =
        "insert into walclock.timers (namespace, id, execute_at, callback_url) values ('n', 'over', now(), $1)";
    sql.execute(insert, &[&format!("{base}/health")]).await.unwrap();
    let selection = json!({ "namespace": "n", "timerId": "over" }).to_string();
    let failed = async || {
        let answer = client.expect(200, base, "POST /api/v1/timers/get", &[SENDS_JSON], &selection).await;
        let timer: Value = serde_json::from_slice(&answer.body).unwrap();
        (timer["status"] == "failed").then_some(())
    };
    eventually(PATIENCE, "the callback is refused", failed).await;
    for operation in ["update", "delete"] {
        let call = format!("POST /api/v1/timers/{operation}");
        let answer = client.expect(400, base, &call, &[SENDS_JSON], &selection).await;
        assert_eq!(serde_json::from_slice::<Value>(&answer.body).unwrap()["error"], "TIMER_NOT_PENDING");
    }
}

async fn calls_for_management(client: &mut Client, base: &str) {
    for path in ["/health", "/ready", "/ready?verbose", "/metrics", "/openapi.json"] {
        client.expect(200, base, &format!("GET {path}"), &[], "").await;
        client.expect(200, base, &format!("GET {path}"), &[JSON], "").await;
        client.expect(405, base, &format!("DELETE {path}"), &[], "").await;
    }
    client.expect(405, base, "DELETE /markdown", &[], "").await;
    for call in ["GET /health", "GET /ready", "GET /markdown", "POST /markdown", "GET /metrics"] {
        client.expect(403, base, call, &[("walclock-fence", "1")], "").await;
    }
}

/// Before there is a schema the database is no store, and the feed does not begin.
async fn calls_before_it_is_ready(client: &mut Client) {
    let server = Server::spawn_unmigrated(&database().await, &folder(), &[]);
    eventually(PATIENCE, "it answers", async || server.ready().await).await;
    let base = server.url();
    for call in ["GET /changes", "GET /snapshots?scope=a", "GET /ready", "GET /ready?verbose"] {
        client.expect(503, &base, call, &[], "").await;
        client.expect(503, &base, call, &[JSON], "").await;
    }
    let selection = json!({ "namespace": "n", "timerId": "a" }).to_string();
    for (operation, body) in [
        ("create", &timer("a", "https://example.com/hook").to_string()),
        ("create-batch", &json!({ "timers": [timer("a", "https://example.com/hook")] }).to_string()),
        ("get", &selection),
        ("update", &selection),
        ("delete", &selection),
    ] {
        client.expect(500, &base, &format!("POST /api/v1/timers/{operation}"), &[SENDS_JSON], body).await;
    }
}

/// A part has ended for good. No fault from without brings a whole server to that, so it is the face alone that is asked.
async fn calls_when_a_part_has_failed(client: &mut Client) {
    let health = Health::new();
    health.add("feed").set(Condition::Failed("it does not fit".to_owned()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let router = manage::routes(health, Arc::new(String::new));
    let serving = AbortOnDropHandle::new(tokio::spawn(async move { axum::serve(listener, router).await }));
    for (call, status) in [("GET /health", "Unhealthy"), ("GET /ready", "NotReady")] {
        let text = client.expect(503, &base, call, &[], "").await;
        assert_eq!(&text.body[..], b"feed: it does not fit", "{call}");
        let answer = client.expect(503, &base, call, &[JSON], "").await;
        let expected = json!({ "status": status, "reason": "feed: it does not fit" });
        assert_eq!(serde_json::from_slice::<Value>(&answer.body).unwrap(), expected, "{call}");
    }
    let verbose = client.expect(503, &base, "GET /ready?verbose", &[], "").await;
    assert!(verbose.body.ends_with(b"\nfeed: failed: it does not fit\n"), "{:?}", verbose.body);
    drop(serving);
}

/// Marks a server down, by either method, and calls everything.
async fn calls_when_marked_down(client: &mut Client, server: &Server, method: &str) {
    let base = server.url();
    client.expect(200, &base, &format!("{method} /markdown"), &[], "").await;
    let calls: Vec<String> = client
        .document
        .operations()
        .iter()
        .map(|(path, method, _)| format!("{} {path}", method.to_ascii_uppercase()))
        .collect();
    for call in calls.iter().filter(|call| *call != "GET /health") {
        client.expect(503, &base, call, &[], "").await;
        client.expect(503, &base, call, &[JSON], "").await;
    }
    client.expect(200, &base, "GET /health", &[], "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_as_the_document_describes_it() {
    let url = database().await;
    let server = Server::start(&url, &folder()).await;
    let (base, sql, mut client) = (server.url(), connect(&url).await, Client::new());
    let table = "create table notes (id int primary key, body text, fine bool, _change_selector text);
        alter table notes replica identity full; select walclock.publish('notes')";
    sql.batch_execute(table).await.unwrap();
    calls_for_changes(&mut client, &base, &sql).await;
    event_stream(&mut client, &base).await;
    calls_for_snapshots(&mut client, &base, &sql).await;
    calls_for_timers(&mut client, &base).await;
    calls_for_a_finished_timer(&mut client, &base, &sql).await;
    calls_for_management(&mut client, &base).await;
    calls_before_it_is_ready(&mut client).await;
    calls_when_a_part_has_failed(&mut client).await;
    calls_when_marked_down(&mut client, &server, "GET").await;
    let other = Server::start(&database().await, &folder()).await;
    calls_when_marked_down(&mut client, &other, "POST").await;

    let described = client.document.operations().into_iter().flat_map(|(path, method, operation)| {
        let statuses = operation["responses"].as_object().unwrap().keys();
        statuses.map(move |status| (path.to_owned(), method.to_owned(), status.parse::<u16>().unwrap()))
    });
    let unseen: BTreeSet<_> = described.filter(|answer| !client.seen.contains(answer)).collect();
    let faults = TAKE_A_FAULT.map(|(path, method, status)| (path.to_owned(), method.to_owned(), status));
    let expected: BTreeSet<_> = faults.into();
    assert_eq!(unseen, expected, "each answer that is described was given");
}
