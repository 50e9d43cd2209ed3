//! The refusals of this face. A process that cannot serve says so: the reason as text, or as JSON where the caller asks
//! for it. A callback of walclock's own is no operator.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::http::common::describe::{NotServing, NotServingStatus};
use crate::service::health::Health;

/// The header that every callback of ours carries.
const FENCE: &str = "walclock-fence";

/// 503 with the reason.
pub(super) fn refusal(status: NotServingStatus, reason: &str, accept: Option<&HeaderValue>) -> Response {
    let (code, uncached) = (StatusCode::SERVICE_UNAVAILABLE, (CACHE_CONTROL, "no-store"));
    match wants_json(accept) {
        true => (code, [uncached], Json(NotServing { status, reason })).into_response(),
        false => (code, [(CONTENT_TYPE, "text/plain"), uncached], reason.to_owned()).into_response(),
    }
}

/// Whether Accept names JSON. Text is what a caller gets who has no preference.
pub(super) fn wants_json(accept: Option<&HeaderValue>) -> bool {
    let Some(accept) = accept.and_then(|value| value.to_str().ok()) else { return false };
    accept.split(',').any(|range| {
        let mut words = range.split(';').map(str::trim);
        let json = words.next().is_some_and(|media| media.eq_ignore_ascii_case("application/json"));
        let excluded = words
            .any(|word| word.strip_prefix("q=").is_some_and(|q| q.parse::<f32>().is_ok_and(|quality| quality <= 0.0)));
        json && !excluded
    })
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
        return refusal(NotServingStatus::NotReady, "Marked down", request.headers().get(ACCEPT));
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
    use super::*;

    #[test]
    fn json_is_for_those_who_name_it() {
        for (accept, json) in [
            ("application/json", true),
            ("text/html, Application/JSON;q=0.5", true),
            ("application/json;charset=utf-8", true),
            ("application/json;q=0", false),
            ("application/json; q=0.0", false),
            ("*/*", false),
            ("text/plain", false),
            ("", false),
        ] {
            assert_eq!(wants_json(Some(&HeaderValue::from_static(accept))), json, "{accept}");
        }
        assert!(!wants_json(None));
    }
}
