//! Keeps the clock aligned with PostgreSQL's, and never ahead of it: what the database said counts as of the moment at
//! which its answer was here, so the clock is behind by the answer's way, and a timer never fires early.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

use super::calls::Outages;
use crate::clock::{Clock, Timestamp, wall};
use crate::dispatch::ports::{Store, Unavailable};

/// Questions of one round; the answer that was on its way for the shortest time counts.
const SAMPLES: usize = 3;
/// How long one question may take; a slower answer would say little.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The pause after the first round that failed, and after the later ones: each doubles it up to the second.
const RETRIES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(4));

/// Aligns the clock for the first time; tries until it succeeds.
pub(super) async fn first(store: &impl Store, clock: &Clock) {
    let (outages, mut pause) = (Outages::default(), RETRIES.0);
    while align(store, clock, &outages).await.is_err() {
        if pause == RETRIES.0 {
            warn!("nothing is fired before the database has told its time");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRIES.1);
    }
}

/// Aligns the clock again and again.
pub(super) async fn keep(store: Arc<impl Store>, clock: Clock, every: Duration) {
    let outages = Outages::default();
    loop {
        tokio::time::sleep(every).await;
        // A failure is logged with the call; the clock goes on by itself.
        let _ = align(&*store, &clock, &outages).await;
    }
}

async fn align(store: &impl Store, clock: &Clock, outages: &Outages) -> Result<(), Unavailable> {
    let mut samples = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        let at = outages.bounded("reading the database's time", TIMEOUT, store.now()).await?;
        samples.push((at, Instant::now()));
    }
    // Each sample is a lower bound of what the database reads now; the highest one is the best.
    let best = samples.into_iter().map(|(at, since)| at.after(since.elapsed())).max().unwrap_or(Timestamp::MIN);
    let ahead = clock.align(best);
    metrics::gauge!("walclock_clock_step_seconds").set(seconds(ahead));
    metrics::gauge!("walclock_clock_offset_seconds").set(seconds(wall().micros().saturating_sub(best.micros())));
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a metric, exact up to 285 years")]
fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}
