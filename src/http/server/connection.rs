//! One connection: requests in, answers out, until the peer leaves or the server stops.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use axum::middleware::map_response;
use axum::response::IntoResponse;
use bytes::Bytes;
use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use super::parked::{self, Awaited, Desk, Kind, Parked, Until};
use super::stall::Unstalled;
use super::wire::Wire;
use crate::domain::limits::REQUEST_HEAD_BYTES_MAX;
use crate::http::common::later::{Answer, Later};
use crate::http::common::refusal::{INTERNAL_SERVER_ERROR, Refusal};

/// Serves one connection to its end. After the shutdown, the answer under way is the last.
pub(super) async fn serve(
    stream: Unstalled<TcpStream>,
    router: Router,
    head_max: Duration,
    shutdown: CancellationToken,
) {
    let mut parked = Parked { until: Until::Asked, ahead: Bytes::new(), socket: stream };
    while let Some((wire, ready)) = parked.over(head_max, &shutdown).await {
        // Boxed, so that it takes no room while nothing is attended to.
        match Box::pin(attend(wire, ready, &router, head_max, &shutdown)).await {
            Some(again) => parked = again,
            None => return,
        }
    }
}

/// Lets hyper serve the connection, to its end, or until it only waits, for an answer or for the next request, which can
/// be waited for without it. `ready` is the answer to the first request.
pub(super) async fn attend(
    wire: Wire,
    ready: Option<Response<Body>>,
    router: &Router,
    head_max: Duration,
    shutdown: &CancellationToken,
) -> Option<Parked> {
    let desk = Desk::default();
    let ready = Mutex::new(ready);
    let held_up = wire.held_up();
    let service = service_fn(|request| {
        let kind = Kind::of(&request);
        let answer: Answer = match (ready.lock().take(), kind) {
            (Some(response), _) => Box::pin(std::future::ready(response)),
            (None, Kind::Attended) => answer(router.clone(), request),
            (None, Kind::Plain | Kind::PlainLast) => answer_later(router.clone(), parked::detached(request)),
        };
        desk.put(Awaited { answer, kind }).map(Ok::<_, Infallible>)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_max)
        .max_buf_size(REQUEST_HEAD_BYTES_MAX)
        .serve_connection(wire, service);
    // Boxed, so that it takes no room while it is not there.
    let mut connection = Box::new(connection);
    let mut stopping = false;
    let ended = loop {
        let attended = poll_fn(|cx| match Pin::new(&mut *connection).poll(cx) {
            Poll::Ready(result) => Poll::Ready(Err(result)),
            Poll::Pending if stopping => Poll::Pending,
            // Hyper takes up a request only when all that it had to say before has left.
            Poll::Pending => match desk.take() {
                Some(awaited) => Poll::Ready(Ok(Until::Answered(awaited))),
                None if desk.is_cleared() && !held_up.load(Ordering::Relaxed) => Poll::Ready(Ok(Until::Asked)),
                None => Poll::Pending,
            },
        });
        tokio::select! {
            // First what is under way: a connection on which nothing has come yet is closed by the shutdown.
            biased;
            ended = attended => break ended,
            () = shutdown.cancelled(), if !stopping => {
                stopping = true;
                Pin::new(&mut *connection).graceful_shutdown();
            }
        }
    };
    match ended {
        Ok(until) => {
            let http1::Parts { io, read_buf, .. } = connection.into_parts();
            let (unread, socket) = io.into_parts();
            // Copied, since an empty piece of a buffer keeps all of it.
            let ahead = Bytes::from([read_buf, unread].concat());
            Some(Parked { until, ahead, socket })
        }
        Err(Ok(())) => None,
        Err(Err(error)) => {
            // The peer's doing, nearly always: it went away, or never sent a whole request.
            tracing::debug!(%error, "connection ended");
            None
        }
    }
}

/// What a connection over the bound is served, once: the probes, and 503 to everything else.
pub(super) fn beyond(probes: Router) -> Router {
    let refused = || async { (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], "Too many connections") };
    probes.fallback(refused).layer(map_response(async |mut response: Response<Body>| {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    }))
}

/// The answer of the router, made within the router.
fn answer(mut router: Router, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().into();
    Box::pin(caught(path, async move {
        let Ok(response) = router.call(request.map(Body::new)).await;
        response
    }))
}

/// The answer of the router, or the one that its handler has left.
fn answer_later(mut router: Router, mut request: Request<Incoming>) -> Answer {
    let path = request.uri().path().into();
    let later = Later::default();
    request.extensions_mut().insert(later.clone());
    // Boxed by itself, so that nothing of it is kept while an answer is awaited that was left.
    let routed = Box::pin(async move {
        let Ok(response) = router.call(request.map(Body::new)).await;
        // What stands for an answer that was left goes at once, too.
        later.take().ok_or(response)
    });
    Box::pin(caught(path, async move {
        match routed.await {
            Ok(answer) => answer.await,
            Err(response) => response,
        }
    }))
}

/// The answer, or, where making it panics, one that says no more than that.
async fn caught(path: Box<str>, answer: impl Future<Output = Response<Body>>) -> Response<Body> {
    let panic = match AssertUnwindSafe(answer).catch_unwind().await {
        Ok(response) => return response,
        Err(panic) => panic,
    };
    let said = panic.downcast_ref::<&str>().copied().map(str::to_owned);
    let said = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    tracing::error!(path, panic = said, "a handler panicked");
    Refusal::new(INTERNAL_SERVER_ERROR, "the log of the server says more").into_response()
}
