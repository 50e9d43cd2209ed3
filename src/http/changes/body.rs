//! The body of a page: its changes are the feed's shared bytes, joined, or made protobuf of, while they are sent.
//!
//! A slow reader of a large page so holds one chunk of its own, however many changes there are.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::vec;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};

use super::transcode;
use crate::feed::room::Taken;

/// How much is joined into one chunk: enough that a small page is one write, little beside a connection's own buffers.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;

/// A page in its form, chunk by chunk.
pub(super) trait Chunks: Unpin {
    /// The next part to send.
    fn chunk(&mut self) -> Option<Result<Bytes, transcode::Error>>;

    /// How many bytes have not been taken yet, where that is known.
    fn rest(&self) -> Option<usize>;
}

/// A page on its way out.
#[derive(Debug)]
pub(super) struct PageBody<C> {
    chunks: C,
    /// What is left of a large chunk.
    large: Bytes,
    is_paced: bool,
    /// The others have their turn before the next chunk.
    pauses: bool,
    /// Room for all of it.
    taken: Taken,
}

impl<C: Chunks> PageBody<C> {
    /// A body of these chunks. Where each chunk costs work, here or in a compression around, it must be paced: cut small,
    /// and sent with a pause for the other tasks of the thread behind each. It keeps what the page has `taken`.
    pub(super) fn new(chunks: C, is_paced: bool, taken: Taken) -> Self {
        Self { chunks, large: Bytes::new(), is_paced, pauses: false, taken }
    }

    fn rest(&self) -> Option<usize> {
        Some(self.chunks.rest()? + self.large.len())
    }

    fn next(&mut self) -> Option<Result<Bytes, transcode::Error>> {
        let mut chunk = match std::mem::take(&mut self.large) {
            large if !large.is_empty() => large,
            _ => match self.chunks.chunk()? {
                // A large one is on its way for longer than this body is.
                Ok(chunk) if chunk.len() > CHUNK_BYTES => self.taken.around(chunk),
                Ok(chunk) => chunk,
                Err(error) => return Some(Err(error)),
            },
        };
        if self.is_paced {
            self.large = chunk.split_off(chunk.len().min(CHUNK_BYTES));
            self.pauses = self.rest() != Some(0);
        }
        Some(Ok(chunk))
    }
}

impl<C: Chunks> Body for PageBody<C> {
    type Data = Bytes;
    type Error = transcode::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if std::mem::take(&mut self.pauses) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let next = self.next();
        if let Some(Err(error)) = &next {
            // The head has been sent: all that can be done is to break off, so that nobody takes a part for the whole.
            tracing::error!(error = error as &dyn std::error::Error, "an answer broken off");
        }
        Poll::Ready(next.map(|chunk| chunk.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.rest() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        match self.rest() {
            Some(rest) => SizeHint::with_exact(u64::try_from(rest).unwrap_or(u64::MAX)),
            None => SizeHint::new(),
        }
    }
}

/// A page as JSON.
#[derive(Debug)]
pub(super) struct JsonPage {
    pieces: Pieces,
    /// The piece that did not fit into the last chunk.
    next: Option<Bytes>,
    /// What has not been sent yet, in bytes.
    rest: usize,
}

/// Head, changes with commas between them, end.
#[derive(Debug)]
struct Pieces {
    head: Option<Bytes>,
    changes: vec::IntoIter<Bytes>,
    comma: bool,
    end: Option<Bytes>,
}

impl JsonPage {
    /// The page of these changes between `head` and `end`.
    pub(super) fn new(head: Bytes, changes: Vec<Bytes>, end: Bytes) -> Self {
        let commas = changes.len().saturating_sub(1);
        let rest = head.len() + changes.iter().map(Bytes::len).sum::<usize>() + commas + end.len();
        let pieces = Pieces { head: Some(head), changes: changes.into_iter(), comma: false, end: Some(end) };
        Self { pieces, next: None, rest }
    }

    /// The next part to send, at most [`CHUNK_BYTES`] long unless it is a single large change.
    pub(super) fn chunk(&mut self) -> Option<Bytes> {
        let first = self.next.take().or_else(|| self.pieces.next())?;
        if first.len() >= CHUNK_BYTES {
            self.rest = self.rest.saturating_sub(first.len());
            return Some(first);
        }
        let mut chunk = BytesMut::with_capacity(self.rest.min(CHUNK_BYTES));
        chunk.extend_from_slice(&first);
        for piece in self.pieces.by_ref() {
            if chunk.len() + piece.len() > CHUNK_BYTES {
                self.next = Some(piece);
                break;
            }
            chunk.extend_from_slice(&piece);
        }
        self.rest = self.rest.saturating_sub(chunk.len());
        Some(chunk.freeze())
    }
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if let Some(head) = self.head.take() {
            return Some(head);
        }
        if self.comma && self.changes.len() > 0 {
            self.comma = false;
            return Some(Bytes::from_static(b","));
        }
        self.comma = true;
        self.changes.next().or_else(|| self.end.take())
    }
}

