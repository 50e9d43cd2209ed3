//! The ports that the process listens on.

use std::io;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, anyhow};
use tokio::net::TcpListener;

/// How many ports behind the wanted one are tried where any will do.
const PORTS_TRIED: u16 = 100;

/// Listens on exactly this port.
pub(super) async fn exactly(bind: IpAddr, port: u16, setting: &str) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::new(bind, port);
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Err(anyhow!("port {port} of {bind} is taken by another process: choose one with --{setting}"))
        }
        Err(error) => Err(error).with_context(|| format!("listening on {address} (--{setting})")),
    }
}

/// Listens on this port, or the next one that is free.
pub(super) async fn from(bind: IpAddr, port: u16, setting: &str) -> anyhow::Result<TcpListener> {
    for port in port..port.saturating_add(PORTS_TRIED) {
        if let Ok(listener) = TcpListener::bind((bind, port)).await {
            return Ok(listener);
        }
    }
    exactly(bind, port, setting).await
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_named_or_passed_over() {
        let bind = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let first = exactly(bind, 0, "port").await.unwrap();
        let taken = first.local_addr().unwrap().port();
        let error = exactly(bind, taken, "port").await.unwrap_err().to_string();
        assert_eq!(error, format!("port {taken} of 127.0.0.1 is taken by another process: choose one with --port"));
        let next = from(bind, taken, "port").await.unwrap();
        assert_ne!(next.local_addr().unwrap().port(), taken);
    }
}
