//! The face of the change feed: `GET /changes`, as JSON, as protobuf, or as events.

mod body;
mod cache;
mod description;
mod error;
mod events;
mod handlers;
mod pretty;
mod protobuf;
mod transcode;
mod wire;

#[cfg(test)]
mod tests;

use axum::Router;
use utoipa::openapi::OpenApi;

use crate::feed::reader::Reader;
use crate::http::common::operations::Operations;
use crate::http::common::{compression, describe, refusal};
use crate::service::changes::{Changes, Read};

/// The routes of this face.
pub fn routes<R: Read>(changes: Changes<R>) -> Router {
    let router = operations::<R>().answer_head(handlers::method_not_allowed).router;
    let router = router.method_not_allowed_fallback(handlers::method_not_allowed);
    compression::layer(router.with_state(changes))
}

/// What there is to call.
pub fn description() -> OpenApi {
    operations::<Reader>().description
}

fn operations<R: Read>() -> Operations<Changes<R>> {
    Operations::new("changes")
        .add(handlers::__path_changes, handlers::changes::<R>)
        .schema::<description::Page>()
        .schema::<refusal::Body<'_>>()
        .schema::<describe::Binary>()
        .schema::<describe::NotServing<'_>>()
}
