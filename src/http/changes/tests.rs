//! The face on a reader that answers from a table: parameters, errors and the form of a page.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode, Version};
use bytes::Bytes;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tower_service::Service;

use super::*;
use crate::domain::scope::Scope;
use crate::domain::sequence::{Lsn, Sequence};
use crate::feed::query::{Change, Error, Page, Query};
use crate::feed::room::Taken;
use crate::http::common::later::Later;
use crate::service::health::Health;

type Answer = fn() -> Result<Page, Error>;

/// Answers every call alike, and keeps what was asked.
#[derive(Clone)]
struct Table {
    answer: Answer,
    asked: Arc<Mutex<Vec<Query>>>,
}

impl Read for Table {
    async fn changes(&self, query: Query) -> Result<Page, Error> {
        self.asked.lock().push(query);
        (self.answer)()
    }
}

fn two_changes() -> Result<Page, Error> {
    let sequence = |index| Sequence::new(1, Lsn(0x1390_d838), index);
    let change =
        |index, body: &'static str| Change { sequence: sequence(index), body: Bytes::from_static(body.as_bytes()) };
    let changes = vec![change(0, "{\"operation\":1}"), change(10, "{\"operation\":3}")];
    Ok(Page {
        first: sequence(0),
        last: sequence(10),
        from: Sequence::ZERO,
        is_full: false,
        changes,
        taken: Taken::default(),
    })
}

async fn ask(answer: Answer, request: Request<Body>) -> (Response<()>, String, Vec<Query>) {
    let table = Table { answer, asked: Arc::default() };
    let mut router = routes(Changes::new(table.clone(), Health::new(), Duration::from_secs(300)));
    let (head, body) = router.call(request).await.expect("infallible").into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    let asked = table.asked.lock().clone();
    (Response::from_parts(head, ()), String::from_utf8(body.to_vec()).expect("UTF-8"), asked)
}

async fn get(query: &str) -> (StatusCode, String, Option<Query>) {
    let (head, body, mut asked) =
        ask(two_changes, Request::get(format!("/changes{query}")).body(Body::empty()).unwrap()).await;
    (head.status(), body, asked.pop())
}

/// More than a chunk, so that its protobuf leaves while it is made.
fn large_changes() -> Result<Page, Error> {
    let mut page = two_changes()?;
    let body = format!("{{\"operation\":4,\"table\":\"{}\"}}", "x".repeat(100_000));
    page.changes.iter_mut().for_each(|change| change.body = body.clone().into());
    Ok(page)
}

#[tokio::test]
async fn an_answer_that_cannot_be_cut_into_chunks_says_how_long_it_is() {
    for (version, is_announced) in [(Version::HTTP_10, true), (Version::HTTP_11, false)] {
        let table = Table { answer: large_changes, asked: Arc::default() };
        let mut router = routes(Changes::new(table, Health::new(), Duration::ZERO));
        let request = Request::get("/changes").version(version).header("accept", "application/transicator+protobuf");
        let (head, body) = router.call(request.body(Body::empty()).unwrap()).await.expect("infallible").into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes();
        let announced = head.headers.get("content-length").map(|length| length.to_str().expect("a number").to_owned());
        assert_eq!(announced, is_announced.then(|| body.len().to_string()), "{version:?}");
        assert!(body.len() > 200_000);
    }
}

#[tokio::test]
async fn a_page_is_the_shared_bytes_in_a_frame() {
    let page =
        r#"{"firstSequence":"0.1390d838.0","lastSequence":"0.1390d838.a","changes":[{"operation":1},{"operation":3}]}"#;
    let request = Request::get("/changes").body(Body::empty()).unwrap();
    let (head, body, _) = ask(two_changes, request).await;
    assert_eq!((head.status(), body.as_str()), (StatusCode::OK, page));
    assert_eq!(head.headers()["content-type"], "application/json");
    assert_eq!(head.headers()["content-length"], page.len().to_string().as_str());
    let (_, pretty, _) = get("?pretty").await;
    assert!(pretty.starts_with("{\n  \"firstSequence\": \"0.1390d838.0\",\n"), "{pretty}");
    assert_eq!(pretty.split_whitespace().collect::<String>(), page);
}

