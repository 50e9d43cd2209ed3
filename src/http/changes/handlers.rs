//! The operation: parse, one call of the service, render.

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};

use super::body::PageBody;
use super::error::Failure;
use super::{events, pretty, wire};
use crate::http::common::accept::{self, MediaType};
use crate::service::changes::{Changes, Read};

pub(super) async fn changes<R: Read>(
    State(changes): State<Changes<R>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let offered = [MediaType::Json, MediaType::EventStream];
    let media_type = accept::choose(&headers, &offered).ok_or_else(Failure::unsupported_format)?;
    let request = wire::request(query.as_deref().unwrap_or_default())?;
    if media_type == MediaType::EventStream {
        return events::answer(changes, request.query, &headers).await;
    }
    // A reader that waits keeps what it asks, not how it asked.
    drop((headers, query));
    let page = changes.changes(request.query).await?;
    let head = wire::page_head(&page);
    let changes = page.changes.into_iter().map(|change| change.body).collect();
    let body = PageBody::new(head, changes, wire::PAGE_END);
    let body = if request.pretty { Body::from(pretty::indented(body)) } else { Body::new(body) };
    let headers = [
        (CONTENT_TYPE, MediaType::Json.header()),
        // The same call is answered differently a moment later.
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, body).into_response())
}

pub(super) async fn method_not_allowed() -> Failure {
    Failure::method_not_allowed()
}
