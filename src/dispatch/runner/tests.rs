//! Tests of what lies between the machines and the calls: by which clock leases are counted, and that they are looked at
//! before anything leaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::Config;
use super::work::{Answer, Work};
use crate::clock::{Clock, Timestamp};
use crate::dispatch::engine;
use crate::dispatch::ports::{
    ClaimRequest, Claimed, Delivery, Entry, LeaseGrant, LeaseRequest, LoadRequest, Store, Unavailable,
};
use crate::domain::lease::{Epoch, Lease, Owner};
use crate::domain::run::{Attempt, Run, Settlement};
use crate::domain::shard::Shard;
use crate::domain::timer::TimerKey;

/// The time since boot as the test has it, in seconds. One test of this process uses it.
static SINCE_BOOT: AtomicU64 = AtomicU64::new(1_000);

fn since_boot() -> Duration {
    Duration::from_secs(SINCE_BOOT.load(Ordering::SeqCst))
}

/// Grants every shard, and counts claims; it has no timers.
struct Generous {
    claims: Arc<AtomicU64>,
}

impl Store for Generous {
    async fn now(&self) -> Result<Timestamp, Unavailable> {
        Ok(Timestamp::default())
    }

    async fn lease(&self, _: LeaseRequest) -> Result<LeaseGrant, Unavailable> {
        let held = Shard::all().map(|shard| Lease { shard, epoch: Epoch(1) }).collect();
        Ok(LeaseGrant { held, owners_alive: 1, rank: 0, now: Timestamp::default() })
    }

    async fn load(&self, _: LoadRequest) -> Result<Vec<Entry>, Unavailable> {
        Ok(Vec::new())
    }

    async fn claim(&self, _: ClaimRequest) -> Result<Claimed, Unavailable> {
        self.claims.fetch_add(1, Ordering::SeqCst);
        Ok(Claimed::default())
    }

    async fn adopt(&self, _: &Owner, _: &[Lease], _: usize) -> Result<Vec<Run>, Unavailable> {
        Ok(Vec::new())
    }

    async fn settle(&self, _: &Owner, _: &[Settlement]) -> Result<Vec<bool>, Unavailable> {
        Ok(Vec::new())
    }

    async fn leave(&self, _: &Owner) -> Result<(), Unavailable> {
        Ok(())
    }
}

/// Is never called.
struct Silent;

impl Delivery for Silent {
    async fn attempt(&self, run: &Run) -> Attempt {
        unreachable!("there is no timer, and {} is called", run.key.timer)
    }
}

/// A timer that is due, and of which the feed tells.
fn noted(id: &str) -> Answer {
    let entry = Entry { due_at: Timestamp::from_micros(1), key: TimerKey::new("n", id) };
    Answer::Engine(engine::Event::Noted(vec![entry]))
}

#[tokio::test]
async fn after_a_suspension_nothing_is_done_under_the_leases_before_it() {
    let claims = Arc::new(AtomicU64::new(0));
    let store = Arc::new(Generous { claims: claims.clone() });
    let (answers, mut inbox) = mpsc::channel(100);
    let (followed, _shards) = watch::channel(Vec::new());
    let config = Config::new(Owner("me".to_owned()));
    let mut work = Work::new(&config, store, Arc::new(Silent), Clock::system(), answers, followed, since_boot);
    let mut taken = Vec::new();
    while work.status().shards < Shard::COUNT || claims.load(Ordering::SeqCst) == 0 {
        taken.push(noted("before"));
        work.step(&mut taken);
        taken.push(inbox.recv().await.expect("the calls answer"));
    }
    work.step(&mut taken);
    let before = claims.load(Ordering::SeqCst);

    // The machine sleeps for a minute, which no other clock of the process shows.
    SINCE_BOOT.fetch_add(60, Ordering::SeqCst);
    taken.push(noted("after"));
    work.step(&mut taken);
    assert_eq!(work.status().shards, 0);
    // The only call that it makes is the question for leases; once that is answered the timer is claimed.
    loop {
        let answer = inbox.recv().await.expect("the calls answer");
        if matches!(answer, Answer::Shards(_)) {
            assert_eq!(claims.load(Ordering::SeqCst), before);
            taken.push(answer);
            break;
        }
        taken.push(answer);
        work.step(&mut taken);
    }
    work.step(&mut taken);
    assert_eq!(work.status().shards, Shard::COUNT);
    while claims.load(Ordering::SeqCst) == before {
        taken.push(inbox.recv().await.expect("the calls answer"));
        work.step(&mut taken);
    }
}
