//! Whom a timer may call, as far as the text of the URL tells. What its name resolves to is judged at every call.

use std::borrow::Cow;

use url::{Host, Position, Url};

use super::invalid::{Field, Invalid};
use super::limits;

/// Marks of RFC 3986 that a URL may have beside letters and digits; `#` is not among them, because a fragment is never
/// sent.
const MARKS: &str = "-._~:/?[]@!$&'()*+,;=%";

/// Checks the text of a callback URL and returns the host that it names: absolute http or https in the characters of
/// RFC 3986, at most 2048 bytes, without user-info and fragment.
pub fn check(text: &str) -> Result<Host, Invalid> {
    let refuse = |allowed: &str| Err(Invalid::new(Field::CallbackUrl, text, allowed));
    if text.len() > limits::URL_BYTES_MAX {
        return refuse(&format!("at most {} bytes long", limits::URL_BYTES_MAX));
    }
    let Some(authority) = authority(text) else {
        return refuse("an absolute http or https URL");
    };
    if authority.contains('@') {
        return refuse("a URL without user-info");
    }
    if text.contains('#') {
        return refuse("a URL without a fragment");
    }
    if !text.chars().all(|c| c.is_ascii_alphanumeric() || MARKS.contains(c)) {
        return refuse("a URL in the characters of RFC 3986, all others percent-encoded");
    }
    let url = Url::parse(text).ok();
    match url.as_ref().and_then(Url::host) {
        Some(host) if url.as_ref().and_then(Url::port) != Some(0) => Ok(host.to_owned()),
        Some(_) | None => refuse("an absolute http or https URL with a valid host and port"),
    }
}

/// Host and port of an http or https URL as they stand in its text; nothing where there is no host.
fn authority(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_once("://")?;
    let http = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let authority = rest.split(['/', '?', '#']).next()?;
    (http && !authority.is_empty()).then_some(authority)
}

/// Scheme, host and port of a callback URL, however they are written: what is limited and spared as one host. Empty where
/// there is no host.
pub fn origin(text: &str) -> Cow<'_, str> {
    if let Some(origin) = plain_origin(text) {
        return Cow::Borrowed(origin);
    }
    match Url::parse(text) {
        Ok(url) if url.has_host() => Cow::Owned(url[..Position::BeforePath].to_owned()),
        Ok(_) | Err(_) => Cow::Borrowed(""),
    }
}

