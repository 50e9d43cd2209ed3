//! What an HTTP client can do at best on this machine: one hyper connection per slot and nothing around it.

use std::time::Instant;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A body as long as a callback's with a small payload.
const BODY: &str = concat!(
    r#"{"timerId":"payment-retry-456","namespace":"shop","executeAt":"2026-11-21T09:30:00.250000Z","#,
    r#""payload":{"order":7,"amount":"12.50"},"attempt":1}"#
);

/// Requests per second of `connections` kept connections that each POST `requests` times to this port, one after the
/// other.
pub async fn rate(port: u16, connections: usize, requests: usize) -> f64 {
    let start = Instant::now();
    let mut slots = tokio::task::JoinSet::new();
    for _ in 0..connections {
        slots.spawn(post(port, requests));
    }
    slots.join_all().await;
    (connections * requests) as f64 / start.elapsed().as_secs_f64()
}

async fn post(port: u16, requests: usize) {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the receiver listens");
    stream.set_nodelay(true).expect("a TCP socket");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("a connection");
    tokio::spawn(connection);
    for _ in 0..requests {
        let body = Full::new(Bytes::from_static(BODY.as_bytes()));
        let request = Request::post("/hook").header("host", "127.0.0.1").header("content-type", "application/json");
        sender.ready().await.expect("the receiver keeps the connection");
        let answer = sender.send_request(request.body(body).expect("a request")).await.expect("an answer");
        answer.into_body().collect().await.expect("a whole answer");
    }
}
