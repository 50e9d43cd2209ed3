//! The timer service's face: four POST operations under `/api/v1/timers`, as `docs/api/timer-service.openapi.yaml` has
//! them.

mod description;
mod error;
mod handlers;
mod wire;

use axum::Router;
use axum::routing::any;
use utoipa::openapi::OpenApi;

use crate::domain::timer::{Status, Timer};
use crate::http::common::describe;
use crate::http::common::operations::Operations;
use crate::service::timers::Timers;

/// The routes of this face. They also answer what is wrong under `/api/v1/timers`, in the face's own form.
pub fn routes(timers: Timers) -> Router {
    let router = operations().router.method_not_allowed_fallback(handlers::method_not_allowed);
    let unknown = ["/api/v1/timers", "/api/v1/timers/", "/api/v1/timers/{*rest}"];
    let router = unknown.into_iter().fold(router, |router, path| router.route(path, any(handlers::unknown_path)));
    router.with_state(timers)
}

/// What there is to call.
pub fn description() -> OpenApi {
    operations().description
}

fn operations() -> Operations<Timers> {
    Operations::new("timers")
        .add(handlers::__path_create, handlers::create)
        .add(handlers::__path_get, handlers::get)
        .add(handlers::__path_update, handlers::update)
        .add(handlers::__path_delete, handlers::delete)
        .schema::<description::CreateTimerRequest>()
        .schema::<description::UpdateTimerRequest>()
        .schema::<description::TimerSelection>()
        .schema::<wire::Timer<'_>>()
        .schema::<error::Body>()
        .schema::<describe::NotServing<'_>>()
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