/// The same where it stands in the text as it would be written anyway, which most do: no URL need be made of it.
fn plain_origin(text: &str) -> Option<&str> {
    let (scheme, default_port) = if text.starts_with("http://") { ("http://", "80") } else { ("https://", "443") };
    let rest = text.strip_prefix(scheme)?;
    let authority = rest.get(..rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len()))?;
    let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte == b'-' || byte == b'.' || byte.is_ascii_digit();
    // What ends in a number is an address, which has many spellings; what has an xn-- is judged by its letters.
    let last = host.rsplit('.').next()?;
    let number = |part: &str| part == "0" || !part.starts_with('0') && part.parse::<u8>().is_ok();
    let is_address = host.split('.').count() == 4 && host.split('.').all(number);
    let is_plain = !last.is_empty() && !last.starts_with(|c: char| c.is_ascii_digit()) && !host.contains("xn--");
    let port_is_plain = port.is_none_or(|port| {
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        digits && !port.starts_with('0') && port != default_port && port.parse::<u16>().is_ok()
    });
    let plain = host.bytes().all(is_name) && (is_plain || is_address) && port_is_plain;
    plain.then(|| text.get(..scheme.len() + authority.len()))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_the_host_however_it_is_written() {
        for (text, host) in [
            ("https://api.example.com/webhooks/timer", "api.example.com"),
            ("HTTP://API.example.com", "api.example.com"),
            ("http://example.com:8080?x=%20&y=[1]", "example.com"),
            ("http://example.com/a@b", "example.com"),
            ("http://127.1/", "127.0.0.1"),
            ("http://0x7f.1/", "127.0.0.1"),
            ("http://2130706433/", "127.0.0.1"),
            ("http://[::ffff:7f00:1]/", "[::ffff:7f00:1]"),
            ("http://localhost./", "localhost."),
            ("http://xn--bcher-kva.example/", "xn--bcher-kva.example"),
        ] {
            assert_eq!(check(text).map(|host| host.to_string()).as_deref(), Ok(host), "{text}");
        }
    }

    #[test]
    fn refuses_what_cannot_be_called() {
        let long = format!("http://example.com/{}", "a".repeat(2048));
        for (text, allowed) in [
            ("", "absolute"),
            ("example.com", "absolute"),
            ("/hook", "absolute"),
            ("file:///etc/passwd", "absolute"),
            ("gopher://example.com/", "absolute"),
            ("ftp://example.com/", "absolute"),
            ("javascript:alert(1)", "absolute"),
            ("http:example.com", "absolute"),
            ("http:///example.com", "absolute"),
            ("http://", "absolute"),
            ("http://?x", "absolute"),
            (" http://example.com", "absolute"),
            ("http://user@example.com/", "user-info"),
            ("http://user:word@example.com/", "user-info"),
            ("http://@example.com/", "user-info"),
            ("http://example.com/#top", "fragment"),
            ("http://example.com\\@evil.example/", "user-info"),
            ("http://example.com\\evil", "RFC 3986"),
            ("http://exa mple.com/", "RFC 3986"),
            ("http://example.com/a b", "RFC 3986"),
            ("http://example.com/\r\nX-Evil: 1", "RFC 3986"),
            ("http://example.com/\0", "RFC 3986"),
            ("http://bücher.example/", "RFC 3986"),
            ("http://раypal.com/", "RFC 3986"),
            ("http://example.com/{id}", "RFC 3986"),
            ("http://example.com:0/", "host and port"),
            ("http://example.com:65536/", "host and port"),
            ("http://example.com:http/", "host and port"),
            ("http://[::1/", "host and port"),
            ("http://[fe80::1%25eth0]/", "host and port"),
            ("http://256.256.256.256/", "host and port"),
            ("http://:80/", "host and port"),
            ("http://a%00b/", "host and port"),
            (&long, "2048 bytes"),
        ] {
            let error = check(text).expect_err(text);
            assert!(error.allowed.contains(allowed), "{text}: {error}");
            assert_eq!(error.field, Field::CallbackUrl);
        }
    }

    #[test]
    fn an_origin_is_the_same_however_it_is_written() {
        for (text, wanted) in [
            ("http://example.com/a?b", "http://example.com"),
            ("http://example.com", "http://example.com"),
            ("https://example.com:8443?x", "https://example.com:8443"),
            ("HTTP://Example.COM:80/", "http://example.com"),
            ("http://example.com:0080/", "http://example.com"),
            ("https://example.com:443/", "https://example.com"),
            ("http://ex%61mple.com/", "http://example.com"),
            ("http://127.0.0.1:1234/a", "http://127.0.0.1:1234"),
            ("http://127.1:1234/a", "http://127.0.0.1:1234"),
            ("http://0x7f.0.0.1/", "http://127.0.0.1"),
            ("http://[::1]:80/a", "http://[::1]"),
            ("", ""),
            ("http://", ""),
            ("mailto:x", ""),
        ] {
            assert_eq!(origin(text), wanted, "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_origin_is_what_the_client_connects_to(text in "https?://[a-z0-9.-]{1,12}(:[0-9]{0,6})?[/?#\\\\]?[a-z]{0,3}") {
            if let Ok(url) = Url::parse(&text) {
                prop_assert_eq!(origin(&text), &url[..Position::BeforePath]);
            }
        }

        #[test]
        fn what_passes_is_a_url_that_says_what_it_was_given(text in "https?://[a-z0-9.:@\\[\\]%/?#\\\\ -]{0,40}") {
            if check(&text).is_ok() {
                let url = Url::parse(&text).expect("it has been read before");
                prop_assert!(url.username().is_empty() && url.password().is_none() && url.fragment().is_none());
                let target = &url[Position::BeforePath..Position::AfterQuery];
                prop_assert!(target.parse::<http::Uri>().is_ok(), "the client cannot ask for {target} of {text}");
                prop_assert!(http::HeaderValue::from_str(&origin(&text)).is_ok(), "the client cannot name the host of {text}");
            }
        }

        #[test]
        fn checking_never_panics(text in "\\PC{0,60}") {
            let _ = check(&text);
        }
    }
}
