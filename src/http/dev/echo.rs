//! `/dev/echo`: POST takes a callback, GET shows the last ones, newest first.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::clock::{Clock, Timestamp};

/// Callbacks that are kept to be looked at.
const KEPT_MAX: usize = 100;
/// Longest name that is kept, in characters; what does not come from walclock may be longer.
const NAME_CHARS_MAX: usize = 255;
/// Largest payload that is kept whole, in bytes.
const PAYLOAD_BYTES_MAX: usize = 4096;

/// What was received. Cheap to clone.
#[derive(Clone)]
pub(super) struct Echo {
    clock: Clock,
    received: Arc<Mutex<VecDeque<Received>>>,
}

impl Echo {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, received: Arc::default() }
    }
}

/// A callback that came in, as GET shows it.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Received {
    timer_id: String,
    namespace: String,
    attempt: u32,
    #[serde(serialize_with = "as_text")]
    due_at: Timestamp,
    #[serde(serialize_with = "as_text")]
    received_at: Timestamp,
    /// How long after its due moment it came.
    lateness_ms: f64,
    webhook_id: Option<String>,
    /// None where there was none, or it is too long to be kept.
    payload: Option<Box<RawValue>>,
}

fn as_text<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(at)
}

/// The body of a callback.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Callback<'a> {
    timer_id: String,
    namespace: String,
    attempt: u32,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

/// Takes a callback; refuses what is none.
pub(super) async fn receive(State(echo): State<Echo>, headers: HeaderMap, body: Bytes) -> (StatusCode, Json<Value>) {
    let received_at = echo.clock.now();
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let due_at = header("walclock-scheduled-for").and_then(|text| text.parse::<Timestamp>().ok());
    let (Some(due_at), Ok(callback)) = (due_at, serde_json::from_slice::<Callback<'_>>(&body)) else {
        let error =
            "not a callback: expected the header walclock-scheduled-for and a body with timerId, namespace, attempt";
        return (StatusCode::BAD_REQUEST, Json(json!({ "ok": false, "error": error })));
    };
    let lateness_ms = milliseconds(received_at, due_at);
    tracing::debug!(
        timer.id = callback.timer_id,
        timer.namespace = callback.namespace,
        attempt = callback.attempt,
        due_at = %due_at,
        received_at = %received_at,
        lateness_ms,
        "echo received a callback"
    );
    let received = Received {
        timer_id: callback.timer_id.chars().take(NAME_CHARS_MAX).collect(),
        namespace: callback.namespace.chars().take(NAME_CHARS_MAX).collect(),
        attempt: callback.attempt,
        due_at,
        received_at,
        lateness_ms,
        webhook_id: header("webhook-id").map(|id| id.chars().take(NAME_CHARS_MAX).collect()),
        payload: callback.payload.filter(|json| json.get().len() <= PAYLOAD_BYTES_MAX).map(ToOwned::to_owned),
    };
    let mut kept = echo.received.lock();
    kept.truncate(KEPT_MAX - 1);
    kept.push_front(received);
    (StatusCode::OK, Json(json!({ "ok": true })))
}

/// The last callbacks, newest first.
pub(super) async fn list(State(echo): State<Echo>) -> Json<Value> {
    let received: Vec<Received> = echo.received.lock().iter().cloned().collect();
    Json(json!({ "received": received }))
}

/// From `due_at` to `received_at`, less than zero where it came early.
fn milliseconds(received_at: Timestamp, due_at: Timestamp) -> f64 {
    let late = received_at.since(due_at).as_secs_f64();
    let early = due_at.since(received_at).as_secs_f64();
    ((late - early) * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use std::time::Duration;
    use tower_service::Service;

    const DUE_AT: &str = "2026-11-21T09:30:00Z";

    /// The echo of a process whose clock stands a quarter of a second behind the due moment.
    fn echo() -> axum::Router {
        let clock = Clock::system();
        let due_at: Timestamp = DUE_AT.parse().unwrap();
        clock.align(due_at.after(Duration::from_millis(250)));
        super::super::routes(clock)
    }

    async fn call(echo: &mut axum::Router, request: Request<Body>) -> (StatusCode, Value) {
        let response = echo.call(request).await.unwrap();
        let status = response.status();
        (status, serde_json::from_slice(&to_bytes(response.into_body(), 1 << 20).await.unwrap()).unwrap())
    }

    fn callback(id: &str) -> Request<Body> {
        let body = json!({"timerId": id, "namespace": "shop", "executeAt": DUE_AT, "payload": {"a": 1}, "attempt": 2});
        Request::post("/dev/echo")
            .header("walclock-scheduled-for", DUE_AT)
            .header("webhook-id", "abc")
            .body(Body::from(body.to_string()))
            .unwrap()
    }

    async fn shown(echo: &mut axum::Router) -> Vec<Value> {
        let (status, body) = call(echo, Request::get("/dev/echo").body(Body::empty()).unwrap()).await;
        assert_eq!(status, StatusCode::OK);
        body["received"].as_array().unwrap().clone()
    }

    #[tokio::test]
    async fn a_callback_is_taken_and_shown_with_its_lateness() {
        let mut echo = echo();
        assert_eq!(shown(&mut echo).await, [] as [Value; 0]);
        assert_eq!(call(&mut echo, callback("a")).await, (StatusCode::OK, json!({"ok": true})));
        let shown = &shown(&mut echo).await[0];
        for (field, value) in [
            ("timerId", json!("a")),
            ("namespace", json!("shop")),
            ("attempt", json!(2)),
            ("dueAt", json!(DUE_AT)),
            ("webhookId", json!("abc")),
            ("payload", json!({"a": 1})),
        ] {
            assert_eq!(shown[field], value, "{field}");
        }
        assert!(shown["latenessMs"].as_f64().unwrap() >= 250.0);
    }

    #[tokio::test]
    async fn the_last_hundred_are_kept_newest_first() {
        let mut echo = echo();
        for number in 0..150 {
            call(&mut echo, callback(&number.to_string())).await;
        }
        let shown = shown(&mut echo).await;
        assert_eq!((shown.len(), &shown[0]["timerId"], &shown[99]["timerId"]), (100, &json!("149"), &json!("50")));
    }

    #[tokio::test]
    async fn what_is_no_callback_is_refused() {
        let mut echo = echo();
        let no_header = Request::post("/dev/echo").body(callback("a").into_body()).unwrap();
        let no_body = Request::post("/dev/echo").header("walclock-scheduled-for", DUE_AT).body("{}".into()).unwrap();
        for request in [no_header, no_body] {
            assert_eq!(call(&mut echo, request).await.0, StatusCode::BAD_REQUEST);
        }
        assert_eq!(shown(&mut echo).await.len(), 0);
    }

    #[test]
    fn lateness_has_a_sign() {
        let at = Timestamp::from_micros;
        assert_eq!(milliseconds(at(1500), at(0)), 1.5);
        assert_eq!(milliseconds(at(0), at(1500)), -1.5);
    }
}
