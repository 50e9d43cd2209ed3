//! The stream on a reader that answers from a table, read back by the standard's own rules.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::http::{Request, StatusCode};
use futures_util::FutureExt;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use proptest::prelude::*;
use tower_service::Service;

use super::super::routes;
use super::*;
use crate::domain::sequence::Lsn;
use crate::feed::query::Error;
use crate::feed::room::Taken;
use crate::service::health::Health;

/// Answers from a list, and waits for ever where that has come to its end.
#[derive(Clone, Default)]
struct Table {
    answers: Arc<Mutex<VecDeque<Result<Page, Error>>>>,
    asked: Arc<Mutex<Vec<Query>>>,
}

impl Read for Table {
    async fn changes(&self, query: Query) -> Result<Page, Error> {
        self.asked.lock().push(query);
        let answer = self.answers.lock().pop_front();
        match answer {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }
}

fn sequence(lsn: u64, index: u32) -> Sequence {
    Sequence::new(1, Lsn(lsn), index)
}

fn change(lsn: u64, body: impl Into<Bytes>) -> Change {
    Change { sequence: sequence(lsn, 0), body: body.into() }
}

fn page(last: u64, changes: Vec<Change>) -> Result<Page, Error> {
    Ok(Page {
        first: sequence(1, 0),
        last: sequence(last, 0),
        from: Sequence::ZERO,
        is_full: false,
        changes,
        taken: Taken::default(),
    })
}

/// A call whose answer has begun.
struct Call {
    head: axum::http::response::Parts,
    body: Body,
    asked: Arc<Mutex<Vec<Query>>>,
    health: Health,
    is_over: bool,
}

async fn call(answers: Vec<Result<Page, Error>>, path: &str, headers: &[(&str, &str)]) -> Call {
    let table = Table { answers: Arc::new(Mutex::new(answers.into())), asked: Arc::default() };
    let health = Health::new();
    let mut router = routes(Changes::new(table.clone(), health.clone(), Duration::from_secs(300)));
    let mut request = Request::get(path).header("accept", "text/event-stream").body(Body::empty()).expect("a request");
    for (name, value) in headers {
        request.headers_mut().append(
            HeaderName::try_from(*name).expect("a name"),
            HeaderValue::from_bytes(value.as_bytes()).expect("a value"),
        );
    }
    let (head, body) = router.call(request).await.expect("infallible").into_parts();
    Call { head, body, asked: table.asked, health, is_over: false }
}

impl Call {
    /// What can be read without waiting; notes whether the stream is over then.
    fn text(&mut self) -> String {
        let mut chunks = Vec::new();
        while !self.is_over
            && let Some(frame) = self.body.frame().now_or_never()
        {
            match frame {
                Some(frame) => chunks.push(frame.expect("no failure").into_data().expect("data")),
                None => self.is_over = true,
            }
        }
        String::from_utf8(chunks.concat()).expect("UTF-8")
    }
}

/// The state of a reader, as the standard's "interpreting an event stream" has it.
#[derive(Debug, Default)]
struct EventSource {
    last_event_id: String,
    retry: Option<u32>,
    /// Type, data and the last event id at that moment.
    events: Vec<(String, String, String)>,
}

fn interpret(stream: &str) -> EventSource {
    let mut source = EventSource::default();
    let (mut data, mut kind, mut id) = (String::new(), String::new(), String::new());
    let stream = stream.replace("\r\n", "\n").replace('\r', "\n");
    // What follows the last line break is an incomplete line, and is discarded.
    let whole = stream.rsplit_once('\n').map_or("", |(whole, _)| whole);
    for line in whole.split('\n') {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" if line.is_empty() => {
                source.last_event_id.clone_from(&id);
                let (told, kind) = (std::mem::take(&mut data), std::mem::take(&mut kind));
                if let Some(told) = told.strip_suffix('\n') {
                    source.events.push((kind, told.to_owned(), id.clone()));
                }
            }
            "data" => data.extend([value, "\n"]),
            "event" => value.clone_into(&mut kind),
            "id" if !value.contains('\0') => value.clone_into(&mut id),
            "retry" => source.retry = value.parse().ok(),
            _ => {}
        }
    }
    source
}

fn event(id: &str, data: &str) -> (String, String, String) {
    (String::new(), data.to_owned(), id.to_owned())
}

/// Before the first change `last` is zero, from where no gap can be told.
#[tokio::test]
async fn a_stream_goes_on_from_where_the_feed_begins() {
    let begun = Page {
        first: Sequence::ZERO,
        last: Sequence::ZERO,
        from: sequence(9, 0),
        is_full: false,
        changes: Vec::new(),
        taken: Taken::default(),
    };
    let mut call = call(vec![Ok(begun), Err(Error::TooOld)], "/changes", &[]).await;
    let source = interpret(&call.text());
    assert_eq!(source.last_event_id, "0.9.0");
    assert_eq!(source.events.first().map(|(kind, ..)| kind.as_str()), Some("error"));
    let asked: Vec<_> = call.asked.lock().iter().map(|query| query.since).collect();
    assert_eq!(asked, [Sequence::ZERO, sequence(9, 0)]);
}

