//! The server over real sockets, with routes made for the purpose.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Extension, Router};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::parked::{Parked, Until};
use super::stall::Unstalled;
use super::wire::Wire;
use super::{Config, Server, connection};
use crate::domain::limits::{CONNECTIONS_BEYOND_MAX, REQUEST_HEAD_BYTES_MAX};
use crate::http::common::later::Later;
use crate::http::common::refusal::{INTERNAL_SERVER_ERROR, Refusal};

struct World {
    address: SocketAddr,
    shutdown: CancellationToken,
    served: JoinHandle<()>,
    /// Ends the answer of `/wait`.
    release: Arc<Notify>,
    /// Says that `/wait` has been asked.
    asked: Arc<Notify>,
}

async fn start(connections_max: usize, head_max: Duration, drain_max: Duration) -> World {
    start_with_stall(connections_max, head_max, LONG, drain_max).await
}

async fn start_with_stall(
    connections_max: usize,
    head_max: Duration,
    stall_max: Duration,
    drain_max: Duration,
) -> World {
    let (release, asked) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let waits = (Arc::clone(&release), Arc::clone(&asked));
    let wait = move || async move {
        waits.1.notify_one();
        waits.0.notified().await;
        "waited"
    };
    let left = |later: Option<Extension<Later>>| async {
        match later {
            Some(Extension(later)) => later.leave(async { "left".into_response() }),
            None => "at once".into_response(),
        }
    };
    let left_in_panic =
        |Extension(later): Extension<Later>| async move { later.leave(async { panic!("planted for later") }) };
    let router = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/left", get(left).post(left))
        .route("/left/panic", get(left_in_panic))
        .route("/panic", get(|| async { panic!("planted") as &'static str }))
        .route("/large", get(|| async { Body::from(vec![b'x'; LARGE]) }))
        .route("/wait", get(wait.clone()).post(wait.clone()))
        .route("/wait/panic", get(move || async move { panic!("planted after {}", wait().await) as &'static str }));
    let probes = Router::new().route("/health", get(|| async { "well" }));
    let config = Config { connections_max, head_max, stall_max, drain_max };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let served = tokio::spawn(Server::new(config, listener, router).with_probes(probes).run(shutdown.clone()));
    World { address, shutdown, served, release, asked }
}

/// More than the sockets of both sides take.
const LARGE: usize = 64 << 20;
const LONG: Duration = Duration::from_secs(60);

async fn connect(world: &World, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// All that comes until the server closes.
async fn rest(mut stream: TcpStream) -> String {
    let mut text = String::new();
    // A reset after the answer is an end as good as any.
    let _ = stream.read_to_string(&mut text).await;
    text
}

async fn call(world: &World, path: &str) -> String {
    rest(connect(world, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await).await
}

#[tokio::test]
async fn a_panic_of_a_handler_is_a_500_and_the_server_goes_on() {
    let world = start(10, LONG, LONG).await;
    let answer = call(&world, "/panic").await;
    assert!(answer.starts_with("HTTP/1.1 500 ") && answer.contains(r#"{"code":"INTERNAL_SERVER_ERROR","#), "{answer}");
    assert!(call(&world, "/").await.ends_with("hello"));
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_off() {
    let world = start(10, Duration::from_millis(50), LONG).await;
    let answer = rest(connect(&world, "GET / HTTP/1.1\r\nhost:").await).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let world = start(10, LONG, LONG).await;
    let answer = rest(connect(&world, &format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(100_000))).await).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert!(call(&world, &format!("/?scope={}", "y".repeat(65_000))).await.ends_with("hello"), "it is not too long");
}

#[tokio::test]
async fn a_head_is_refused_as_soon_as_it_has_64_kib_and_no_end() {
    let world = start(10, LONG, LONG).await;
    // Not a byte more, which the server would leave unread and which could cost the answer.
    let head = format!("GET /?{}", "y".repeat(REQUEST_HEAD_BYTES_MAX - "GET /?".len()));
    let answer = rest(connect(&world, &head).await).await;
    assert!(answer.starts_with("HTTP/1.1 431 ") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_connection_too_many_is_told_so_and_its_place_comes_back() {
    let world = start(1, LONG, LONG).await;
    let waiting = connect(&world, "GET /wait HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    world.asked.notified().await;
    let refused = call(&world, "/").await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("retry-after: 1"), "{refused}");
    world.release.notify_one();
    assert!(rest(waiting).await.ends_with("waited"));
    while !call(&world, "/").await.ends_with("hello") {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_probe_is_answered_however_many_connections_there_are() {
    let world = start(1, LONG, LONG).await;
    let waiting = connect(&world, "GET /wait HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    world.asked.notified().await;
    // More than are held over the bound, and none of them says a word.
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS_BEYOND_MAX.start() + 10 {
        silent.push(connect(&world, "").await);
    }
    let probed = rest(connect(&world, "GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await).await;
    assert!(probed.starts_with("HTTP/1.1 200 ") && probed.contains("connection: close"), "{probed}");
    assert!(probed.ends_with("well"), "{probed}");
    for path in ["/", "/health/x"] {
        assert!(call(&world, path).await.starts_with("HTTP/1.1 503 "), "{path}");
    }
    assert_eq!(rest(silent.swap_remove(0)).await, "", "the oldest was cut off");
    world.release.notify_one();
    assert!(rest(waiting).await.ends_with("waited"), "who has a place keeps it");
}

#[test]
fn that_accepting_fails_is_not_said_with_every_try() {
    let mut complaints = super::Complaints::default();
    let start = std::time::Instant::now();
    let said = (0..=100).filter(|second| complaints.is_due(start + Duration::from_secs(*second)));
    assert_eq!(said.collect::<Vec<_>>(), [0, 60]);
}

#[tokio::test]
async fn a_reader_that_goes_away_frees_its_place() {
    let world = start(1, LONG, LONG).await;
    // Also one that has sent some of the next request, or more than is looked at.
    let long = format!("GET / HTTP/1.1\r\nx-long: {}", "x".repeat(20_000));
    for ahead in ["", "G", "GET / HTTP/1.1\r\nhost: x\r\n\r\n", &long] {
        let waiting = connect(&world, &format!("GET /wait HTTP/1.1\r\nhost: x\r\n\r\n{ahead}")).await;
        world.asked.notified().await;
        drop(waiting);
        while !call(&world, "/").await.ends_with("hello") {
            tokio::task::yield_now().await;
        }
        let mut waiting = connect(&world, "GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await;
        world.asked.notified().await;
        waiting.write_all(ahead.as_bytes()).await.unwrap();
        drop(waiting);
        while !call(&world, "/").await.ends_with("hello") {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_cut_off() {
    let world = start_with_stall(1, LONG, Duration::from_millis(50), LONG).await;
    let asked = connect(&world, "GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await;
    asked.readable().await.unwrap();
    while !call(&world, "/").await.ends_with("hello") {
        tokio::task::yield_now().await;
    }
    let answer = rest(asked).await;
    assert!(answer.len() < 64 << 20, "the rest was never sent");
}

#[tokio::test]
async fn what_is_under_way_at_the_shutdown_is_answered() {
    let world = start(10, LONG, LONG).await;
    let waiting = connect(&world, "GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let idle = connect(&world, "").await;
    world.asked.notified().await;
    world.shutdown.cancel();
    assert_eq!(rest(idle).await, "", "an idle connection is closed");
    // Nobody new gets in.
    while TcpStream::connect(world.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    world.release.notify_one();
    let answer = rest(waiting).await;
    assert!(answer.ends_with("waited") && answer.contains("connection: close"), "{answer}");
    world.served.await.unwrap();
}

#[tokio::test]
async fn what_does_not_end_in_time_is_cut_off() {
    let world = start(10, LONG, Duration::from_millis(20)).await;
    let waiting = connect(&world, "GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await;
    world.asked.notified().await;
    world.shutdown.cancel();
    world.served.await.unwrap();
    assert_eq!(rest(waiting).await, "");
}

#[tokio::test]
async fn hyper_is_let_go_while_an_answer_is_awaited() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut reader = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    reader.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let (socket, _) = listener.accept().await.unwrap();
    let wire = Wire::new(Bytes::new(), Unstalled::new(socket, LONG));
    let router = Router::new().route("/", get(std::future::pending::<()>));
    let parked = connection::attend(wire, None, &router, LONG, &CancellationToken::new()).await;
    let until = parked.expect("it is not over").until;
    assert!(matches!(until, Until::Answered(_)), "it waits for the answer without hyper");
}

#[tokio::test]
async fn hyper_is_let_go_between_an_answer_and_the_next_request() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut reader = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    reader.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\nGET / HT").await.unwrap();
    let (socket, _) = listener.accept().await.unwrap();
    let wire = Wire::new(Bytes::new(), Unstalled::new(socket, LONG));
    let router = Router::new().route("/", get(|| async { "answer" }));
    let parked = connection::attend(wire, None, &router, LONG, &CancellationToken::new()).await;
    let parked = parked.expect("it is not over");
    assert!(matches!(parked.until, Until::Asked), "it waits for a request without hyper");
    assert_eq!(parked.ahead, "GET / HT", "what is there of it is not lost");
    assert!(until(&mut reader, "answer").await.contains("content-length: 6"));
}

#[tokio::test]
async fn hyper_is_not_made_before_anything_is_asked() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut reader = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (socket, _) = listener.accept().await.unwrap();
    let parked = Parked { until: Until::Asked, ahead: Bytes::new(), socket: Unstalled::new(socket, LONG) };
    let stop = CancellationToken::new();
    let mut over = std::pin::pin!(parked.over(LONG, &stop));
    assert!(futures_util::poll!(over.as_mut()).is_pending(), "nothing has come yet");
    reader.write_all(b"GET / HT").await.unwrap();
    let (wire, ready) = over.await.expect("the peer is there");
    assert!(ready.is_none());
    assert_eq!(wire.into_parts().0, "GET / HT");
}

#[tokio::test]
async fn nothing_of_the_way_to_a_handler_is_kept_behind_an_answer_that_it_has_left() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut reader = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (socket, _) = listener.accept().await.unwrap();
    let leave = |Extension(later): Extension<Later>| async move { later.leave(std::future::pending()) };
    // Kept by a layer for as long as it waits for the handler, and by what stands for the answer.
    let way = Arc::new(());
    let kept = Arc::clone(&way);
    let layer = axum::middleware::from_fn(move |request: Request, next: Next| {
        let kept = Arc::clone(&kept);
        async move {
            let mut response = next.run(request).await;
            response.extensions_mut().insert(kept);
            response
        }
    });
    let router = Router::new().route("/", get(leave)).layer(layer);
    let others = Arc::strong_count(&way);
    reader.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let wire = Wire::new(Bytes::new(), Unstalled::new(socket, LONG));
    let parked = connection::attend(wire, None, &router, LONG, &CancellationToken::new()).await;
    let until = parked.expect("it is not over").until;
    assert!(matches!(until, Until::Answered(_)), "it waits for the answer");
    assert_eq!(Arc::strong_count(&way), others);
}

#[tokio::test]
async fn an_answer_is_left_only_where_it_can_be() {
    let world = start(10, LONG, LONG).await;
    let panicked = Refusal::new(INTERNAL_SERVER_ERROR, "the log of the server says more").json();
    for (request, answer) in [
        ("GET /left HTTP/1.1\r\nconnection: close", "left"),
        ("GET /left/panic HTTP/1.1\r\nconnection: close", &panicked),
        ("GET /left HTTP/1.0", "at once"),
        ("POST /left HTTP/1.1\r\nconnection: close\r\ncontent-length: 0", "at once"),
        ("GET /left HTTP/1.1\r\nconnection: close\r\ncontent-length: 1", "at once"),
    ] {
        let said = rest(connect(&world, &format!("{request}\r\nhost: x\r\n\r\n ")).await).await;
        assert!(said.ends_with(&format!("\r\n\r\n{answer}")), "{request}: {said}");
    }
}

#[tokio::test]
async fn hyper_stays_while_an_answer_is_not_taken_and_behind_a_request_of_another_kind() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let router = Router::new().route("/", get(|| async { vec![b'x'; 32 << 20] }));
    for method in ["GET", "HEAD"] {
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        peer.write_all(format!("{method} / HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        let wire = Wire::new(Bytes::new(), Unstalled::new(socket, LONG));
        let stop = CancellationToken::new();
        let mut attended = std::pin::pin!(connection::attend(wire, None, &router, LONG, &stop));
        tokio::select! {
            biased;
            _ = attended.as_mut() => panic!("let go before the answer to {method} has left"),
            byte = peer.read_u8() => assert_eq!(byte.unwrap(), b'H'),
        }
        assert!(futures_util::poll!(attended.as_mut()).is_pending(), "{method}");
    }
}

/// Reads up to the end of `text`.
async fn until(stream: &mut TcpStream, text: &str) -> String {
    let mut read = Vec::new();
    while !read.ends_with(text.as_bytes()) {
        read.push(stream.read_u8().await.expect("more to come"));
    }
    String::from_utf8(read).unwrap()
}

#[tokio::test]
async fn a_connection_goes_on_after_an_answer_that_took_its_time() {
    let world = start(10, LONG, LONG).await;
    let mut stream = connect(&world, "").await;
    for _ in 0..3 {
        stream.write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        world.asked.notified().await;
        world.release.notify_one();
        let answer = until(&mut stream, "waited").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("content-length: 6\r\n"), "{answer}");
        assert!(!answer.contains("connection: close"), "{answer}");
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        until(&mut stream, "hello").await;
    }
}

#[tokio::test]
async fn what_is_sent_while_an_answer_is_awaited_is_answered_behind_it() {
    let world = start(10, LONG, LONG).await;
    let wait = "GET /wait HTTP/1.1\r\nhost: x\r\n\r\n";
    // Together with the request, and behind it in two parts.
    let mut stream = connect(&world, &format!("{wait}GET / HTTP/1.1\r\nhost: x\r\n\r\n")).await;
    world.asked.notified().await;
    stream.write_all(b"GET / HTTP/1.1\r\nho").await.unwrap();
    world.release.notify_one();
    until(&mut stream, "waited").await;
    until(&mut stream, "hello").await;
    stream.write_all(b"st: x\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(rest(stream).await.ends_with("hello"));
}

#[tokio::test]
async fn what_has_not_been_taken_yet_is_not_lost_by_a_wait_behind_it() {
    let world = start(10, LONG, LONG).await;
    let large = "GET /large HTTP/1.1\r\nhost: x\r\n\r\n";
    let last = "GET /wait HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let stream = connect(&world, &format!("{large}{last}")).await;
    let reading = tokio::spawn(rest(stream));
    world.asked.notified().await;
    world.release.notify_one();
    let answers = reading.await.unwrap();
    assert!(answers.ends_with("waited"));
    assert_eq!(answers.matches('x').count(), LARGE + answers.matches("text").count());
}

#[tokio::test]
async fn every_form_of_request_may_wait() {
    let world = start(10, LONG, LONG).await;
    for request in [
        "GET /wait HTTP/1.0\r\n\r\n",
        "GET /wait HTTP/1.1\r\nhost: x\r\nconnection: Close\r\n\r\n",
        "GET /wait HTTP/1.1\r\nhost: x\r\nconnection: keep-alive, close\r\n\r\n",
        "GET /wait HTTP/1.1\r\nhost: x\r\nconnection: keep-alive\r\nconnection: close\r\n\r\n",
        "GET /wait HTTP/1.1\r\nhost: x\r\nconnection: close, upgrade\r\nupgrade: h2c\r\n\r\n",
        "GET /wait HTTP/1.0\r\nconnection: close\r\n\r\n",
        "GET http://x/wait HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        "GET /wait HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}",
        "POST /wait HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}",
        "HEAD /wait HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    ] {
        let stream = connect(&world, request).await;
        world.asked.notified().await;
        world.release.notify_one();
        let answer = rest(stream).await;
        let body = if request.starts_with("HEAD") { "\r\n\r\n" } else { "waited" };
        let version = if request.contains("HTTP/1.0") { "HTTP/1.0" } else { "HTTP/1.1" };
        let is_whole = answer.starts_with(&format!("{version} 200 OK\r\n")) && answer.ends_with(body);
        assert!(is_whole, "{request}: {answer}");
    }
}

#[tokio::test]
async fn a_panic_after_a_wait_is_a_500_too_and_the_connection_goes_on() {
    let world = start(10, LONG, LONG).await;
    let mut stream = connect(&world, "GET /wait/panic HTTP/1.1\r\nhost: x\r\n\r\n").await;
    world.asked.notified().await;
    world.release.notify_one();
    let answer = until(&mut stream, "the log of the server says more\"}").await;
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(rest(stream).await.ends_with("hello"));
}

#[tokio::test]
async fn a_connection_that_is_idle_after_a_wait_is_not_kept() {
    let world = start(10, Duration::from_millis(50), LONG).await;
    let stream = connect(&world, "GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await;
    world.asked.notified().await;
    world.release.notify_one();
    // It ends although nobody has asked for that.
    let answer = rest(stream).await;
    assert!(answer.ends_with("waited") && !answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn what_is_asked_behind_a_wait_that_the_shutdown_ends_is_not_answered() {
    let world = start(10, LONG, LONG).await;
    let wait = "GET /wait HTTP/1.1\r\nhost: x\r\n\r\n";
    let stream = connect(&world, &format!("{wait}GET / HTTP/1.1\r\nhost: x\r\n\r\n")).await;
    world.asked.notified().await;
    world.shutdown.cancel();
    world.release.notify_one();
    let answer = rest(stream).await;
    assert!(answer.ends_with("waited") && answer.contains("connection: close"), "{answer}");
    world.served.await.unwrap();
}
