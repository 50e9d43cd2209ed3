//! The words of this face.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::openapi::schema::OneOfBuilder;
use utoipa::openapi::{Content, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

use crate::http::common::describe::{self, NotServing, not_serving, reference};
use crate::http::common::refusal::other_method_described;
use crate::service::health::Condition;

/// What each part says of itself.
#[derive(Serialize, ToSchema)]
pub(super) struct Readiness<'a> {
    pub(super) status: ReadinessStatus,
    /// Why it cannot serve, if it cannot.
    #[schema(required)]
    pub(super) reason: Option<&'a str>,
    /// The parts.
    pub(super) checks: Vec<Check<'a>>,
}

/// Whether it can serve.
#[derive(Clone, Copy, Serialize, ToSchema)]
pub(super) enum ReadinessStatus {
    Ready,
    NotReady,
}

/// What one part says.
#[derive(Serialize, ToSchema)]
pub(super) struct Check<'a> {
    /// The part.
    pub(super) name: &'a str,
    pub(super) status: CheckStatus,
    /// Why, where it is not ready.
    pub(super) detail: &'a str,
}

/// How a part is.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum CheckStatus {
    /// It does its work.
    Ready,
    /// It does its work, but somebody should look.
    Degraded,
    /// It cannot give correct answers now.
    #[serde(rename = "not ready")]
    NotReady,
    /// It has ended.
    Failed,
}

impl<'a> Check<'a> {
    pub(super) fn of(name: &'a str, condition: &'a Condition) -> Self {
        let (status, detail) = match condition {
            Condition::Ready => (CheckStatus::Ready, ""),
            Condition::Degraded(detail) => (CheckStatus::Degraded, detail.as_str()),
            Condition::NotReady(detail) => (CheckStatus::NotReady, detail.as_str()),
            Condition::Failed(detail) => (CheckStatus::Failed, detail.as_str()),
        };
        Self { name, status, detail }
    }
}

impl CheckStatus {
    /// The same in a text.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::NotReady => "not ready",
            Self::Failed => "failed",
        }
    }
}

/// What is refused for whatever reason; `unavailable` describes 503.
fn refused(unavailable: Response) -> BTreeMap<String, RefOr<Response>> {
    let callback = ResponseBuilder::new()
        .description("The call is a callback of a timer: it has the header `walclock-fence`.")
        .content("text/plain", Content::new(Some(describe::text().build())));
    let responses = [("403", callback.build()), ("405", other_method_described()), ("503", unavailable)];
    responses.into_iter().map(|(status, response)| (status.to_owned(), response.into())).collect()
}

/// The refusals of `/health`.
pub(super) struct Unhealthy;

impl IntoResponses for Unhealthy {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        refused(not_serving("A part has ended, and a restart may help.", None).build())
    }
}

/// The refusals of `/ready`.
pub(super) struct Refusals;

impl IntoResponses for Refusals {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let verbose = OneOfBuilder::new().item(reference::<Readiness<'_>>()).item(reference::<NotServing<'_>>());
        let unavailable = not_serving("It cannot serve, and why; with `verbose` the parts, too.", None)
            .content("application/json", Content::new(Some(verbose)));
        refused(unavailable.build())
    }
}

/// The refusals of the rest.
pub(super) struct RefusalsOfMarkdown;

impl IntoResponses for RefusalsOfMarkdown {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        refused(not_serving("It is marked down already.", None).build())
    }
}
