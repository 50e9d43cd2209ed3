//! Many timers by one request: what becomes of each, and of all of them together.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use walclock::domain::limits;
use walclock::service::timers::Config;

use super::face::{AHEAD, Answer, Face, create_request, gave_up, selection, timeless, with};
use crate::support::{self, PATIENCE, eventually};

async fn post(face: &Face, body: impl Into<hyper::body::Bytes>) -> Answer {
    let request = face.request("POST", "/api/v1/timers/create-batch").header("content-type", "application/json");
    face.send(request, body).await
}

/// The results of a batch of these timers.
async fn results(face: &Face, timers: &[Value]) -> Vec<Value> {
    let answer = post(face, json!({ "timers": timers }).to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let results = answer.json["results"].as_array().unwrap().clone();
    assert_eq!(results.len(), timers.len());
    results
}

/// What a result says is wrong: message and details. It must say nothing else.
fn error(result: &Value) -> (&Value, &Value, &Value) {
    assert_eq!(result.as_object().unwrap().len(), 1, "{result}");
    let error = &result["error"];
    assert!(walclock::domain::moment::parse(error["timestamp"].as_str().unwrap()).is_ok());
    (&error["error"], &error["message"], &error["details"])
}

async fn stored(face: &Face) -> Vec<String> {
    let rows = face.sql.query("select id from walclock.timers order by id", &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_stored_in_one_transaction() {
    let face = Face::start().await;
    let timers: Vec<Value> = (0..1000).map(|n| create_request(&format!("t{n:03}"))).collect();
    let results = results(&face, &timers).await;
    for (n, result) in results.iter().enumerate() {
        assert_eq!(result["timer"]["id"], format!("t{n:03}"));
    }
    let single = face.create("single").await;
    let expected = with(timeless(&single), json!({ "id": "t007" }));
    let mut found = results[7]["timer"].clone();
    for moment in ["createdAt", "updatedAt"] {
        found.as_object_mut().unwrap().remove(moment).unwrap();
    }
    assert_eq!(found, expected, "as a create answers it");
    let row = "select count(*), count(distinct xmin::text), count(distinct created_at) from walclock.timers
        where id <> 'single'";
    let row = face.sql.query_one(row, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1), row.get::<_, i64>(2)), (1000, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_one_is_said_in_its_place_and_keeps_back_no_other() {
    let face = Face::start().await;
    let items = [
        (create_request("a"), None),
        (
            with(create_request("b"), json!({ "executeAt": "2020-01-01T00:00:00Z" })),
            Some(("executeAt", "2020-01-01T00:00:00Z", "a future timestamp")),
        ),
        (
            with(create_request("c"), json!({ "executeAt": "9999-01-01T00:00:00Z" })),
            Some(("executeAt", "9999-01-01T00:00:00Z", "at most 100 years ahead")),
        ),
        (create_request("d"), None),
        (with(create_request(""), json!({})), Some(("id", "", "1 to 255 characters, none a control character"))),
        (with(create_request("f"), json!({ "payload": [] })), Some(("payload", "[]", "a JSON object"))),
        (
            with(create_request("g"), json!({ "callbackUrl": "http://127.0.0.1/" })),
            Some(("callbackUrl", "http://127.0.0.1/", "a URL of a public address, or of a range that is allowed")),
        ),
        (
            with(create_request("h"), json!({ "retryPolicy": { "maxAttempts": 0 } })),
            Some(("retryPolicy.maxAttempts", "0", "a whole number from 1 to 2147483647")),
        ),
        (with(create_request("i"), json!({ "namespace": 7 })), Some(("namespace", "7", "a text"))),
        (create_request("j"), None),
    ];
    let timers: Vec<Value> = items.iter().map(|(timer, _)| timer.clone()).collect();
    for (index, (result, (_, wrong))) in results(&face, &timers).await.iter().zip(&items).enumerate() {
        match wrong {
            None => assert_eq!(result["timer"]["executeAt"], AHEAD, "{result}"),
            Some((field, value, allowed)) => {
                let field = format!("timers[{index}].{field}");
                let message = json!(format!("{field} must be {allowed}"));
                let details = json!({ "field": field, "value": value });
                assert_eq!(error(result), (&json!("INVALID_INPUT"), &message, &details));
            }
        }
    }
    assert_eq!(stored(&face).await, ["a", "d", "j"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_of_a_wrong_form_is_told_by_its_place() {
    let face = Face::start().await;
    let mut lacking = create_request("a");
    lacking.as_object_mut().unwrap().remove("callbackUrl");
    let known = "namespace, id, executeAt, callbackUrl, payload, retryPolicy, callbackTimeoutSeconds";
    let unknown = format!("unknown field timers[1].fence, expected one of {known}");
    let timers = [lacking, with(create_request("a"), json!({ "fence": 1 })), json!(7), json!(null), json!([])];
    let found = results(&face, &timers).await;
    let expected = [
        ("timers[0].callbackUrl is required", json!({ "field": "timers[0].callbackUrl" })),
        (unknown.as_str(), json!({ "field": "timers[1].fence" })),
        ("timers[2] must be an object", json!({ "field": "timers[2]", "value": "7" })),
        ("timers[3] must be an object", json!({ "field": "timers[3]", "value": "null" })),
        ("timers[4] must be an object", json!({ "field": "timers[4]", "value": "[]" })),
    ];
    for (result, (message, details)) in found.iter().zip(&expected) {
        assert_eq!(error(result), (&json!("INVALID_INPUT"), &json!(message), details));
    }
    assert_eq!(stored(&face).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_none_is_refused_whole() {
    let face = Face::start().await;
    let an_array = "timers must be an array of 1 to 1000 timers";
    let too_many = format!(r#"{{"timers":[{}0]}}"#, "0,".repeat(1000));
    let good = create_request("a").to_string();
    let twice = format!(r#"{{"timers":[{good}],"timers":[{good}]}}"#);
    let more = format!(r#"{{"timers":[{good}],"atomic":true}}"#);
    let large = format!(r#"{{"timers":["{}"]}}"#, "x".repeat(limits::CREATE_BATCH_BYTES_MAX));
    for (body, message) in [
        ("", "the body must be a JSON object: EOF"),
        ("[]", "the body must be a JSON object: invalid type: sequence"),
        ("{}", "timers is required"),
        (r#"{"timers":null}"#, "timers is required"),
        (r#"{"timers":{}}"#, an_array),
        (r#"{"timers":"a"}"#, an_array),
        (r#"{"timers":[]}"#, an_array),
        (&too_many, an_array),
        (&twice, "duplicate field timers"),
        (&more, "unknown field atomic, expected one of timers"),
        (&large, "the body must be at most 8388608 bytes long"),
    ] {
        let answer = post(&face, body.to_owned()).await;
        let found = answer.json["message"].as_str().unwrap();
        assert_eq!((answer.status, &answer.json["error"]), (400, &json!("INVALID_INPUT")), "{found}");
        assert!(found.starts_with(message), "{found}, and not {message}");
    }
    for method in ["GET", "PUT", "DELETE"] {
        let answer = face.send(face.request(method, "/api/v1/timers/create-batch"), "").await;
        assert_eq!((answer.status, answer.allow.as_deref()), (405, Some("POST")), "{method}");
    }
    assert_eq!(stored(&face).await.len(), 0);
}

/// As one create after the other: each is answered, and the last one stays, unless it is no good.
#[tokio::test(flavor = "multi_thread")]
async fn of_several_with_one_id_the_last_good_one_stays() {
    let face = Face::start().await;
    face.call("create", &with(create_request("a"), json!({ "payload": { "n": 0 } }))).await;
    let numbered = |id: &str, n: u32| with(create_request(id), json!({ "payload": { "n": n } }));
    let past = with(numbered("a", 4), json!({ "executeAt": "2020-01-01T00:00:00Z" }));
    let found = results(&face, &[numbered("a", 1), numbered("b", 2), numbered("a", 3), past]).await;
    for (result, n) in found.iter().zip([1, 2, 3]) {
        assert_eq!(result["timer"]["payload"]["n"], n);
    }
    assert_eq!(found[3]["error"]["details"]["field"], "timers[3].executeAt");
    let got = face.call("get", &selection("a")).await;
    assert_eq!((&got.json["payload"]["n"], &got.json["attempts"]), (&json!(3), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_namespace_is_an_error_of_its_timers() {
    let face = Face::start_with(Config::default()).await;
    face.sql.execute("insert into walclock.namespaces (name) values ('n')", &[]).await.unwrap();
    let other = with(create_request("b"), json!({ "namespace": "other" }));
    let found = results(&face, &[create_request("a"), other, create_request("c")]).await;
    let message = json!("timers[1].namespace must be one that exists, and \"other\" does not");
    let details = json!({ "field": "timers[1].namespace", "value": "other" });
    assert_eq!(error(&found[1]), (&json!("INVALID_INPUT"), &message, &details));
    assert_eq!(stored(&face).await, ["a", "c"]);

    let making = Face::start().await;
    let namespaces: Vec<Value> =
        (0..100).map(|n| with(create_request("a"), json!({ "namespace": format!("n{}", n % 7) }))).collect();
    assert!(results(&making, &namespaces).await.iter().all(|result| result["timer"].is_object()));
    let rows = "select (select count(*) from walclock.timers), (select count(*) from walclock.namespaces)";
    let row = making.sql.query_one(rows, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (7, 7));
}

/// What only the database knows of: a constraint of somebody's, a trigger, a row that another transaction holds. The rest is
/// stored all the same, still in one transaction, and in its order.
#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_database_refuses_keeps_back_no_other() {
    let face = Face::start().await;
    face.create("held").await;
    let rules = "alter table walclock.timers add constraint even check (id <> 'odd');
        create function public.refuse() returns trigger language plpgsql as
            $$ begin if new.id = 'cursed' then raise exception 'no'; end if; return new; end $$;
        create trigger refuse before insert on walclock.timers for each row execute function public.refuse()";
    face.sql.batch_execute(rules).await.unwrap();
    let holder = support::connect(&face.database_url).await;
    holder.batch_execute("begin; update walclock.timers set payload = '{\"old\": 1}' where id = 'held'").await.unwrap();
    let mut timers: Vec<Value> = (0..60).map(|n| create_request(&format!("t{n:02}"))).collect();
    timers[5] = create_request("odd");
    timers[21] = create_request("held");
    timers[40] = create_request("cursed");
    timers[50] = with(create_request("t59"), json!({ "payload": { "earlier": true } }));
    let found = results(&face, &timers).await;
    for (index, word, message) in [
        (5, "INVALID_INPUT", "the database's check even forbids it"),
        (21, "INTERNAL_ERROR", "timer n/held is being changed by others at this moment, try again"),
        (40, "INTERNAL_ERROR", "the store is unavailable, try again"),
    ] {
        let details = json!({ "field": format!("timers[{index}]") });
        assert_eq!(error(&found[index]), (&json!(word), &json!(message), &details));
    }
    let good = found.iter().filter(|result| result["timer"].is_object()).count();
    assert_eq!(good, 57, "all the others: {found:?}");
    let row = "select count(*), count(distinct created_at), count(*) filter (where payload is not null)
        from walclock.timers where id <> 'held'";
    let row = face.sql.query_one(row, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1), row.get::<_, i64>(2)), (56, 1, 0));
}

/// Nobody ever sees a part of a batch.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_fails_leaves_nothing() {
    let face = Face::start().await;
    let away = face.beside("postgres://nobody@127.0.0.1:1/none").await;
    let timers: Vec<Value> = (0..3).map(|n| create_request(&format!("t{n}"))).collect();
    let answer = post(&away, json!({ "timers": timers }).to_string()).await;
    assert_eq!((answer.status, &answer.json["error"]), (500, &json!("INTERNAL_ERROR")));
    let wall = "create function public.fail() returns trigger language plpgsql as
            $$ begin raise sqlstate '58030' using message = 'disk'; end $$;
        create trigger fail after insert on walclock.timers for each statement execute function public.fail()";
    face.sql.batch_execute(wall).await.unwrap();
    let answer = post(&face, json!({ "timers": timers }).to_string()).await;
    assert_eq!((answer.status, &answer.json["error"]), (500, &json!("INTERNAL_ERROR")));
    assert_eq!(stored(&face).await.len(), 0);
}

/// Two batches with the same timers the other way round wait for each other, and never both ways.
#[tokio::test(flavor = "multi_thread")]
async fn batches_that_meet_are_all_stored() {
    let face = std::sync::Arc::new(Face::start().await);
    let early = "do $$ begin
        execute format('alter database %I set deadlock_timeout = %L', current_database(), '50ms'); end $$";
    face.sql.batch_execute(early).await.unwrap();
    let timers: Vec<Value> = (0..200).map(|n| create_request(&format!("t{n:03}"))).collect();
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..8 {
        let face = face.clone();
        let mut timers = timers.clone();
        if n % 2 == 1 {
            timers.reverse();
        }
        calls.spawn(async move {
            for _ in 0..4 {
                // On a busy machine the last one may wait for longer than it is to, and is told to try again.
                for tries in 1.. {
                    let found = results(&face, &timers).await;
                    let mut failed = found.iter().filter(|result| !result["timer"].is_object()).peekable();
                    if failed.peek().is_none() {
                        break;
                    }
                    assert!(tries < 50 && failed.all(|result| gave_up(&result.to_string())), "{found:?}");
                }
            }
        });
    }
    calls.join_all().await;
    assert_eq!(stored(&face).await.len(), 200);
    // Who waited both ways has told of it by its end.
    let sql = support::connect(&face.database_url).await;
    drop(face);
    let others = "select from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
        and backend_type = 'client backend'";
    let alone = async || sql.query(others, &[]).await.unwrap().is_empty().then_some(());
    eventually(PATIENCE, "its connections end", alone).await;
    let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    assert_eq!(sql.query_one(deadlocks, &[]).await.unwrap().get::<_, i64>(0), 0);
}

/// Batches that are slow to arrive take all places; the next one is not read before one of them is gone.
#[tokio::test(flavor = "multi_thread")]
async fn no_more_batches_are_read_at_once_than_there_are_places() {
    let face = Face::start().await;
    let body = json!({ "timers": [create_request("a")] }).to_string();
    let head = format!(
        "POST /api/v1/timers/create-batch HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let mut slow = Vec::new();
    for _ in 0..limits::CREATE_BATCHES_MAX {
        let mut socket = tokio::net::TcpStream::connect(face.address()).await.unwrap();
        // Whoever is told to go on has a place.
        let asks = head.replace("connection: close", "expect: 100-continue\r\nconnection: close");
        socket.write_all(asks.as_bytes()).await.unwrap();
        let mut told = [0; 25];
        socket.read_exact(&mut told).await.unwrap();
        assert!(told.starts_with(b"HTTP/1.1 100 "));
        slow.push(socket);
    }
    let mut next = tokio::net::TcpStream::connect(face.address()).await.unwrap();
    next.write_all(head.as_bytes()).await.unwrap();
    next.write_all(body.as_bytes()).await.unwrap();
    // Somebody else is served meanwhile, and after it the batch would long have been stored.
    for n in 0..20 {
        face.create(&format!("single{n}")).await;
    }
    assert!(!stored(&face).await.contains(&"a".to_owned()));
    drop(slow.pop());
    let mut answer = String::new();
    next.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let is_there = async || stored(&face).await.contains(&"a".to_owned()).then_some(());
    eventually(PATIENCE, "it is stored", is_there).await;
}
