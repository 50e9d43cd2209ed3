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
#[derive(Debug)]
pub(super) struct Hub {
    parts: [Part; PARTS],
    count: AtomicUsize,
    next: AtomicU64,
    released: AtomicBool,
    /// Kept, because finding it costs more than setting it.
    gauge: metrics::Gauge,
}

/// Ordered by key, so that the waiters of one key stand together and each is found in logarithmic time.
type Part = Mutex<BTreeMap<(u64, u64), Arc<Notify>>>;

impl Hub {
    /// One without waiters.
    pub fn new() -> Self {
        Self {
            parts: Default::default(),
            count: AtomicUsize::new(0),
            next: AtomicU64::new(0),
            released: AtomicBool::new(false),
            gauge: metrics::gauge!("walclock_waiters"),
        }
    }

    /// Takes a seat: from now on a wake of any of the keys is noticed. Dropping the seat gives it back.
    pub fn register(self: &Arc<Self>, keys: Vec<u64>) -> Seat {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let seat = Seat { hub: self.clone(), id, keys, notify: Arc::default() };
        // Counted first: whoever wakes after this sees that there is someone.
        self.count.fetch_add(1, Ordering::SeqCst);
        for key in &seat.keys {
            self.part(*key).lock().insert((*key, seat.id), seat.notify.clone());
        }
        // Counted up and down: setting it to what was counted could leave an older count standing.
        self.gauge.increment(1.0);
        seat
    }

    /// Wakes the waiters of these keys.
    pub fn wake(&self, keys: impl IntoIterator<Item = u64>) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        for key in keys {
            // Woken outside of the lock, which each of them wants at once to give its seat back.
            let waiters: Vec<_> = {
                let part = self.part(key).lock();
                part.range((key, 0)..=(key, u64::MAX)).map(|(_, notify)| notify.clone()).collect()
            };
            waiters.iter().for_each(|notify| notify.notify_one());
        }
    }

    /// Wakes every waiter.
    pub fn wake_all(&self) {
        for part in &self.parts {
            let waiters: Vec<_> = part.lock().values().cloned().collect();
            waiters.iter().for_each(|notify| notify.notify_one());
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
pub struct Seat {
    hub: Arc<Hub>,
    id: u64,
    keys: Vec<u64>,
    notify: Arc<Notify>,
}

impl Seat {
    /// Waits for the next wake; one since the last wait counts.
    pub async fn woken(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        for key in &self.keys {
            self.hub.part(*key).lock().remove(&(*key, self.id));
        }
        self.hub.count.fetch_sub(1, Ordering::SeqCst);
        self.hub.gauge.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn is_woken(seat: &Seat) -> bool {
        seat.woken().now_or_never().is_some()
    }

    #[test]
    fn only_the_waiters_of_a_touched_key_are_woken() {
        let hub = Arc::new(Hub::new());
        let (one, two, both) = (hub.register(vec![1]), hub.register(vec![2]), hub.register(vec![1, 2]));
        for (keys, woken) in [
            (&[1][..], [true, false, true]),
            (&[2], [false, true, true]),
            (&[1 + PARTS as u64], [false, false, false]),
            (&[1, 2, 1], [true, true, true]),
            (&[], [false, false, false]),
        ] {
            hub.wake(keys.iter().copied());
            assert_eq!([is_woken(&one), is_woken(&two), is_woken(&both)], woken, "{keys:?}");
            assert_eq!([is_woken(&one), is_woken(&two), is_woken(&both)], [false; 3], "a wake counts once");
        }
        hub.wake_all();
        assert_eq!([is_woken(&one), is_woken(&two), is_woken(&both)], [true; 3]);
    }

    #[test]
    fn a_wake_between_registering_and_waiting_is_not_lost() {
        let hub = Arc::new(Hub::new());
        let seat = hub.register(vec![7]);
        hub.wake([7]);
        assert!(is_woken(&seat));
    }

    #[test]
    fn a_seat_is_free_once_dropped() {
        let hub = Arc::new(Hub::new());
        let seats: Vec<_> = (0..10_000).map(|n| hub.register(vec![n % 3, 100 + n])).collect();
        assert_eq!(hub.waiters(), 10_000);
        drop(seats);
        assert_eq!(hub.waiters(), 0);
        assert!(hub.parts.iter().all(|part| part.lock().is_empty()));
    }

    #[test]
    fn release_is_for_good() {
        let hub = Arc::new(Hub::new());
        let seat = hub.register(vec![7]);
        assert!(!hub.is_released());
        hub.release_all();
        assert!(is_woken(&seat) && hub.is_released());
    }
}
