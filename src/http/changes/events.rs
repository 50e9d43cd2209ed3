//! The changes as server-sent events: the pages of the long poll one after another, over a single answer.
//!
//! Each change is an event with its sequence as `id`, so that a reader that comes again with `Last-Event-ID` goes on
//! behind the last one it has seen. An `id` without data is the heartbeat: by the standard it moves the reader's position
//! and tells it nothing, so that one whose scopes are quiet does not grow too old.

use std::convert::Infallible;
use std::fmt::Write;
use std::time::Duration;
use std::vec;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::stream;

use super::error::Failure;
use super::wire;
use crate::domain::limits::EVENTS_RETRY_MILLIS;
use crate::domain::sequence::Sequence;
use crate::feed::query::{Change, Page, Query};
use crate::feed::room::Taken;
use crate::http::common::accept::MediaType;
use crate::http::common::refusal::Details;
use crate::service::changes::{Changes, Read};

/// How much is joined into one chunk, and the size from which on a change is sent without a copy.
const CHUNK_BYTES: usize = 64 * 1024;
/// What stands around the body of a change, at most, in bytes.
const FRAME_BYTES_MAX: usize = 64;

/// Answers with the stream of the changes that `query` asks for. `limit` is the size of its steps.
///
/// # Errors
///
/// What is wrong before the first byte; later failures are events.
pub(super) async fn answer<R: Read>(
    changes: Changes<R>,
    mut query: Query,
    headers: &HeaderMap,
) -> Result<Response, Failure> {
    if let Some(position) = last_event_id(headers)? {
        query.since = position;
    }
    if query.limit == 0 {
        let description = "limit must be at least 1 for an event stream";
        return Err(Failure::parameter(description, wire::limit_details("0", 1)));
    }
    query.block = Duration::ZERO;
    let first = changes.changes(query.clone()).await?;
    let start = format!("retry: {}\n\n", fastrand::u32(EVENTS_RETRY_MILLIS));
    let mut events = Events { changes, query, step: Step::new(start.into()), is_over: false };
    events.take(first);
    let chunks = stream::unfold(events, async |mut events| {
        let chunk = events.next().await?;
        Some((Ok::<_, Infallible>(chunk), events))
    });
    let headers = [
        (CONTENT_TYPE, MediaType::EventStream.header()),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // A proxy must pass each event on at once.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((headers, Body::from_stream(chunks)).into_response())
}

/// Where the reader was when its last stream ended; it counts before `since`, which stays in the URL for ever.
fn last_event_id(headers: &HeaderMap) -> Result<Option<Sequence>, Failure> {
    let Some(value) = headers.get("last-event-id").filter(|value| !value.is_empty()) else { return Ok(None) };
    let position = value.to_str().ok().and_then(|text| text.parse().ok());
    position.map(Some).ok_or_else(|| {
        let given = String::from_utf8_lossy(value.as_bytes());
        Failure::parameter("Last-Event-ID", Details::new("Last-Event-ID", &given, wire::POSITION))
    })
}

/// A stream on its way out. It holds one page at most, and nothing while it waits.
struct Events<R> {
    changes: Changes<R>,
    /// What to ask next.
    query: Query,
    /// What of the last answer is still to be sent.
    step: Step,
    is_over: bool,
}

impl<R: Read> Events<R> {
    /// The next part to send; none at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.changes.is_closing() {
                self.is_over = true;
                self.step.stop();
            }
            if let Some(chunk) = self.step.chunk() {
                return Some(chunk);
            }
            if self.is_over {
                return None;
            }
            // Not even an empty buffer is kept while there is nothing to tell.
            self.step = Step::default();
            match self.changes.follow(self.query.clone()).await {
                Ok(page) => self.take(page?),
                Err(error) => {
                    self.is_over = true;
                    self.step = Step::new(failed(&error.into()));
                }
            }
        }
    }

    /// Has a page sent, and goes on behind it.
    fn take(&mut self, page: Page) {
        // Not `last`, which is zero before the first change: whoever follows on from zero is not told of a gap.
        self.query.since = page.position();
        if page.changes.is_empty() {
            let mut position = BytesMut::from(self.step.start.take().unwrap_or_default());
            write!(position, ":\nid: {}\n\n", self.query.since).expect("memory takes any text");
            self.step.start = Some(position.freeze());
        }
        self.step.changes = page.changes.into_iter();
        self.step.taken = page.taken;
    }
}

/// The event that tells of a failure in the middle of a stream, which ends with it.
fn failed(failure: &Failure) -> Bytes {
    format!("event: error\ndata: {}\n\n", failure.told()).into()
}

/// What one answer of the journal adds to the stream.
#[derive(Default)]
struct Step {
    /// Whole lines that come first.
    start: Option<Bytes>,
    changes: vec::IntoIter<Change>,
    /// The body of a large change, whose event has begun.
    large: Option<Bytes>,
    /// The event of a large change has not been ended yet.
    is_open: bool,
    /// Room for all of it.
    taken: Taken,
}

impl Step {
    fn new(start: Bytes) -> Self {
        Self { start: Some(start), ..Self::default() }
    }

    /// Leaves out all but the end of an event that has begun.
    fn stop(&mut self) {
        self.start = None;
        self.changes = Vec::new().into_iter();
    }

    /// The next part to send, shorter than two times [`CHUNK_BYTES`] unless it is a single large change.
    fn chunk(&mut self) -> Option<Bytes> {
        if let Some(body) = self.large.take() {
            self.is_open = true;
            return Some(body);
        }
        let start = self.start.take().unwrap_or_default();
        if self.changes.as_slice().is_empty() && !self.is_open {
            return (!start.is_empty()).then_some(start);
        }
        let mut chunk = BytesMut::with_capacity(self.capacity().saturating_add(start.len()));
        chunk.extend_from_slice(&start);
        if std::mem::take(&mut self.is_open) {
            chunk.extend_from_slice(b"\n\n");
        }
        while chunk.len() < CHUNK_BYTES {
            let Some(change) = self.changes.next() else { break };
            write!(chunk, "id: {}\ndata: ", change.sequence).expect("memory takes any text");
            if change.body.len() >= CHUNK_BYTES {
                self.large = Some(self.taken.around(change.body));
                break;
            }
            // A change has no line breaks: it is compact JSON, which escapes those in its values.
            chunk.extend_from_slice(&change.body);
            chunk.extend_from_slice(b"\n\n");
        }
        Some(chunk.freeze())
    }

    /// About how much the next chunk takes: not more than it may, and little where little is left.
    fn capacity(&self) -> usize {
        let shortest = self.changes.as_slice().iter().take(CHUNK_BYTES / FRAME_BYTES_MAX);
        shortest.map(|change| change.body.len().saturating_add(FRAME_BYTES_MAX)).sum::<usize>().min(CHUNK_BYTES)
    }
}

#[cfg(test)]
mod tests;
