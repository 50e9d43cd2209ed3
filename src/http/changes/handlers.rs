//! The operation: parse, one call of the service, render.

use axum::Extension;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, COOKIE, ETAG, IF_NONE_MATCH, VARY,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;

use super::body::{JsonPage, PageBody};
use super::cache::Marks;
use super::description::{Page as ChangePage, Parameters, Refusals};
use super::error::Failure;
use super::pretty::PrettyPage;
use super::protobuf::ProtobufPage;
use super::{events, wire};
use crate::feed::query::Page;
use crate::http::common::accept::{self, MediaType};
use crate::http::common::compression::{self, Places, VARIES};
use crate::http::common::describe::Binary;
use crate::http::common::later::Later;
use crate::http::common::refusal::only_get;
use crate::service::changes::{Changes, Read};

/// What there is to choose from, the favourite first.
const OFFERED: [MediaType; 3] = [MediaType::Json, MediaType::Protobuf, MediaType::EventStream];

/// The form of a page.
#[derive(Clone, Copy, Debug)]
enum Form {
    Json,
    /// JSON for human eyes.
    Pretty,
    Protobuf,
}

/// Read changes
///
/// Tells the changes of some scopes behind a sequence, in the order of their commits, and waits for one where there is none
/// yet and `block` says so. Follow on with `since=<lastSequence>`. With `Accept: text/event-stream` the same changes come
/// over a single answer without an end; only who names that type gets it.
#[utoipa::path(
    get,
    path = "/changes",
    operation_id = "readChanges",
    params(Parameters),
    responses(
        (
            status = 200,
            description = "The changes. An event of the stream has a change as JSON for its data and its sequence for its id; \
                an id without data moves the position alone; an event of the type `error` has an error for its data, and \
                is the last.",
            content(
                (ChangePage = "application/json"),
                (Binary = "application/transicator+protobuf"),
                (String = "text/event-stream"),
            ),
            headers(
                ("Cache-Control" = String, description = "How long the answer may be kept: `no-store`, or for a while, \
                    `public` or `private`."),
                ("ETag" = String, description = "Names the answer, where it may be kept."),
                ("Vary" = String, description = "`accept, accept-encoding`; not on an event stream."),
                ("Content-Encoding" = String, description = "`zstd` or `gzip`, where the body is compressed."),
                ("X-Accel-Buffering" = String, description = "`no`, on an event stream alone."),
            ),
        ),
        (
            status = 304,
            description = "If-None-Match names the answer.",
            headers(
                ("Cache-Control" = String, description = "As with 200."),
                ("ETag" = String, description = "As with 200."),
                ("Vary" = String, description = "As with 200."),
            ),
        ),
        Refusals,
    ),
)]
pub(super) async fn changes<R: Read>(
    State(changes): State<Changes<R>>,
    Extension(places): Extension<Places>,
    later: Option<Extension<Later>>,
    RawQuery(query): RawQuery,
    version: Version,
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
    let asked = Asked { form, version, headers: kept(headers), places };
    let answer = async move {
        let answer = match changes.changes(request.query).await {
            Ok(page) => asked.answer(page).await,
            Err(error) => Err(error.into()),
        };
        answer.into_response()
    };
    Ok(match later {
        None => answer.await,
        Some(Extension(later)) => later.leave(answer),
    })
}

/// What of a call still matters when its page is there.
struct Asked {
    form: Form,
    version: Version,
    headers: HeaderMap,
    places: Places,
}

impl Asked {
    /// The page as an answer, compressed where that was chosen: no layer sees one that is left.
    async fn answer(self, page: Page) -> Result<Response, Failure> {
        let Self { form, version, headers, places } = self;
        let marks = Marks::of(&page, form.word(), &headers);
        let mut response = match marks.are_known(&headers) {
            true => StatusCode::NOT_MODIFIED.into_response(),
            false => {
                let body = form.body(page, version, headers.contains_key(ACCEPT_ENCODING)).await?;
                places.compress(&headers, ([(CONTENT_TYPE, form.media_type().header())], body).into_response())
            }
        };
        response.headers_mut().insert(CACHE_CONTROL, marks.control);
        response.headers_mut().insert(VARY, VARIES);
        if let Some(tag) = marks.tag {
            response.headers_mut().insert(ETAG, tag);
        }
        Ok(match headers.get(ACCEPT_ENCODING) {
            Some(encoding) => compression::compressed(encoding.clone(), response).await,
            None => response,
        })
    }
}

