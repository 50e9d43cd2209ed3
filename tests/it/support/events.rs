//! A reader of server-sent events: what a browser's would be, over one connection.

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use super::http::Answer;

/// An open stream.
pub struct Events {
    body: Incoming,
    /// What has come and is no whole block yet.
    rest: String,
    /// The last event id: the position to come again with.
    pub id: String,
    pub headers: hyper::HeaderMap,
}

/// What a block of the stream was.
#[derive(Debug, PartialEq, Eq)]
pub enum Block {
    /// An event: its type, empty for a change, and its data.
    Event(String, String),
    /// One without data: a heartbeat, or the beginning.
    Silent,
    /// The body has come to its proper end.
    End,
    /// The connection broke.
    Broken,
}

impl Events {
    /// Opens a stream behind this event id; an answer that is none is given back, or nothing where nobody answers.
    pub async fn open(base: &str, query: &str, id: &str) -> Result<Self, Option<Answer>> {
        let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let request = hyper::Request::get(format!("{base}/changes?{query}"))
            .header("accept", "text/event-stream")
            .header("accept-encoding", "gzip, zstd")
            .header("last-event-id", id);
        let answer = client.request(request.body(Empty::new()).unwrap()).await.map_err(|_| None)?;
        let (head, body) = answer.into_parts();
        if head.status != 200 {
            let body = body.collect().await.map_err(|_| None)?.to_bytes();
            return Err(Some(Answer { status: head.status.as_u16(), headers: head.headers, body }));
        }
        Ok(Self { body, rest: String::new(), id: id.to_owned(), headers: head.headers })
    }

    /// The next block. A stream of which a part is given up in the middle loses nothing.
    pub async fn block(&mut self) -> Block {
        loop {
            if let Some((block, rest)) = self.rest.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.rest = rest;
                return self.read(&block);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.rest.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap()),
                Some(Err(_)) => return Block::Broken,
                None if self.rest.is_empty() => return Block::End,
                None => panic!("the stream ended within a block: {}", self.rest),
            }
        }
    }

    fn read(&mut self, block: &str) -> Block {
        let (mut kind, mut data) = (String::new(), None::<String>);
        for line in block.split('\n') {
            assert!(!line.contains('\r'), "that is a line break, too: {line}");
            match line.split_once(": ").unwrap_or((line, "")) {
                ("id", id) => id.clone_into(&mut self.id),
                ("event", name) => name.clone_into(&mut kind),
                ("data", text) => assert_eq!(data.replace(text.to_owned()), None, "a change is one line"),
                ("retry", millis) => assert!(millis.parse::<u32>().unwrap() > 0),
                (":", _) => {}
                other => panic!("no such field: {other:?}"),
            }
        }
        data.map_or(Block::Silent, |data| Block::Event(kind, data))
    }

    /// The next change; fails where something else comes.
    pub async fn change(&mut self) -> serde_json::Value {
        loop {
            match self.block().await {
                Block::Event(kind, data) if kind.is_empty() => return serde_json::from_str(&data).unwrap(),
                Block::Silent => {}
                other => panic!("no change, but {other:?}"),
            }
        }
    }
}
