//! A receiver of callbacks on a real socket: it notes what arrives, and answers as it is told.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use walclock::clock::{Timestamp, wall};

/// One callback as it arrived.
#[derive(Clone, Debug)]
pub struct Call {
    /// When it was read whole, by the machine's clock, which is PostgreSQL's too.
    pub at: Timestamp,
    pub headers: HeaderMap,
    pub body: serde_json::Value,
    /// The bytes of the body, which its signature is of.
    pub raw: Bytes,
}

impl Call {
    pub fn timer(&self) -> &str {
        self.body["timerId"].as_str().unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    /// When it was due, as its header says.
    pub fn scheduled_for(&self) -> Timestamp {
        self.header("walclock-scheduled-for").parse().unwrap()
    }
}

type Answering = Pin<Box<dyn Future<Output = (StatusCode, String)> + Send>>;

/// A running receiver. It stops with the test's runtime.
#[derive(Clone)]
pub struct Receiver {
    calls: Arc<Mutex<Vec<Call>>>,
    port: u16,
}

impl Receiver {
    /// Takes every callback with `{"ok":true}`.
    pub async fn start() -> Self {
        Self::answering(|_| Box::pin(async { (StatusCode::OK, r#"{"ok":true}"#.to_owned()) })).await
    }

    /// Takes every callback, after a while.
    pub async fn slow(pause: Duration) -> Self {
        Self::answering(move |_| {
            Box::pin(async move {
                tokio::time::sleep(pause).await;
                (StatusCode::OK, r#"{"ok":true}"#.to_owned())
            })
        })
        .await
    }

    /// Answers as `answer` says.
    pub async fn answering(answer: impl Fn(&Call) -> Answering + Send + Sync + 'static) -> Self {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self { calls: calls.clone(), port: listener.local_addr().unwrap().port() };
        let answer = Arc::new(answer);
        let handler = move |headers: HeaderMap, body: Bytes| {
            let (calls, answer) = (calls.clone(), answer.clone());
            async move {
                let call = Call { at: wall(), headers, body: serde_json::from_slice(&body).unwrap(), raw: body };
                let answering = answer(&call);
                calls.lock().push(call);
                let (status, body) = answering.await;
                Response::into_response((status, body).into_response())
            }
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handler)).await });
        receiver
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/callback", self.port)
    }

    /// All that has arrived so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().clone()
    }

    /// What has arrived so far, by timer.
    pub fn by_timer(&self) -> BTreeMap<String, Vec<Call>> {
        let mut timers: BTreeMap<String, Vec<Call>> = BTreeMap::new();
        for call in self.calls() {
            timers.entry(call.timer().to_owned()).or_default().push(call);
        }
        timers
    }
}
