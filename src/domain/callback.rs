//! A callback: the HTTP request that a timer makes, and what its answer means.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::value::RawValue;
use url::Host;

use super::invalid::{Field, Invalid};
use super::{callback_url, limits, moment};
use crate::clock::Timestamp;

/// The methods that a callback may have.
pub const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

/// The method where nothing else is said.
pub const METHOD_DEFAULT: &str = "POST";
/// How long one attempt may take where nothing else is said.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// The request that leaves when a timer is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callback {
    /// Absolute http or https URL without user-info.
    pub url: String,
    /// The method, upper case; [`METHOD_DEFAULT`] unless the timer says otherwise.
    pub method: String,
    /// Further headers, name to value.
    pub headers: BTreeMap<String, String>,
    /// How long one attempt may take in all, within [`limits::CALLBACK_TIMEOUT_SECONDS`].
    pub timeout: Duration,
}

impl Callback {
    /// A call of this URL with the usual rest.
    pub fn new(url: impl Into<String>) -> Self {
        let method = METHOD_DEFAULT.to_owned();
        Self { url: url.into(), method, headers: BTreeMap::new(), timeout: TIMEOUT_DEFAULT }
    }

    /// Checks all of it, and returns the host that the URL names.
    pub fn check(&self) -> Result<Host, Invalid> {
        check_method(&self.method)?;
        check_headers(&self.headers)?;
        check_timeout(self.timeout)?;
        callback_url::check(&self.url)
    }
}

/// Checks that it is one of [`METHODS`].
pub fn check_method(method: &str) -> Result<(), Invalid> {
    match METHODS.contains(&method) {
        true => Ok(()),
        false => Err(Invalid::new(Field::CallbackMethod, method, format!("one of {}", METHODS.join(", ")))),
    }
}

/// Checks how long one attempt may take: whole seconds, within [`limits::CALLBACK_TIMEOUT_SECONDS`].
pub fn check_timeout(timeout: Duration) -> Result<(), Invalid> {
    let seconds = u16::try_from(timeout.as_secs()).unwrap_or(u16::MAX);
    let range = limits::CALLBACK_TIMEOUT_SECONDS;
    match range.contains(&seconds) && timeout.subsec_nanos() == 0 {
        true => Ok(()),
        false => Err(Invalid::new(Field::CallbackTimeout, timeout.as_secs_f64(), timeout_allowed())),
    }
}

/// What a time-out may be, in words.
pub fn timeout_allowed() -> String {
    let range = limits::CALLBACK_TIMEOUT_SECONDS;
    format!("a whole number of seconds from {} to {}", range.start(), range.end())
}

/// Checks names, values and how many there are.
pub fn check_headers(headers: &BTreeMap<String, String>) -> Result<(), Invalid> {
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if headers.len() > limits::CALLBACK_HEADERS_MAX || bytes > limits::CALLBACK_HEADER_BYTES_MAX {
        let (count_max, bytes_max) = (limits::CALLBACK_HEADERS_MAX, limits::CALLBACK_HEADER_BYTES_MAX);
        let allowed = format!("at most {count_max} headers of {bytes_max} bytes together");
        return Err(Invalid::new(Field::CallbackHeaders, format!("{} of {bytes} bytes", headers.len()), allowed));
    }
    for (name, value) in headers {
        if is_reserved_header(name) {
            let allowed = "a header that belongs neither to the connection nor to the server";
            return Err(Invalid::new(Field::CallbackHeaders, name.escape_debug(), allowed));
        }
        if name.parse::<HeaderName>().is_err() || value.parse::<HeaderValue>().is_err() {
            return Err(Invalid::new(Field::CallbackHeaders, name.escape_debug(), "names and values that HTTP allows"));
        }
    }
    Ok(())
}

/// Headers that belong to the connection or to the server; a name that ends in `-` stands for all that begin with it.
const RESERVED_HEADERS: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "walclock-",
    "webhook-",
];

/// Whether a timer may not set a header of this name, in whatever case.
pub fn is_reserved_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    RESERVED_HEADERS.iter().any(|reserved| match reserved.ends_with('-') {
        true => name.starts_with(reserved),
        false => name == *reserved,
    })
}

/// What came back from an attempt, as far as the rules look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// The HTTP status.
    pub status: u16,
    /// The body, at most `limits::REPLY_BYTES_MAX` bytes of it.
    pub body: &'a [u8],
    /// The `Retry-After` header, as the moment it names.
    pub retry_after: Option<Timestamp>,
}

