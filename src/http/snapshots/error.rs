//! The errors of this face: `{code, error, description}`, as JSON whatever Accept says.

use axum::Json;
use axum::http::header::{ALLOW, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::feed::snapshots::Error;

/// When a reader who was sent away may come again, in seconds.
const RETRY_SECONDS: &str = "5";

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
        let error = "A parameter has an invalid value";
        Self::new(StatusCode::BAD_REQUEST, "PARAMETER_INVALID", error, description)
    }

    /// A snapshot is of scopes that somebody names.
    pub(super) fn missing_scope() -> Self {
        let description = "name at least one scope: ?scope=…";
        Self::new(StatusCode::BAD_REQUEST, "MISSING_SCOPE", "A scope is missing", description)
    }

    /// Accept allows nothing that the server has.
    pub(super) fn unsupported_format() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UNSUPPORTED_FORMAT",
            "The specified media type is not supported",
            "snapshots are application/json or application/transicator+protobuf",
        )
    }

    /// HTTP/1.0 cannot say that an answer broke off.
    pub(super) fn version_not_supported() -> Self {
        let description =
            "ask for protobuf with HTTP/1.1: in HTTP/1.0 a part of a snapshot could be taken for the whole";
        let error = "The version of HTTP is not supported";
        Self::new(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "HTTP_VERSION_NOT_SUPPORTED", error, description)
    }

    /// Only GET asks for a snapshot.
    pub(super) fn method_not_allowed() -> Self {
        let error = "The method is not supported";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", error, "the method must be GET")
    }

    fn unavailable(code: &'static str, error: &'static str, description: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, error, description)
    }

    fn new(status: StatusCode, code: &'static str, error: &'static str, description: impl Into<String>) -> Self {
        Self { status, code, error, description: description.into() }
    }

    #[cfg(test)]
    pub(super) fn code(&self) -> &'static str {
        self.code
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::NotBegun => Self::unavailable(
                "NOT_READY",
                "The server is not ready",
                "the change feed has not begun yet: ask again in a moment",
            ),
            Error::Busy { .. } => Self::unavailable(
                "TOO_MANY_SNAPSHOTS",
                "Too many snapshots are being read",
                format!("{error}: ask again in a moment"),
            ),
            Error::Locked { .. } | Error::Changing => Self::unavailable(
                "TABLE_LOCKED",
                "A table is in use by others",
                format!("{error}: ask again in a moment"),
            ),
            Error::Denied { .. } => {
                tracing::error!("a snapshot was refused: {error}");
                let sentence = "The server lacks a right in the database";
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "MISSING_RIGHT", sentence, error.to_string())
            }
            Error::Standby | Error::OtherCluster => {
                tracing::error!("a snapshot was refused: {error}");
                Self::unavailable("DATABASE_UNAVAILABLE", "The database is not available", error.to_string())
            }
            Error::Unavailable(_) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a snapshot could not be begun");
                let description = "PostgreSQL cannot be asked at this moment: ask again later";
                Self::unavailable("DATABASE_UNAVAILABLE", "The database is not available", description)
            }
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        metrics::counter!("walclock_snapshots_refused_total", "code" => self.code).increment(1);
        let status = self.status;
        let mut response = (status, Json(self)).into_response();
        if status == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET,HEAD"));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(RETRY_SECONDS));
        }
        response
    }
}
