//! The face of snapshots: `GET /snapshots`, what a reader of `/changes` begins with.

mod error;
mod handlers;
mod protobuf;
mod wire;

use axum::Router;
use axum::routing::get;

use crate::http::common::compression;
use crate::service::snapshots::Snapshots;

/// The routes of this face.
pub fn routes(snapshots: Snapshots) -> Router {
    let snapshots = Router::new()
        .route("/snapshots", get(handlers::snapshots).fallback(handlers::method_not_allowed))
        .with_state(snapshots);
    compression::layer(snapshots)
}
