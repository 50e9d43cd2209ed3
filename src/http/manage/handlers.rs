//! The calls of this face.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use super::Manage;
use super::refusal::{refusal, wants_json};
use super::wire::{Check, Readiness, ReadinessStatus, Refusals, RefusalsOfMarkdown, Unhealthy};
use crate::http::common::describe::NotServingStatus;

/// Whether the process works
///
/// 200 while it does, also while it is marked down or PostgreSQL is away: a restart would not help.
#[utoipa::path(
    get,
    path = "/health",
    operation_id = "health",
    responses((status = 200, description = "It works."), Unhealthy),
)]
pub(super) async fn health(State(manage): State<Manage>, headers: HeaderMap) -> Response {
    match manage.health.unhealthy() {
        None => StatusCode::OK.into_response(),
        Some(reason) => refusal(NotServingStatus::Unhealthy, &reason, &headers),
    }
}

/// Whether the process can serve
///
/// 200 when its answers are correct; else 503 with the reason. `?verbose` tells of each part.
#[utoipa::path(
    get,
    path = "/ready",
    operation_id = "ready",
    params(("verbose" = Option<String>, Query, description = "Tells of each part, whatever its value.")),
    responses(
        (
            status = 200,
            description = "It can serve. There is a body with `verbose` alone: JSON where Accept names it, else text.",
            content((Readiness<'static> = "application/json"), (String = "text/plain")),
        ),
        Refusals,
    ),
)]
pub(super) async fn ready(State(manage): State<Manage>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let reason = manage.health.not_ready();
    let verbose = query.is_some_and(|query| query.split('&').any(|word| word.split('=').next() == Some("verbose")));
    match (verbose, reason) {
        (true, reason) => details(&manage, reason, &headers),
        (false, None) => StatusCode::OK.into_response(),
        (false, Some(reason)) => refusal(NotServingStatus::NotReady, &reason, &headers),
    }
}

/// Take the process out of service
///
/// For good: readers are released, all but `/health` (and `/metrics` on a port of its own) answer 503 from now on, and the
/// replication slot is dropped when the process exits.
#[utoipa::path(
    get,
    path = "/markdown",
    operation_id = "markDown",
    responses((status = 200, description = "It is out of service."), RefusalsOfMarkdown),
)]
pub(super) async fn markdown(State(manage): State<Manage>) -> StatusCode {
    tracing::info!("marked down: readers are released, and the replication slot goes when this process exits");
    manage.health.mark_down();
    StatusCode::OK
}

/// Take the process out of service
///
/// The same as by GET.
#[utoipa::path(
    post,
    path = "/markdown",
    operation_id = "markDownByPost",
    responses((status = 200, description = "It is out of service."), RefusalsOfMarkdown),
)]
pub(super) async fn markdown_by_post(state: State<Manage>) -> StatusCode {
    markdown(state).await
}

/// Read the metrics
///
/// In Prometheus' text form.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    responses((status = 200, description = "The metrics.", body = String, content_type = "text/plain; version=0.0.4"), RefusalsOfMarkdown),
)]
pub(super) async fn metrics(State(manage): State<Manage>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], (manage.metrics)()).into_response()
}

fn details(manage: &Manage, reason: Option<String>, headers: &HeaderMap) -> Response {
    let status = if reason.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let parts = manage.health.parts();
    let checks: Vec<Check<'_>> = parts.iter().map(|(part, condition)| Check::of(part, condition)).collect();
    if wants_json(headers) {
        let word = if reason.is_none() { ReadinessStatus::Ready } else { ReadinessStatus::NotReady };
        let body = Readiness { status: word, reason: reason.as_deref(), checks };
        return (status, Json(body)).into_response();
    }
    let mut text = format!("{}\n", reason.as_deref().unwrap_or("Ready"));
    for Check { name, status, detail } in checks {
        let separator = if detail.is_empty() { "" } else { ": " };
        text.push_str(&format!("{name}: {}{separator}{detail}\n", status.word()));
    }
    (status, [(CONTENT_TYPE, "text/plain")], text).into_response()
}
