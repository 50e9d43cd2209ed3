//! Many equal readers behind a proxy with a shared cache, as RFC 9111 has one: what of their calls comes to the server.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;

use super::feed::{Feed, PATIENCE};
use crate::support;
use crate::support::http::{self, Answer};

const READERS: usize = 40;
/// The headers of a request that choose among answers: those that Vary names.
const VARIES: [&str; 2] = ["accept", "accept-encoding"];

/// What an answer is kept under: its address, and the headers that chose it.
type Key = (String, [Option<String>; 2]);

/// An answer that is on its way from the server, or has come.
#[derive(Default)]
struct Flight {
    /// The stale answer that may still be right.
    before: Option<Arc<Kept>>,
    answer: OnceCell<Arc<Kept>>,
}

struct Kept {
    answer: Answer,
    /// For how many seconds anyone may have it; none where only he may have it who asked.
    shared_for: Option<u64>,
    came_at: u64,
}

/// The proxy. Its clock stands still but where the test sets it.
struct Proxy {
    server: String,
    now: AtomicU64,
    flights: Mutex<HashMap<Key, Arc<Flight>>>,
    /// Requests of readers, and of the proxy: all, and those that ask whether what is kept is still right.
    asked: AtomicUsize,
    passed: AtomicUsize,
    confirmed: AtomicUsize,
}

