//! What is read out of an answer.

use http::HeaderValue;
use jiff::fmt::rfc2822;
use jiff::fmt::strtime;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::domain::{limits, stored};

/// The moment that a `Retry-After` header, received at `now`, names: seconds, or any of HTTP's three forms of a date.
pub(super) fn retry_after(header: Option<&HeaderValue>, now: Timestamp) -> Option<Timestamp> {
    let text = header?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit are a moment that never comes.
        return Some(now.after(Duration::from_secs(text.parse().unwrap_or(u64::MAX))));
    }
    http_date(text)
}

fn http_date(text: &str) -> Option<Timestamp> {
    let obsolete =
        |format| strtime::parse(format, text).ok()?.to_datetime().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok();
    let moment = rfc2822::DateTimeParser::new()
        .parse_timestamp(text)
        .ok()
        .or_else(|| obsolete("%A, %d-%b-%y %H:%M:%S GMT").map(|zoned| zoned.timestamp()))
        .or_else(|| obsolete("%a %b %e %H:%M:%S %Y").map(|zoned| zoned.timestamp()))?;
    Some(Timestamp::from_micros(moment.as_microsecond()))
}

/// The first bytes of an answer as text that PostgreSQL stores: UTF-8 without NUL, within its length.
pub(super) fn head(body: &[u8]) -> String {
    let start = body.get(..limits::REPLY_HEAD_BYTES_MAX).unwrap_or(body);
    stored::text(&String::from_utf8_lossy(start), limits::REPLY_HEAD_BYTES_MAX)
}

/// An error text, within its length and without NUL.
pub(super) fn error(text: &str) -> String {
    stored::text(text, limits::ERROR_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 1994-11-06 08:49:07 UTC, half a minute before the date of HTTP's own examples.
    const NOW: Timestamp = Timestamp::from_micros(784_111_747_000_000);

    fn parse(text: &str) -> Option<Timestamp> {
        retry_after(Some(&HeaderValue::from_str(text).expect("a value")), NOW)
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let later = Some(NOW.after(Duration::from_secs(30)));
        for text in [
            "30",
            " 030 ",
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse(text), later, "{text}");
        }
        assert_eq!(parse("0"), Some(NOW));
        assert_eq!(parse("99999999999999999999999"), Some(Timestamp::MAX));
        for text in ["", "-1", "1.5", "soon", "30s", "Sun, 06 Foo 1994 08:49:37 GMT"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(retry_after(None, NOW), None);
    }

    #[test]
    fn a_head_is_text_that_postgresql_stores() {
        for (body, expected) in [
            (&b"plain"[..], "plain".to_owned()),
            (b"nul \0 in it", "nul \u{fffd} in it".to_owned()),
            (b"\xff\xfe", "\u{fffd}\u{fffd}".to_owned()),
            (&[b'a'; 2000], "a".repeat(limits::REPLY_HEAD_BYTES_MAX)),
        ] {
            assert_eq!(head(body), expected);
        }
    }

    proptest! {
        #[test]
        fn a_head_keeps_its_length(body in proptest::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert!(head(&body).len() <= limits::REPLY_HEAD_BYTES_MAX);
        }

        #[test]
        fn a_date_never_panics(text in "[ -~]{0,40}") {
            let _ = parse(&text);
        }
    }
}
