//! The body of a request that must be JSON: bounded in size and in time. What it says is each face's own.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header;
use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt;

use crate::domain::limits;

/// Why there is no body to read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request does not say that it is JSON.
    #[error("the Content-Type must be application/json")]
    ContentType,
    /// It is larger than the server reads.
    #[error("the body must be at most {bytes_max} bytes long")]
    TooLarge {
        /// What it reads.
        bytes_max: usize,
    },
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
    json_up_to(limits::REQUEST_BYTES_MAX, request).await
}

/// The same for a request that may have another size.
pub async fn json_up_to(bytes_max: usize, request: Request) -> Result<Bytes, Error> {
    json_within(limits::REQUEST_BODY_WAIT_MAX, bytes_max, request).await
}

async fn json_within(wait_max: Duration, bytes_max: usize, request: Request) -> Result<Bytes, Error> {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !content_type.is_some_and(is_json) {
        return Err(Error::ContentType);
    }
    // Such a client waits to hear whether it may send the body at all.
    let asks_first = request.headers().contains_key(header::EXPECT);
    let body = request.into_body();
    if asks_first && is_announced_too_large(&body, bytes_max) {
        return Err(Error::TooLarge { bytes_max });
    }
    match tokio::time::timeout(wait_max, collect(body, bytes_max)).await {
        Err(_) => Err(Error::TooSlow),
        Ok(read) => read,
    }
}

/// What the request announces; a body without a length is counted as it comes.
fn is_announced_too_large(body: &Body, bytes_max: usize) -> bool {
    usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX) > bytes_max
}

/// Collects the body. One that is too large is read on and dropped, up to a bound: a client that is cut off while it is
/// still sending may never see the answer.
async fn collect(mut body: Body, bytes_max: usize) -> Result<Bytes, Error> {
    let mut is_too_large = is_announced_too_large(&body, bytes_max);
    let (mut kept, mut read_bytes) = (BytesMut::new(), 0_usize);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| Error::Cut(error.into()))?.into_data() else { continue };
        read_bytes = read_bytes.saturating_add(data.len());
        is_too_large |= read_bytes > bytes_max;
        if !is_too_large {
            kept.extend_from_slice(&data);
        } else if read_bytes > bytes_max.saturating_add(limits::REQUEST_DROPPED_BYTES_MAX) {
            // However large a request may be, one that is a little larger is read to its end.
            break;
        }
    }
    match is_too_large {
        true => Err(Error::TooLarge { bytes_max }),
        false => Ok(kept.freeze()),
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
    use http_body::{Frame, SizeHint};
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll};

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
        assert!(matches!(read(Body::from(vec![b'1'; max + 1])).await, Err(Error::TooLarge { .. })));
        assert!(matches!(read(stream(max + 1)).await, Err(Error::TooLarge { .. })));
    }

    #[tokio::test]
    async fn what_is_too_large_is_read_on_to_a_bound_unless_the_client_asks_first() {
        let read = Arc::new(AtomicUsize::new(0));
        let endless = || {
            let read = read.clone();
            let chunk = Bytes::from_static(&[b'1'; 64 * 1024]);
            Body::from_stream(futures_util::stream::repeat_with(move || {
                read.fetch_add(chunk.len(), Ordering::Relaxed);
                Ok::<_, Infallible>(chunk.clone())
            }))
        };
        assert!(matches!(json(request(endless())).await, Err(Error::TooLarge { .. })));
        let bound = limits::REQUEST_BYTES_MAX + limits::REQUEST_DROPPED_BYTES_MAX;
        let was_read = read.swap(0, Ordering::Relaxed);
        assert!((bound - 128 * 1024..=bound + 128 * 1024).contains(&was_read), "{was_read}");

        let mut asks = request(Body::new(Unsent));
        asks.headers_mut().insert("expect", "100-continue".parse().unwrap());
        assert!(matches!(
            json_within(Duration::ZERO, limits::REQUEST_BYTES_MAX, asks).await,
            Err(Error::TooLarge { .. })
        ));
    }

    /// Announces too much, and sends nothing of it.
    struct Unsent;

    impl http_body::Body for Unsent {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Pending
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(u64::MAX)
        }
    }

    #[tokio::test]
    async fn a_body_that_does_not_end_is_given_up() {
        let endless = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        assert!(matches!(
            json_within(Duration::ZERO, limits::REQUEST_BYTES_MAX, request(endless)).await,
            Err(Error::TooSlow)
        ));
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_told() {
        let broken = futures_util::stream::iter([Err::<Bytes, _>(std::io::Error::other("gone"))]);
        assert!(matches!(read(Body::from_stream(broken)).await, Err(Error::Cut(_))));
    }
}