#[tokio::test]
async fn what_is_indented_is_sent_while_it_is_made_with_pauses_for_the_others() {
    use http_body::Body as _;
    let table = Table { answer: large_changes, asked: Arc::default() };
    let mut router = routes(Changes::new(table, Health::new(), Duration::ZERO));
    let request = Request::get("/changes?pretty").body(Body::empty()).unwrap();
    let mut body = router.call(request).await.expect("infallible").into_body();
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let (mut text, mut pauses) = (Vec::new(), 0);
    while !body.is_end_stream() {
        match std::pin::Pin::new(&mut body).poll_frame(&mut cx) {
            std::task::Poll::Ready(Some(frame)) => {
                let part = frame.expect("JSON").into_data().expect("data");
                assert!(part.len() <= 64 * 1024, "{} bytes at once", part.len());
                text.extend_from_slice(&part);
            }
            std::task::Poll::Ready(None) => break,
            std::task::Poll::Pending => pauses += 1,
        }
    }
    assert!(pauses >= 3, "{pauses}");
    let page: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    assert_eq!(page["changes"].as_array().map(Vec::len), Some(2));
    assert_eq!(String::from_utf8(text).expect("UTF-8").lines().count(), 14);
}

#[tokio::test]
async fn parameters_that_are_no_good_name_themselves() {
    for (query, description) in [
        ("limit=-1", "limit"),
        ("limit=ten", "limit"),
        ("limit=1.0", "limit"),
        ("limit=%31%", "limit"),
        ("limit=100001", "limit too high, exceeds max 100000"),
        ("limit=99999999999999999999999", "limit too high, exceeds max 100000"),
        ("block=-1", "block"),
        ("block=1s", "block"),
        ("block=+5", "block"),
        ("scope=a&scope=a%20b", "Invalid char in scope param"),
        ("selector=a,b", "Invalid char in selector param"),
        ("scope=%C3%BC", "Invalid char in scope param"),
        ("scope=a%00", "Invalid char in scope param"),
        ("scope=%ff", "Invalid char in scope param"),
        ("scope=%zz", "Invalid char in scope param"),
        ("since=0", "since"),
        ("since=xx0.0.0", "since"),
        ("since=0.0.0.0.0", "since"),
        ("since=%00", "since"),
        ("snapshot=1", "snapshot"),
        ("snapshot=1:2:x", "snapshot"),
        // The contract's order of checks, whatever the order of parameters.
        ("snapshot=x&since=x&scope=*&block=x&limit=x", "limit"),
        ("snapshot=x&since=x&scope=*&block=x", "block"),
        ("snapshot=x&since=x&scope=*", "Invalid char in scope param"),
        ("snapshot=x&since=x", "since"),
    ] {
        let (status, body, asked) = get(&format!("?{query}")).await;
        let expected = format!(
            r#"{{"code":"PARAMETER_INVALID","error":"A parameter has an invalid value","description":"{description}","details":{{"#
        );
        assert!(status == StatusCode::BAD_REQUEST && body.starts_with(&expected), "{query}: {status} {body}");
        assert!(asked.is_none(), "{query}");
    }
    let (status, ..) = get(&format!("?scope={}", "x".repeat(256))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn there_may_be_only_so_many_scopes() {
    use crate::domain::limits::SCOPES_MAX;
    let query = |count: usize| (0..count).map(|n| format!("&selector=s{n}&scope=s{n}")).collect::<String>();
    let (status, _, asked) = get(&format!("?{}", query(SCOPES_MAX))).await;
    assert_eq!((status, asked.expect("it is asked").scopes.len()), (StatusCode::OK, SCOPES_MAX));
    let (status, body, asked) = get(&format!("?{}&since=x", query(SCOPES_MAX + 1))).await;
    let description = r#""code":"PARAMETER_INVALID","error":"A parameter has an invalid value","description":"selector: 1001 scopes, exceeds max 1000""#;
    assert!(status == StatusCode::BAD_REQUEST && body.contains(description) && asked.is_none(), "{status}: {body}");
}

#[tokio::test]
async fn parameters_have_their_meaning() {
    let plain = || Query {
        scopes: vec![Scope::empty()],
        since: Sequence::ZERO,
        limit: 100,
        block: Duration::ZERO,
        snapshot: None,
    };
    let scopes = |names: &[&str]| names.iter().map(|name| Scope::parse(name).expect("a scope")).collect::<Vec<_>>();
    let since = Sequence::new(1, Lsn(0x1390_d838), 0);
    for (query, expected) in [
        ("", plain()),
        ("?", plain()),
        ("?scope=&since=&limit=&block=&snapshot=&selector=", plain()),
        ("?unknown=%zz&Scope=a", plain()),
        ("?%zz=1&%ff&a%00=2&sc%6fpe%=a&limi%ff=x", plain()),
        ("?%zz=1&sc%6fpe=a&%", Query { scopes: scopes(&["a"]), ..plain() }),
        ("?since=0.0.0", plain()),
        ("?scope=a", Query { scopes: scopes(&["a"]), ..plain() }),
        ("?selector=b&scope=a&scope=b&scope=", Query { scopes: scopes(&["a", "b"]), ..plain() }),
        ("?scope=Az09_.%3A%2f-", Query { scopes: scopes(&["Az09_.:/-"]), ..plain() }),
        ("?limit=0", Query { limit: 0, ..plain() }),
        ("?limit=&limit=100000&limit=7", Query { limit: 100_000, ..plain() }),
        ("?block=5", Query { block: Duration::from_secs(5), ..plain() }),
        ("?block=301", Query { block: Duration::from_secs(300), ..plain() }),
        ("?block=99999999999999999999999", Query { block: Duration::from_secs(300), ..plain() }),
        ("?since=0.1390D838.0", Query { since, ..plain() }),
        ("?snapshot=10:20:14,12,", Query { snapshot: Some("10:20:12,14".parse().expect("a snapshot")), ..plain() }),
    ] {
        let (status, _, asked) = get(query).await;
        assert_eq!(status, StatusCode::OK, "{query}");
        assert_eq!(format!("{asked:?}"), format!("{:?}", Some(expected)), "{query}");
    }
}

#[tokio::test]
async fn what_the_reader_cannot_answer_has_its_code() {
    let failed = || Err(Error::Journal(std::io::Error::other("disk on fire")));
    let cases: [(Answer, _, _, _); 4] = [
        (|| Err(Error::NotBegun), 503, "NOT_READY", "The server is not ready"),
        (|| Err(Error::Busy), 503, "NOT_READY", "The server is not ready"),
        (|| Err(Error::TooOld), 400, "SNAPSHOT_TOO_OLD", "The client is operating on an old snapshot"),
        (failed, 500, "INTERNAL_SERVER_ERROR", "An error occurred in the server"),
    ];
    for (answer, status, code, error) in cases {
        let request = Request::get("/changes").header("accept", "*/*").body(Body::empty()).unwrap();
        let (head, body, _) = ask(answer, request).await;
        let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!((head.status().as_u16(), &body["code"], &body["error"]), (status, &code.into(), &error.into()));
        assert!(!body["description"].to_string().contains("fire"), "the inner cause stays in the log");
    }
}

#[tokio::test]
async fn the_format_is_checked_before_the_parameters() {
    let request = Request::get("/changes?limit=x").header("accept", "text/html").body(Body::empty()).unwrap();
    let (head, body, _) = ask(two_changes, request).await;
    assert_eq!(head.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert!(body.starts_with(r#"{"code":"UNSUPPORTED_FORMAT","error":"The specified media type is not supported","#));
    assert_eq!(head.headers()["content-type"], "application/json");
}

#[tokio::test]
async fn other_methods_are_not_allowed() {
    for method in ["HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let request = Request::builder().method(method).uri("/changes").body(Body::empty()).unwrap();
        let (head, body, asked) = ask(two_changes, request).await;
        assert_eq!((head.status(), asked.len()), (StatusCode::METHOD_NOT_ALLOWED, 0), "{method}");
        assert_eq!(head.headers().get_all("allow").iter().collect::<Vec<_>>(), ["GET"], "{method}");
        assert!(method == "HEAD" || body.contains("\"METHOD_NOT_ALLOWED\""), "{method} {body}");
    }
}

/// Head, without what the server adds anyway, and body.
async fn told(response: Response<Body>) -> (StatusCode, Vec<(String, String)>, Bytes) {
    let (head, body) = response.into_parts();
    let text = |value: &axum::http::HeaderValue| value.to_str().expect("text").to_owned();
    let headers = head.headers.iter().filter(|(name, _)| *name != "content-length");
    let mut headers: Vec<_> = headers.map(|(name, value)| (name.to_string(), text(value))).collect();
    headers.sort();
    (head.status, headers, body.collect().await.expect("a whole body").to_bytes())
}

#[tokio::test]
async fn an_answer_that_is_left_is_the_same_as_one_that_is_not() {
    let answers: [Answer; 3] = [two_changes, large_changes, || Err(Error::TooOld)];
    for answer in answers {
        for (name, value) in [
            ("accept", "application/json"),
            ("accept", "application/transicator+protobuf"),
            ("accept-encoding", "gzip"),
            ("accept-encoding", "zstd, gzip"),
            ("accept-encoding", "br"),
            ("authorization", "Bearer x"),
            ("if-none-match", "*"),
        ] {
            let table = Table { answer, asked: Arc::default() };
            let mut router = routes(Changes::new(table, Health::new(), Duration::ZERO));
            let request = || Request::get("/changes?limit=7").header(name, value);
            let expected = router.call(request().body(Body::empty()).unwrap()).await.expect("infallible");
            let later = Later::default();
            let left = request().extension(later.clone()).body(Body::empty()).unwrap();
            router.call(left).await.expect("infallible");
            let answer = later.take().expect("it is left").await;
            assert_eq!(told(answer).await, told(expected).await, "{name}: {value}");
        }
    }
}
