//! gzip and zstd bodies for those who ask. A face says of each answer whether it is worth it; what it does not mention
//! leaves as it is, an answer without an end above all.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::ACCEPT_ENCODING;
use axum::http::{Extensions, HeaderMap, HeaderValue, Request, StatusCode, Version};
use axum::response::Response;
use axum::{Extension, Router};
use http_body::Body as _;
use tokio::sync::Semaphore;
use tower::util::MapRequestLayer;
use tower::{Layer, ServiceExt, service_fn};
use tower_http::CompressionLevel;
use tower_http::compression::{CompressionLayer, Predicate};

use super::accept::{self, Offer, Precision};
use super::held::held;
use crate::domain::limits;

/// Of answers that come in several forms and may be compressed: the headers of a request that they depend on.
pub const VARIES: HeaderValue = HeaderValue::from_static("accept, accept-encoding");

/// The answers that may be compressed at a time. A handler has it as an extension, under [`layer`].
#[derive(Clone, Debug)]
pub struct Places(Arc<Semaphore>);

/// How a body may be coded.
#[derive(Clone, Copy, Debug)]
enum Coding {
    Zstd,
    Gzip,
    /// As it is.
    Identity,
}

impl Offer for Coding {
    fn named_by(self, range: &str) -> Option<Precision> {
        let names: &[&str] = match self {
            Self::Zstd => &["zstd"],
            Self::Gzip => &["gzip", "x-gzip"],
            Self::Identity => &["identity"],
        };
        let is_named = names.iter().any(|name| range.eq_ignore_ascii_case(name));
        if is_named { Some(Precision::Named) } else { (range == "*").then_some(Precision::Anything) }
    }
}

/// Marks the answers that are to be compressed.
#[derive(Clone, Copy, Debug)]
struct Chosen;

/// Puts the compression around these routes.
pub fn layer(router: Router) -> Router {
    layer_with(router, limits::COMPRESSIONS_MAX)
}

fn layer_with(router: Router, places: usize) -> Router {
    let places = Extension(Places(Arc::new(Semaphore::new(places))));
    router.layer(places).layer(compression()).layer(MapRequestLayer::new(decided))
}

/// Compresses the answers that are marked.
fn compression() -> CompressionLayer<impl Predicate + Send + Sync + 'static> {
    let is_chosen = |_: StatusCode, _: Version, _: &HeaderMap, extensions: &Extensions| -> bool {
        extensions.get::<Chosen>().is_some()
    };
    CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(is_chosen)
}

/// What [`layer`] makes of an answer, for one that does not pass through it. `encoding` is the Accept-Encoding that the
/// handler was given.
pub async fn compressed(encoding: HeaderValue, response: Response) -> Response {
    let mut request = Request::new(());
    request.headers_mut().insert(ACCEPT_ENCODING, encoding);
    let mut response = Some(response);
    let given = service_fn(move |_: Request<()>| {
        std::future::ready(Ok::<_, Infallible>(response.take().expect("it is called once")))
    });
    let Ok(response) = compression().layer(given).oneshot(request).await;
    response.map(Body::new)
}

/// The request with what is chosen of Accept-Encoding alone, and without the header where that is no compression. A caller
/// who takes nothing that there is, not even a body as it is, is sent one as it is: the compression would turn any answer,
/// an error or one without an end, into a 406.
fn decided<B>(mut request: Request<B>) -> Request<B> {
    let headers = request.headers_mut();
    let word = match accept::best(headers, &ACCEPT_ENCODING, &[Coding::Zstd, Coding::Gzip, Coding::Identity]) {
        Some(Coding::Zstd) => "zstd",
        Some(Coding::Gzip) => "gzip",
        Some(Coding::Identity) | None => {
            headers.remove(ACCEPT_ENCODING);
            return request;
        }
    };
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(word));
    request
}