#[tokio::test]
async fn each_change_is_an_event_and_each_page_follows_the_last() {
    let answers = vec![
        page(12, vec![change(10, "{\"operation\":1}"), change(11, "{\"operation\":2}")]),
        page(20, vec![]),
        page(30, vec![change(30, "{\"operation\":3}")]),
    ];
    let mut call = call(answers, "/changes?scope=a&limit=7&snapshot=5:5:&block=60", &[]).await;
    assert_eq!(call.head.status, StatusCode::OK);
    for (name, value) in
        [("content-type", "text/event-stream"), ("cache-control", "no-store"), ("x-accel-buffering", "no")]
    {
        assert_eq!(call.head.headers[name], value);
    }
    assert!(!call.head.headers.contains_key("content-length"));
    let text = call.text();
    let (retry, rest) = text.split_once("\n\n").expect("several blocks");
    assert!(retry.starts_with("retry: "));
    assert_eq!(
        rest,
        "id: 0.a.0\ndata: {\"operation\":1}\n\nid: 0.b.0\ndata: {\"operation\":2}\n\n:\nid: 0.14.0\n\n\
         id: 0.1e.0\ndata: {\"operation\":3}\n\n"
    );
    let source = interpret(&text);
    assert!(EVENTS_RETRY_MILLIS.contains(&source.retry.expect("a number")));
    let told = ["{\"operation\":1}", "{\"operation\":2}", "{\"operation\":3}"];
    assert_eq!(source.events, [event("0.a.0", told[0]), event("0.b.0", told[1]), event("0.1e.0", told[2])]);
    let asked = call.asked.lock().clone();
    let since: Vec<_> = asked.iter().map(|query| query.since).collect();
    assert_eq!(since, [Sequence::ZERO, sequence(12, 0), sequence(20, 0), sequence(30, 0)]);
    let blocks: Vec<_> = asked.iter().map(|query| query.block.as_secs()).collect();
    assert_eq!(blocks, [0, 15, 15, 15], "the first look does not wait, and `block` does not matter");
    assert!(asked.iter().all(|query| query.limit == 7 && query.snapshot.is_some() && query.scopes.len() == 1));
}

#[tokio::test]
async fn a_heartbeat_moves_the_position_and_tells_nothing() {
    let mut call = call(vec![page(10, vec![]), page(99, vec![])], "/changes", &[]).await;
    let source = interpret(&call.text());
    assert_eq!((source.events.len(), source.last_event_id.as_str()), (0, "0.63.0"));
}

