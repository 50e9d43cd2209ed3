//! From a host in the settings to a socket with TLS as the settings ask for it.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustix::net::sockopt;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::config::{Host, SslNegotiation};

use super::connection::Socket;
use super::error::Error;
use crate::pg::{Settings, TlsMode};

/// What the kernel may hold for us. Fixed, because the kernel would let it grow until a pause of the reader no longer
/// fills it; and it is the full buffer that makes the walsender join its messages instead of sending each by itself.
const RECEIVE_BYTES: usize = 256 * 1024;
/// The same for a server on this machine, where nothing else joins them: small, so that most of a pause lies behind the
/// moment when it is full. Twice of it is not filled within a pause by rows that come alone, in some runs; with half of
/// it the connection stalls at the first large row.
const RECEIVE_BYTES_NEAR: usize = 32 * 1024;

/// How safe the way to the server is.
pub(super) enum Channel {
    /// Within this machine.
    Local,
    /// Over the network, for everybody to read.
    Clear,
    /// Over TLS; the server's certificate.
    Tls(Option<CertificateDer<'static>>),
}

/// Connects to the one host of the settings.
pub(super) async fn connect(settings: &Settings) -> Result<(Box<dyn Socket>, Channel), Error> {
    let config = settings.config();
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let (name, server) = match (config.get_hosts().first(), config.get_hostaddrs().first()) {
        (Some(Host::Unix(folder)), _) => return local(settings, &folder.join(format!(".s.PGSQL.{port}"))).await,
        (Some(Host::Tcp(name)), _) => (name.clone(), format!("{name}:{port}")),
        (None, Some(address)) => (address.to_string(), format!("{address}:{port}")),
        (None, None) => (String::new(), String::new()),
    };
    let address = config.get_hostaddrs().first().map_or_else(|| name.clone(), ToString::to_string);
    let broken = |source| Error::Connect { server: server.clone(), source };
    let stream = match config.get_connect_timeout() {
        None => TcpStream::connect((address.as_str(), port)).await,
        Some(timeout) => tokio::time::timeout(*timeout, TcpStream::connect((address.as_str(), port)))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
    };
    let mut stream = stream.map_err(broken)?;
    tune(&stream, settings).map_err(broken)?;
    match settings.tls_mode() {
        TlsMode::Disable => return Ok((Box::new(stream), Channel::Clear)),
        TlsMode::Prefer | TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => {}
    }
    let direct = config.get_ssl_negotiation() == SslNegotiation::Direct;
    if !direct && !offers_tls(&mut stream).await.map_err(broken)? {
        return match settings.tls_mode() {
            TlsMode::Disable | TlsMode::Prefer => Ok((Box::new(stream), Channel::Clear)),
            TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => Err(Error::NoTls { server }),
        };
    }
    let failed = |source| Error::Tls { server: server.clone(), source };
    let name = ServerName::try_from(name).map_err(|e| failed(io::Error::new(io::ErrorKind::InvalidInput, e)))?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(settings.client_config()?));
    let stream = connector.connect(name, stream).await.map_err(failed)?;
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let certificate = certificates.first().map(|certificate| certificate.clone().into_owned());
    Ok((Box::new(stream), Channel::Tls(certificate)))
}

/// Within one machine there is nothing to encrypt, and PostgreSQL has no TLS there.
async fn local(settings: &Settings, path: &std::path::Path) -> Result<(Box<dyn Socket>, Channel), Error> {
    let server = path.display().to_string();
    match settings.tls_mode() {
        TlsMode::Disable | TlsMode::Prefer => {}
        TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => return Err(Error::NoTls { server }),
    }
    let stream = UnixStream::connect(path).await.map_err(|source| Error::Connect { server, source })?;
    Ok((Box::new(stream), Channel::Local))
}

/// Asks for TLS. Reads exactly one byte, so that nothing that was sent in the clear is taken for what comes behind it.
async fn offers_tls(stream: &mut TcpStream) -> io::Result<bool> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    stream.write_all(&request).await?;
    Ok(stream.read_u8().await? == b'S')
}

fn tune(stream: &TcpStream, settings: &Settings) -> io::Result<()> {
    let config = settings.config();
    stream.set_nodelay(true)?;
    let near = stream.peer_addr()?.ip() == stream.local_addr()?.ip();
    sockopt::set_socket_recv_buffer_size(stream, if near { RECEIVE_BYTES_NEAR } else { RECEIVE_BYTES })?;
    if config.get_keepalives() {
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, config.get_keepalives_idle())?;
        if let Some(interval) = config.get_keepalives_interval() {
            sockopt::set_tcp_keepintvl(stream, interval)?;
        }
        if let Some(retries) = config.get_keepalives_retries() {
            sockopt::set_tcp_keepcnt(stream, retries)?;
        }
    }
    if let Some(unconfirmed) = config.get_tcp_user_timeout() {
        sockopt::set_tcp_user_timeout(stream, u32::try_from(unconfirmed.as_millis()).unwrap_or(u32::MAX))?;
    }
    Ok(())
}
