//! The operation: parse, one call of the service, render.

use axum::Extension;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};

use super::body::{JsonPage, PageBody};
use super::error::Failure;
use super::protobuf::ProtobufPage;
use super::{events, pretty, wire};
use crate::feed::query::Page;
use crate::http::common::accept::{self, MediaType};
use crate::http::common::compression::Places;
use crate::service::changes::{Changes, Read};

/// What there is to choose from, the favourite first.
const OFFERED: [MediaType; 3] = [MediaType::Json, MediaType::Protobuf, MediaType::EventStream];
/// The headers of a request that the form of the answer depends on.
const VARIES: HeaderValue = HeaderValue::from_static("accept, accept-encoding");

/// The form of a page.
#[derive(Clone, Copy, Debug)]
enum Form {
    Json,
    /// JSON for human eyes.
    Pretty,
    Protobuf,
}

pub(super) async fn changes<R: Read>(
    State(changes): State<Changes<R>>,
    Extension(places): Extension<Places>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let chosen = accept::choose(&headers, &OFFERED).ok_or_else(Failure::unsupported_format)?;
    let request = wire::request(query.as_deref().unwrap_or_default())?;
    let form = match chosen {
        MediaType::Json if request.pretty => Form::Pretty,
        MediaType::Json => Form::Json,
        MediaType::Protobuf => Form::Protobuf,
        MediaType::EventStream => return events::answer(changes, request.query, &headers).await,
    };
    // A reader that waits keeps what it asks, not how it asked.
    drop(query);
    let headers = kept(headers);
    let page = changes.changes(request.query).await?;
    let body = form.body(page, headers.contains_key(ACCEPT_ENCODING)).await?;
    let about = [
        (CONTENT_TYPE, chosen.header()),
        // The same call is answered differently a moment later.
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (VARY, VARIES),
    ];
    Ok(places.compress(&headers, (about, body).into_response()))
}

/// What of the headers still matters when the page is there. A reader that waits must not hold on to what its connection
/// has read, so nothing of it is shared; of most it is only whether they are there.
fn kept(headers: HeaderMap) -> HeaderMap {
    let told = [ACCEPT_ENCODING].into_iter().filter(|name| headers.contains_key(name));
    told.map(|name| (name, HeaderValue::from_static(""))).collect()
}

impl Form {
    /// The page in this form. One that may be compressed is paced.
    async fn body(self, page: Page, may_be_compressed: bool) -> Result<Body, Failure> {
        let json = |page: Page| {
            let head = wire::page_head(&page);
            JsonPage::new(head, page.changes.into_iter().map(|change| change.body).collect(), wire::PAGE_END)
        };
        Ok(match self {
            Self::Json => Body::new(PageBody::new(json(page), may_be_compressed)),
            Self::Pretty => Body::new(PageBody::new(pretty::indented(json(page)), may_be_compressed)),
            Self::Protobuf => Body::new(PageBody::new(ProtobufPage::new(page).await?, true)),
        })
    }
}

pub(super) async fn method_not_allowed() -> Failure {
    Failure::method_not_allowed()
}