/// What of the headers still matters when the page is there. A reader that waits must not hold on to what its connection
/// has read, so nothing of it is shared; of most it is only whether they are there.
fn kept(headers: HeaderMap) -> HeaderMap {
    let told = [AUTHORIZATION, COOKIE].into_iter().filter(|name| headers.contains_key(name));
    let mut kept: HeaderMap = told.map(|name| (name, HeaderValue::from_static(""))).collect();
    if let Some(encoding) = headers.get(ACCEPT_ENCODING) {
        // What the layer has chosen: a word that shares nothing.
        kept.insert(ACCEPT_ENCODING, encoding.clone());
    }
    for tags in headers.get_all(IF_NONE_MATCH) {
        kept.append(IF_NONE_MATCH, HeaderValue::from_bytes(tags.as_bytes()).expect("it has been a value"));
    }
    kept
}

impl Form {
    /// Its Content-Type.
    fn media_type(self) -> MediaType {
        match self {
            Self::Json | Self::Pretty => MediaType::Json,
            Self::Protobuf => MediaType::Protobuf,
        }
    }

    /// What it is called in an ETag.
    fn word(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Pretty => "pretty",
            Self::Protobuf => "protobuf",
        }
    }

    /// The page in this form. One that may be compressed, or is work to make, is paced.
    async fn body(self, page: Page, version: Version, may_be_compressed: bool) -> Result<Body, Failure> {
        let taken = page.taken.clone();
        let json = |page: Page| {
            let head = wire::page_head(&page);
            JsonPage::new(head, page.changes.into_iter().map(|change| change.body).collect(), wire::PAGE_END)
        };
        Ok(match self {
            Self::Json => Body::new(PageBody::new(json(page), may_be_compressed, taken)),
            Self::Pretty => Body::new(PageBody::new(PrettyPage::new(json(page)), true, taken)),
            Self::Protobuf => {
                let held = taken.clone();
                let body = PageBody::new(ProtobufPage::new(page).await?, true, taken);
                match version < Version::HTTP_11 {
                    // Without chunks only its length tells whether an answer is whole, and a part of this one is as good
                    // protobuf as all of it: the changes that are missing would never be missed.
                    true => Body::from(held.around(body.collect().await?.to_bytes())),
                    false => Body::new(body),
                }
            }
        })
    }
}

pub(super) async fn method_not_allowed() -> Response {
    only_get(Failure::method_not_allowed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::sequence::Sequence;
    use crate::feed::query::Change;
    use crate::feed::room::Taken;

    #[tokio::test]
    async fn an_answer_of_any_form_keeps_its_room_until_it_has_been_sent() {
        for form in [Form::Json, Form::Pretty, Form::Protobuf] {
            for (version, may_be_compressed) in
                [(Version::HTTP_11, false), (Version::HTTP_11, true), (Version::HTTP_10, false)]
            {
                let (taken, is_taken) = Taken::watched();
                let json = format!("{{\"operation\":4,\"table\":\"{}\"}}", "x".repeat(300_000));
                let changes = vec![Change { sequence: Sequence::ZERO, body: json.into() }];
                let page = Page {
                    first: Sequence::ZERO,
                    last: Sequence::ZERO,
                    from: Sequence::ZERO,
                    is_full: false,
                    changes,
                    taken,
                };
                let mut body = form.body(page, version, may_be_compressed).await.expect("a page");
                let mut sent = Vec::new();
                while let Some(frame) = body.frame().await {
                    sent.push(frame.expect("a whole page"));
                }
                assert!(is_taken(), "{form:?}");
                drop((body, sent));
                assert!(!is_taken(), "{form:?}");
            }
        }
    }
}