/// What an attempt's reply means for its timer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The receiver has taken it: the run is over.
    Succeeded,
    /// The receiver wants to be called again at this moment, attempts counted anew.
    Reschedule(Timestamp),
    /// The attempt failed; the retry policy decides, not before the given moment.
    Retry {
        /// A lower bound that the receiver asked for.
        not_before: Option<Timestamp>,
        /// Why, in a few words, for `last_error`.
        error: String,
    },
    /// The receiver refuses this timer for good.
    Failed {
        /// Why, in a few words, for `last_error`.
        error: String,
    },
}

/// The body of a 200. What else the receiver puts into it does not matter, nor does what an `ok` makes meaningless.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    ok: bool,
    #[serde(borrow, default)]
    next_execute_at: Option<&'a RawValue>,
}

impl Reply<'_> {
    /// What this reply, received at `now`, means.
    pub fn verdict(&self, now: Timestamp) -> Verdict {
        match self.status {
            200 => self.verdict_of_body(now),
            // A receiver that names a time to come back has not refused for good.
            429 if self.retry_after.is_some() => self.retry("answered 429".to_owned()),
            400..=499 => Verdict::Failed { error: format!("answered {}", self.status) },
            status => self.retry(format!("answered {status}")),
        }
    }

    fn verdict_of_body(&self, now: Timestamp) -> Verdict {
        // An array of the same values would do for the parser.
        let is_object = self.body.trim_ascii_start().starts_with(b"{");
        let Some(answer) = serde_json::from_slice::<Answer<'_>>(self.body).ok().filter(|_| is_object) else {
            return self.retry("answered 200 without {\"ok\": true or false}".to_owned());
        };
        if answer.ok {
            return Verdict::Succeeded;
        }
        let Some(value) = answer.next_execute_at else {
            return self.retry("answered ok: false".to_owned());
        };
        let text: Option<Cow<'_, str>> = serde_json::from_str(value.get()).ok();
        match text.and_then(|text| moment::parse(&text).ok()) {
            Some(at) if at <= now.after(limits::EXECUTE_AT_AHEAD_MAX) => Verdict::Reschedule(at.max(now)),
            Some(_) => self.retry("answered a nextExecuteAt too far ahead".to_owned()),
            None => self.retry("answered a nextExecuteAt that is not RFC 3339".to_owned()),
        }
    }

    fn retry(&self, error: String) -> Verdict {
        Verdict::Retry { not_before: self.retry_after, error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);
    const LATER: Timestamp = Timestamp::from_micros(1_700_000_060_000_000);

    fn verdict(status: u16, body: &str, retry_after: Option<Timestamp>) -> Verdict {
        Reply { status, body: body.as_bytes(), retry_after }.verdict(NOW)
    }

    #[test]
    fn a_callback_is_checked_whole() {
        let good = Callback {
            url: "https://example.com/hook".to_owned(),
            method: "POST".to_owned(),
            headers: BTreeMap::from([("x-tenant".to_owned(), "7".to_owned())]),
            timeout: Duration::from_secs(30),
        };
        assert_eq!(good.check().map(|host| host.to_string()).as_deref(), Ok("example.com"));
        let headers = |headers: &[(&str, &str)]| {
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let many = (0..33).map(|n| (format!("x-{n}"), String::new())).collect();
        for (bad, field) in [
            (Callback { url: "example.com".to_owned(), ..good.clone() }, Field::CallbackUrl),
            (Callback { method: "post".to_owned(), ..good.clone() }, Field::CallbackMethod),
            (Callback { method: "CONNECT".to_owned(), ..good.clone() }, Field::CallbackMethod),
            (Callback { timeout: Duration::ZERO, ..good.clone() }, Field::CallbackTimeout),
            (Callback { timeout: Duration::from_millis(1500), ..good.clone() }, Field::CallbackTimeout),
            (Callback { timeout: Duration::from_secs(301), ..good.clone() }, Field::CallbackTimeout),
            (Callback { timeout: Duration::MAX, ..good.clone() }, Field::CallbackTimeout),
            (Callback { headers: headers(&[("a b", "")]), ..good.clone() }, Field::CallbackHeaders),
            (Callback { headers: headers(&[("", "")]), ..good.clone() }, Field::CallbackHeaders),
            (Callback { headers: headers(&[("a", "b\r\nc: d")]), ..good.clone() }, Field::CallbackHeaders),
            (Callback { headers: headers(&[("a", "\0")]), ..good.clone() }, Field::CallbackHeaders),
            (Callback { headers: headers(&[("a", &"b".repeat(8192))]), ..good.clone() }, Field::CallbackHeaders),
            (Callback { headers: many, ..good.clone() }, Field::CallbackHeaders),
        ] {
            assert_eq!(bad.check().expect_err("it is bad").field, field, "{bad:?}");
        }
    }

    #[test]
    fn an_ok_is_a_success_whatever_comes_with_it() {
        for body in [
            r#"{"ok":true}"#,
            " {\"ok\" : true, \"note\": [1, {}]}\n",
            r#"{"ok":true,"nextExecuteAt":"2100-01-01T00:00:00Z"}"#,
            r#"{"nextExecuteAt":"nonsense","ok":true}"#,
            r#"{"ok":true,"nextExecuteAt":1700000000}"#,
        ] {
            assert_eq!(verdict(200, body, None), Verdict::Succeeded, "{body}");
        }
    }

    #[test]
    fn a_next_moment_reschedules_and_never_into_the_past() {
        for (text, at) in [
            ("2023-11-14T22:14:20Z", LATER),
            ("2023-11-14T23:14:20.000001+01:00", LATER.after(Duration::from_micros(1))),
            ("2000-01-01T00:00:00Z", NOW),
        ] {
            let body = format!(r#"{{"ok":false,"nextExecuteAt":"{text}"}}"#);
            assert_eq!(verdict(200, &body, None), Verdict::Reschedule(at), "{body}");
        }
    }

    #[test]
    fn what_is_neither_yes_nor_no_is_tried_again() {
        for (status, body) in [
            (200, r#"{"ok":false}"#),
            (200, r#"{"ok":false,"nextExecuteAt":null}"#),
            (200, r#"{"ok":false,"nextExecuteAt":"tomorrow"}"#),
            (200, r#"{"ok":false,"nextExecuteAt":"9000-01-01T00:00:00Z"}"#),
            (200, r#"{"ok":false,"nextExecuteAt":17}"#),
            (200, r#"{"ok":"true"}"#),
            (200, r#"{"ok":1}"#),
            (200, r#"{"ok":true"#),
            (200, r#"{"ok":true} and more"#),
            (200, "{}"),
            (200, "[true]"),
            (200, r#"[false,"2023-11-14T22:14:20Z"]"#),
            (200, "ok"),
            (200, ""),
            (200, "\u{0}"),
            (201, r#"{"ok":true}"#),
            (204, ""),
            (100, ""),
            (301, ""),
            (307, r#"{"ok":true}"#),
            (500, r#"{"ok":true}"#),
            (503, ""),
            (999, ""),
        ] {
            for not_before in [None, Some(LATER)] {
                let found = verdict(status, body, not_before);
                assert!(
                    matches!(&found, Verdict::Retry { not_before: n, error } if *n == not_before && !error.is_empty()),
                    "{status} {body} became {found:?}"
                );
            }
        }
    }

    #[test]
    fn a_refusal_is_final_unless_a_429_names_a_time() {
        for status in [400, 401, 404, 408, 410, 429, 499] {
            let error = format!("answered {status}");
            assert_eq!(verdict(status, r#"{"ok":true}"#, None), Verdict::Failed { error });
        }
        for status in [400, 408, 410] {
            let error = format!("answered {status}");
            assert_eq!(verdict(status, "", Some(LATER)), Verdict::Failed { error });
        }
        let error = "answered 429".to_owned();
        assert_eq!(verdict(429, "", Some(LATER)), Verdict::Retry { not_before: Some(LATER), error });
    }

    #[test]
    fn headers_of_the_connection_and_the_server_are_reserved() {
        for name in ["Host", "content-length", "TE", "Proxy-Authorization", "Webhook-Id", "walclock-fence", "webhook-"]
        {
            assert!(is_reserved_header(name), "{name}");
        }
        for name in ["authorization", "content-type", "x-te", "hosts", "webhook", "x-webhook-id", ""] {
            assert!(!is_reserved_header(name), "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_verdict_never_panics(status: u16, body: Vec<u8>, now: i64, retry_after in proptest::option::of(any::<i64>())) {
            let retry_after = retry_after.map(Timestamp::from_micros);
            let _ = Reply { status, body: &body, retry_after }.verdict(Timestamp::from_micros(now));
        }

        #[test]
        fn a_reschedule_is_never_in_the_past(now in 0_i64..4_000_000_000_000_000, at in -60_000_000_000_000_000_i64..200_000_000_000_000_000) {
            let (now, at) = (Timestamp::from_micros(now), Timestamp::from_micros(at));
            let body = format!(r#"{{"ok":false,"nextExecuteAt":"{at}"}}"#).into_bytes();
            match (Reply { status: 200, body: &body, retry_after: None }).verdict(now) {
                Verdict::Reschedule(next) => prop_assert_eq!(next, at.max(now)),
                other => prop_assert!(at > now.after(limits::EXECUTE_AT_AHEAD_MAX), "{:?}", other),
            }
        }
    }
}
