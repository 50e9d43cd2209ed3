//! New connections: resolve, check, connect to the very address that was checked, and speak TLS where the URL says so.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use metrics::Gauge;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};
use url::{Host, Url};

use super::Error;
use super::guard;
use super::heard::Heard;
use super::resolve::Lookups;
use super::shortage::is_shortage_of_connecting;
use super::transport::Call;
use crate::domain::limits::REPLY_HEADERS_BYTES_MAX;

/// Most addresses of a name that are tried.
const ADDRESSES_MAX: usize = 8;

/// Makes connections.
pub(super) struct Connector {
    /// Which ranges are open although they are not public; none where every address is (the operator named the server).
    guard: Option<Vec<IpNet>>,
    timeout: Duration,
    lookups: Lookups,
    tls: tokio_rustls::TlsConnector,
}

impl Connector {
    /// A connector that trusts the machine's certificates and `roots`.
    pub(super) fn new(
        guard: Option<Vec<IpNet>>,
        timeout: Duration,
        lookups: Lookups,
        roots: &[CertificateDer<'static>],
    ) -> Self {
        let mut store = rustls::RootCertStore::empty();
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        store.add_parsable_certificates(roots.iter().cloned());
        let mut config =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("the provider supports the default versions")
                .with_root_certificates(store)
                .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { guard, timeout, lookups, tls: Arc::new(config).into() }
    }

    /// A new connection to the server of this call. `permit` goes when it is closed.
    pub(super) async fn connect(&self, call: &Call<'_>, permit: OwnedSemaphorePermit) -> Result<Connection, Error> {
        let deadline = call.until.min(Instant::now() + self.timeout);
        match timeout_at(deadline, self.connect_by(deadline, call, permit)).await {
            Ok(done) => done,
            Err(_) => Err(Error::ConnectTimedOut),
        }
    }

    async fn connect_by(
        &self,
        deadline: Instant,
        call: &Call<'_>,
        permit: OwnedSemaphorePermit,
    ) -> Result<Connection, Error> {
        let url = call.url;
        let addresses = self.addresses(deadline, call).await?;
        let tcp = dial(deadline, &addresses).await?;
        tcp.set_nodelay(true).map_err(Error::Connect)?;
        if url.scheme() == "http" {
            return Connection::new(tcp, permit).await;
        }
        let tls = self.tls.connect(server_name(url)?, tcp).await.map_err(Error::Tls)?;
        Connection::new(tls, permit).await
    }

    /// The addresses of the URL's host, if all of them may be called. A name with mixed answers is an attack. Half of the time is
    /// for a place to look it up, so that the wait for one is never taken for a server that does not answer.
    async fn addresses(
        &self,
        deadline: Instant,
        Call { url, namespace, .. }: &Call<'_>,
    ) -> Result<Vec<SocketAddr>, Error> {
        let now = Instant::now();
        let place_by = now + deadline.saturating_duration_since(now) / 2;
        let port = url.port_or_known_default().ok_or(Error::Callback("URL"))?;
        let addresses = match url.host().ok_or(Error::Callback("URL"))? {
            Host::Ipv4(v4) => vec![SocketAddr::new(IpAddr::V4(v4), port)],
            Host::Ipv6(v6) => vec![SocketAddr::new(IpAddr::V6(v6), port)],
            Host::Domain(name) => self.lookups.find(namespace, name, port, place_by).await?,
        };
        if let Some(allow) = &self.guard {
            addresses.iter().try_for_each(|address| guard::check(address.ip(), allow))?;
        }
        Ok(addresses)
    }
}

/// Connects to the first address that answers. Each may take its share of the time that is left, so that a dead one
/// does not use up that of the others.
async fn dial(deadline: Instant, addresses: &[SocketAddr]) -> Result<TcpStream, Error> {
    let mut failure = Error::Resolve(io::Error::new(io::ErrorKind::NotFound, "the host has no address"));
    let count = addresses.len().min(ADDRESSES_MAX);
    for (address, left) in addresses.iter().take(count).zip((1..=u32::try_from(count).unwrap_or(1)).rev()) {
        let share = deadline.saturating_duration_since(Instant::now()) / left;
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(source)) if is_shortage_of_connecting(&source, *address) => failure = Error::NoSocket(source),
            Ok(Err(source)) => failure = Error::Connect(source),
            Err(_) => failure = Error::ConnectTimedOut,
        }
    }
    Err(failure)
}