impl Places {
    /// Has this answer compressed, where the caller takes it so, it is not small, and there is a place free. Its body is
    /// read in the caller's task: it must not be ready for long at a stretch.
    pub fn compress(&self, request: &HeaderMap, mut response: Response) -> Response {
        let is_small = response.body().size_hint().exact().is_some_and(|bytes| bytes < limits::COMPRESSED_BYTES_MIN);
        if is_small || !request.contains_key(ACCEPT_ENCODING) {
            return response;
        }
        let Ok(place) = Arc::clone(&self.0).try_acquire_owned() else { return response };
        response.extensions_mut().insert(Chosen);
        response.map(|body| held(body, place))
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;
    use axum::routing::get;
    use http_body_util::BodyExt;
    use tower_service::Service;

    /// Answers with so many bytes.
    fn router(bytes: u64, places: usize) -> Router {
        let answer = move |Extension(places): Extension<Places>, headers: HeaderMap| async move {
            let body = vec![b'x'; usize::try_from(bytes).expect("a test has small bodies")];
            places.compress(&headers, Response::new(Body::from(body)))
        };
        let plain = || async { vec![b'x'; 100_000] };
        layer_with(Router::new().route("/", get(answer)).route("/plain", get(plain)), places)
    }

    async fn ask(router: &mut Router, path: &str, encodings: &str) -> Response {
        let request = Request::get(path).header("accept-encoding", encodings).body(Body::empty()).expect("a request");
        router.call(request).await.expect("infallible")
    }

    fn encoding(response: &Response) -> Option<&str> {
        response.headers().get("content-encoding").map(|value| value.to_str().expect("a word"))
    }

    #[tokio::test]
    async fn what_is_asked_for_and_worth_it_is_compressed() {
        let min = limits::COMPRESSED_BYTES_MIN;
        for (path, bytes, encodings, expected) in [
            ("/", min, "gzip", Some("gzip")),
            ("/", min, "zstd", Some("zstd")),
            ("/", min, "gzip, zstd", Some("zstd")),
            ("/", min, "gzip, zstd;q=0.5, br", Some("gzip")),
            ("/", min, "gzip;q=0", None),
            ("/", min, "GZIP", Some("gzip")),
            ("/", min, "x-gzip", Some("gzip")),
            ("/", min, "*", Some("zstd")),
            ("/", min, "zstd;q=0, *", Some("gzip")),
            ("/", min, "identity, gzip;q=0.5", None),
            ("/", min, "br", None),
            ("/", min, "identity", None),
            ("/", min, "", None),
            // Who takes nothing is sent what there is.
            ("/", min, "identity;q=0", None),
            ("/", min, "*;q=0", None),
            ("/", min, "br, *;q=0", None),
            ("/plain", min, "identity;q=0", None),
            ("/", min - 1, "gzip", None),
            ("/plain", min, "gzip", None),
        ] {
            let response = ask(&mut router(bytes, 1), path, encodings).await;
            assert_eq!(
                (response.status(), encoding(&response)),
                (StatusCode::OK, expected),
                "{path} {bytes} {encodings}"
            );
        }
    }

    #[tokio::test]
    async fn only_so_many_are_compressed_at_a_time() {
        let mut router = router(100_000, 2);
        // Who is sent it as it is takes no place.
        let plain = [ask(&mut router, "/", "identity").await, ask(&mut router, "/", "br").await];
        assert_eq!(plain.each_ref().map(encoding), [None, None]);
        let first = ask(&mut router, "/", "gzip").await;
        let second = ask(&mut router, "/", "gzip").await;
        assert_eq!((encoding(&first), encoding(&second)), (Some("gzip"), Some("gzip")));
        let third = ask(&mut router, "/", "gzip").await;
        assert_eq!(encoding(&third), None, "there is no place for it");
        assert_eq!(third.collect().await.expect("a body").to_bytes().len(), 100_000);
        drop(first);
        assert_eq!(encoding(&ask(&mut router, "/", "gzip").await), Some("gzip"), "a place is free again");
    }
}
