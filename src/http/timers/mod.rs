//! The timer service's face: four POST operations under `/api/v1/timers`, as `docs/api/timer-service.openapi.yaml` has
//! them.

mod error;
mod handlers;
mod wire;

use axum::Router;
use axum::routing::{any, post};

use crate::domain::timer::{Status, Timer};
use crate::service::timers::Timers;

/// The routes of this face. They also answer what is wrong under `/api/v1/timers`, in the face's own form.
pub fn routes(timers: Timers) -> Router {
    Router::new()
        .route("/api/v1/timers/create", post(handlers::create))
        .route("/api/v1/timers/get", post(handlers::get))
        .route("/api/v1/timers/update", post(handlers::update))
        .route("/api/v1/timers/delete", post(handlers::delete))
        .method_not_allowed_fallback(handlers::method_not_allowed)
        .route("/api/v1/timers", any(handlers::unknown_path))
        .route("/api/v1/timers/", any(handlers::unknown_path))
        .route("/api/v1/timers/{*rest}", any(handlers::unknown_path))
        .with_state(timers)
}

/// A timer in this face's words, as a create answers it: one line of JSON.
pub fn json(timer: &Timer) -> String {
    render(&wire::Timer::of(timer))
}

/// How a timer stands in this face's words, as a get answers it: one line of JSON.
pub fn status_json(status: &Status) -> String {
    render(&wire::Timer::of_status(status))
}

fn render(timer: &wire::Timer<'_>) -> String {
    serde_json::to_string(timer).expect("texts, numbers and a payload that is JSON can be written as JSON")
}
