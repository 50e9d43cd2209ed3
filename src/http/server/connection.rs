//! One connection: requests in, answers out, until the peer leaves or the server stops.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use super::stall::Unstalled;

/// The head of a request, at most: longer ones are answered 431.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Serves one connection to its end. After the shutdown, the answer under way is the last.
pub(super) async fn serve(
    stream: Unstalled<TcpStream>,
    router: Router,
    head_max: Duration,
    shutdown: CancellationToken,
) {
    let answer = service_fn(move |request| answer(router.clone(), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_max)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), answer);
    let mut connection = pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        // The peer's doing, nearly always: it went away, or never sent a whole request.
        tracing::debug!(%error, "connection ended");
    }
}

/// What a connection over the bound is served: 503 to its one request.
pub(super) fn refusing() -> Router {
    Router::new().fallback(|| async {
        let headers = [(header::RETRY_AFTER, "1"), (header::CONNECTION, "close")];
        (StatusCode::SERVICE_UNAVAILABLE, headers, "Too many connections")
    })
}

async fn answer(mut router: Router, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let answered = AssertUnwindSafe(router.call(request.map(Body::new))).catch_unwind().await;
    answered.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<&str>().copied().map(str::to_owned);
        let said = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        tracing::error!(path, panic = said, "a handler panicked");
        let mut response = Response::new(Body::from("Internal server error"));
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        Ok(response)
    })
}
