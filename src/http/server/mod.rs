//! The HTTP server under all faces: it accepts, guards and drains connections. It knows no face and no route.
//!
//! A long poll may take minutes, so there is no time-out on answers. What is bounded instead: the number of connections,
//! the time to send the head of a request, its size, and how long a peer is kept that no longer answers or takes nothing of
//! what is sent to it.

mod connection;
mod parked;
mod stall;
mod wire;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::domain::limits::CONNECTIONS_BEYOND_MAX;
use stall::Unstalled;

/// How long a connection over the bound may take to ask; a probe asks at once.
const BEYOND_HEAD_MAX: Duration = Duration::from_secs(5);
/// The wait after a failed accept: out of file descriptors, mostly, and some are about to be free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often it is said at most that accepting fails.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

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
    beyond: Router,
}

impl Server {
    /// A server behind this listener. Over a connection beyond the bound, everything is refused with 503.
    pub fn new(config: Config, listener: TcpListener, router: Router) -> Self {
        Self { config, listener, router, beyond: connection::beyond(Router::new()) }
    }

    /// The same, but that these calls are answered over such a connection, too.
    pub fn with_probes(self, probes: Router) -> Self {
        Self { beyond: connection::beyond(probes), ..self }
    }

    /// Accepts until the shutdown, then lets connections finish what is under way, for a bounded time.
    pub async fn run(self, shutdown: CancellationToken) {
        let connections = TaskTracker::new();
        // Whoever is still there when the time is over is cut off.
        let cut = CancellationToken::new();
        let places = Arc::new(Semaphore::new(self.config.connections_max));
        let mut complaints = Complaints::default();
        let mut beyond = Beyond::new(self.config.connections_max);
        loop {
            let stream = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        pause_after(&error, &mut complaints).await;
                        continue;
                    }
                },
            };
            tune(&stream);
            let place = Arc::clone(&places).try_acquire_owned();
            let is_beyond = place.is_err();
            let (place, router, head_max) = match place {
                Ok(place) => (place, self.router.clone(), self.config.head_max),
                Err(_) => (beyond.place().await, self.beyond.clone(), self.config.head_max.min(BEYOND_HEAD_MAX)),
            };
            let stream = Unstalled::new(stream, self.config.stall_max);
            // Boxed, since the task would keep room for it twice.
            let served = Box::pin(connection::serve(stream, router, head_max, shutdown.clone()));
            let cut = cut.clone();
            let task = connections.spawn(async move {
                tokio::select! {
                    () = served => {}
                    () = cut.cancelled() => {}
                }
                drop(place);
            });
            if is_beyond {
                beyond.add(task.abort_handle());
            }
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

/// The connections over the bound, oldest first. One too many cuts off the oldest: whoever comes has a moment to ask, however
/// many say nothing.
struct Beyond {
    connections: VecDeque<AbortHandle>,
    places: Arc<Semaphore>,
}

impl Beyond {
    /// Where few connections are held, few are held beyond.
    fn new(connections_max: usize) -> Self {
        let most = (connections_max / 4).clamp(*CONNECTIONS_BEYOND_MAX.start(), *CONNECTIONS_BEYOND_MAX.end());
        Self { connections: VecDeque::new(), places: Arc::new(Semaphore::new(most)) }
    }

    /// A place for one more, once the oldest has left it.
    async fn place(&mut self) -> OwnedSemaphorePermit {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return place;
        }
        self.connections.retain(|connection| !connection.is_finished());
        if let Some(oldest) = self.connections.pop_front() {
            oldest.abort();
        }
        // Its socket must be gone before there is another one, or there would be too many.
        Arc::clone(&self.places).acquire_owned().await.expect("the semaphore is never closed")
    }

    /// Remembers who has the place.
    fn add(&mut self, connection: AbortHandle) {
        if self.connections.len() >= 2 * CONNECTIONS_BEYOND_MAX.end() {
            self.connections.retain(|connection| !connection.is_finished());
        }
        self.connections.push_back(connection);
    }
}

/// When it was last said that accepting fails.
#[derive(Default)]
struct Complaints(Option<Instant>);

impl Complaints {
    /// Whether to say it now: not with every try.
    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.0.is_none_or(|last| now.saturating_duration_since(last) >= COMPLAINT_INTERVAL);
        if is_due {
            self.0 = Some(now);
        }
        is_due
    }
}

async fn pause_after(error: &io::Error, complaints: &mut Complaints) {
    let of_one_connection = [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset];
    if !of_one_connection.contains(&error.kind()) {
        if complaints.is_due(Instant::now()) {
            tracing::error!(%error, "accepting a connection fails, and is tried again");
        }
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