impl Chunks for JsonPage {
    fn chunk(&mut self) -> Option<Result<Bytes, transcode::Error>> {
        Self::chunk(self).map(Ok)
    }

    fn rest(&self) -> Option<usize> {
        Some(self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use proptest::prelude::*;

    fn body(changes: &[usize]) -> (JsonPage, String) {
        let changes: Vec<String> = changes.iter().map(|length| "x".repeat(*length)).collect();
        let expected = format!("{{[{}]}}", changes.join(","));
        let changes = changes.into_iter().map(Bytes::from).collect();
        (JsonPage::new(Bytes::from_static(b"{["), changes, Bytes::from_static(b"]}")), expected)
    }

    fn chunks(mut page: JsonPage) -> Vec<Bytes> {
        std::iter::from_fn(|| page.chunk()).collect()
    }

    #[test]
    fn a_small_page_is_one_chunk_and_a_large_change_is_not_copied() {
        let (small, expected) = body(&[300; 100]);
        assert_eq!(chunks(small), [Bytes::from(expected)]);
        let large = Bytes::from(vec![b'x'; CHUNK_BYTES]);
        let page = JsonPage::new(Bytes::from_static(b"{["), vec![large.clone()], Bytes::from_static(b"]}"));
        let chunks = chunks(page);
        assert_eq!(chunks.len(), 3);
        assert_eq!(chunks[1].as_ptr(), large.as_ptr());
    }

    proptest! {
        #[test]
        fn chunks_are_bounded_and_join_to_the_page(changes in prop::collection::vec(0..40_000_usize, 0..12)) {
            let (mut page, expected) = body(&changes);
            let mut rest = expected.len();
            let mut joined = Vec::new();
            while let Some(chunk) = page.chunk() {
                prop_assert!(chunk.len() <= CHUNK_BYTES);
                rest -= chunk.len();
                prop_assert_eq!(Chunks::rest(&page), Some(rest));
                joined.extend_from_slice(&chunk);
            }
            prop_assert_eq!(rest, 0);
            prop_assert!(joined == expected.as_bytes());
        }
    }

    #[tokio::test]
    async fn it_is_a_body() {
        for is_paced in [false, true] {
            let (page, expected) = body(&[3, 0, 5, 40_000, 40_000, 200_000]);
            let page = PageBody::new(page, is_paced, Taken::default());
            assert_eq!(page.size_hint().exact(), Some(expected.len() as u64));
            assert_eq!(page.collect().await.expect("JSON").to_bytes(), expected);
        }
    }

    #[tokio::test]
    async fn room_is_kept_until_the_last_part_has_gone() {
        for is_paced in [false, true] {
            let (page, _) = body(&[3, 200_000]);
            let (taken, is_taken) = Taken::watched();
            let mut page = PageBody::new(page, is_paced, taken);
            let mut parts = Vec::new();
            while let Some(part) = page.frame().await {
                parts.push(part.expect("JSON").into_data().expect("data"));
            }
            drop(page);
            assert!(is_taken(), "the large change is still on its way");
            drop(parts);
            assert!(!is_taken());
        }
    }

    /// Polls a body to its end: the lengths of its frames, and a `None` for each pause.
    fn polled(page: JsonPage, is_paced: bool) -> Vec<Option<usize>> {
        let mut page = PageBody::new(page, is_paced, Taken::default());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut seen = Vec::new();
        while !page.is_end_stream() {
            seen.push(match Pin::new(&mut page).poll_frame(&mut cx) {
                Poll::Ready(frame) => frame.map(|frame| frame.expect("JSON").into_data().expect("data").len()),
                Poll::Pending => None,
            });
        }
        seen
    }

    #[test]
    fn a_paced_page_lets_the_others_have_their_turn() {
        let (page, _) = body(&[CHUNK_BYTES + 2]);
        assert_eq!(polled(page, true), [Some(2), None, Some(CHUNK_BYTES), None, Some(2), None, Some(2)]);
        let (page, _) = body(&[CHUNK_BYTES + 2]);
        assert_eq!(polled(page, false), [Some(2), Some(CHUNK_BYTES + 2), Some(2)]);
        // Whoever gets little waits for nobody.
        let (page, expected) = body(&[300; 100]);
        assert_eq!(polled(page, true), [Some(expected.len())]);
    }
}
