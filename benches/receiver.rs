//! A receiver of callbacks in this process, as fast as hyper makes it: what all rates are measured against.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Answers every request with `{"ok":true}`.
pub struct Receiver {
    pub port: u16,
    received: Arc<AtomicU64>,
}

impl Receiver {
    /// Starts it on a free port; `look` sees the headers of each request at the moment at which it has arrived whole.
    pub async fn start(look: impl Fn(&HeaderMap) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let received = Arc::new(AtomicU64::new(0));
        let (look, count) = (Arc::new(look), received.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).expect("a TCP socket");
                let (look, count) = (look.clone(), count.clone());
                let answer = service_fn(move |request| {
                    let (look, count) = (look.clone(), count.clone());
                    async move { Ok::<_, Infallible>(answer(request, &*look, &count).await) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        });
        Self { port, received }
    }

    /// Where callbacks go.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }

    /// How many requests have come so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

async fn answer(request: Request<Incoming>, look: &impl Fn(&HeaderMap), count: &AtomicU64) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    // One whose sender goes away in its middle has not been received.
    if body.collect().await.is_ok() {
        look(&head.headers);
        count.fetch_add(1, Ordering::Relaxed);
    }
    Response::new(Full::new(Bytes::from_static(br#"{"ok":true}"#)))
}
