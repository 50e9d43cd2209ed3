//! A receiver of callbacks that notes when each came and when its timer was due, by the clock that this machine's PostgreSQL
//! reads too.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use walclock::clock::{Timestamp, wall};

use crate::receiver::Receiver;

/// The header by which a bench finds its timer again; it gives it to those that it wants told apart.
pub const NUMBER: &str = "x-number";

/// How long the last callback may be waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// One callback.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// What the timer's own header said; zero without one.
    pub number: usize,
    pub at: Instant,
    /// Received minus due, in milliseconds.
    pub late_millis: f64,
}

/// The receiver.
pub struct Arrivals {
    pub receiver: Receiver,
    noted: Arc<Mutex<Vec<Arrival>>>,
}

impl Arrivals {
    pub async fn start() -> Self {
        let noted: Arc<Mutex<Vec<Arrival>>> = Arc::default();
        let noting = noted.clone();
        let receiver = Receiver::start(move |headers| {
            let (now, at) = (wall(), Instant::now());
            let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
            let due: Option<Timestamp> = text("walclock-scheduled-for").and_then(|text| text.parse().ok());
            let late_millis = due.map_or(f64::NAN, |due| (now.micros() - due.micros()) as f64 / 1e3);
            let number = text(NUMBER).and_then(|text| text.parse().ok()).unwrap_or(0);
            noting.lock().expect("no panic before").push(Arrival { number, at, late_millis });
        })
        .await;
        Self { receiver, noted }
    }

    /// Waits until so many have come since the last call, and takes them.
    pub async fn take(&self, count: usize) -> Vec<Arrival> {
        let come = self.take_within(count, PATIENCE).await;
        assert!(come.len() >= count, "{} of {count} callbacks came", come.len());
        come
    }

    /// Takes those that have come since the last call: once there are so many, or when none more may be waited for.
    pub async fn take_within(&self, count: usize, patience: Duration) -> Vec<Arrival> {
        let start = Instant::now();
        while self.noted.lock().expect("no panic before").len() < count && start.elapsed() < patience {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        std::mem::take(&mut *self.noted.lock().expect("no panic before"))
    }
}
