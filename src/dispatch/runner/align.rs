//! Keeps the clock within what PostgreSQL's may read, by questions of its own and by whatever else tells its time; and says
//! when it was set.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::calls::Outages;
use super::work::Answer;
use crate::clock::{Clock, Learned, Reading};
use crate::dispatch::engine::Event;
use crate::dispatch::ports::{Store, Unavailable};

/// Questions of one round: the quickest answers count, and one that was slow spoils none.
const SAMPLES: usize = 3;
/// How long one question may take; a slower answer would say little.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The pause after a round that failed, at first and at most; it doubles.
const RETRIES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(4));
/// Steps of the database's clock from here on are told in the log, in microseconds; smaller ones come from disciplining it.
const TOLD_MIN: u64 = 10_000;

/// Reads the database's clock for the first time; tries until it succeeds.
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

/// Reads it again and again, and has due moments looked at anew when it was set.
pub(super) async fn keep(store: Arc<impl Store>, clock: Clock, every: Duration, answers: mpsc::Sender<Answer>) {
    let outages = Outages::default();
    loop {
        tokio::time::sleep(every).await;
        // A failure is logged with the call; the clock goes on by itself, for as long as it is trusted.
        if let Ok(true) = align(&*store, &clock, &outages).await
            && answers.send(Answer::Engine(Event::Tick)).await.is_err()
        {
            return;
        }
    }
}

/// One round; says whether the clock was set.
async fn align(store: &impl Store, clock: &Clock, outages: &Outages) -> Result<bool, Unavailable> {
    let mut was_set = false;
    for _ in 0..SAMPLES {
        let asked = Instant::now();
        let at = outages.bounded("reading the database's time", TIMEOUT, store.now()).await?;
        was_set |= learn(clock, &Reading { asked, at, answered: Instant::now() });
    }
    Ok(was_set)
}

/// Takes in what the database's clock said; says whether it was set.
pub(super) fn learn(clock: &Clock, reading: &Reading) -> bool {
    let Learned::Set(micros) = clock.learn(reading) else { return false };
    metrics::counter!("walclock_clock_steps_total").increment(1);
    let seconds = seconds(micros);
    if micros.unsigned_abs() >= TOLD_MIN {
        warn!(seconds, now = %reading.at, "the database's clock was set: due moments are looked at anew");
    } else {
        debug!(seconds, "the database's clock was set by a little");
    }
    true
}

/// Microseconds in seconds.
#[expect(clippy::cast_precision_loss, reason = "a metric, exact up to 285 years")]
pub(super) fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}
