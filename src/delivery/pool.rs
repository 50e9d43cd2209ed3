//! Connections that are kept for the next request to the same server, and the bound on how many there are at all.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use url::{Position, Url};

use super::Error;
use super::connect::{Connection, Connector};
use super::transport::Call;

/// Hands out connections. A connection is used by one request at a time, and closed where it is not given back.
pub(super) struct Pool {
    connector: Connector,
    idle: Arc<Mutex<Idle>>,
    permits: Arc<Semaphore>,
    /// Requests that wait for a permit: as long as there are any, nothing is kept.
    waiting: AtomicUsize,
}

/// What is kept, by scheme, host and port; in each list the last one used stands last.
struct Idle {
    by_server: HashMap<String, Vec<Kept>>,
    age_max: Duration,
}

struct Kept {
    connection: Connection,
    since: Instant,
}

impl Pool {
    /// A pool of at most `connections_max` connections that keeps one for `idle_max` after its last request. Must be
    /// called within a runtime.
    pub(super) fn new(connector: Connector, connections_max: usize, idle_max: Duration) -> Self {
        let idle = Arc::new(Mutex::new(Idle { by_server: HashMap::new(), age_max: idle_max }));
        tokio::spawn(sweep(Arc::downgrade(&idle), idle_max / 2));
        let permits = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
        Self { connector, idle, permits, waiting: AtomicUsize::new(0) }
    }

    /// A connection to the server of this call: a kept one where there is one, else a new one.
    pub(super) async fn take(&self, call: &Call<'_>) -> Result<Connection, Error> {
        loop {
            let kept = self.idle.lock().take(server(call.url));
            let Some(mut connection) = kept else {
                return self.open(call).await;
            };
            if connection.is_ready().await {
                return Ok(connection);
            }
        }
    }

    /// A new connection to the server of this call. Waits while there are as many as there may be.
    pub(super) async fn open(&self, call: &Call<'_>) -> Result<Connection, Error> {
        let permit = self.permit().await;
        self.connector.connect(call, permit).await
    }

    /// Takes a connection back whose answer was read to its end.
    pub(super) fn give_back(&self, url: &Url, mut connection: Connection) {
        if connection.is_closed() || self.waiting.load(Ordering::Acquire) > 0 {
            return;
        }
        connection.kept = true;
        self.idle.lock().put(server(url), Kept { connection, since: Instant::now() });
    }

    async fn permit(&self) -> OwnedSemaphorePermit {
        if let Ok(permit) = self.permits.clone().try_acquire_owned() {
            return permit;
        }
        let waiting = Waiting::begin(&self.waiting);
        // One that is kept for another server gives way.
        self.idle.lock().drop_oldest();
        let permit = self.permits.clone().acquire_owned().await.expect("the semaphore is never closed");
        drop(waiting);
        permit
    }
}

/// Counts a waiter for as long as it lives, also where the request is given up.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Idle {
    /// The connection that was used last: the others may grow old and go.
    fn take(&mut self, server: &str) -> Option<Connection> {
        let list = self.by_server.get_mut(server)?;
        let kept = list.pop()?;
        if kept.since.elapsed() > self.age_max {
            // The others are older still.
            list.clear();
            return None;
        }
        Some(kept.connection)
    }

    fn put(&mut self, server: &str, kept: Kept) {
        match self.by_server.get_mut(server) {
            Some(list) => list.push(kept),
            None => drop(self.by_server.insert(server.to_owned(), vec![kept])),
        }
    }

    fn drop_oldest(&mut self) {
        let oldest_of = |list: &Vec<Kept>| list.first().map(|kept| kept.since);
        let lists = self.by_server.values_mut().filter(|list| !list.is_empty());
        if let Some(list) = lists.min_by_key(|list| oldest_of(list)) {
            list.remove(0);
        }
    }

    fn drop_old(&mut self) {
        let age_max = self.age_max;
        self.by_server.retain(|_, list| {
            list.retain_mut(|kept| kept.since.elapsed() <= age_max && !kept.connection.is_closed());
            !list.is_empty()
        });
    }
}

/// Closes what was kept for too long, until the pool is gone.
async fn sweep(idle: Weak<Mutex<Idle>>, period: Duration) {
    let mut ticks = tokio::time::interval(period.max(Duration::from_millis(1)));
    loop {
        ticks.tick().await;
        match idle.upgrade() {
            Some(idle) => idle.lock().drop_old(),
            None => return,
        }
    }
}

/// Scheme, host and port, in the one way that `url` writes them.
fn server(url: &Url) -> &str {
    &url[..Position::BeforePath]
}
