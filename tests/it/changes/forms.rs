//! The forms of an answer: protobuf says what JSON says, and compressed bodies and kept answers are the same ones.

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use prost::Message;
use serde_json::{Value, json};
use walclock::http::common::protobuf::{ChangeListPb, ChangePb, ColumnPb, ValueField};

use super::feed::Feed;
use crate::support::http::{self, Answer};

const PROTOBUF: &str = "application/transicator+protobuf";

/// Asks in protobuf what was asked in JSON, and holds the two answers against each other.
pub async fn agree(server: &str, query: &str, json: &(u16, Value)) {
    let mut json = json.clone();
    // A call that found nothing would wait once more.
    if json.0 == 200 && json.1["changes"] == json!([]) && query.contains("block=") {
        return;
    }
    loop {
        let protobuf = ask(server, query, &[("accept", PROTOBUF)]).await;
        let again = ask(server, query, &[]).await;
        let again = (again.status, serde_json::from_slice(&again.body).unwrap());
        // Only where nothing happened in between must they be the same.
        if again == json {
            return compare(query, &json, &protobuf);
        }
        json = again;
    }
}

fn compare(query: &str, (status, json): &(u16, Value), protobuf: &Answer) {
    assert_eq!(protobuf.status, *status, "{query}");
    if *status != 200 {
        assert_eq!(protobuf.header("content-type"), "application/json", "{query}");
        return assert_eq!(serde_json::from_slice::<Value>(&protobuf.body).unwrap(), *json, "{query}");
    }
    assert_eq!(protobuf.header("content-type"), PROTOBUF, "{query}");
    let list = ChangeListPb::decode(&*protobuf.body).unwrap();
    assert_eq!(
        (&json["firstSequence"], &json["lastSequence"]),
        (&json!(list.first_sequence), &json!(list.last_sequence))
    );
    let changes: Vec<Value> = list.changes.iter().map(as_json).collect();
    assert_eq!(json!(changes), json["changes"], "{query}");
}

/// What the JSON of a change must be, by its protobuf.
fn as_json(change: &ChangePb) -> Value {
    let mut json = json!({
        "operation": change.operation,
        "table": change.table,
        "sequence": change.sequence,
        "commitSequence": change.commit_sequence,
        "changeSequence": change.change_sequence,
        "commitIndex": change.commit_index,
        "txid": change.transaction_id_epoch,
        "timestamp": change.timestamp,
    });
    assert_eq!(change.transaction_id, None, "the short id is not sent");
    for (name, columns) in [("newRow", &change.new_columns), ("oldRow", &change.old_columns)] {
        if !columns.is_empty() {
            json[name] = columns.iter().map(|column| (column.name.clone(), text_of(column))).collect();
        }
    }
    if !change.unchanged_columns.is_empty() {
        json["unchangedColumns"] = json!(change.unchanged_columns);
    }
    json
}

/// A column as JSON has it. Every value is told in the field of its type, and always told.
fn text_of(column: &ColumnPb) -> Value {
    let type_id = column.r#type.unwrap();
    let field = column.value.as_ref().expect("NULL is a value without a field").value.as_ref();
    let text = match (type_id, field) {
        (_, None) => None,
        (20 | 21 | 23, Some(ValueField::Int(value))) => Some(value.to_string()),
        (26, Some(ValueField::Uint(value))) => Some(value.to_string()),
        (700, Some(ValueField::Double(value))) => Some(float(*value, (value.abs() >= 1e15).then(|| value.to_string()))),
        (701, Some(ValueField::Double(value))) => Some(float(*value, None)),
        (17, Some(ValueField::Bytes(bytes))) => {
            Some(bytes.iter().fold("\\x".to_owned(), |text, byte| text + &format!("{byte:02x}")))
        }
        (16, Some(ValueField::Bool(value))) => Some(value.to_string()),
        (16 | 17 | 20 | 21 | 23 | 26 | 700 | 701, Some(other)) => panic!("{} is told as {other:?}", column.name),
        (_, Some(ValueField::String(text))) => Some(text.clone()),
        (_, Some(other)) => panic!("{} is told as {other:?}", column.name),
    };
    json!({"value": text, "type": type_id})
}

