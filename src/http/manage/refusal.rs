//! The refusals of this face. A process that cannot serve says so: the reason as text, or as JSON where the caller asks
//! for it. A callback of walclock's own is no operator.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::http::common::accept::{self, Offer, Precision};
use crate::http::common::describe::{NotServing, NotServingStatus};
use crate::service::health::Health;

/// The header that every callback of ours carries.
const FENCE: &str = "walclock-fence";

/// The forms of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Text,
}

impl Offer for Form {
    /// Text is what a caller gets who has no preference, so a range that means anything never means JSON.
    fn named_by(self, range: &str) -> Option<Precision> {
        let ranges: &[(&str, Precision)] = match self {
            Self::Json => &[("application/json", Precision::Named), ("application/*", Precision::Family)],
            Self::Text => {
                &[("text/plain", Precision::Named), ("text/*", Precision::Family), ("*/*", Precision::Anything)]
            }
        };
        ranges.iter().find(|(name, _)| range.eq_ignore_ascii_case(name)).map(|(_, precision)| *precision)
    }
}

/// 503 with the reason.
pub(super) fn refusal(status: NotServingStatus, reason: &str, headers: &HeaderMap) -> Response {
    let (code, uncached) = (StatusCode::SERVICE_UNAVAILABLE, (CACHE_CONTROL, "no-store"));
    match wants_json(headers) {
        true => (code, [uncached], Json(NotServing { status, reason })).into_response(),
        false => (code, [(CONTENT_TYPE, "text/plain"), uncached], reason.to_owned()).into_response(),
    }
}

/// Whether Accept rates JSON as high as text, or names it and not text. A caller who takes neither gets text all the same.
pub(super) fn wants_json(headers: &HeaderMap) -> bool {
    accept::best(headers, &ACCEPT, &[Form::Json, Form::Text]) == Some(Form::Json)
}

/// What a process that is marked down goes on answering; the rest is refused.
#[derive(Clone, Debug)]
pub struct Served {
    /// Whether the process is marked down.
    pub health: Health,
    /// The paths.
    pub paths: &'static [&'static str],
}

/// A layer for every route of a port: once the process is marked down, only these paths are answered.
pub async fn refuse_when_down(State(served): State<Served>, request: Request, next: Next) -> Response {
    if served.health.is_marked_down() && !served.paths.contains(&request.uri().path()) {
        return refusal(NotServingStatus::NotReady, "Marked down", request.headers());
    }
    next.run(request).await
}

/// A layer for the management calls: whoever may store a timer must not be able to manage the process through the
/// callback that it makes. Each callback carries this header, and no timer can leave it out.
pub(super) async fn refuse_callbacks(request: Request, next: Next) -> Response {
    if request.headers().contains_key(FENCE) {
        tracing::warn!(path = request.uri().path(), "refused a callback to a management call");
        let text = "management calls are not for callbacks";
        return (StatusCode::FORBIDDEN, [(CONTENT_TYPE, "text/plain")], text).into_response();
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn json_is_for_those_who_name_it() {
        for (accept, json) in [
            ("application/json", true),
            ("text/html, Application/JSON;q=0.5", true),
            ("application/json;charset=utf-8", true),
            ("application/json;q=0", false),
            ("application/json; q=0.0", false),
            ("application/*", true),
            ("*/*", false),
            ("text/plain", false),
            ("", false),
            // As libraries ask by default.
            ("application/json, text/plain, */*", true),
            ("application/json, */*;q=0.1", true),
            // Who prefers text gets it.
            ("application/json;q=0.1, text/plain", false),
            ("application/json;q=0.5, */*;q=0.8", false),
            ("text/*;q=0.1, application/json;q=0.2", true),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(wants_json(&headers), json, "{accept}");
        }
        assert!(!wants_json(&HeaderMap::new()));
    }
}
