//! The timer service's face: POST operations under `/api/v1/timers`, four as `docs/api/timer-service.openapi.yaml` has
//! them, and one that creates many timers.

mod batch;
mod description;
mod error;
mod handlers;
mod wire;

use axum::routing::any;
use axum::{Extension, Router};
use serde::Serialize;
use utoipa::openapi::OpenApi;

pub use wire::{Policy, policy};

use crate::domain::timer::{Definition, Status, Timer};
use crate::http::common::operations::Operations;
use crate::http::common::{describe, fields};
use crate::service;
use crate::service::timers::Timers;

/// The routes of this face. They also answer what is wrong under `/api/v1/timers`, in the face's own form.
pub fn routes(timers: Timers) -> Router {
    let router = operations().router.method_not_allowed_fallback(handlers::method_not_allowed);
    let unknown = ["/api/v1/timers", "/api/v1/timers/", "/api/v1/timers/{*rest}"];
    let router = unknown.into_iter().fold(router, |router, path| router.route(path, any(handlers::unknown_path)));
    router.layer(Extension(batch::Places::default())).with_state(timers)
}

/// What there is to call.
pub fn description() -> OpenApi {
    operations().description
}

fn operations() -> Operations<Timers> {
    Operations::new("timers")
        .add(handlers::__path_create, handlers::create)
        .add(handlers::__path_create_batch, handlers::create_batch)
        .add(handlers::__path_get, handlers::get)
        .add(handlers::__path_update, handlers::update)
        .add(handlers::__path_delete, handlers::delete)
        .schema::<description::CreateTimerRequest>()
        .schema::<description::CreateTimersRequest>()
        .schema::<batch::Results<'_>>()
        .schema::<description::UpdateTimerRequest>()
        .schema::<description::TimerSelection>()
        .schema::<wire::Timer<'_>>()
        .schema::<error::Body>()
        .schema::<describe::NotServing<'_>>()
}

/// Reads what a create takes: a JSON object with all that there is to say of a timer.
pub fn definition(json: &[u8]) -> Result<Definition, fields::Error> {
    wire::create_request(json)
}

/// Why a timer was not created, in this face's words.
pub fn message(error: service::Error) -> String {
    error::Failure::of(error, wire::CREATE_ID).body().message
}

/// A timer in this face's words, as a create answers it.
pub fn shown(timer: &Timer) -> impl Serialize {
    wire::Timer::of(timer)
}

/// How a timer stands in this face's words, as a get answers it.
pub fn shown_status(status: &Status) -> impl Serialize {
    wire::Timer::of_status(status)
}