/// A float as PostgreSQL writes it, for those of the tests.
fn float(value: f64, large: Option<String>) -> String {
    match value {
        value if value.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "Infinity".to_owned(),
        f64::NEG_INFINITY => "-Infinity".to_owned(),
        value => large.unwrap_or_else(|| value.to_string()),
    }
}

async fn ask(server: &str, query: &str, headers: &[(&str, &str)]) -> Answer {
    http::get(server, &format!("/changes?{query}"), headers).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_is_told_in_both_forms() {
    let table = "create type mood as enum ('fine', 'not fine');
        create domain small as int4;
        create table \"All Types\" (
            id serial primary key, b bool, raw bytea, i2 int2, i4 int4, i8 int8, o oid, f4 float4, f8 float8,
            n numeric, t text, v varchar(9), tz timestamptz, d date, iv interval, u uuid, j jsonb, ai int4[], at text[],
            m mood, s small, \"Ünï \"\"c\"\"\" text, big text, _change_selector text);
        alter table \"All Types\" alter big set storage external";
    let feed = Feed::with(table, &["_change_selector"]).await;
    feed.commit(
        "insert into \"All Types\" values
         (1, true, '\\x00ff0a', -32768, -2147483648, -9223372036854775808, 4294967295, 'NaN', 'NaN', 'NaN', E'a\"\\\\\\n\\t\\u0001ü😀',
          'v', '2026-02-03 04:05:06.789+00', 'infinity', '1 day 2 s', gen_random_uuid(), '{\"a\": [1, \"x\"]}',
          '{1,NULL,3}', '{\"a,b\",NULL}', 'not fine', 7, 'named', repeat('x', 10000), 'a'),
         (2, false, '\\x', 32767, 2147483647, 9223372036854775807, 0, 'Infinity', '-Infinity', '-0.10', '', '', '-infinity',
          '0044-03-15 BC', '0', null, 'null', '{}', '{}', 'fine', -1, '', '', 'a'),
         (3, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null,
          null, null, null, null, 'a'),
         (4, null, null, 0, 0, 0, 1, 0.1, 0.1, 1e30, null, null, null, null, null, null, null, null, null, null, null,
          null, null, 'a')",
    )
    .await;
    // A value that is stored out of line, and that the update leaves as it was.
    feed.commit("update \"All Types\" set i4 = 5 where id = 1").await;
    feed.client.batch_execute("alter table \"All Types\" replica identity full").await.unwrap();
    feed.commit("update \"All Types\" set i4 = 6 where id = 1").await;
    feed.commit("delete from \"All Types\" where id = 2").await;
    feed.commit("truncate \"All Types\"").await;
    // Asking compares the two.
    let page = feed.page("scope=a").await;
    assert_eq!(page.changes.len(), 8);

    let list = ChangeListPb::decode(&*ask(&feed.server, "scope=a", &[("accept", PROTOBUF)]).await.body).unwrap();
    let first = &list.changes[0];
    assert_eq!(first.table, "public.\"All Types\"");
    let names: Vec<&str> = first.new_columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names[..4], ["id", "b", "raw", "i2"], "columns keep their order");
    assert_eq!(names[21], "Ünï \"c\"");
    let value = |place: usize| first.new_columns[place].value.clone().unwrap().value.unwrap();
    assert_eq!(value(2), ValueField::Bytes(vec![0, 255, 10]));
    assert!(matches!(value(7), ValueField::Double(nan) if nan.is_nan()));
    assert_eq!(value(9), ValueField::String("NaN".to_owned()));
    assert_eq!(value(10), ValueField::String("a\"\\\n\t\u{1}ü😀".to_owned()));
    let updated = &list.changes[4];
    assert_eq!((updated.operation, &updated.unchanged_columns[..]), (2, &["big".to_owned()][..]));
    assert!(updated.new_columns.iter().all(|column| column.name != "big"), "what is not known is not told as NULL");
    let (filled, deleted) = (&list.changes[5], &list.changes[6]);
    assert!(filled.unchanged_columns.is_empty() && filled.old_columns.len() == names.len());
    assert_eq!((deleted.operation, deleted.new_columns.len(), deleted.old_columns.len()), (3, 0, names.len()));
    assert_eq!((list.changes[7].operation, list.changes[7].old_columns.len()), (4, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_can_give_is_unsupported() {
    let feed = Feed::start().await;
    feed.insert("one", "foo").await;
    for (accept, status, content_type) in [
        (PROTOBUF, 200, PROTOBUF),
        ("Application/Transicator+Protobuf; v=1", 200, PROTOBUF),
        ("application/json;q=0.1, application/transicator+protobuf;q=0.2", 200, PROTOBUF),
        ("application/transicator+protobuf, */*", 200, "application/json"),
        ("*/*", 200, "application/json"),
        ("application/*;q=0.1", 200, "application/json"),
        ("", 200, "application/json"),
        ("text/html", 415, "application/json"),
        ("application/json;q=0", 415, "application/json"),
        ("application/protobuf", 415, "application/json"),
    ] {
        let answer = ask(&feed.server, "scope=foo&limit=7", &[("accept", accept)]).await;
        assert_eq!((answer.status, answer.header("content-type")), (status, content_type), "{accept}");
        if status == 415 {
            let error: Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(error["code"], "UNSUPPORTED_FORMAT");
            assert_eq!(answer.header("cache-control"), "no-store");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_scopes_as_a_call_may_name_fit_into_its_head() {
    let feed = Feed::start().await;
    feed.commit(&format!("insert into items (name, _change_selector) values ('one', '{:055}')", 999)).await;
    let scopes: String = (0..1000).map(|n| format!("&scope={n:055}")).collect();
    assert_eq!(feed.page(&scopes).await.changes.len(), 1);
}

/// A page of many chunks, with changes of every size.
async fn large_feed() -> Feed {
    let feed = Feed::start().await;
    for (rows, letters) in [(1, 400_000), (3_000, 90), (3, 80_000)] {
        let name = format!("repeat(md5(n::text), {letters} / 32)");
        let rows = format!("select {name}, 'foo' from generate_series(1, {rows}) n");
        feed.commit(&format!("insert into items (name, _change_selector) {rows}")).await;
    }
    feed
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_bodies_are_the_same_ones() {
    let feed = large_feed().await;
    let query = "scope=foo&limit=100000";
    assert_eq!(feed.page(query).await.changes.len(), 3_004);
    for accept in ["application/json", PROTOBUF] {
        for query in [query, "scope=foo&limit=100000&pretty", "scope=foo&limit=20"] {
            let plain = ask(&feed.server, query, &[("accept", accept)]).await;
            assert_eq!(plain.header("content-encoding"), "");
            assert_eq!(plain.header("vary"), "accept, accept-encoding");
            for encoding in ["gzip", "zstd"] {
                let packed = ask(&feed.server, query, &[("accept", accept), ("accept-encoding", encoding)]).await;
                assert_eq!(packed.header("content-encoding"), encoding, "{accept} {query}");
                assert_eq!(packed.header("vary"), "accept, accept-encoding");
                assert_eq!(packed.header("etag"), plain.header("etag"));
                assert!(packed.body.len() < plain.body.len());
                assert!(packed.unpacked() == plain.body, "{accept} {encoding} {query}");
            }
        }
    }
    // What is small, and what is no page, leaves as it is.
    for query in ["scope=bar", "scope=foo&limit=x"] {
        let answer = ask(&feed.server, query, &[("accept-encoding", "gzip, zstd")]).await;
        assert_eq!(answer.header("content-encoding"), "", "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_a_body_has_none() {
    let feed = large_feed().await;
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build_http();
    let uri = format!("{}/changes?scope=foo&limit=5000", feed.server);
    let mut tag = String::new();
    // On one connection: a body that should not be there would be taken for the next answer.
    for (method, accept, encoding, status) in [
        ("GET", "*/*", "identity", 200),
        ("HEAD", "*/*", "identity", 405),
        ("HEAD", PROTOBUF, "gzip", 405),
        ("GET", "*/*", "gzip", 304),
        ("GET", "*/*", "identity", 304),
        ("HEAD", "*/*", "zstd", 405),
        ("GET", "*/*", "identity", 200),
    ] {
        let mut request = hyper::Request::builder().method(method).uri(&uri);
        request = request.header("accept", accept).header("accept-encoding", encoding);
        if status == 304 {
            request = request.header("if-none-match", &tag);
        }
        let (head, body) = client.request(request.body(Empty::new()).unwrap()).await.unwrap().into_parts();
        let length = body.collect().await.unwrap().to_bytes().len();
        assert_eq!(
            (head.status.as_u16(), length > 0),
            (status, method == "GET" && status == 200),
            "{method} {encoding}"
        );
        let header = |name: &str| head.headers[name].to_str().unwrap().to_owned();
        if status == 405 {
            assert_eq!(header("allow"), "GET");
        } else {
            assert_eq!(header("vary"), "accept, accept-encoding");
            assert!(tag.is_empty() || tag == header("etag"));
            tag = header("etag");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_cache_may_keep_is_right_for_as_long_as_it_may() {
    let feed = Feed::start().await;
    let ask = async |query: &str, headers: &[(&str, &str)]| ask(&feed.server, query, headers).await;
    for empty in ["scope=foo", "scope=foo&limit=0", "scope=foo&since=fffffff0.0.0"] {
        let answer = ask(empty, &[("if-none-match", "*")]).await;
        assert_eq!((answer.status, answer.header("cache-control"), answer.header("etag")), (200, "no-store", ""));
    }
    feed.insert("one", "foo").await;
    let one = ask("scope=foo", &[]).await;
    assert_eq!(one.header("cache-control"), "public, max-age=1");
    let known = [("if-none-match", one.header("etag"))];
    let again = ask("scope=foo", &known).await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    assert_eq!(again.header("cache-control"), "public, max-age=1");
    assert_eq!(again.header("etag"), one.header("etag"));
    for (query, headers) in [("scope=foo&pretty", &known[..]), ("scope=foo", &[known[0], ("accept", PROTOBUF)])] {
        assert_eq!(ask(query, headers).await.status, 200, "another form is another answer");
    }
    let asked_by_somebody = ask("scope=foo", &[("authorization", "Bearer x")]).await;
    assert_eq!(asked_by_somebody.header("cache-control"), "private, max-age=1");

    // A full page stays as it is, whatever comes behind it.
    let full = ask("scope=foo&limit=1", &[]).await;
    assert_eq!(full.header("cache-control"), "public, max-age=60");
    feed.insert("two", "foo").await;
    assert_eq!(ask("scope=foo&limit=1", &[("if-none-match", full.header("etag"))]).await.status, 304);
    let grown = ask("scope=foo", &known).await;
    assert_eq!(grown.status, 200);
    assert_ne!(grown.header("etag"), one.header("etag"));

    // Whoever follows a kept answer misses nothing.
    let kept: Value = serde_json::from_slice(&one.body).unwrap();
    let since = kept["lastSequence"].as_str().unwrap();
    assert_eq!(feed.page(&format!("scope=foo&since={since}")).await.names(), ["two"]);

    feed.purge_all();
    for error in [format!("scope=foo&since={since}"), "limit=x".to_owned()] {
        let answer = ask(&error, &[("if-none-match", "*")]).await;
        assert_eq!((answer.status, answer.header("cache-control")), (400, "no-store"), "{error}");
    }
    let other = http::request("DELETE", &feed.server, "/changes", &[], "").await;
    assert_eq!((other.status, other.header("cache-control")), (405, "no-store"));
}
