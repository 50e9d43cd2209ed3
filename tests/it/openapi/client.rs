//! A client that has every answer checked against the document.

use std::collections::BTreeSet;

use http_body_util::{BodyExt, Empty};
use hyper::Version;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client as Legacy;
use hyper_util::rt::TokioExecutor;
use prost::Message;
use serde_json::Value;
use walclock::http::common::protobuf::{ChangeListPb, SnapshotHeaderPb};

use super::schema::Document;
use crate::support::http::{Answer, request};

/// Headers that an answer has only where they are described.
const DESCRIBED_HEADERS: &[&str] =
    &["cache-control", "etag", "vary", "allow", "retry-after", "content-encoding", "x-accel-buffering"];
const PROTOBUF: &str = "application/transicator+protobuf";

/// The document, and which of its answers were given.
pub struct Client {
    pub document: Document,
    pub seen: BTreeSet<(String, String, u16)>,
}

impl Client {
    pub fn new() -> Self {
        Self { document: Document::of_the_code(), seen: BTreeSet::new() }
    }

    /// Makes a call, whose answer must be as it is described, and of this status.
    pub async fn expect(
        &mut self,
        status: u16,
        base: &str,
        call: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let (method, path) = call.split_once(' ').unwrap();
        let answer = request(method, base, path, headers, body).await;
        assert_eq!(answer.status, status, "{call} {headers:?} {body}: {}", String::from_utf8_lossy(&answer.body));
        let plain = match answer.header("content-encoding") {
            "" => answer.body.to_vec(),
            _ => answer.unpacked(),
        };
        self.check(call, answer.status, &answer.headers, std::str::from_utf8(&plain).ok(), &plain);
        answer
    }

    /// The same for a GET of a client that speaks HTTP/1.0.
    pub async fn expect_of_http_1_0(&mut self, status: u16, base: &str, path: &str, header: (&str, &str)) {
        let client = Legacy::builder(TokioExecutor::new()).build_http();
        let request = hyper::Request::get(format!("{base}{path}")).version(Version::HTTP_10).header(header.0, header.1);
        let answer = client.request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
        let (head, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        assert_eq!(head.status, status, "{path}");
        let text = std::str::from_utf8(&body).ok();
        self.check(&format!("GET {path}"), status, &head.headers, text, &body);
    }

    /// Checks an answer; `text` is its body, where that is one.
    pub fn check(&mut self, call: &str, status: u16, headers: &hyper::HeaderMap, text: Option<&str>, body: &[u8]) {
        let (method, target) = call.split_once(' ').unwrap();
        let path = target.split('?').next().unwrap();
        let item = self.document.json["paths"].get(path).unwrap_or_else(|| panic!("{path} is not described"));
        let all = item.as_object().unwrap().keys().filter(|key| *key != "servers").cloned();
        let own = method.to_ascii_lowercase();
        // The answer to a method that is not there is described with all that are.
        let methods: Vec<String> = match item.get(&own) {
            Some(_) => vec![own],
            None => all.collect(),
        };
        for method in methods {
            let response = item[&method]["responses"].get(status.to_string());
            let response = response.unwrap_or_else(|| panic!("{call} answered {status}, which is not described"));
            for name in DESCRIBED_HEADERS.iter().filter(|name| headers.contains_key(**name)) {
                let mut described = response["headers"].as_object().into_iter().flatten();
                assert!(described.any(|(key, _)| key.eq_ignore_ascii_case(name)), "{call}: {status} has {name}");
            }
            self.check_body(call, status, response, headers, text, body);
            self.seen.insert((path.to_owned(), method, status));
        }
    }

    fn check_body(
        &self,
        call: &str,
        status: u16,
        response: &Value,
        headers: &hyper::HeaderMap,
        text: Option<&str>,
        body: &[u8],
    ) {
        let Some(content_type) = headers.get("content-type").map(|value| value.to_str().unwrap()) else {
            assert!(body.is_empty(), "{call}: a body of no type");
            // A success may come without one, where it is described: `/ready` has it with `verbose` alone.
            assert!(status < 400 || response.get("content").is_none(), "{call}: {status} has no body");
            return;
        };
        let content = response["content"].get(content_type);
        let schema = &content.unwrap_or_else(|| panic!("{call}: {content_type} is not described"))["schema"];
        let value = match content_type {
            "application/json" => serde_json::from_str(text.unwrap()).unwrap(),
            PROTOBUF if call.contains("/changes") => {
                Value::String(format!("{:?}", ChangeListPb::decode(body).unwrap()))
            }
            PROTOBUF => {
                let (length, frames) = body.split_first_chunk().unwrap();
                let header = &frames[..usize::try_from(i32::from_be_bytes(*length)).unwrap()];
                Value::String(SnapshotHeaderPb::decode(header).unwrap().snapshot)
            }
            _ => Value::String(text.unwrap().to_owned()),
        };
        let misfits = self.document.misfits(schema, &value);
        assert!(misfits.is_empty(), "{call}: {misfits:#?}\n{value}");
    }
}
