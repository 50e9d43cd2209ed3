//! The errors of this face.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::transcode;
use crate::feed::query;
use crate::http::common::refusal::{
    Details, INTERNAL_SERVER_ERROR, Kind, METHOD_NOT_ALLOWED, NOT_READY, PARAMETER_INVALID, Refusal, UNSUPPORTED_FORMAT,
};
use crate::http::common::scopes;

const SNAPSHOT_TOO_OLD: Kind = Kind {
    status: StatusCode::BAD_REQUEST,
    code: "SNAPSHOT_TOO_OLD",
    error: "The client is operating on an old snapshot",
};

/// All that there are.
pub(super) const KINDS: &[Kind] =
    &[PARAMETER_INVALID, SNAPSHOT_TOO_OLD, METHOD_NOT_ALLOWED, UNSUPPORTED_FORMAT, INTERNAL_SERVER_ERROR, NOT_READY];

/// An answer that is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure(Refusal);

impl Failure {
    /// A parameter breaks its rule.
    pub(super) fn parameter(description: impl Into<String>, details: Details) -> Self {
        Self(Refusal::parameter(description, details))
    }

    /// Accept allows nothing that the server has.
    pub(super) fn unsupported_format() -> Self {
        let offered = "changes are application/json, application/transicator+protobuf or text/event-stream";
        Self(Refusal::new(UNSUPPORTED_FORMAT, offered))
    }

    /// Only GET asks for changes.
    pub(super) fn method_not_allowed() -> Self {
        Self(Refusal::method_not_allowed())
    }

    /// Its JSON, for a reader that has begun to hear an answer already.
    pub(super) fn told(&self) -> String {
        self.count();
        self.0.json()
    }

    fn count(&self) {
        metrics::counter!("walclock_changes_refused_total", "code" => self.0.code()).increment(1);
    }
}

impl From<scopes::Invalid> for Failure {
    fn from(error: scopes::Invalid) -> Self {
        Self(error.into())
    }
}

impl From<query::Error> for Failure {
    fn from(error: query::Error) -> Self {
        match error {
            query::Error::NotBegun => Self(Refusal::not_begun()),
            query::Error::TooOld => {
                let description = "the changes asked for are no longer complete: begin anew with a snapshot";
                Self(Refusal::new(SNAPSHOT_TOO_OLD, description))
            }
            query::Error::Busy => {
                let description =
                    "slow readers hold the memory that a change as large as the next one needs: ask again in a moment";
                Self(Refusal::new(NOT_READY, description))
            }
            query::Error::Journal(cause) => {
                tracing::error!(error = %cause, "a call for changes failed: the journal could not be read");
                Self(Refusal::new(INTERNAL_SERVER_ERROR, "the journal could not be read"))
            }
        }
    }
}

impl From<transcode::Error> for Failure {
    fn from(error: transcode::Error) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "a call for changes failed");
        Self(Refusal::new(INTERNAL_SERVER_ERROR, "the journal could not be read"))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        self.count();
        self.0.into_response()
    }
}
