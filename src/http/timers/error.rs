//! The errors of this face: `{error, message, details?, timestamp}`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tracing::error;
use utoipa::ToSchema;

use super::wire;
use crate::clock::wall;
use crate::domain::causes;
use crate::domain::invalid::head;
use crate::http::common::{body, fields};
use crate::service;

/// An answer that is an error.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    /// The word that a client's code looks at.
    code: &'static str,
    message: String,
    details: Option<Box<Details>>,
}

/// An error of the timer service.
#[derive(Serialize, ToSchema)]
#[schema(as = TimerError)]
pub(super) struct Body {
    /// The word that a client's code looks at.
    error: &'static str,
    /// What is wrong, in a sentence.
    pub(super) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    details: Option<Details>,
    /// When it happened.
    #[schema(format = DateTime)]
    timestamp: String,
}

/// What the error is about.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = TimerErrorDetails)]
struct Details {
    /// The field that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    field: Option<String>,
    /// Its value, cut where it is long.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    value: Option<String>,
    /// How the timer stands that is not pending.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    status: Option<&'static str>,
    /// The namespace of the timer that was not found.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    namespace: Option<String>,
    /// The id of the timer that was not found.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    timer_id: Option<String>,
}

impl Details {
    /// The field that is wrong, and its value where there is one.
    fn of_field(field: String, value: Option<String>) -> Self {
        Self { field: Some(field), value, ..Self::default() }
    }
}

impl Failure {
    /// The answer to an error of the service; `id` is the operation's word for a timer's id.
    pub(super) fn of(error: service::Error, id: &'static str) -> Self {
        match error {
            service::Error::Invalid(invalid) => {
                let field = wire::field_name(invalid.field, id);
                let details = Details::of_field(field.to_owned(), Some(invalid.value));
                Self::invalid(format!("{field} must be {}", invalid.allowed), Some(details))
            }
            service::Error::Refused { .. } => Self::invalid(error.to_string(), None),
            service::Error::NotPending { key, state } => Self {
                status: StatusCode::BAD_REQUEST,
                code: "TIMER_NOT_PENDING",
                message: format!("Timer with ID '{}' is not pending, it is {}", key.id, state.as_str()),
                details: Some(Box::new(Details { status: Some(state.as_str()), ..Details::default() })),
            },
            service::Error::NotFound { key, .. } => Self {
                status: StatusCode::NOT_FOUND,
                code: "TIMER_NOT_FOUND",
                message: format!("Timer with ID '{}' not found", key.id),
                details: Some(Box::new(Details {
                    namespace: Some(key.namespace.to_string()),
                    timer_id: Some(key.id.to_string()),
                    ..Details::default()
                })),
            },
            service::Error::Contended { .. } => Self::internal(error.to_string()),
            service::Error::Unavailable(cause) => {
                error!(error = causes::chain(&cause), "a timer request failed: the database is unavailable");
                Self::internal("the store is unavailable, try again".to_owned())
            }
        }
    }

    /// The same of a timer of a batch, which stands there as `way`.
    pub(super) fn within(error: service::Error, way: &str) -> Self {
        let failure = match error {
            service::Error::Invalid(invalid) => {
                let field = format!("{way}.{}", wire::field_name(invalid.field, wire::CREATE_ID));
                let message = format!("{field} must be {}", invalid.allowed);
                Self::invalid(message, Some(Details::of_field(field, Some(invalid.value))))
            }
            error @ (service::Error::Refused { .. }
            | service::Error::NotPending { .. }
            | service::Error::NotFound { .. }
            | service::Error::Contended { .. }
            | service::Error::Unavailable(_)) => Self::of(error, wire::CREATE_ID),
        };
        let mut details = failure.details.unwrap_or_default();
        details.field.get_or_insert_with(|| way.to_owned());
        Self { details: Some(details), ..failure }
    }

    /// What it says.
    pub(super) fn body(&self) -> Body {
        let Self { status: _, code, message, details } = self;
        Body {
            error: code,
            message: message.clone(),
            details: details.as_deref().cloned(),
            timestamp: wall().to_string(),
        }
    }

    /// The answer to a batch that found no place within the time that its body may take.
    pub(super) fn too_many_batches() -> Self {
        Self::internal("too many batches are being created at this moment, try again".to_owned())
    }

    /// The answer to a method that the operation does not have.
    pub(super) fn method_not_allowed() -> Self {
        Self {
            status: StatusCode::METHOD_NOT_ALLOWED,
            code: "METHOD_NOT_ALLOWED",
            message: "the method must be POST".to_owned(),
            details: None,
        }
    }

    /// The answer to a path that is no operation.
    pub(super) fn unknown_path(path: &str) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            code: "NOT_FOUND",
            message: format!("there is no operation {}", head(path)),
            details: None,
        }
    }

    /// Every fault of a request is a 400, whatever status HTTP has for it besides: the specification knows no other.
    fn invalid(message: String, details: Option<Details>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: "INVALID_INPUT", message, details: details.map(Box::new) }
    }

    fn internal(message: String) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, code: "INTERNAL_ERROR", message, details: None }
    }
}

impl From<body::Error> for Failure {
    fn from(error: body::Error) -> Self {
        Self::invalid(error.to_string(), None)
    }
}

impl From<fields::Error> for Failure {
    fn from(error: fields::Error) -> Self {
        let details = error.field().map(|(field, value)| Details::of_field(field.to_owned(), value.map(str::to_owned)));
        Self::invalid(error.to_string(), details)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, Json(self.body())).into_response()
    }
}
