//! The errors of this face.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::feed::snapshots::Error;
use crate::http::common::refusal::{
    Kind, METHOD_NOT_ALLOWED, NOT_READY, PARAMETER_INVALID, Refusal, UNSUPPORTED_FORMAT,
};
use crate::http::common::scopes;

/// A snapshot is of scopes that somebody names.
const MISSING_SCOPE: Kind =
    Kind { status: StatusCode::BAD_REQUEST, code: "MISSING_SCOPE", error: "A scope is missing" };
const TOO_MANY: Kind = unavailable("TOO_MANY_SNAPSHOTS", "Too many snapshots are being read");
const TABLE_LOCKED: Kind = unavailable("TABLE_LOCKED", "A table is in use by others");
const DATABASE_UNAVAILABLE: Kind = unavailable("DATABASE_UNAVAILABLE", "The database is not available");
const MISSING_RIGHT: Kind = Kind {
    status: StatusCode::INTERNAL_SERVER_ERROR,
    code: "MISSING_RIGHT",
    error: "The server lacks a right in the database",
};
const VERSION_NOT_SUPPORTED: Kind = Kind {
    status: StatusCode::HTTP_VERSION_NOT_SUPPORTED,
    code: "HTTP_VERSION_NOT_SUPPORTED",
    error: "The version of HTTP is not supported",
};

/// All that there are.
pub(super) const KINDS: &[Kind] = &[
    PARAMETER_INVALID,
    MISSING_SCOPE,
    METHOD_NOT_ALLOWED,
    UNSUPPORTED_FORMAT,
    MISSING_RIGHT,
    NOT_READY,
    TOO_MANY,
    TABLE_LOCKED,
    DATABASE_UNAVAILABLE,
    VERSION_NOT_SUPPORTED,
];

const fn unavailable(code: &'static str, error: &'static str) -> Kind {
    Kind { status: StatusCode::SERVICE_UNAVAILABLE, code, error }
}

/// An answer that is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure(Refusal);

impl Failure {
    /// A snapshot is of scopes that somebody names.
    pub(super) fn missing_scope() -> Self {
        Self(Refusal::new(MISSING_SCOPE, "name at least one scope: ?scope=…"))
    }

    /// Accept allows nothing that the server has.
    pub(super) fn unsupported_format() -> Self {
        let offered = "snapshots are application/json or application/transicator+protobuf";
        Self(Refusal::new(UNSUPPORTED_FORMAT, offered))
    }

    /// HTTP/1.0 cannot say that an answer broke off.
    pub(super) fn version_not_supported() -> Self {
        let description =
            "ask for protobuf with HTTP/1.1: in HTTP/1.0 a part of a snapshot could be taken for the whole";
        Self(Refusal::new(VERSION_NOT_SUPPORTED, description))
    }

    /// Only GET asks for a snapshot.
    pub(super) fn method_not_allowed() -> Self {
        Self(Refusal::method_not_allowed())
    }

    #[cfg(test)]
    pub(super) fn code(&self) -> &'static str {
        self.0.code()
    }
}

impl From<scopes::Invalid> for Failure {
    fn from(error: scopes::Invalid) -> Self {
        Self(error.into())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(match error {
            Error::NotBegun => Refusal::not_begun(),
            Error::Busy { .. } => Refusal::new(TOO_MANY, format!("{error}: ask again in a moment")),
            Error::Locked { .. } | Error::Changing => {
                Refusal::new(TABLE_LOCKED, format!("{error}: ask again in a moment"))
            }
            Error::Denied { .. } => {
                tracing::error!("a snapshot was refused: {error}");
                Refusal::new(MISSING_RIGHT, error.to_string())
            }
            Error::Standby | Error::OtherCluster | Error::Behind { .. } => {
                tracing::error!("a snapshot was refused: {error}");
                Refusal::new(DATABASE_UNAVAILABLE, error.to_string())
            }
            Error::Unavailable(_) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a snapshot could not be begun");
                Refusal::new(DATABASE_UNAVAILABLE, "PostgreSQL cannot be asked at this moment: ask again later")
            }
        })
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        metrics::counter!("walclock_snapshots_refused_total", "code" => self.0.code()).increment(1);
        self.0.into_response()
    }
}
