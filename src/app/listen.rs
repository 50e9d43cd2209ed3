//! The ports that the process listens on.

use std::io;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, anyhow};
use tokio::net::{TcpListener, TcpSocket};

use crate::domain::limits;

/// How many ports behind the wanted one are tried where any will do.
const PORTS_TRIED: u16 = 100;

/// Listens on exactly this port.
pub(super) fn exactly(bind: IpAddr, port: u16, setting: &str) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::new(bind, port);
    match listen(address) {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Err(anyhow!("port {port} of {bind} is taken by another process: choose one with --{setting}"))
        }
        Err(error) => Err(error).with_context(|| format!("listening on {address} (--{setting})")),
    }
}

/// Listens on this port, or the next one that is free.
pub(super) fn from(bind: IpAddr, port: u16, setting: &str) -> anyhow::Result<TcpListener> {
    for port in port..port.saturating_add(PORTS_TRIED) {
        if let Ok(listener) = listen(SocketAddr::new(bind, port)) {
            return Ok(listener);
        }
    }
    exactly(bind, port, setting)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A server that starts again must not wait until the connections of the last one are forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(limits::ACCEPT_QUEUE_MAX)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_named_or_passed_over() {
        let bind = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let first = exactly(bind, 0, "port").unwrap();
        let taken = first.local_addr().unwrap().port();
        let error = exactly(bind, taken, "port").unwrap_err().to_string();
        assert_eq!(error, format!("port {taken} of 127.0.0.1 is taken by another process: choose one with --port"));
        let next = from(bind, taken, "port").unwrap();
        assert_ne!(next.local_addr().unwrap().port(), taken);
    }

    #[tokio::test]
    async fn a_crowd_that_connects_at_once_is_queued() {
        let allowed = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse().unwrap();
        let crowd = 300_usize.min(allowed);
        let listener = exactly(IpAddr::V4(Ipv4Addr::LOCALHOST), 0, "port").unwrap();
        let address = listener.local_addr().unwrap();
        // Nobody accepts: whatever the queue does not hold is not answered, and is tried again only after a second.
        let crowd = (0..crowd).map(|_| tokio::net::TcpStream::connect(address));
        let connected = futures_util::future::join_all(crowd);
        let connected = tokio::time::timeout(Duration::from_secs(60), connected).await.expect("all are queued");
        assert!(connected.iter().all(Result::is_ok));
    }
}
