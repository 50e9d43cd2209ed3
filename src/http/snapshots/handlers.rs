//! The operation: parse, one call of the service, render.

use axum::Extension;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, HeaderValue, Version};
use axum::response::{IntoResponse, Response};

use super::description::{Parameters, Refusals, Snapshot};
use super::error::Failure;
use super::protobuf::Frames;
use super::wire::{self, Json, Pretty};
use crate::http::common::accept::{self, MediaType};
use crate::http::common::compression::{Places, VARIES};
use crate::http::common::describe::Binary;
use crate::http::common::refusal::only_get;
use crate::service::snapshots::Snapshots;

/// What a snapshot can be written as, the favourite first.
const OFFERED: &[MediaType] = &[MediaType::Json, MediaType::Protobuf];

/// Take a snapshot
///
/// Tells the rows that some scopes have at one moment, of all published tables with a scope column. Follow on with
/// `/changes?snapshot=<snapshotInfo>`, and keep that parameter: so nothing is missed, and nothing is told twice. A failure
/// in the middle breaks the connection off, so that half a snapshot is never taken for a whole one.
#[utoipa::path(
    get,
    path = "/snapshots",
    operation_id = "takeSnapshot",
    params(Parameters),
    responses(
        (
            status = 200,
            description = "The rows. As protobuf it is a row of frames, each a length of four bytes, big endian, and a message.",
            content((Snapshot = "application/json"), (Binary = "application/transicator+protobuf")),
            headers(
                ("Cache-Control" = String, description = "`no-store`"),
                ("Vary" = String, description = "`accept, accept-encoding`"),
                ("Content-Encoding" = String, description = "`zstd` or `gzip`, where the body is compressed."),
            ),
        ),
        Refusals,
    ),
)]
pub(super) async fn snapshots(
    State(snapshots): State<Snapshots>,
    Extension(places): Extension<Places>,
    RawQuery(query): RawQuery,
    version: Version,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let media_type = accept::choose(&headers, OFFERED).ok_or_else(Failure::unsupported_format)?;
    let request = wire::request(query.as_deref().unwrap_or_default())?;
    let scopes = &request.scopes;
    let chunks = match media_type {
        // Without chunks, frames that break off look like frames that end. JSON tells by itself.
        MediaType::Protobuf if version < Version::HTTP_11 => return Err(Failure::version_not_supported()),
        MediaType::Protobuf => snapshots.take(scopes, Frames::default()).await?,
        // The event stream is not offered.
        MediaType::Json | MediaType::EventStream if request.pretty => snapshots.take(scopes, Pretty::default()).await?,
        MediaType::Json | MediaType::EventStream => snapshots.take(scopes, Json::default()).await?,
    };
    let described = [
        (CONTENT_TYPE, media_type.header()),
        // The same call is answered differently a moment later.
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (VARY, VARIES),
    ];
    Ok(places.compress(&headers, (described, Body::from_stream(chunks)).into_response()))
}

pub(super) async fn method_not_allowed() -> Response {
    only_get(Failure::method_not_allowed())
}
