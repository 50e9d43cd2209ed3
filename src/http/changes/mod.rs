//! The face of the change feed: `GET /changes`, as JSON, as protobuf, or as events.

mod body;
mod cache;
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
use axum::routing::get;

use crate::http::common::compression;
use crate::service::changes::{Changes, Read};

/// The routes of this face.
pub fn routes<R: Read>(changes: Changes<R>) -> Router {
    let changes = Router::new()
        .route("/changes", get(handlers::changes::<R>).fallback(handlers::method_not_allowed))
        .with_state(changes);
    compression::layer(changes)
}
