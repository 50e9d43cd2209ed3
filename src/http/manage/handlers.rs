//! The calls of this face.

use axum::extract::{RawQuery, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::Manage;
use super::refusal::{Status, refusal, wants_json};
use crate::service::health::Condition;

/// 200 while the process works.
pub(super) async fn health(State(manage): State<Manage>, headers: HeaderMap) -> Response {
    match manage.health.unhealthy() {
        None => StatusCode::OK.into_response(),
        Some(reason) => refusal(Status::Unhealthy, &reason, headers.get(ACCEPT)),
    }
}

/// 200 when the process can serve correct answers. `?verbose` tells of each part.
pub(super) async fn ready(State(manage): State<Manage>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let reason = manage.health.not_ready();
    let verbose = query.is_some_and(|query| query.split('&').any(|word| word.split('=').next() == Some("verbose")));
    match (verbose, reason) {
        (true, reason) => details(&manage, reason, &headers),
        (false, None) => StatusCode::OK.into_response(),
        (false, Some(reason)) => refusal(Status::NotReady, &reason, headers.get(ACCEPT)),
    }
}

/// Takes the process out of service.
pub(super) async fn markdown(State(manage): State<Manage>) -> StatusCode {
    tracing::info!("marked down: readers are released, and the replication slot goes when this process exits");
    manage.health.mark_down();
    StatusCode::OK
}

/// The metrics in Prometheus' text form.
pub(super) async fn metrics(State(manage): State<Manage>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], (manage.metrics)()).into_response()
}

fn details(manage: &Manage, reason: Option<String>, headers: &HeaderMap) -> Response {
    let status = if reason.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let parts = manage.health.parts();
    let parts = parts.iter().map(|(part, condition)| match condition {
        Condition::Ready => (*part, "ready", ""),
        Condition::Degraded(detail) => (*part, "degraded", detail.as_str()),
        Condition::NotReady(detail) => (*part, "not ready", detail.as_str()),
        Condition::Failed(detail) => (*part, "failed", detail.as_str()),
    });
    if wants_json(headers.get(ACCEPT)) {
        let checks: Vec<_> =
            parts.map(|(name, status, detail)| json!({ "name": name, "status": status, "detail": detail })).collect();
        let word = if reason.is_none() { "Ready" } else { "NotReady" };
        let body = json!({ "status": word, "reason": reason, "checks": checks });
        return (status, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response();
    }
    let mut text = format!("{}\n", reason.as_deref().unwrap_or("Ready"));
    for (name, status, detail) in parts {
        let separator = if detail.is_empty() { "" } else { ": " };
        text.push_str(&format!("{name}: {status}{separator}{detail}\n"));
    }
    (status, [(CONTENT_TYPE, "text/plain")], text).into_response()
}
