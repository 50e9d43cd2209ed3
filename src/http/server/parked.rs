//! A connection without hyper around it: nothing is asked, or what is asked waits for its answer.
//!
//! Hyper keeps two buffers of 8 KiB for as long as it has a connection. Of ten thousand readers that wait, that would be
//! most of what they cost; so hyper is let go while nothing is to be read or written, and made anew when something is.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Method, Request, Response, Version, header};
use bytes::Bytes;
use hyper::body::{Body as _, Incoming};
use parking_lot::Mutex;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::stall::Unstalled;
use super::wire::Wire;
use crate::http::common::held::held;
use crate::http::common::later::Answer;

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

/// A connection that hyper has been let go of.
pub(super) struct Parked {
    pub until: Until,
    /// What of the next request is here already.
    pub ahead: Bytes,
    pub socket: Unstalled<TcpStream>,
}

/// What it waits for.
pub(super) enum Until {
    /// A request.
    Asked,
    /// The answer to the one that is there.
    Answered(Awaited),
}

impl Parked {
    /// Waits until hyper is needed: what it reads, and the answer to what it reads first. None where the connection is over
    /// instead: the peer went away, or asked nothing for `head_max`, or the server stops.
    pub(super) async fn over(
        mut self,
        head_max: Duration,
        shutdown: &CancellationToken,
    ) -> Option<(Wire, Option<Response<Body>>)> {
        match self.until {
            Until::Asked => {
                if self.ahead.is_empty() {
                    self.ahead = tokio::select! {
                        // First what has been asked: it is answered also when the server stops.
                        biased;
                        asked = arrived(self.socket.inner()) => asked?,
                        () = shutdown.cancelled() => return None,
                        () = tokio::time::sleep(head_max) => return None,
                    };
                }
                Some((Wire::new(self.ahead, self.socket), None))
            }
            Until::Answered(Awaited { answer, kind }) => {
                let response = answered(answer, self.socket.inner(), &mut self.ahead).await?;
                let request = kind.stands_for(shutdown.is_cancelled());
                Some((Wire::new([request, &self.ahead].concat().into(), self.socket), Some(response)))
            }
        }
    }
}

/// Where the answer that hyper awaits is kept, so that it can be taken over. Cheap to clone; clones are the same.
#[derive(Clone, Default)]
pub(super) struct Desk(Arc<Mutex<Papers>>);

/// What lies on a desk.
#[derive(Default)]
struct Papers {
    awaited: Option<Awaited>,
    /// A request has been taken up.
    is_used: bool,
    /// A request was of a kind that needs hyper: what it has left to read is not known.
    is_attended: bool,
    /// Each answer that is being sent has a clone of it.
    sent: Arc<()>,
}

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
        let mut papers = self.0.lock();
        papers.is_used = true;
        papers.is_attended |= awaited.kind == Kind::Attended;
        papers.awaited = Some(awaited);
        Delivered(self.clone())
    }

    /// Whether what was asked has been answered, and hyper only waits for more.
    pub(super) fn is_cleared(&self) -> bool {
        let papers = self.0.lock();
        let is_plain = papers.is_used && !papers.is_attended;
        is_plain && papers.awaited.is_none() && Arc::strong_count(&papers.sent) == 1
    }

    /// Takes the answer, if one is awaited that can be without hyper.
    pub(super) fn take(&self) -> Option<Awaited> {
        let awaited = &mut self.0.lock().awaited;
        match awaited.as_ref()?.kind {
            Kind::Attended => None,
            Kind::Plain | Kind::PlainLast => awaited.take(),
        }
    }
}

/// Hyper's view of an answer on the desk.
pub(super) struct Delivered(Desk);

impl Future for Delivered {
    type Output = Response<Body>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response<Body>> {
        let mut papers = self.0.0.lock();
        // Whoever takes the answer lets hyper go: nobody asks again.
        let Some(awaited) = papers.awaited.as_mut() else { return Poll::Pending };
        let response = ready!(awaited.answer.as_mut().poll(cx));
        papers.awaited = None;
        let sent = papers.sent.clone();
        Poll::Ready(response.map(|body| held(body, sent)))
    }
}

impl Drop for Delivered {
    /// Hyper gave the request up: so does whoever makes the answer.
    fn drop(&mut self) {
        self.0.0.lock().awaited = None;
    }
}

/// Waits for the answer; none where the peer goes away first. `ahead` is what of the next request is here already.
async fn answered(answer: Answer, socket: &TcpStream, ahead: &mut Bytes) -> Option<Response<Body>> {
    tokio::select! {
        biased;
        response = answer => Some(response),
        () = hung_up(socket, ahead) => None,
    }
}

/// Ends when the peer does, whatever it has sent before.
async fn hung_up(socket: &TcpStream, ahead: &mut Bytes) {
    if ahead.is_empty() {
        match arrived(socket).await {
            Some(bytes) => *ahead = bytes,
            None => return,
        }
    }
    // Nothing more is read, so what is unread would make the socket readable for ever. Urgent data, for which the socket is
    // not watched, comes along with one thing only: that the other end is closed.
    let _ = socket.ready(Interest::PRIORITY).await;
}

/// Waits for what the peer sends, and returns some of it; none where the peer goes away. That the socket is readable does
/// not tell: a new one is taken for readable before anything has come.
async fn arrived(socket: &TcpStream) -> Option<Bytes> {
    loop {
        socket.readable().await.ok()?;
        let mut buffer = [0; AHEAD_BYTES];
        match socket.try_read(&mut buffer) {
            Ok(0) => return None,
            Ok(length) => return Some(Bytes::copy_from_slice(&buffer[..length])),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
    }
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
