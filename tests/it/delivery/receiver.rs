//! A receiver of callbacks on a real socket that does what a test tells it, byte by byte.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::support::PATIENCE;

/// What the receiver does with a request.
#[derive(Clone)]
pub enum Act {
    /// Sends these bytes and waits for the next request.
    Send(Vec<u8>),
    /// Sends these bytes and closes the connection.
    SendAndClose(Vec<u8>),
    /// Sends these bytes, then one byte every few milliseconds for ever.
    Drip(Vec<u8>),
    /// Sends these bytes, then zeros up to this length.
    Flood(Vec<u8>, usize),
    /// Closes the connection after so long, without a word.
    CloseAfter(Duration),
    /// Says nothing.
    Hang,
}

/// A request as it was received.
#[derive(Debug)]
pub struct Request {
    /// The first line.
    pub line: String,
    /// By lower-case name.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    /// Which connection it came over, from 0.
    pub connection: usize,
}

/// What the receiver saw.
#[derive(Debug)]
pub enum Seen {
    Request(Request),
    /// A connection ended, after so many bytes were sent on it.
    End {
        sent: usize,
    },
}

pub struct Receiver {
    pub port: u16,
    pub seen: UnboundedReceiver<Seen>,
    pub connections: Arc<AtomicUsize>,
}

/// An answer with this status, further header lines and body.
pub fn answer(status: u16, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// The answer that ends a timer well.
pub fn ok() -> Act {
    Act::Send(answer(200, "", r#"{"ok":true}"#))
}

impl Receiver {
    /// A receiver that asks `script` what to do with request `n` of connection `c`, both from 0.
    pub async fn start(script: impl Fn(usize, usize) -> Act + Send + Sync + 'static) -> Self {
        Self::start_with(None, script).await
    }

    /// The same over TLS.
    pub async fn start_with(
        tls: Option<tokio_rustls::TlsAcceptor>,
        script: impl Fn(usize, usize) -> Act + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (report, seen) = unbounded_channel();
        let (script, connections) = (Arc::new(script), Arc::new(AtomicUsize::new(0)));
        let count = connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = count.fetch_add(1, Ordering::SeqCst);
                let (script, report, tls) = (script.clone(), report.clone(), tls.clone());
                tokio::spawn(async move {
                    let serve = |stream| serve(stream, connection, script, report.clone());
                    let sent = match tls {
                        None => serve(Box::new(stream) as Box<dyn Stream>).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(Box::new(stream)).await,
                            Err(_) => 0,
                        },
                    };
                    let _ = report.send(Seen::End { sent });
                });
            }
        });
        Self { port, seen, connections }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook?a=b", self.port)
    }

    /// The next request.
    pub async fn request(&mut self) -> Request {
        loop {
            if let Seen::Request(request) = self.next().await {
                return request;
            }
        }
    }

    /// The end of the next connection that ends: how many bytes were sent on it.
    pub async fn end(&mut self) -> usize {
        loop {
            if let Seen::End { sent } = self.next().await {
                return sent;
            }
        }
    }

    async fn next(&mut self) -> Seen {
        let next = tokio::time::timeout(PATIENCE, self.seen.recv()).await;
        next.expect("in time").expect("the receiver runs on")
    }

    /// How many requests there were that no one has looked at.
    pub fn requests_left(&mut self) -> usize {
        std::iter::from_fn(|| self.seen.try_recv().ok()).filter(|seen| matches!(seen, Seen::Request(_))).count()
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Serves one connection to its end; returns how many bytes were sent.
async fn serve(
    stream: Box<dyn Stream>,
    connection: usize,
    script: Arc<impl Fn(usize, usize) -> Act>,
    report: UnboundedSender<Seen>,
) -> usize {
    let (mut stream, mut sent) = (BufReader::new(stream), 0);
    for number in 0.. {
        let Some(request) = read(&mut stream, connection).await else { return sent };
        let _ = report.send(Seen::Request(request));
        let (first, then) = match script(connection, number) {
            Act::Send(bytes) => (bytes, None),
            Act::SendAndClose(bytes) => (bytes, Some((0, Duration::ZERO))),
            Act::Drip(bytes) => (bytes, Some((usize::MAX, Duration::from_millis(5)))),
            Act::Flood(bytes, length) => (bytes, Some((length, Duration::ZERO))),
            Act::CloseAfter(pause) => {
                tokio::time::sleep(pause).await;
                return sent;
            }
            Act::Hang => {
                let _ = stream.read_u8().await;
                return sent;
            }
        };
        if stream.write_all(&first).await.is_err() || stream.flush().await.is_err() {
            return sent;
        }
        sent += first.len();
        let Some((mut left, pause)) = then else { continue };
        let piece = if pause.is_zero() { vec![0; 1 << 16] } else { vec![b'x'] };
        while left > 0 && stream.write_all(&piece).await.is_ok() && stream.flush().await.is_ok() {
            left = left.saturating_sub(piece.len());
            sent += piece.len();
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
        }
        let _ = stream.shutdown().await;
        return sent;
    }
    sent
}

/// One request, or none at the end of the connection.
pub async fn read(stream: &mut BufReader<impl AsyncRead + Unpin>, connection: usize) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.trim_end().split("\r\n");
    let line = lines.next().unwrap().to_owned();
    let mut headers = BTreeMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        let doubled = headers.insert(name.to_lowercase(), value.to_owned());
        assert_eq!(doubled, None, "{name} came twice");
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Request { line, headers, body, connection })
}