impl Proxy {
    async fn start(server: &str) -> (Arc<Self>, String) {
        let (counter, server) = (AtomicUsize::default, server.to_owned());
        let (asked, passed, confirmed) = (counter(), counter(), counter());
        let proxy = Self { server, now: AtomicU64::default(), flights: Mutex::default(), asked, passed, confirmed };
        let proxy = Arc::new(proxy);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(proxy.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (proxy, url)
    }

    /// The flight to wait for: the one in the air, one whose answer is fresh, or a new one.
    fn flight(&self, key: &Key) -> Arc<Flight> {
        let mut flights = self.flights.lock();
        self.asked.fetch_add(1, Ordering::SeqCst);
        let last = flights.get(key).cloned();
        let before = last.as_ref().and_then(|flight| flight.answer.get().cloned());
        match (last, before) {
            (Some(last), None) => last,
            (Some(last), Some(before)) if self.is_fresh(&before) => last,
            (_, before) => {
                let before = before.filter(|kept| kept.shared_for.is_some() && !kept.answer.header("etag").is_empty());
                let new = Arc::new(Flight { before, answer: OnceCell::new() });
                flights.insert(key.clone(), new.clone());
                new
            }
        }
    }

    fn is_fresh(&self, kept: &Kept) -> bool {
        kept.shared_for.is_some_and(|seconds| self.now.load(Ordering::SeqCst) < kept.came_at + seconds)
    }

    async fn fetch(&self, (path, chosen): &Key, before: Option<&Kept>) -> Kept {
        let chosen = VARIES.into_iter().zip(chosen).filter_map(|(name, value)| Some((name, value.as_deref()?)));
        let tag = before.map(|kept| ("if-none-match", kept.answer.header("etag")));
        let headers: Vec<_> = chosen.chain(tag).collect();
        let came_at = self.now.load(Ordering::SeqCst);
        self.passed.fetch_add(1, Ordering::SeqCst);
        let mut answer = http::get(&self.server, path, &headers).await;
        assert!(answer.status >= 400 || answer.header("vary") == VARIES.join(", "), "{}", answer.header("vary"));
        let shared_for = shared_for(answer.header("cache-control"));
        if let (304, Some(before)) = (answer.status, before) {
            self.confirmed.fetch_add(1, Ordering::SeqCst);
            answer = Answer { status: 200, headers: before.answer.headers.clone(), body: before.answer.body.clone() };
        }
        Kept { answer, shared_for, came_at }
    }

    /// How many calls came to the server, and how many of them it answered with 304, since this was asked last.
    fn calls(&self) -> (usize, usize) {
        (self.passed.swap(0, Ordering::SeqCst), self.confirmed.swap(0, Ordering::SeqCst))
    }
}

/// For how long a shared cache may keep an answer; none where it must not.
fn shared_for(control: &str) -> Option<u64> {
    let words: Vec<_> = control.split(',').map(str::trim).collect();
    let seconds = |name: &str| words.iter().find_map(|word| word.strip_prefix(name)?.parse().ok());
    let is_barred = ["no-store", "private", "no-cache"].iter().any(|word| words.contains(word));
    if is_barred { None } else { seconds("s-maxage=").or_else(|| seconds("max-age=")) }
}

async fn answer(State(proxy): State<Arc<Proxy>>, uri: Uri, headers: HeaderMap) -> Response {
    let chosen = VARIES.map(|name| headers.get(name).map(|value| value.to_str().unwrap().to_owned()));
    let key = (uri.to_string(), chosen);
    let flight = proxy.flight(&key);
    let mut is_own = false;
    let fetch = async || {
        is_own = true;
        Arc::new(proxy.fetch(&key, flight.before.as_deref()).await)
    };
    let mut kept = flight.answer.get_or_init(fetch).await.clone();
    // Who waited for the answer to another's call may have it only where it may be shared.
    if !is_own && kept.shared_for.is_none() {
        kept = Arc::new(proxy.fetch(&key, None).await);
    }
    let mut response = (StatusCode::from_u16(kept.answer.status).unwrap(), kept.answer.body.clone()).into_response();
    response.headers_mut().extend(kept.answer.headers.clone());
    response
}

/// Lets many readers ask the same thing at once.
fn crowd(proxy: &str, query: &str, accept: &'static str) -> JoinSet<Answer> {
    let call = |()| {
        let (proxy, path) = (proxy.to_owned(), format!("/changes?{query}"));
        async move { http::get(&proxy, &path, &[("accept", accept)]).await }
    };
    std::iter::repeat_n((), READERS).map(call).collect()
}

/// What all of them are answered: the same, byte by byte.
async fn same(readers: JoinSet<Answer>) -> Answer {
    let mut answers = tokio::time::timeout(PATIENCE, readers.join_all()).await.unwrap();
    assert_eq!(answers.len(), READERS);
    let one = answers.pop().unwrap();
    assert_eq!(one.status, 200);
    assert!(answers.iter().all(|other| (other.status, &other.body) == (200, &one.body)));
    one
}

fn text(answer: &Answer) -> &str {
    std::str::from_utf8(&answer.body).unwrap()
}

fn last(answer: &Answer) -> String {
    let page: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    page["lastSequence"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_calls_of_many_readers_are_one() {
    let feed = Feed::start().await;
    let (proxy, url) = Proxy::start(&feed.server).await;
    feed.insert("one", "foo").await;
    let short = same(crowd(&url, "scope=foo", "application/json")).await;
    assert!(text(&short).contains("\"one\""));
    assert_eq!(proxy.calls(), (1, 0));
    let binary = same(crowd(&url, "scope=foo", "application/transicator+protobuf")).await;
    assert_ne!(binary.body, short.body);
    assert_eq!(proxy.calls(), (1, 0), "another form is another answer");

    proxy.now.store(1, Ordering::SeqCst);
    assert_eq!(same(crowd(&url, "scope=foo", "application/json")).await.body, short.body);
    assert_eq!(proxy.calls(), (1, 1), "what is still right need not be sent again");
    feed.insert("two", "foo").await;
    proxy.now.store(2, Ordering::SeqCst);
    let grown = same(crowd(&url, "scope=foo", "application/json")).await;
    assert!(text(&grown).contains("\"two\""));
    assert_eq!(proxy.calls(), (1, 0));

    let full = same(crowd(&url, "scope=foo&limit=1", "application/json")).await;
    assert_eq!(proxy.calls(), (1, 0));
    for (now, calls) in [(61, (0, 0)), (62, (1, 1))] {
        proxy.now.store(now, Ordering::SeqCst);
        assert_eq!(same(crowd(&url, "scope=foo&limit=1", "application/json")).await.body, full.body);
        assert_eq!(proxy.calls(), calls, "a full page is good for a minute");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_wait_for_the_same_are_one() {
    let feed = Feed::start().await;
    let (proxy, url) = Proxy::start(&feed.server).await;
    feed.insert("one", "foo").await;
    let mut since = last(&same(crowd(&url, "scope=foo", "application/json")).await);
    assert_eq!(proxy.calls(), (1, 0));
    for name in ["two", "three"] {
        let asked = proxy.asked.load(Ordering::SeqCst) + READERS;
        let readers = crowd(&url, &format!("scope=foo&since={since}&block=300"), "application/json");
        let all_wait = async || {
            let (asked_now, waiting) = (proxy.asked.load(Ordering::SeqCst), feed.reader.waiters());
            (asked_now == asked && waiting == 1).then_some(())
        };
        support::eventually(PATIENCE, "all wait, by one call", all_wait).await;
        feed.insert(name, "foo").await;
        let page = same(readers).await;
        assert_eq!((text(&page).matches("newRow").count(), text(&page).matches(name).count()), (1, 1));
        assert_eq!(proxy.calls(), (1, 0));
        since = last(&page);
    }
}

/// The limit of it: an empty answer that others are given would be the answer to their next call, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_ends_empty_is_shared_with_nobody() {
    let feed = Feed::start().await;
    let (proxy, url) = Proxy::start(&feed.server).await;
    feed.insert("one", "foo").await;
    let since = feed.page("scope=foo").await.last;
    let empty = same(crowd(&url, &format!("scope=foo&since={since}&block=1"), "application/json")).await;
    assert_eq!(last(&empty), since);
    assert_eq!(proxy.calls(), (READERS, 0));
    feed.insert("two", "foo").await;
    let news = same(crowd(&url, &format!("scope=foo&since={since}&block=1"), "application/json")).await;
    assert!(text(&news).contains("\"two\""), "who asks again is told what has come");
    assert_eq!(proxy.calls(), (1, 0));
}
