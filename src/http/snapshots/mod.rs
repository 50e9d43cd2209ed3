//! The face of snapshots: `GET /snapshots`, what a reader of `/changes` begins with.

mod description;
mod error;
mod handlers;
mod protobuf;
mod wire;

use axum::Router;
use utoipa::openapi::OpenApi;

use crate::http::common::operations::Operations;
use crate::http::common::{compression, describe, refusal};
use crate::service::snapshots::Snapshots;

/// The routes of this face.
pub fn routes(snapshots: Snapshots) -> Router {
    let router = operations().answer_head(handlers::method_not_allowed).router;
    let router = router.method_not_allowed_fallback(handlers::method_not_allowed);
    compression::layer(router.with_state(snapshots))
}

/// What there is to call.
pub fn description() -> OpenApi {
    operations().description
}

fn operations() -> Operations<Snapshots> {
    Operations::new("snapshots")
        .add(handlers::__path_snapshots, handlers::snapshots)
        .schema::<description::Snapshot>()
        .schema::<refusal::Body<'_>>()
        .schema::<describe::Binary>()
        .schema::<describe::NotServing<'_>>()
}
