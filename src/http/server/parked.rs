//! A connection whose request waits for its answer, without hyper around it.
//!
//! Hyper keeps two buffers of 8 KiB for as long as it has a connection. Of ten thousand readers that wait, that would be
//! most of what they cost; so hyper is let go while nothing is to be read or written, and made anew for the answer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::{HeaderValue, Method, Request, Response, Version, header};
use bytes::Bytes;
use hyper::body::{Body as _, Incoming};
use parking_lot::Mutex;
use tokio::net::TcpStream;

/// An answer in the making.
pub(super) type Answer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// How much is read of the next request while the answer to this one is awaited; the rest stays with the kernel.
const AHEAD_BYTES: usize = 512;

/// What stands for the request when hyper is made anew for its answer: hyper needs to know of it only what decides the
/// form of an answer.
const STANDS_FOR: &[u8] = b"GET / HTTP/1.1\r\nhost: -\r\n\r\n";
const STANDS_FOR_LAST: &[u8] = b"GET / HTTP/1.1\r\nhost: -\r\nconnection: close\r\n\r\n";

/// The request, no longer in hyper's buffer: a single header would keep all of the buffer for as long as the request is
/// kept.
pub(super) fn detached<B>(mut request: Request<B>) -> Request<B> {
    for value in request.headers_mut().values_mut() {
        *value = HeaderValue::from_bytes(value.as_bytes()).expect("a header's value is one");
    }
    if let Ok(uri) = request.uri().to_string().parse() {
        *request.uri_mut() = uri;
    }
    request
}

/// Where the answer that hyper awaits is kept, so that it can be taken over. Cheap to clone; clones are the same.
#[derive(Clone, Default)]
pub(super) struct Desk(Arc<Mutex<Option<Awaited>>>);

/// An answer, and what is known of its request.
pub(super) struct Awaited {
    pub answer: Answer,
    pub kind: Kind,
}

/// What the request allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Hyper is needed all the time: there is a body to read, or the answer's form depends on more than is kept.
    Attended,
    /// A plain call over a connection that is kept.
    Plain,
    /// A plain call, the last one of its connection.
    PlainLast,
}

impl Kind {
    /// The kind of this request.
    pub(super) fn of(request: &Request<Incoming>) -> Self {
        let headers = request.headers();
        let is_plain = request.method() == Method::GET
            && request.version() == Version::HTTP_11
            && request.body().is_end_stream()
            && !headers.contains_key(header::UPGRADE)
            && !headers.contains_key(header::EXPECT);
        let mut options = headers.get_all(header::CONNECTION).iter().map(|value| value.as_bytes());
        match (is_plain, options.next(), options.next()) {
            (true, None, None) => Self::Plain,
            (true, Some(one), None) if one.eq_ignore_ascii_case(b"keep-alive") => Self::Plain,
            (true, Some(one), None) if one.eq_ignore_ascii_case(b"close") => Self::PlainLast,
            _ => Self::Attended,
        }
    }

    /// The bytes from which hyper understands that a request of this kind is there.
    pub(super) fn stands_for(self, is_last: bool) -> &'static [u8] {
        match self {
            Self::Plain if !is_last => STANDS_FOR,
            Self::Plain | Self::PlainLast | Self::Attended => STANDS_FOR_LAST,
        }
    }
}

impl Desk {
    /// Puts an answer here; what is returned ends with it, as long as it is not taken.
    pub(super) fn put(&self, awaited: Awaited) -> Delivered {
        *self.0.lock() = Some(awaited);
        Delivered(self.clone())
    }

    /// Takes the answer, if one is awaited that can be without hyper.
    pub(super) fn take(&self) -> Option<Awaited> {
        let mut desk = self.0.lock();
        match desk.as_ref()?.kind {
            Kind::Attended => None,
            Kind::Plain | Kind::PlainLast => desk.take(),
        }
    }
}

/// Hyper's view of an answer on the desk.
pub(super) struct Delivered(Desk);

impl Future for Delivered {
    type Output = Response<Body>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response<Body>> {
        let mut desk = self.0.0.lock();
        // Whoever takes the answer lets hyper go: nobody asks again.
        let Some(awaited) = desk.as_mut() else { return Poll::Pending };
        let answer = awaited.answer.as_mut().poll(cx);
        if answer.is_ready() {
            *desk = None;
        }
        answer
    }
}

impl Drop for Delivered {
    /// Hyper gave the request up: so does whoever makes the answer.
    fn drop(&mut self) {
        *self.0.0.lock() = None;
    }
}

/// Waits for the answer; none where the peer goes away first. `ahead` is what of the next request is here already.
pub(super) async fn answered(answer: Answer, socket: &TcpStream, ahead: &mut Bytes) -> Option<Response<Body>> {
    tokio::select! {
        biased;
        response = answer => Some(response),
        () = hung_up(socket, ahead) => None,
    }
}

/// Ends when the peer does. Once it has sent more, that it goes away is only noticed by who reads on.
async fn hung_up(socket: &TcpStream, ahead: &mut Bytes) {
    while ahead.is_empty() {
        if socket.readable().await.is_err() {
            return;
        }
        let mut buffer = [0; AHEAD_BYTES];
        match socket.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => *ahead = Bytes::copy_from_slice(&buffer[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Uri;

    #[test]
    fn a_detached_request_is_the_same_and_keeps_no_buffer() {
        let (uri, accept) = ("/changes?scope=a+b&since=0.1.0", "application/json");
        let buffer = Bytes::from(format!("{uri}{accept}"));
        let mut request = Request::new(());
        *request.uri_mut() = Uri::from_maybe_shared(buffer.slice(..uri.len())).unwrap();
        let value = HeaderValue::from_maybe_shared(buffer.slice(uri.len()..)).unwrap();
        request.headers_mut().insert(header::ACCEPT, value);
        assert!(!buffer.is_unique());
        let request = detached(request);
        assert!(buffer.is_unique());
        assert_eq!(request.uri(), uri);
        assert_eq!(request.headers()[header::ACCEPT], accept);
    }
}
