//! The HTTP server under all faces: it accepts, guards and drains connections. It knows no face and no route.
//!
//! A long poll may take minutes, so there is no time-out on answers. What is bounded instead: the number of connections,
//! the time to send the head of a request, its size, and how long a peer is kept that no longer answers or takes nothing of
//! what is sent to it.

mod connection;
mod parked;
mod stall;
mod wire;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use stall::Unstalled;

/// Connections over the bound that are answered 503 at once; those over this are closed without a word.
const REFUSALS_MAX: usize = 256;
/// The wait after a failed accept: out of file descriptors, mostly, and some are about to be free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How connections are treated.
#[derive(Clone, Debug)]
pub struct Config {
    /// Connections open at once.
    pub connections_max: usize,
    /// How long the head of a request may take, from its first byte on: also the longest idle time before it.
    pub head_max: Duration,
    /// How long a peer may take nothing of what is sent to it.
    pub stall_max: Duration,
    /// How long connections may finish what is under way once the server stops.
    pub drain_max: Duration,
}

/// A listening server.
#[derive(Debug)]
pub struct Server {
    config: Config,
    listener: TcpListener,
    router: Router,
}

impl Server {
    /// A server behind this listener.
    pub fn new(config: Config, listener: TcpListener, router: Router) -> Self {
        Self { config, listener, router }
    }

    /// Accepts until the shutdown, then lets connections finish what is under way, for a bounded time.
    pub async fn run(self, shutdown: CancellationToken) {
        let connections = TaskTracker::new();
        // Whoever is still there when the time is over is cut off.
        let cut = CancellationToken::new();
        let places = Arc::new(Semaphore::new(self.config.connections_max));
        let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
        loop {
            let stream = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        pause_after(&error).await;
                        continue;
                    }
                },
            };
            tune(&stream);
            let (place, router) = match Arc::clone(&places).try_acquire_owned() {
                Ok(place) => (place, self.router.clone()),
                Err(_) => match Arc::clone(&refusals).try_acquire_owned() {
                    Ok(place) => (place, connection::refusing()),
                    Err(_) => continue,
                },
            };
            let stream = Unstalled::new(stream, self.config.stall_max);
            // Boxed, since the task would keep room for it twice.
            let served = Box::pin(connection::serve(stream, router, self.config.head_max, shutdown.clone()));
            let cut = cut.clone();
            connections.spawn(async move {
                tokio::select! {
                    () = served => {}
                    () = cut.cancelled() => {}
                }
                drop(place);
            });
        }
        drop(self.listener);
        connections.close();
        if tokio::time::timeout(self.config.drain_max, connections.wait()).await.is_err() {
            tracing::warn!(connections = connections.len(), "connections cut off: they did not end in time");
            cut.cancel();
            connections.wait().await;
        }
    }
}

async fn pause_after(error: &io::Error) {
    let of_one_connection = [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset];
    if !of_one_connection.contains(&error.kind()) {
        tracing::error!(%error, "accepting a connection");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// Answers leave at once, and a peer that silently went away is noticed: while it is idle, and while it does not take
/// what is sent to it.
fn tune(stream: &TcpStream) {
    use rustix::net::sockopt;
    // A connection that refuses these is about to fail anyway.
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, Duration::from_secs(60));
    let _ = sockopt::set_tcp_keepintvl(stream, Duration::from_secs(10));
    let _ = sockopt::set_tcp_user_timeout(stream, 90_000);
}

#[cfg(test)]
mod tests;
