//! The face for operators and load balancers: `/health`, `/ready`, `/markdown`, `/metrics`. Never behind the path prefix.

mod handlers;
mod refusal;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn;
use axum::routing::get;

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
    let router = Router::new()
        .route("/health", get(handlers::health))
        .route("/ready", get(handlers::ready))
        .route("/markdown", get(handlers::markdown).post(handlers::markdown))
        .route("/metrics", get(handlers::metrics));
    router.route_layer(from_fn(refusal::refuse_callbacks)).with_state(Manage { health, metrics })
}
