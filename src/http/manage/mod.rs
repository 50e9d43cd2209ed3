//! The face for operators and load balancers: `/health`, `/ready`, `/markdown`, `/metrics`. Never behind the path prefix.

mod handlers;
mod refusal;
mod wire;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn;
use utoipa::openapi::OpenApi;

use crate::http::common::operations::Operations;
use crate::http::common::{describe, refusal as refused};
use crate::service::health::Health;

pub use refusal::{Served, refuse_when_down};

/// What gives the text of `/metrics`.
pub type Exposition = Arc<dyn Fn() -> String + Send + Sync>;

#[derive(Clone)]
struct Manage {
    health: Health,
    metrics: Exposition,
}

/// The routes of this face.
pub fn routes(health: Health, metrics: Exposition) -> Router {
    router(operations(), Manage { health, metrics })
}

/// Those of the routes that are answered also over a connection beyond the bound: a crowd of readers is no reason to
/// restart the process, nor to take it out of service.
pub fn probes(health: Health) -> Router {
    let manage = Manage { health, metrics: Arc::new(String::new) };
    router(looks(), manage)
}

fn router(operations: Operations<Manage>, manage: Manage) -> Router {
    let router = operations.router.method_not_allowed_fallback(refused::other_method);
    router.route_layer(from_fn(refusal::refuse_callbacks)).with_state(manage)
}

/// What there is to call.
pub fn description() -> OpenApi {
    operations().description
}

/// What tells of the process, and changes nothing.
fn looks() -> Operations<Manage> {
    Operations::new("management")
        .add(handlers::__path_health, handlers::health)
        .add(handlers::__path_ready, handlers::ready)
}

fn operations() -> Operations<Manage> {
    looks()
        .add(handlers::__path_markdown, handlers::markdown)
        .add(handlers::__path_markdown_by_post, handlers::markdown_by_post)
        .add(handlers::__path_metrics, handlers::metrics)
        .schema::<wire::Readiness<'_>>()
        .schema::<refused::Body<'_>>()
        .schema::<describe::NotServing<'_>>()
}
