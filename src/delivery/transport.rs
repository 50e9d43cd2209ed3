//! One exchange of request and answer, over a kept connection or a new one.

use std::time::Duration;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::Instant;
use url::Url;

use super::Error;
use super::body::{Body, Extent, Room};
use super::connect::{Connection, Connector};
use super::pool::Pool;
use crate::clock::{Clock, Timestamp};
use crate::domain::limits::{REPLIES_LARGE_MAX, RETRY_AFTER_BYTES_MAX};

/// How soon a kept connection breaks that its server closed as the request left: within what a packet takes there and back.
/// A server that had the request for longer may have begun with it.
const CLOSE_RACE_MAX: Duration = Duration::from_secs(1);

/// Whom to call, and for whom.
pub(super) struct Call<'a> {
    pub(super) url: &'a Url,
    /// Whose share of the lookups it takes.
    pub(super) namespace: &'a str,
    /// When the caller gives up.
    pub(super) until: Instant,
}

/// A request, as it goes out.
pub(super) struct Message {
    pub(super) method: Method,
    /// Path and query.
    pub(super) target: Uri,
    /// All headers but Content-Length.
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl From<Message> for Request<Full<Bytes>> {
    fn from(message: Message) -> Self {
        let mut request = Request::new(Full::new(message.body));
        *request.method_mut() = message.method;
        *request.uri_mut() = message.target;
        *request.headers_mut() = message.headers;
        request
    }
}

/// How far an exchange has come. It stands outside, so that it is known of an exchange that was given up too.
#[derive(Default)]
pub(super) struct Progress {
    /// When the request left.
    pub(super) sent_at: Option<Timestamp>,
    /// The status of the answer.
    pub(super) status: Option<u16>,
    /// The `Retry-After` of the answer.
    pub(super) retry_after: Option<HeaderValue>,
    /// What has come of the answer's body.
    pub(super) body: Body,
}

/// Exchanges requests and answers.
pub(super) struct Transport {
    pool: Pool,
    room: Room,
    clock: Clock,
}

impl Transport {
    /// A transport with connections of its own. Must be called within a runtime.
    pub(super) fn new(connector: Connector, connections_max: usize, idle_max: Duration, clock: Clock) -> Self {
        let pool = Pool::new(connector, connections_max, idle_max);
        Self { pool, room: Room::new(REPLIES_LARGE_MAX), clock }
    }

    /// Sends a request to the server of this call and reads the answer. `message` makes the request; it is called again, and must
    /// say the same, where the request has to go out once more. `extent` says how much of an answer of a status is read.
    pub(super) async fn exchange(
        &self,
        call: &Call<'_>,
        message: impl Fn() -> Result<Message, Error>,
        extent: impl Fn(u16) -> Extent,
        progress: &mut Progress,
    ) -> Result<(), Error> {
        let (mut connection, response) = self.send(call, message, progress).await?;
        let (head, mut body) = response.into_parts();
        let status = head.status.as_u16();
        progress.status = Some(status);
        progress.retry_after = retry_after(&head.headers);
        // It may be large, and holds what it was read into.
        drop(head);
        let extent = extent(status);
        while let Some(frame) = connection.next_frame(&mut body).await {
            let Ok(data) = frame?.into_data() else { continue };
            if !progress.body.take(&data, extent, &self.room).await {
                // The rest would have to be read before the connection could be used again; it is closed instead.
                return Ok(());
            }
        }
        self.pool.give_back(call.url, connection);
        Ok(())
    }

    /// Sends the request and waits for the head of its answer.
    ///
    /// A server may close a kept connection at the moment at which the next request leaves. So where that fails before
    /// a byte has come back, and soon, the same request goes out once more, on a new connection.
    async fn send(
        &self,
        call: &Call<'_>,
        message: impl Fn() -> Result<Message, Error>,
        progress: &mut Progress,
    ) -> Result<(Connection, Response<Incoming>), Error> {
        // What is wrong with the timer is told before anything is connected to.
        let first = message()?;
        let mut connection = self.pool.take(call).await?;
        progress.sent_at = Some(self.clock.now());
        let begun = Instant::now();
        let failure = match connection.send(first.into()).await {
            Ok(response) => return Ok((connection, response)),
            Err(failure) => failure,
        };
        if !connection.kept || connection.has_heard() || begun.elapsed() > CLOSE_RACE_MAX {
            return Err(failure);
        }
        metrics::counter!("walclock_delivery_keepalive_retries_total").increment(1);
        drop(connection);
        let mut connection = self.pool.open(call).await?;
        let response = connection.send(message()?.into()).await?;
        Ok((connection, response))
    }
}

/// The header as it was sent, in memory of its own; one that is too long for what it may say is none.
fn retry_after(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get(RETRY_AFTER).filter(|value| value.len() <= RETRY_AFTER_BYTES_MAX)?;
    HeaderValue::from_bytes(value.as_bytes()).ok()
}
