//! The request of a callback: where it goes, what it says, and how it is signed.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use url::{Position, Url};

use super::Error;
use super::routes::Route;
use super::transport::Message;
use crate::clock::Timestamp;
use crate::domain::callback::{Callback, is_reserved_header};
use crate::domain::run::Run;
use crate::domain::{limits, webhook};

/// Who calls.
pub(super) const AGENT: HeaderValue = HeaderValue::from_static(concat!("walclock/", env!("CARGO_PKG_VERSION")));

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const ATTEMPT: HeaderName = HeaderName::from_static("walclock-attempt");
const SCHEDULED_FOR: HeaderName = HeaderName::from_static("walclock-scheduled-for");
const FENCE: HeaderName = HeaderName::from_static("walclock-fence");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The body of a callback, in the contract's order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    timer_id: &'a str,
    namespace: &'a str,
    #[serde(serialize_with = "as_text")]
    execute_at: Timestamp,
    payload: Option<&'a RawValue>,
    attempt: u32,
}

fn as_text<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(at)
}

/// What an attempt says of itself, the same where its request goes out twice.
#[derive(Clone, Copy)]
pub(super) struct Stamp {
    /// When it leaves.
    pub(super) at: Timestamp,
    /// Names it within the trace of its firing; not zero.
    pub(super) span: u64,
}

/// The request of the run's attempt.
pub(super) fn message(run: &Run, route: &Route, stamp: Stamp) -> Result<Message, Error> {
    let callback = &run.timer.definition.callback;
    let method = Method::from_bytes(callback.method.as_bytes()).map_err(|_| Error::Callback("method"))?;
    let mut headers = own_headers(callback)?;
    // A GET has no body: proxies drop it and servers refuse it.
    let body = if method == Method::GET { Bytes::new() } else { body(run) };
    if !body.is_empty() {
        headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    }
    headers.insert(HOST, route.host.clone());
    headers.entry(USER_AGENT).or_insert(AGENT);
    webhook_headers(run, stamp, &body, &mut headers)?;
    Ok(Message { method, target: route.target.clone(), headers, body })
}

/// The URL of a callback, or a refusal: absolute http or https, within the length, and without user-info.
pub(super) fn url(text: &str) -> Result<Url, Error> {
    if text.len() > limits::URL_BYTES_MAX {
        return Err(Error::Callback("URL"));
    }
    let url = Url::parse(text).map_err(|_| Error::Callback("URL"))?;
    let is_http = matches!(url.scheme(), "http" | "https") && url.host_str().is_some_and(|host| !host.is_empty());
    let has_user = !url.username().is_empty() || url.password().is_some();
    if is_http && !has_user { Ok(url) } else { Err(Error::Callback("URL")) }
}

/// Path and query of a URL.
pub(super) fn target(url: &Url) -> Result<Uri, Error> {
    url[Position::BeforePath..Position::AfterQuery].parse().map_err(|_| Error::Callback("URL"))
}

/// The `Host` header of a URL: its host, and its port where that is not the scheme's own.
pub(super) fn host(url: &Url) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(&url[Position::BeforeHost..Position::AfterPort]).map_err(|_| Error::Callback("URL"))
}

fn body(run: &Run) -> Bytes {
    let definition = &run.timer.definition;
    let body = Body {
        timer_id: &definition.key.id,
        namespace: &definition.key.namespace,
        execute_at: definition.execute_at,
        payload: definition.payload.as_deref(),
        attempt: run.timer.attempts,
    };
    serde_json::to_vec(&body).expect("texts and numbers can be written as JSON").into()
}

/// The headers that the timer brings along.
fn own_headers(callback: &Callback) -> Result<HeaderMap, Error> {
    let bytes: usize = callback.headers.iter().map(|(name, value)| name.len().saturating_add(value.len())).sum();
    if callback.headers.len() > limits::CALLBACK_HEADERS_MAX || bytes > limits::CALLBACK_HEADER_BYTES_MAX {
        return Err(Error::Header("too many or too long".to_owned()));
    }
    let mut headers = HeaderMap::with_capacity(16);
    for (name, value) in &callback.headers {
        let refused = || Error::Header(name.chars().take(64).collect());
        if is_reserved_header(name) {
            return Err(refused());
        }
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refused())?;
        headers.insert(name, HeaderValue::from_str(value).map_err(|_| refused())?);
    }
    Ok(headers)
}

/// What tells the receiver which firing this is, that it is ours, and that no newer owner has it.
fn webhook_headers(run: &Run, stamp: Stamp, body: &[u8], headers: &mut HeaderMap) -> Result<(), Error> {
    let id = webhook::id(&run.timer);
    let seconds = stamp.at.micros().div_euclid(1_000_000);
    let text = |name: &str, value: String| HeaderValue::try_from(value).map_err(|_| Error::Header(name.to_owned()));
    if let Some(signatures) = webhook::signatures(&run.secrets, &id, seconds, body) {
        headers.insert(SIGNATURE, text("webhook-signature", signatures)?);
    }
    headers.insert(TIMESTAMP, seconds.into());
    headers.insert(ATTEMPT, run.timer.attempts.into());
    headers.insert(SCHEDULED_FOR, text("walclock-scheduled-for", run.timer.due_at().to_string())?);
    headers.insert(FENCE, run.epoch.0.into());
    if !headers.contains_key(TRACEPARENT) {
        // All attempts of a firing are one trace.
        headers.insert(TRACEPARENT, text("traceparent", format!("00-{id}-{:016x}-01", stamp.span))?);
    }
    headers.insert(ID, text("webhook-id", id)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::callback::check_headers;

    proptest! {
        #[test]
        fn headers_that_may_be_stored_can_be_sent(
            names in proptest::collection::vec("[a-zA-Z!#^_|~ :-]{0,6}|te|Host|webhook-[a-z]", 0..4),
            value in "[\\x00-\\x7fü]{0,3}",
        ) {
            let headers: BTreeMap<String, String> = names.into_iter().map(|name| (name, value.clone())).collect();
            let (url, method) = (String::new(), String::new());
            let callback = Callback { url, method, headers, timeout: Duration::ZERO };
            prop_assert_eq!(check_headers(&callback.headers).is_ok(), own_headers(&callback).is_ok());
        }
    }
}
