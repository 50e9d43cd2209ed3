//! The description of every call, put together from the faces, and the call that answers with it: `GET /openapi.json`.
//!
//! It is the same for every process of a deployment, whatever its roles: it says which role answers what.

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use utoipa::openapi::server::ServerBuilder;
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{InfoBuilder, LicenseBuilder, OpenApi, RefOr, Server};

use super::common::operations::Operations;
use super::common::refusal;
use super::{changes, common, manage, snapshots, timers};
use crate::domain::limits;

/// What each group of calls is about.
const TAGS: [(&str, &str); 5] = [
    ("changes", "The change feed. Role: changeserver."),
    ("snapshots", "What a reader of the change feed begins with. Role: changeserver."),
    ("timers", "Timers over HTTP. Role: api."),
    ("management", "For operators and load balancers, in every role; never behind the path prefix."),
    ("description", "This document, in every role."),
];

/// The route of the document, for a process whose calls stand behind this prefix; empty for none.
pub fn routes(prefix: &str) -> Router {
    let text = text(prefix).into();
    operations().router.method_not_allowed_fallback(refusal::other_method).with_state(text)
}

/// The document as a text.
pub fn text(prefix: &str) -> String {
    let mut text = serde_json::to_string_pretty(&document(prefix)).expect("a description can be written as JSON");
    text.push('\n');
    text
}

fn document(prefix: &str) -> OpenApi {
    let mut document = operations().description;
    for face in [changes::description(), snapshots::description(), timers::description()] {
        document.merge(face);
    }
    let mut management = manage::description();
    for item in management.paths.paths.values_mut() {
        item.servers = Some(vec![Server::new("/")]);
    }
    document.merge(management);
    let license = LicenseBuilder::new().name(env!("CARGO_PKG_LICENSE")).identifier(Some(env!("CARGO_PKG_LICENSE")));
    document.info = InfoBuilder::new()
        .title(env!("CARGO_PKG_NAME"))
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(about()))
        .license(Some(license.build()))
        .build();
    let root = if prefix.is_empty() { "/" } else { prefix };
    document.servers = Some(vec![ServerBuilder::new().url(root).build()]);
    let tag = |(name, about): (&str, &str)| TagBuilder::new().name(name).description(Some(about)).build();
    document.tags = Some(TAGS.map(tag).into());
    document
}

fn about() -> String {
    format!(
        "A change feed and a durable clock beside PostgreSQL.\n\n\
        A path prefix (`--path-prefix`) stands before all calls but those of management. With `--management-port` these are \
        answered on that port alone, and not on this one. A process answers the calls of its roles; to others it answers 404. \
        Beyond what is listed, a connection over the bound is answered 503 as text, with `Retry-After`, but for `/health` and `/ready`; \
        a path that there is not 404, and a bug 500, both as a `FeedError`; \
        a request whose first line and headers have more than {} KiB is answered 431, without a body.\n\n\
        Nobody is asked who they are.",
        limits::REQUEST_HEAD_BYTES_MAX >> 10,
    )
}

fn operations() -> Operations<Bytes> {
    Operations::new("description").add(__path_openapi, openapi).schema::<refusal::Body<'_>>()
}

/// Read this document
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "openapi",
    responses(
        (status = 200, description = "The description of all calls.", body = Object, content_type = "application/json"),
        Refusals,
    ),
)]
async fn openapi(State(text): State<Bytes>) -> Response {
    ([(CONTENT_TYPE, "application/json")], text).into_response()
}

/// The refusals of the document.
struct Refusals;

impl utoipa::IntoResponses for Refusals {
    fn responses() -> std::collections::BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let unavailable = common::describe::not_serving("The process is marked down.", None).build();
        let responses = [("405", refusal::other_method_described()), ("503", unavailable)];
        responses.into_iter().map(|(status, response)| (status.to_owned(), response.into())).collect()
    }
}
