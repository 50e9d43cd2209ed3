//! The body of a request that must be JSON: bounded in size and in time. What it says is each face's own.

use std::time::Duration;

use axum::extract::Request;
use axum::http::header;
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::domain::limits;

/// Why there is no body to read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request does not say that it is JSON.
    #[error("the Content-Type must be application/json")]
    ContentType,
    /// It is larger than the server reads.
    #[error("the body must be at most {} bytes long", limits::REQUEST_BYTES_MAX)]
    TooLarge,
    /// It did not arrive in time.
    #[error("the body must arrive within {} s", limits::REQUEST_BODY_WAIT_MAX.as_secs())]
    TooSlow,
    /// The connection broke, or what came is no HTTP.
    #[error("the body cannot be read")]
    Cut(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Reads the whole body of a request with JSON in it, at most `limits::REQUEST_BYTES_MAX` bytes within
/// `limits::REQUEST_BODY_WAIT_MAX`.
pub async fn json(request: Request) -> Result<Bytes, Error> {
    json_within(limits::REQUEST_BODY_WAIT_MAX, request).await
}

async fn json_within(wait_max: Duration, request: Request) -> Result<Bytes, Error> {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !content_type.is_some_and(is_json) {
        return Err(Error::ContentType);
    }
    let max = limits::REQUEST_BYTES_MAX;
    let body = request.into_body();
    // What the request announces; a body without a length is counted as it comes.
    if usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX) > max {
        return Err(Error::TooLarge);
    }
    let read = tokio::time::timeout(wait_max, Limited::new(body, max).collect());
    match read.await {
        Err(_) => Err(Error::TooSlow),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Error::TooLarge),
        Ok(Err(error)) => Err(Error::Cut(error)),
        Ok(Ok(body)) => Ok(body.to_bytes()),
    }
}

/// Whether a media type is JSON: `application/json` or `application/…+json`, with any parameters.
fn is_json(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media_type.strip_prefix("application/").is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use std::convert::Infallible;

    #[test]
    fn json_goes_by_several_names() {
        for (content_type, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/cloudevents+json", true),
            ("application/x-www-form-urlencoded", false),
            ("text/json", false),
            ("application/jsonp", false),
            ("json", false),
            ("", false),
        ] {
            assert_eq!(is_json(content_type), expected, "{content_type}");
        }
    }

    fn request(body: Body) -> Request {
        Request::post("/").header("content-type", "application/json").body(body).unwrap()
    }

    async fn read(body: Body) -> Result<Bytes, Error> {
        json(request(body)).await
    }

    #[tokio::test]
    async fn a_body_has_a_bound_whether_or_not_it_says_its_length() {
        let stream = |bytes: usize| {
            let chunks = std::iter::repeat_n(Bytes::from_static(b"1"), bytes).map(Ok::<_, Infallible>);
            Body::from_stream(futures_util::stream::iter(chunks))
        };
        let max = limits::REQUEST_BYTES_MAX;
        assert_eq!(read(Body::from(vec![b'1'; max])).await.unwrap().len(), max);
        assert_eq!(read(stream(max)).await.unwrap().len(), max);
        assert!(matches!(read(Body::from(vec![b'1'; max + 1])).await, Err(Error::TooLarge)));
        assert!(matches!(read(stream(max + 1)).await, Err(Error::TooLarge)));
    }

    #[tokio::test]
    async fn a_body_that_does_not_end_is_given_up() {
        let endless = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        assert!(matches!(json_within(Duration::ZERO, request(endless)).await, Err(Error::TooSlow)));
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_told() {
        let broken = futures_util::stream::iter([Err::<Bytes, _>(std::io::Error::other("gone"))]);
        assert!(matches!(read(Body::from_stream(broken)).await, Err(Error::Cut(_))));
    }
}
