//! The server over real sockets, with routes made for the purpose.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Config, Server};

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
    let router = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/panic", get(|| async { panic!("planted") as &'static str }))
        // More than the sockets of both sides take.
        .route("/large", get(|| async { Body::from(vec![b'x'; 64 << 20]) }))
        .route("/wait", get(wait));
    let config = Config { connections_max, head_max, stall_max, drain_max };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let served = tokio::spawn(Server::new(config, listener, router).run(shutdown.clone()));
    World { address, shutdown, served, release, asked }
}

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
    assert!(call(&world, "/panic").await.starts_with("HTTP/1.1 500 "));
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
    assert!(call(&world, "/").await.ends_with("hello"));
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
async fn a_reader_that_goes_away_frees_its_place() {
    let world = start(1, LONG, LONG).await;
    let waiting = connect(&world, "GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await;
    world.asked.notified().await;
    drop(waiting);
    while !call(&world, "/").await.ends_with("hello") {
        tokio::task::yield_now().await;
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