#[tokio::test]
async fn a_reader_goes_on_behind_its_last_event() {
    for (headers, since) in [
        (&[][..], sequence(5, 0)),
        (&[("last-event-id", "0.9.1")], sequence(9, 1)),
        (&[("last-event-id", "2.0.9.1")], Sequence::new(2, Lsn(9), 1)),
        (&[("last-event-id", "")], sequence(5, 0)),
        (&[("last-event-id", "0.0.0")], Sequence::ZERO),
    ] {
        let call = call(vec![page(20, vec![])], "/changes?since=0.5.0", headers).await;
        assert_eq!((call.head.status, call.asked.lock()[0].since), (StatusCode::OK, since), "{headers:?}");
    }
    for bad in ["0.9", "x", "0.9.1 ", "\u{fc}", "-1"] {
        let headers = [("last-event-id", bad)];
        let mut call = call(vec![page(20, vec![])], "/changes?since=0.5.0", &headers).await;
        // Spaces around a header's value are not a part of it on the wire; here nothing takes them off.
        assert_eq!(call.head.status, StatusCode::BAD_REQUEST, "{bad}");
        assert!(call.text().contains(r#""code":"PARAMETER_INVALID""#), "{bad}");
        assert!(call.asked.lock().is_empty(), "{bad}");
    }
}

#[tokio::test]
async fn what_is_wrong_before_the_first_byte_is_an_ordinary_error() {
    for (path, answer, status) in [
        ("/changes?limit=0", page(1, vec![]), 400),
        ("/changes?limit=x", page(1, vec![]), 400),
        ("/changes?block=x", page(1, vec![]), 400),
        ("/changes?since=x", page(1, vec![]), 400),
        ("/changes", Err(Error::TooOld), 400),
        ("/changes", Err(Error::NotBegun), 503),
        ("/changes", Err(Error::Journal(std::io::Error::other("disk on fire"))), 500),
    ] {
        let call = call(vec![answer], path, &[]).await;
        assert_eq!(call.head.status.as_u16(), status);
        assert_eq!(call.head.headers["content-type"], "application/json");
    }
}

#[tokio::test]
async fn a_failure_in_the_middle_is_the_last_event() {
    let burnt = || Error::Journal(std::io::Error::other("disk on fire"));
    for (error, code) in [(Error::TooOld, "SNAPSHOT_TOO_OLD"), (burnt(), "INTERNAL_SERVER_ERROR")] {
        let mut call =
            call(vec![page(10, vec![change(10, "{}")]), Err(error), page(20, vec![])], "/changes", &[]).await;
        let source = interpret(&call.text());
        let [_, (kind, data, id)] = &source.events[..] else { panic!("two events: {source:?}") };
        assert_eq!((kind.as_str(), id.as_str()), ("error", "0.a.0"), "the position stays where it was");
        let data: serde_json::Value = serde_json::from_str(data).expect("JSON");
        assert_eq!(data["code"], code);
        assert!(!data.to_string().contains("fire"), "the inner cause stays in the log");
        assert!(call.is_over);
    }
}

#[tokio::test]
async fn a_closing_process_ends_the_stream_between_two_events() {
    for close in [Health::mark_down, Health::shut_down] {
        // While it waits.
        let mut waiting = call(vec![page(10, vec![])], "/changes", &[]).await;
        assert!(!waiting.text().is_empty() && !waiting.is_over);
        close(&waiting.health);
        assert_eq!((waiting.text().as_str(), waiting.is_over), ("", true));
        // In the middle of a page, and of a change that is sent in pieces.
        let large = "x".repeat(CHUNK_BYTES);
        let changes = vec![change(10, large.clone()), change(11, large)];
        let mut sending = call(vec![page(11, changes)], "/changes", &[]).await;
        let begin = sending.body.frame().await.expect("more").expect("no failure").into_data().expect("data");
        assert!(begin.ends_with(b"data: "));
        close(&sending.health);
        let rest = sending.text();
        let source = interpret(&format!("{}{rest}", String::from_utf8_lossy(&begin)));
        assert!(sending.is_over);
        let told: Vec<_> = source.events.iter().map(|(_, data, id)| (data.len(), id.as_str())).collect();
        assert_eq!(told, [(CHUNK_BYTES, "0.a.0")], "what has begun is ended, and nothing else is begun");
    }
}

#[tokio::test]
async fn nothing_is_asked_before_the_page_is_sent_and_a_large_change_is_not_copied() {
    let large = Bytes::from(vec![b'x'; CHUNK_BYTES]);
    let mut call = call(vec![page(10, vec![change(10, large.clone())]), page(20, vec![])], "/changes", &[]).await;
    let mut next = async || call.body.frame().await.expect("more").expect("no failure").into_data().expect("data");
    assert!(next().await.ends_with(b"id: 0.a.0\ndata: "));
    assert_eq!(next().await.as_ptr(), large.as_ptr());
    assert_eq!(call.asked.lock().len(), 1, "a reader that is slow is given no second page to hold");
}

#[tokio::test]
async fn room_is_kept_until_the_page_has_been_sent() {
    let (taken, is_taken) = Taken::watched();
    let large = || "x".repeat(CHUNK_BYTES);
    let first = page(11, vec![change(10, large()), change(11, large())]).map(|page| Page { taken, ..page });
    let mut call = call(vec![first, page(20, vec![])], "/changes", &[]).await;
    let mut next = async || call.body.frame().await.expect("more").expect("no failure").into_data().expect("data");
    next().await;
    let change = next().await;
    assert_eq!(change.len(), CHUNK_BYTES);
    call.text();
    assert!(is_taken(), "a large change is still on its way");
    drop(change);
    assert!(!is_taken(), "the next page waits for nothing of this one");
}

#[tokio::test]
async fn the_stream_must_be_asked_for_by_name() {
    for (accept, given) in [
        ("*/*", "application/json"),
        ("text/*", "application/json"),
        ("text/event-stream, */*;q=0.1", "text/event-stream"),
        ("Text/Event-Stream", "text/event-stream"),
        ("text/event-stream;q=0.1, application/json", "application/json"),
    ] {
        let table = Table { answers: Arc::new(Mutex::new([page(1, vec![])].into())), asked: Arc::default() };
        let mut router = routes(Changes::new(table, Health::new(), Duration::from_secs(300)));
        let request = Request::get("/changes").header("accept", accept).body(Body::empty()).expect("a request");
        let answer = router.call(request).await.expect("infallible");
        assert_eq!(answer.headers()["content-type"], given, "{accept}");
    }
}

proptest! {
    #[test]
    fn whatever_the_sizes_the_events_are_the_changes(sizes in prop::collection::vec(0..90_000_usize, 0..12)) {
        let changes: Vec<Change> = (1_u64..).zip(&sizes).map(|(lsn, size)| change(lsn, "x".repeat(*size))).collect();
        let expected: Vec<_> =
            changes.iter().map(|change| (change.sequence.to_string(), change.body.clone())).collect();
        let mut step = Step::new(Bytes::from_static(b"retry: 1\n\n"));
        step.changes = changes.into_iter();
        let chunks: Vec<Bytes> = std::iter::from_fn(|| step.chunk()).collect();
        prop_assert!(chunks.iter().all(|chunk| !chunk.is_empty() && chunk.len() < 2 * CHUNK_BYTES));
        let source = interpret(&String::from_utf8(chunks.concat()).expect("UTF-8"));
        let told: Vec<_> = source.events.into_iter().map(|(_, data, id)| (id, Bytes::from(data))).collect();
        prop_assert!(told == expected);
    }
}
