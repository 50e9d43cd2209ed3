//! Wakes exactly the waiters of the scopes that were touched.
//!
//! A waiter registers first and looks then, the journal publishes first and wakes then: so no change is missed between
//! the look and the wait. A waiter costs an entry per scope and no task.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// So many independent parts, so that waiters seldom meet at a lock.
const PARTS: usize = 16;

/// Those who wait, by the key of what they wait for.
#[derive(Debug, Default)]
pub(super) struct Hub {
    parts: [Part; PARTS],
    count: AtomicUsize,
    next: AtomicU64,
    released: AtomicBool,
}

/// Ordered by key, so that the waiters of one key stand together and each is found in logarithmic time.
type Part = Mutex<BTreeMap<(u64, u64), Arc<Notify>>>;

impl Hub {
    /// One without waiters.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a seat: from now on a wake of any of the keys is noticed. Dropping the seat gives it back.
    pub fn register(&self, keys: Vec<u64>) -> Seat<'_> {
        let seat = Seat { hub: self, id: self.next.fetch_add(1, Ordering::Relaxed), keys, notify: Arc::default() };
        // Counted first: whoever wakes after this sees that there is someone.
        let count = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        for key in &seat.keys {
            self.part(*key).lock().insert((*key, seat.id), seat.notify.clone());
        }
        gauge(count);
        seat
    }

    /// Wakes the waiters of these keys.
    pub fn wake(&self, keys: impl IntoIterator<Item = u64>) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        for key in keys {
            let part = self.part(key).lock();
            part.range((key, 0)..=(key, u64::MAX)).for_each(|(_, notify)| notify.notify_one());
        }
    }

    /// Wakes every waiter.
    pub fn wake_all(&self) {
        for part in &self.parts {
            part.lock().values().for_each(|notify| notify.notify_one());
        }
    }

    /// Lets nobody wait any more, from now on and for good.
    pub fn release_all(&self) {
        self.released.store(true, Ordering::SeqCst);
        self.wake_all();
    }

    /// Whether nobody may wait.
    pub fn is_released(&self) -> bool {
        self.released.load(Ordering::SeqCst)
    }

    /// How many wait.
    pub fn waiters(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    fn part(&self, key: u64) -> &Part {
        &self.parts[usize::try_from(key % PARTS as u64).unwrap_or(0)]
    }
}

/// A waiter's place in the hub.
#[derive(Debug)]
pub(super) struct Seat<'a> {
    hub: &'a Hub,
    id: u64,
    keys: Vec<u64>,
    notify: Arc<Notify>,
}

impl Seat<'_> {
    /// Waits for the next wake; one since the last wait counts.
    pub async fn woken(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        for key in &self.keys {
            self.hub.part(*key).lock().remove(&(*key, self.id));
        }
        gauge(self.hub.count.fetch_sub(1, Ordering::SeqCst) - 1);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn gauge(count: usize) {
    metrics::gauge!("walclock_waiters").set(count as f64);
}
