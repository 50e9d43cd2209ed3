//! Tests of what lies between the machines and the calls: by which clock leases are counted, and that they are looked at
//! before anything leaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::Config;
use super::work::{Answer, Work};
use crate::clock::{Clock, Timestamp, wall};
use crate::dispatch::engine;
use crate::dispatch::ports::{
    ClaimRequest, Claimed, Delivery, Entry, LeaseGrant, LeaseRequest, LoadRequest, Store, Unavailable, Unmade, Written,
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
        Ok(wall())
    }

    async fn lease(&self, _: LeaseRequest) -> Result<LeaseGrant, Unavailable> {
        let held = Shard::all().map(|shard| Lease { shard, epoch: Epoch(1) }).collect();
        Ok(LeaseGrant { held, owners_alive: 1, rank: 0, others_left: None, now: wall() })
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

    async fn settle(&self, _: &Owner, _: &[Settlement]) -> Result<Vec<Written>, Unavailable> {
        Ok(Vec::new())
    }

    async fn leave(&self, _: &Owner) -> Result<(), Unavailable> {
        Ok(())
    }
}

/// Is never called.
struct Silent;

impl Delivery for Silent {
    async fn attempt(&self, run: &Run) -> Result<Attempt, Unmade> {
        unreachable!("there is no timer, and {} is called", run.key.timer)
    }
}

/// A timer that is due, and of which the feed tells.
fn noted(id: &str) -> Answer {
    let entry = Entry { due_at: Timestamp::from_micros(1), key: TimerKey::new("n", id) };
    Answer::Engine(engine::Event::Noted(vec![entry]))
}

/// A dispatcher's inside, and the answers of its calls.
struct Rig {
    work: Work<Generous, Silent>,
    inbox: mpsc::Receiver<Answer>,
    claims: Arc<AtomicU64>,
}

impl Rig {
    fn new() -> Self {
        let claims = Arc::new(AtomicU64::new(0));
        let store = Arc::new(Generous { claims: claims.clone() });
        let (answers, inbox) = mpsc::channel(100);
        let (followed, _) = watch::channel(Vec::new());
        let config = Config::new(Owner("me".to_owned()));
        let clock = Clock::system();
        clock.align(wall());
        let work = Work::new(&config, store, Arc::new(Silent), clock, answers, followed, since_boot);
        Self { work, inbox, claims }
    }

    fn claims(&self) -> u64 {
        self.claims.load(Ordering::SeqCst)
    }

    /// Steps with this news, and then with every answer and at every moment that it waits for, until `is_done`.
    async fn go_on(&mut self, news: Answer, is_done: impl Fn(&Self) -> bool) {
        let mut taken = vec![news];
        let goes_on = async {
            loop {
                self.work.step(&mut taken);
                if is_done(self) {
                    return;
                }
                if let Ok(answer) = tokio::time::timeout_at(self.work.next_wake(), self.inbox.recv()).await {
                    taken.push(answer.expect("the calls answer"));
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), goes_on).await.expect("within a minute");
    }
}

#[tokio::test]
async fn after_a_suspension_nothing_is_done_under_the_leases_before_it() {
    let mut rig = Rig::new();
    rig.go_on(noted("too early"), |rig| rig.work.status().shards == Shard::COUNT).await;
    rig.go_on(noted("before"), |rig| rig.claims() > 0).await;
    // The machine sleeps for a minute, which no other clock of the process shows.
    SINCE_BOOT.fetch_add(60, Ordering::SeqCst);
    let mut taken = vec![noted("after")];
    rig.work.step(&mut taken);
    let before = rig.claims();
    assert_eq!(rig.work.status().shards, 0);
    // Nothing is claimed before the leases are there again.
    rig.go_on(noted("later"), |rig| rig.work.status().shards == Shard::COUNT || rig.claims() > before).await;
    assert_eq!((rig.work.status().shards, rig.claims()), (Shard::COUNT, before));
    rig.go_on(noted("again"), |rig| rig.claims() > before).await;
}