/// The name that the certificate must bear.
fn server_name(url: &Url) -> Result<ServerName<'static>, Error> {
    match url.host().ok_or(Error::Callback("URL"))? {
        Host::Ipv4(v4) => Ok(ServerName::IpAddress(IpAddr::V4(v4).into())),
        Host::Ipv6(v6) => Ok(ServerName::IpAddress(IpAddr::V6(v6).into())),
        Host::Domain(name) => ServerName::try_from(name.to_owned()).map_err(|_| Error::Callback("URL")),
    }
}

/// One HTTP/1.1 connection. It closes when it is dropped.
///
/// It has no task of its own: whoever uses it moves its bytes too, because a wake-up from one task to another costs more
/// than the request. So nobody sees its end while it is idle, until it is looked at.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// What moves the bytes; none once it is over.
    bytes: Option<BytesMoved>,
    heard: Arc<AtomicBool>,
    /// Whether it has carried a request before: then the server may be closing it at this moment.
    pub(super) kept: bool,
    _open: Open,
}

type BytesMoved = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// Counts a connection for as long as it is there, and holds the permit for it.
struct Open {
    count: Gauge,
    _permit: OwnedSemaphorePermit,
}

impl Open {
    fn new(permit: OwnedSemaphorePermit) -> Self {
        metrics::counter!("walclock_delivery_connections_opened_total").increment(1);
        let count = metrics::gauge!("walclock_delivery_connections_open");
        count.increment(1.0);
        Self { count, _permit: permit }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.count.decrement(1.0);
    }
}

impl Connection {
    async fn new<T>(stream: T, permit: OwnedSemaphorePermit) -> Result<Self, Error>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let heard = Arc::new(AtomicBool::new(false));
        let io = TokioIo::new(Heard::new(stream, heard.clone()));
        let (sender, bytes) =
            http1::Builder::new().max_buf_size(REPLY_HEADERS_BYTES_MAX).handshake(io).await.map_err(Error::Exchange)?;
        Ok(Self { sender, bytes: Some(Box::pin(bytes)), heard, kept: false, _open: Open::new(permit) })
    }

    /// Moves bytes until `wanted` is there.
    async fn until<W>(bytes: &mut Option<BytesMoved>, wanted: impl Future<Output = W>) -> W {
        let mut wanted = pin!(wanted);
        poll_fn(|context| {
            // What goes wrong with the bytes is the answer of the request under way.
            if bytes.as_mut().is_some_and(|bytes| bytes.as_mut().poll(context).is_ready()) {
                *bytes = None;
            }
            wanted.as_mut().poll(context)
        })
        .await
    }

    /// Whether another request may go out on it, waiting for the last answer to be done with.
    pub(super) async fn is_ready(&mut self) -> bool {
        Self::until(&mut self.bytes, self.sender.ready()).await.is_ok()
    }

    /// Looks whether the server has closed it, as far as this machine has been told.
    pub(super) fn is_closed(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        if self.bytes.as_mut().is_some_and(|bytes| bytes.as_mut().poll(&mut context).is_ready()) {
            self.bytes = None;
        }
        self.sender.is_closed()
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(
        &mut self,
        request: http::Request<Full<Bytes>>,
    ) -> Result<http::Response<Incoming>, Error> {
        self.heard.store(false, Ordering::Relaxed);
        Self::until(&mut self.bytes, self.sender.send_request(request)).await.map_err(Error::Exchange)
    }

    /// The next part of the answer's body; nothing behind its end.
    pub(super) async fn next_frame(&mut self, body: &mut Incoming) -> Option<Result<Frame<Bytes>, Error>> {
        Some(Self::until(&mut self.bytes, body.frame()).await?.map_err(Error::Cut))
    }

    /// Whether a single byte has come back since the last request.
    pub(super) fn has_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }
}
