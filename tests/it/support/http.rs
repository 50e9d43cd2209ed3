//! A small HTTP client: one call, one answer, whole.

use std::io::Read;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

/// An answer.
pub struct Answer {
    pub status: u16,
    pub headers: hyper::HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// The text of a header; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The body as it was before it was compressed.
    pub fn unpacked(&self) -> Vec<u8> {
        let mut unpacked = Vec::new();
        match self.header("content-encoding") {
            "gzip" => _ = flate2::read::GzDecoder::new(&*self.body).read_to_end(&mut unpacked).unwrap(),
            "zstd" => unpacked = zstd::decode_all(&*self.body).unwrap(),
            other => panic!("packed as {other:?}"),
        }
        unpacked
    }
}

/// A GET with these headers.
pub async fn get(base: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    request("GET", base, path, headers, "").await
}

/// A call that must be answered.
pub async fn request(method: &str, base: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    try_request(method, base, path, headers, body).await.unwrap()
}

/// A call; none where nobody answers.
pub async fn try_request(method: &str, base: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Option<Answer> {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let mut request = hyper::Request::builder().method(method).uri(format!("{base}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = client.request(request.body(Full::from(body.to_owned())).unwrap()).await.ok()?;
    let (head, body) = answer.into_parts();
    Some(Answer { status: head.status.as_u16(), headers: head.headers, body: body.collect().await.ok()?.to_bytes() })
}
