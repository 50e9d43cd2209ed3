//! A page in protobuf: its changes are made of the journal's JSON chunk by chunk, while they are sent.

use std::vec;

use bytes::Bytes;

use super::body::{CHUNK_BYTES, Chunks};
use super::transcode::{self, Error};
use crate::feed::query::Page;
use crate::http::common::protobuf::wire;

/// Changes from this size on would hold up the other tasks of the thread: they are made on one that may block.
const LARGE_BYTES: usize = 256 * 1024;

/// A page as protobuf.
#[derive(Debug)]
pub(super) struct ProtobufPage {
    /// What has been made and not been taken.
    ready: Option<Bytes>,
    /// The content of a large change, whose field has been begun.
    large: Option<Bytes>,
    changes: vec::IntoIter<Change>,
    /// A change before its length is known. Used again and again.
    buffer: Vec<u8>,
}

/// One change of the page.
#[derive(Debug)]
enum Change {
    /// As the journal has it.
    Json(Bytes),
    /// As the content of a `ChangePb`.
    Protobuf(Bytes),
}

impl ProtobufPage {
    /// The page, with its first chunk made: so a small one is known to be well, and how long it is.
    pub(super) async fn new(page: Page) -> Result<Self, Error> {
        let mut head = Vec::with_capacity(64);
        wire::delimited(&mut head, 1, page.last.to_string().as_bytes());
        wire::delimited(&mut head, 2, page.first.to_string().as_bytes());
        let mut changes = Vec::with_capacity(page.changes.len());
        for change in page.changes {
            changes.push(match change.body.len() {
                ..LARGE_BYTES => Change::Json(change.body),
                LARGE_BYTES.. => Change::Protobuf(large(change.body).await?),
            });
        }
        let mut page = Self { ready: None, large: None, changes: changes.into_iter(), buffer: Vec::new() };
        page.ready = Some(page.fill(head)?);
        Ok(page)
    }

    /// Adds changes to a chunk until it is full.
    fn fill(&mut self, mut chunk: Vec<u8>) -> Result<Bytes, Error> {
        while chunk.len() < CHUNK_BYTES {
            match self.changes.next() {
                Some(Change::Json(json)) => {
                    self.buffer.clear();
                    transcode::change(&json, &mut self.buffer)?;
                    wire::delimited(&mut chunk, 3, &self.buffer);
                }
                Some(Change::Protobuf(content)) => {
                    wire::open(&mut chunk, 3, content.len());
                    self.large = Some(content);
                    break;
                }
                None => break,
            }
        }
        Ok(chunk.into())
    }
}

impl Chunks for ProtobufPage {
    fn chunk(&mut self) -> Option<Result<Bytes, Error>> {
        if let Some(made) = self.ready.take().or_else(|| self.large.take()) {
            return Some(Ok(made));
        }
        (self.changes.len() > 0).then(|| self.fill(Vec::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 8)))
    }

    fn rest(&self) -> Option<usize> {
        let made = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        (self.changes.len() == 0).then(|| made(&self.ready) + made(&self.large))
    }
}

/// Makes a large change on a thread that may block.
async fn large(json: Bytes) -> Result<Bytes, Error> {
    let make = move || {
        let mut content = Vec::with_capacity(json.len());
        transcode::change(&json, &mut content).map(|()| content.into())
    };
    tokio::task::spawn_blocking(make)
        .await
        .expect("it does not panic, and who waits for it goes before the runtime does")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::sequence::{Lsn, Sequence};
    use crate::feed::query;
    use crate::feed::room::Taken;
    use crate::http::changes::body::PageBody;
    use crate::http::common::protobuf::ChangeListPb;
    use futures_util::FutureExt;
    use http_body::Body;
    use http_body_util::BodyExt;
    use proptest::prelude::*;
    use prost::Message;

    fn sequence(index: u32) -> Sequence {
        Sequence::new(1, Lsn(7), index)
    }

    /// A page of changes whose tables have names of these lengths.
    fn page(lengths: &[usize]) -> Page {
        let body = |length: &usize| format!("{{\"operation\":4,\"table\":\"{}\"}}", "x".repeat(*length)).into();
        let bodies = lengths.iter().map(body);
        let changes = bodies.map(|body| query::Change { sequence: sequence(0), body }).collect();
        Page {
            first: sequence(1),
            last: sequence(0xff),
            from: Sequence::ZERO,
            is_full: false,
            changes,
            taken: Taken::default(),
        }
    }

    async fn check(lengths: &[usize]) {
        let page = ProtobufPage::new(page(lengths)).await.expect("a page");
        let body = PageBody::new(page, true, Taken::default());
        let announced = body.size_hint().exact();
        let bytes = body.collect().await.expect("a page").to_bytes();
        assert!(announced.is_none_or(|announced| announced == bytes.len() as u64));
        // A page that fits into a chunk says how long it is.
        assert!(announced.is_some() || bytes.len() >= CHUNK_BYTES, "{lengths:?}");
        let list = ChangeListPb::decode(bytes).expect("protobuf");
        assert_eq!((list.first_sequence().to_owned(), list.last_sequence()), (sequence(1).to_string(), "0.7.ff"));
        assert_eq!(list.changes.iter().map(|change| change.table.len()).collect::<Vec<_>>(), lengths);
    }

    #[tokio::test]
    async fn pages_of_every_size_are_whole() {
        for lengths in [
            &[][..],
            &[0],
            &[100; 50],
            &[1_000; 1_000],
            &[CHUNK_BYTES],
            &[LARGE_BYTES],
            &[LARGE_BYTES, LARGE_BYTES],
            &[5, LARGE_BYTES - 100, LARGE_BYTES, 5],
            &[60_000, 60_000, LARGE_BYTES * 3, 0],
        ] {
            check(lengths).await;
        }
    }

    proptest! {
        #[test]
        fn any_page_is_whole(lengths in prop::collection::vec(prop_oneof![0..200_usize, 0..2 * LARGE_BYTES], 0..8)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(check(&lengths));
        }
    }

    #[test]
    fn a_large_change_is_not_made_on_the_readers_thread() {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().expect("a runtime");
        let (free, freed) = std::sync::mpsc::channel::<()>();
        runtime.block_on(async {
            let busy = tokio::task::spawn_blocking(move || freed.recv());
            assert!(ProtobufPage::new(page(&[LARGE_BYTES - 100])).now_or_never().is_some());
            assert!(ProtobufPage::new(page(&[LARGE_BYTES])).now_or_never().is_none(), "the other thread is busy");
            drop(free);
            assert!(busy.await.expect("no panic").is_err());
        });
    }

    #[tokio::test]
    async fn a_change_that_is_not_understood_ends_the_answer() {
        let with = |lengths: &[usize], body: Bytes| {
            let mut page = page(lengths);
            page.changes.push(query::Change { sequence: sequence(0), body });
            ProtobufPage::new(page)
        };
        let bad = Bytes::from_static(b"{\"operation\":");
        assert!(with(&[1], bad.clone()).await.is_err(), "nothing has been sent yet");
        let large = [&bad[..], &[b' '; LARGE_BYTES]].concat();
        assert!(with(&[100_000], large.into()).await.is_err(), "nothing has been sent yet");
        let late = with(&[100_000], bad).await.expect("a first chunk");
        assert!(PageBody::new(late, true, Taken::default()).collect().await.is_err());
    }
}
