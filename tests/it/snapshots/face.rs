//! Parameters, forms and refusals.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use walclock::feed::journal;
use walclock::http::common::protobuf;

use super::*;
use crate::support;

#[tokio::test(flavor = "multi_thread")]
async fn both_forms_say_the_same() {
    let tables = "create table items (id int primary key, name text, big int8, fine float8, raw bytea, yes bool,
                                      exact numeric, day date, kind oid, bag jsonb, _change_selector text);
                  create table others (id int primary key, _change_selector text[])";
    let feed = Feed::with(tables, &SELECTORS).await;
    feed.commit(
        "insert into items values
             (1, 'plain', 9007199254740993, 0.1, '\\xdeadbeef', true, 1.50, '2026-02-03', 4294967295, '{\"a\": [1]}', 'foo'),
             (2, null, null, null, null, null, null, null, null, null, 'foo'),
             (3, E'\"quoted\" \\\\ back\\n ü', -1, 'NaN', '', false, 'NaN', 'infinity', 0, 'null', 'foo'),
             (4, 'elsewhere', 0, 0, '', false, 0, '2026-02-03', 0, '{}', 'bar');
         insert into others values (1, '{foo,bar}'), (2, '{bar}')",
    )
    .await;
    let url = serve(&feed).await;
    let path = "/snapshots?scope=foo";
    // Other databases of the server begin transactions as well: the two are of one snapshot where none did between them.
    let (frames, snapshot) = support::eventually(PATIENCE, "both forms of one snapshot", async || {
        let answer = http::get(&url, path, &[("accept", PROTOBUF)]).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, PROTOBUF));
        assert_eq!(answer.header("cache-control"), "no-store");
        let frames = Frames::read(&answer.body);
        let answer = http::get(&url, path, &[]).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
        assert_eq!(answer.header("cache-control"), "no-store");
        let snapshot: Value = serde_json::from_slice(&answer.body).unwrap();
        (snapshot["snapshotInfo"] == frames.header.snapshot).then_some((frames, snapshot))
    })
    .await;

    for timestamp in [snapshot["timestamp"].as_str().unwrap(), &frames.header.timestamp] {
        timestamp.parse::<walclock::clock::Timestamp>().unwrap();
    }
    assert_eq!(super::tables(&snapshot), ["public.items", "public.others"]);
    assert_eq!(column(&snapshot, "public.items", "id"), ["1", "2", "3"]);
    for (header, rows_read) in &frames.tables {
        let rows = rows(&snapshot, &header.name);
        assert_eq!(rows.len(), rows_read.len(), "{}", header.name);
        for (row, values) in rows.iter().zip(rows_read) {
            assert_eq!(row.as_object().unwrap().len(), header.columns.len());
            assert_eq!(values.len(), header.columns.len());
            for (column, read) in header.columns.iter().zip(values) {
                let type_id = column.r#type.unwrap();
                assert_eq!(column.value, None);
                assert_eq!(row[&column.name]["type"], type_id);
                let told = protobuf::value(type_id.cast_unsigned(), row[&column.name]["value"].as_str());
                assert_eq!(format!("{read:?}"), format!("{told:?}"), "{}", column.name);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_snapshot_is_the_same_one() {
    let feed =
        Feed::with("create table items (id int primary key, name text, _change_selector text)", &SELECTORS).await;
    feed.commit("insert into items select n, repeat(md5(n::text), 9), 'foo' from generate_series(1, 5000) n").await;
    let url = serve(&feed).await;
    for encoding in ["gzip", "zstd"] {
        let answer = http::get(&url, "/snapshots?scope=foo", &[("accept-encoding", encoding)]).await;
        assert_eq!((answer.status, answer.header("content-encoding")), (200, encoding));
        assert_eq!(answer.header("vary"), "accept, accept-encoding");
        let snapshot: Value = serde_json::from_slice(&answer.unpacked()).unwrap();
        assert_eq!(rows(&snapshot, "public.items").len(), 5000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_for_human_eyes_is_the_same_one_indented() {
    let feed = Feed::with(
        "create table items (id int primary key, name text, _change_selector text);
         create table others (id int primary key, _change_selector text)",
        &SELECTORS,
    )
    .await;
    feed.commit(
        "insert into items select n, repeat('{\"[,', 9), 'foo' from generate_series(1, 2000) n;
         insert into others values (1, 'foo')",
    )
    .await;
    let url = serve(&feed).await;
    let pretty = async |scope: &str| {
        let answer = http::get(&url, &format!("/snapshots?scope={scope}&pretty"), &[]).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
        String::from_utf8(answer.body.to_vec()).unwrap()
    };
    let text = pretty("foo").await;
    assert!(text.starts_with("{\n  \"snapshotInfo\": \""), "{text}");
    let snapshot: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((rows(&snapshot, "public.items").len(), rows(&snapshot, "public.others").len()), (2000, 1));
    // Its members are in an order of their own; the lines are the same.
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(|line| line.trim_end_matches(',').to_owned()).collect();
        lines.sort_unstable();
        lines
    };
    assert!(sorted(&text) == sorted(&serde_json::to_string_pretty(&snapshot).unwrap()), "{text}");
    assert!(text.ends_with("  ]\n}\n"), "{text}");
    let empty = "\"rows\": []\n    }\n  ]\n}\n";
    assert!(pretty("nobody").await.ends_with(empty));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_cannot_be_answered_says_why() {
    let feed = Feed::start().await;
    let url = serve(&feed).await;
    for (query, code, description) in [
        ("", "MISSING_SCOPE", "name at least one scope: ?scope=…"),
        ("scope=&selector=", "MISSING_SCOPE", "name at least one scope: ?scope=…"),
        ("scope=a%20b", "PARAMETER_INVALID", "Invalid char in scope param"),
        ("selector=a%2Ab&scope=x", "PARAMETER_INVALID", "Invalid char in selector param"),
    ] {
        let (status, body) = get(&url, query).await;
        assert_eq!((status, &body["code"], &body["description"]), (400, &json!(code), &json!(description)), "{query}");
    }
    let (_, body) = get(&url, "selector=a%2Ab&scope=x").await;
    let allowed = "1 to 255 of the characters 0-9 A-Z a-z _ . : / -";
    assert_eq!(body["details"], json!({ "parameter": "selector", "value": "a*b", "allowed": allowed }));
    let refused = http::get(&url, "/snapshots?scope=a", &[("accept", "text/event-stream")]).await;
    assert_eq!((refused.status, refused.header("content-type")), (415, "application/json"));
    for method in ["POST", "HEAD"] {
        let refused = http::request(method, &url, "/snapshots?scope=a", &[], "").await;
        assert_eq!((refused.status, refused.header("allow")), (405, "GET"), "{method}");
    }
    // Either name of the parameter will do, and both together.
    feed.insert("one", "foo").await;
    feed.insert("two", "bar").await;
    assert_eq!(column(&take(&url, "selector=foo&scope=bar").await, "public.items", "name"), ["one", "two"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_are_not_sent_where_nobody_would_notice_that_they_break_off() {
    let feed = Feed::start().await;
    feed.insert("one", "foo").await;
    let url = serve(&feed).await;
    for (accept, status, end) in [(PROTOBUF, "505", "\"}"), ("application/json", "200", "]}]}")] {
        let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
        let request = format!("GET /snapshots?scope=foo HTTP/1.0\r\naccept: {accept}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.0 {status} ")) && answer.ends_with(end), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_feed_has_begun_there_is_no_snapshot() {
    let feed = Feed::start().await;
    let (_writer, journal) = journal::open(journal::Config::new(support::scratch().join("not_begun"))).unwrap();
    let snapshots = Snapshots::new(config(&feed), journal);
    let error = snapshots.take(&["a".parse_scope()]).await.err().unwrap();
    assert!(matches!(error, walclock::feed::snapshots::Error::NotBegun), "{error}");
}

/// A scope by its text.
trait ParseScope {
    fn parse_scope(&self) -> walclock::domain::scope::Scope;
}

impl ParseScope for str {
    fn parse_scope(&self) -> walclock::domain::scope::Scope {
        walclock::domain::scope::Scope::parse(self).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_postgresql_there_is_no_snapshot_and_readers_are_told() {
    let feed = Feed::start().await;
    let nobody = format!("postgres://postgres@127.0.0.1:{}/postgres", walclock::localpg::free_port().unwrap());
    let config = Config { settings: pg::Settings::parse(&nobody).unwrap(), ..config(&feed) };
    let url = serve_as(&feed, config, PATIENCE).await;
    let answer = http::get(&url, "/snapshots?scope=a", &[]).await;
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.status, &body["code"]), (503, &json!("DATABASE_UNAVAILABLE")));
    assert_ne!(answer.header("retry-after"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_is_named_with_its_grant() {
    let feed = Feed::start().await;
    feed.insert("one", "foo").await;
    let role = feed.database.rsplit('/').next().unwrap().replace("test", "reader");
    feed.client.batch_execute(&format!("create role {role} login")).await.unwrap();
    let as_role = feed.database.replace("postgres@", &format!("{role}@"));
    let config = Config { settings: pg::Settings::parse(&as_role).unwrap(), ..config(&feed) };
    let url = serve_as(&feed, config, PATIENCE).await;
    let refusal = async || {
        let (status, body) = get(&url, "scope=foo").await;
        assert_eq!((status, &body["code"]), (500, &json!("MISSING_RIGHT")), "{body}");
        let description = body["description"].as_str().unwrap();
        assert!(description.contains("public.items"), "{description}");
        description.split('`').nth(1).unwrap().to_owned()
    };
    let grant = refusal().await;
    assert_eq!(grant, format!("grant select on public.items to {role}"));
    feed.client.batch_execute(&grant).await.unwrap();
    assert_eq!(rows(&take(&url, "scope=foo").await, "public.items").len(), 1);
    // Rows that a policy hides would be missing for ever.
    feed.client.batch_execute("alter table items enable row level security").await.unwrap();
    let grant = refusal().await;
    feed.client.batch_execute(&grant).await.unwrap();
    assert_eq!(rows(&take(&url, "scope=foo").await, "public.items").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_than_the_feeds_gives_no_snapshot() {
    let feed = Feed::start().await;
    let other = tokio::task::spawn_blocking(|| support::new_cluster(&[])).await.unwrap();
    let config = Config { settings: pg::Settings::parse(&other.url("postgres")).unwrap(), ..config(&feed) };
    let (status, body) = get(&serve_as(&feed, config, PATIENCE).await, "scope=a").await;
    assert_eq!((status, &body["code"]), (503, &json!("DATABASE_UNAVAILABLE")));
    assert!(body["description"].as_str().unwrap().contains("another PostgreSQL cluster"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_gives_no_snapshot() {
    let mut cluster = tokio::task::spawn_blocking(|| support::new_cluster(&[])).await.unwrap();
    support::connect(&cluster.url("postgres")).await.batch_execute("create database standby").await.unwrap();
    let client = support::connect(&cluster.url("standby")).await;
    client.batch_execute("create publication walclock for all tables").await.unwrap();
    let feed = Feed::on(&cluster.url("standby"), client, &SELECTORS).await;
    let url = serve(&feed).await;
    take(&url, "scope=a").await;
    cluster.stop();
    std::fs::write(cluster.data().join("standby.signal"), "").unwrap();
    let _cluster = tokio::task::spawn_blocking(move || cluster.restart().map(|()| cluster)).await.unwrap().unwrap();
    let (status, body) = get(&url, "scope=a").await;
    assert_eq!((status, &body["code"]), (503, &json!("DATABASE_UNAVAILABLE")));
    assert!(body["description"].as_str().unwrap().contains("standby"), "{body}");
}
