//! The errors of this face: `{code, error, description}`, as JSON whatever Accept says.

use axum::Json;
use axum::http::header::{ALLOW, CACHE_CONTROL};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::{cache, transcode};
use crate::feed::query;

/// An answer that is an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Failure {
    #[serde(skip)]
    status: StatusCode,
    /// The word that a client's code looks at.
    code: &'static str,
    /// The same in a sentence.
    error: &'static str,
    /// What this one is about.
    description: String,
}

impl Failure {
    /// A parameter breaks its rule.
    pub(super) fn parameter(description: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code: "PARAMETER_INVALID",
            error: "A parameter has an invalid value",
            description: description.into(),
        }
    }

    /// Accept allows nothing that the server has.
    pub(super) fn unsupported_format() -> Self {
        Self {
            status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            code: "UNSUPPORTED_FORMAT",
            error: "The specified media type is not supported",
            description: "changes are application/json, application/transicator+protobuf or text/event-stream"
                .to_owned(),
        }
    }

    /// It is the server's own fault. The log says more.
    fn internal(description: &str) -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            code: "INTERNAL_SERVER_ERROR",
            error: "An error occurred in the server",
            description: description.to_owned(),
        }
    }

    /// Only GET asks for changes.
    pub(super) fn method_not_allowed() -> Self {
        Self {
            status: StatusCode::METHOD_NOT_ALLOWED,
            code: "METHOD_NOT_ALLOWED",
            error: "The method is not supported",
            description: "the method must be GET".to_owned(),
        }
    }
}

impl Failure {
    /// Its JSON, for a reader that has begun to hear an answer already.
    pub(super) fn told(&self) -> String {
        self.count();
        serde_json::to_string(self).expect("texts are valid JSON")
    }

    fn count(&self) {
        metrics::counter!("walclock_changes_refused_total", "code" => self.code).increment(1);
    }
}

impl From<query::Error> for Failure {
    fn from(error: query::Error) -> Self {
        match error {
            query::Error::NotBegun => Self {
                status: StatusCode::SERVICE_UNAVAILABLE,
                code: "NOT_READY",
                error: "The server is not ready",
                description: "the change feed has not begun yet: ask again in a moment".to_owned(),
            },
            query::Error::TooOld => Self {
                status: StatusCode::BAD_REQUEST,
                code: "SNAPSHOT_TOO_OLD",
                error: "The client is operating on an old snapshot",
                description: "the changes asked for are no longer complete: begin anew with a snapshot".to_owned(),
            },
            query::Error::Journal(cause) => {
                tracing::error!(error = %cause, "a call for changes failed: the journal could not be read");
                Self::internal("the journal could not be read")
            }
        }
    }
}

impl From<transcode::Error> for Failure {
    fn from(error: transcode::Error) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "a call for changes failed");
        Self::internal("the journal could not be read")
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        self.count();
        let status = self.status;
        // The next call may go well: some of these a cache would keep for as long as it likes.
        let mut response = (status, [(CACHE_CONTROL, cache::NO_STORE)], Json(self)).into_response();
        if status == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET,HEAD"));
        }
        response
    }
}
