//! The body of a page: its changes are the feed's shared bytes, joined while they are sent.
//!
//! A slow reader of a large page so holds one chunk of its own, however many changes there are.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::vec;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};

/// How much is joined into one chunk: enough that a small page is one write, little beside a connection's own buffers.
const CHUNK_BYTES: usize = 64 * 1024;

/// A page on its way out.
#[derive(Debug)]
pub(super) struct PageBody {
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

impl PageBody {
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

impl Body for PageBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.chunk().map(Frame::data).map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.rest == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(u64::try_from(self.rest).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use proptest::prelude::*;

    fn body(changes: &[usize]) -> (PageBody, String) {
        let changes: Vec<String> = changes.iter().map(|length| "x".repeat(*length)).collect();
        let expected = format!("{{[{}]}}", changes.join(","));
        let changes = changes.into_iter().map(Bytes::from).collect();
        (PageBody::new(Bytes::from_static(b"{["), changes, Bytes::from_static(b"]}")), expected)
    }

    fn chunks(mut page: PageBody) -> Vec<Bytes> {
        std::iter::from_fn(|| page.chunk()).collect()
    }

    #[test]
    fn a_small_page_is_one_chunk_and_a_large_change_is_not_copied() {
        let (small, expected) = body(&[300; 100]);
        assert_eq!(chunks(small), [Bytes::from(expected)]);
        let large = Bytes::from(vec![b'x'; CHUNK_BYTES]);
        let page = PageBody::new(Bytes::from_static(b"{["), vec![large.clone()], Bytes::from_static(b"]}"));
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
                prop_assert_eq!(page.size_hint().exact(), Some(rest as u64));
                joined.extend_from_slice(&chunk);
            }
            prop_assert!(page.is_end_stream());
            prop_assert!(joined == expected.as_bytes());
        }
    }

    #[tokio::test]
    async fn it_is_a_body() {
        let (page, expected) = body(&[3, 0, 5]);
        assert_eq!(page.collect().await.expect("infallible").to_bytes(), expected);
    }
}
