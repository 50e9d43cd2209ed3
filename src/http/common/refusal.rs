//! The refusals of the feed's faces: `{code, error, description}`, as JSON whatever Accept says.

use std::collections::BTreeMap;

use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::{Content, RefOr, ResponseBuilder};

use super::describe;
use crate::domain::invalid::head;

/// When a reader who was sent away may come again, in seconds.
const RETRY_SECONDS: &str = "5";
/// The methods of the feed's calls, for `Allow`.
const METHODS: &str = "GET";

/// A kind of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// The status of the answer.
    pub status: StatusCode,
    /// The word that a client's code looks at.
    pub code: &'static str,
    /// The same in a sentence.
    pub error: &'static str,
}

/// A parameter breaks its rule.
pub const PARAMETER_INVALID: Kind =
    Kind { status: StatusCode::BAD_REQUEST, code: "PARAMETER_INVALID", error: "A parameter has an invalid value" };
/// Accept allows nothing that there is.
pub const UNSUPPORTED_FORMAT: Kind = Kind {
    status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
    code: "UNSUPPORTED_FORMAT",
    error: "The specified media type is not supported",
};
/// The path is not called by this method.
pub const METHOD_NOT_ALLOWED: Kind =
    Kind { status: StatusCode::METHOD_NOT_ALLOWED, code: "METHOD_NOT_ALLOWED", error: "The method is not supported" };
/// The feed has not begun yet.
pub const NOT_READY: Kind =
    Kind { status: StatusCode::SERVICE_UNAVAILABLE, code: "NOT_READY", error: "The server is not ready" };

/// It is the server's own fault. The log says more.
pub const INTERNAL_SERVER_ERROR: Kind = Kind {
    status: StatusCode::INTERNAL_SERVER_ERROR,
    code: "INTERNAL_SERVER_ERROR",
    error: "An error occurred in the server",
};
/// No call has this path.
pub const NOT_FOUND: Kind =
    Kind { status: StatusCode::NOT_FOUND, code: "NOT_FOUND", error: "There is nothing at this path" };

/// An answer that refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    kind: Kind,
    description: String,
    details: Option<Box<Details>>,
}

/// A parameter that breaks its rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = FeedErrorDetails)]
pub struct Details {
    /// The parameter that is wrong.
    parameter: &'static str,
    /// Its value, cut where it is long; what would steer a terminal is replaced.
    value: String,
    /// What it must be.
    allowed: String,
}

/// An error of the feed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FeedError)]
pub struct Body<'a> {
    /// The word that a client's code looks at.
    code: &'a str,
    /// The same in a sentence.
    error: &'a str,
    /// What this one is about.
    description: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    details: Option<&'a Details>,
}

/// A part of a request for an error to show: cut where it is long, and without what would steer a terminal.
pub fn shown(text: &str) -> String {
    head(text).replace(char::is_control, "\u{fffd}")
}

impl Details {
    /// Says that `value` is no good for this parameter, which must be `allowed`.
    pub fn new(parameter: &'static str, value: &str, allowed: impl Into<String>) -> Self {
        Self { parameter, value: shown(value), allowed: allowed.into() }
    }
}

impl Refusal {
    /// A refusal of this kind, and what it is about.
    pub fn new(kind: Kind, description: impl Into<String>) -> Self {
        Self { kind, description: description.into(), details: None }
    }

    /// A parameter breaks its rule.
    pub fn parameter(description: impl Into<String>, details: Details) -> Self {
        Self { details: Some(Box::new(details)), ..Self::new(PARAMETER_INVALID, description) }
    }

    /// Another method than GET.
    pub fn method_not_allowed() -> Self {
        Self::new(METHOD_NOT_ALLOWED, "the method must be GET")
    }

    /// The feed has not begun yet.
    pub fn not_begun() -> Self {
        Self::new(NOT_READY, "the change feed has not begun yet: ask again in a moment")
    }

    /// The word that a client's code looks at.
    pub fn code(&self) -> &'static str {
        self.kind.code
    }

    /// Its JSON.
    pub fn json(&self) -> String {
        let Kind { code, error, .. } = self.kind;
        let body = Body { code, error, description: &self.description, details: self.details.as_deref() };
        serde_json::to_string(&body).expect("texts can be written as JSON")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        // The next call may go well: some of these a cache would keep for as long as it likes.
        let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
        let mut response = (self.kind.status, headers, self.json()).into_response();
        if self.kind.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(RETRY_SECONDS));
        }
        response
    }
}

/// Refuses another method than GET. HEAD is another one here: the router, which answers it as GET, would name it.
pub fn only_get(failure: impl IntoResponse) -> Response {
    ([(ALLOW, METHODS)], failure).into_response()
}

/// Answers another method than those of a path. The router adds `Allow`, which names them.
pub async fn other_method(method: Method) -> Refusal {
    let given = shown(method.as_str());
    Refusal::new(METHOD_NOT_ALLOWED, format!("the method must be one that the header Allow names, not {given}"))
}

/// The description of that answer.
pub fn other_method_described() -> utoipa::openapi::Response {
    let schema = describe::coded::<Body<'_>>("code", &[METHOD_NOT_ALLOWED.code]);
    describe::method_not_allowed(schema).header("Cache-Control", describe::header("`no-store`")).build()
}

/// The description of these refusals, and of that of a process which is marked down.
pub fn responses(kinds: &[Kind]) -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
    let mut statuses: BTreeMap<u16, Vec<Kind>> = BTreeMap::new();
    for kind in kinds {
        statuses.entry(kind.status.as_u16()).or_default().push(*kind);
    }
    let described = |(status, kinds): (u16, Vec<Kind>)| (status.to_string(), response(status, &kinds).into());
    statuses.into_iter().map(described).collect()
}

fn response(status: u16, kinds: &[Kind]) -> utoipa::openapi::Response {
    let codes: Vec<&str> = kinds.iter().map(|kind| kind.code).collect();
    let sentences: Vec<String> = kinds.iter().map(|kind| format!("`{}`: {}.", kind.code, kind.error)).collect();
    let schema = describe::coded::<Body<'_>>("code", &codes);
    let response = match status {
        503 => {
            let sentences = format!("{} Or the process is marked down.", sentences.join(" "));
            let again = describe::header("After how many seconds to come again; not where it is marked down.");
            describe::not_serving(&sentences, Some(schema)).header("Retry-After", again)
        }
        _ => ResponseBuilder::new()
            .description(sentences.join(" "))
            .content("application/json", Content::new(Some(schema)))
            .header("Cache-Control", describe::header("`no-store`")),
    };
    match status {
        405 => response.header("Allow", describe::header(METHODS)).build(),
        _ => response.build(),
    }
}
