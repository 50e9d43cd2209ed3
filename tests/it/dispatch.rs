//! The dispatcher on a real PostgreSQL, with callbacks and feed of the test's own.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use walclock::clock::{Clock, Limits, Timestamp};
use walclock::dispatch::ports::{
    self, ClaimRequest, Claimed, Delivery, Entry, Feed, FeedError, LeaseGrant, LeaseRequest, LoadRequest, News,
    Store as _, Unavailable, Unmade, Written,
};
use walclock::dispatch::runner::{Config, Dispatcher, Handle};
use walclock::domain::callback::Verdict;
use walclock::domain::lease::{Lease, Owner};
use walclock::domain::run::{Attempt, Run, Settlement};
use walclock::domain::sequence::{Lsn, Sequence};
use walclock::domain::shard::Shard;
use walclock::domain::timer::TimerKey;
use walclock::store::Store;

use crate::support::{self, PATIENCE};

/// A receiver that answers when it is let, and tells of each attempt.
#[derive(Clone)]
struct Receiver {
    clock: Clock,
    sent: mpsc::UnboundedSender<(String, Timestamp)>,
    answers: Arc<Semaphore>,
}

impl Delivery for Receiver {
    async fn attempt(&self, run: &Run) -> Result<Attempt, Unmade> {
        let sent_at = self.clock.now();
        self.sent.send((run.key.timer.id.to_string(), sent_at)).unwrap();
        self.answers.acquire().await.unwrap().forget();
        let reply_head = String::new();
        Ok(Attempt {
            sent_at,
            answered_at: self.clock.now(),
            connected: true,
            status: Some(200),
            reply_head,
            verdict: Verdict::Succeeded,
        })
    }
}

/// A feed that tells what the test says, or is away.
#[derive(Clone, Default)]
struct Told {
    entries: Arc<Mutex<Vec<Entry>>>,
    told: Arc<tokio::sync::Notify>,
    gap: Arc<AtomicBool>,
}

impl Feed for Told {
    async fn position(&self) -> Result<Sequence, FeedError> {
        Ok(Sequence::new(1, Lsn(1), 0))
    }

    async fn follow(&self, shards: &[Shard], since: Sequence, wait: Duration) -> Result<News, FeedError> {
        loop {
            // What comes from here on is not missed.
            let told = self.told.notified();
            if self.gap.swap(false, Ordering::Relaxed) {
                return Err(FeedError::Gap);
            }
            let shards: HashSet<Shard> = shards.iter().copied().collect();
            let entries: Vec<Entry> =
                self.entries.lock().extract_if(.., |entry| shards.contains(&entry.key.shard())).collect();
            if !entries.is_empty() {
                return Ok(News { entries, last: since });
            }
            if tokio::time::timeout(wait, told).await.is_err() {
                return Ok(News { entries, last: since });
            }
        }
    }
}

/// A database, and what dispatchers on it share.
struct Rig {
    store: Store,
    client: tokio_postgres::Client,
    feed: Told,
    receiver: Receiver,
    sent: mpsc::UnboundedReceiver<(String, Timestamp)>,
    /// Longer than a test, unless it is about the sweep.
    sweep_every: Duration,
}

impl Rig {
    async fn new() -> Self {
        let url = support::migrated().await;
        let settings = walclock::pg::Settings::parse(&url).unwrap();
        let store = Store::new(walclock::store::Config::new(settings)).unwrap();
        let (sender, sent) = mpsc::unbounded_channel();
        let receiver = Receiver { clock: Clock::system(), sent: sender, answers: Arc::new(Semaphore::new(1000)) };
        let sweep_every = Duration::from_secs(3600);
        Self { store, client: support::connect(&url).await, feed: Told::default(), receiver, sent, sweep_every }
    }

    /// Starts a dispatcher whose leases end soon after it is gone.
    fn start(&self, owner: &str) -> (JoinHandle<()>, CancellationToken, Handle) {
        self.start_on(owner, self.store.clone(), self.receiver.clock.clone())
    }

    /// The same on another store, and by another clock.
    fn start_on(
        &self,
        owner: &str,
        store: impl ports::Store,
        clock: Clock,
    ) -> (JoinHandle<()>, CancellationToken, Handle) {
        let mut config = Config::new(Owner(owner.to_owned()));
        // So long that a busy machine does not lose them: what is under way would be made again.
        config.lease_ttl = Duration::from_secs(10);
        config.drain = 2 * PATIENCE;
        config.engine.sweep_every = self.sweep_every;
        config.engine.sweep_grace = Duration::from_millis(100);
        let receiver = Receiver { clock: clock.clone(), ..self.receiver.clone() };
        let dispatcher = Dispatcher::new(config, store, receiver, self.feed.clone(), clock);
        let (handle, stop) = (dispatcher.handle(), CancellationToken::new());
        (tokio::spawn(dispatcher.run(stop.clone())), stop, handle)
    }

    /// Starts a dispatcher and waits until it holds all shards.
    async fn started(&self, owner: &str) -> (JoinHandle<()>, CancellationToken) {
        let (task, stop, handle) = self.start(owner);
        let all = async || (handle.status().shards == Shard::COUNT).then_some(());
        support::eventually(PATIENCE, "all shards held", all).await;
        (task, stop)
    }

    /// A client inserts a timer; returns when it is due.
    async fn insert(&self, id: &str, ahead_millis: f64) -> Timestamp {
        let sql = "insert into walclock.timers (namespace, id, execute_at, callback_url)
                   values ('n', $1, clock_timestamp() + $2 * interval '1 millisecond', 'http://receiver/')
                   returning (extract(epoch from due_at) * 1000000)::bigint";
        Timestamp::from_micros(self.client.query_one(sql, &[&id, &ahead_millis]).await.unwrap().get(0))
    }

    fn tell(&self, id: &str, due_at: Timestamp) {
        self.feed.entries.lock().push(Entry { due_at, key: TimerKey::new("n", id) });
        self.feed.told.notify_waiters();
    }

    async fn next_sent(&mut self) -> (String, Timestamp) {
        tokio::time::timeout(PATIENCE, self.sent.recv()).await.expect("a callback").unwrap()
    }

    async fn count(&self, sql: &str) -> i64 {
        self.client.query_one(sql, &[]).await.unwrap().get(0)
    }

    async fn succeeded(&self, count: i64) {
        let sql = "select count(*) from walclock.runs where state = 'succeeded'";
        support::eventually(PATIENCE, "the runs succeeded", async || (self.count(sql).await == count).then_some(()))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn timers_of_the_load_and_the_feed_fire_and_never_early() {
    let mut rig = Rig::new().await;
    let loaded = rig.insert("loaded", 300.0).await;
    let (task, stop) = rig.started("a").await;
    assert_eq!(rig.next_sent().await.0, "loaded");
    let told = rig.insert("told", 300.0).await;
    rig.tell("told", told);
    let (id, sent_at) = rig.next_sent().await;
    assert_eq!(id, "told");
    // By the dispatcher's clock, which is never ahead of the database's.
    assert!(sent_at >= told, "{sent_at} is before {told}");
    assert!(rig.store.now().await.unwrap() >= loaded);
    rig.succeeded(2).await;
    stop.cancel();
    task.await.unwrap();
    assert_eq!(rig.count("select count(*) from walclock.shards where owner is not null").await, 0);
    assert_eq!(rig.count("select count(*) from walclock.dispatchers").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sweep_fires_what_nothing_has_told_of() {
    let mut rig = Rig::new().await;
    rig.sweep_every = Duration::from_millis(200);
    let (task, stop) = rig.started("a").await;
    rig.insert("swept", 100.0).await;
    assert_eq!(rig.next_sent().await.0, "swept");
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_of_the_feed_loads_anew() {
    let mut rig = Rig::new().await;
    let (task, stop) = rig.started("a").await;
    rig.insert("missed", 400.0).await;
    rig.feed.gap.store(true, Ordering::Relaxed);
    rig.feed.told.notify_waiters();
    assert_eq!(rig.next_sent().await.0, "missed");
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_dispatcher_left_running_is_fired_again_by_the_next() {
    let mut rig = Rig::new().await;
    rig.receiver.answers = Arc::new(Semaphore::new(0));
    rig.insert("orphan", 0.0).await;
    let (dead, _stop) = rig.started("a").await;
    assert_eq!(rig.next_sent().await.0, "orphan");
    dead.abort();
    rig.receiver.answers = Arc::new(Semaphore::new(1000));
    let (task, stop) = rig.started("b").await;
    assert_eq!(rig.next_sent().await.0, "orphan");
    rig.succeeded(1).await;
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_under_way_is_finished_and_written_before_the_dispatcher_stops() {
    let mut rig = Rig::new().await;
    let answers = Arc::new(Semaphore::new(0));
    rig.receiver.answers = answers.clone();
    rig.insert("slow", 0.0).await;
    let (task, stop) = rig.started("a").await;
    assert_eq!(rig.next_sent().await.0, "slow");
    stop.cancel();
    answers.add_permits(1);
    task.await.unwrap();
    assert_eq!(rig.count("select count(*) from walclock.runs where state = 'succeeded'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_one_callback_holds_up_a_stop_another_dispatcher_fires_the_rest() {
    let mut rig = Rig::new().await;
    let answers = Arc::new(Semaphore::new(0));
    rig.receiver.answers = answers.clone();
    rig.insert("slow", 0.0).await;
    let (a, stop_a) = rig.started("a").await;
    assert_eq!(rig.next_sent().await.0, "slow");
    stop_a.cancel();
    let (b, stop_b, handle) = rig.start("b");
    let all_but_one = async || (handle.status().shards == Shard::COUNT - 1).then_some(());
    support::eventually(PATIENCE, "all shards but the one of the callback", all_but_one).await;
    let other = "other";
    assert_ne!(Shard::of("n", other), Shard::of("n", "slow"));
    let due_at = rig.insert(other, 0.0).await;
    rig.tell(other, due_at);
    assert_eq!(rig.next_sent().await.0, other);
    assert!(!a.is_finished(), "the callback is still under way");
    answers.add_permits(2);
    rig.succeeded(2).await;
    a.await.unwrap();
    stop_b.cancel();
    b.await.unwrap();
    assert!(rig.sent.try_recv().is_err(), "nothing was fired twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_dispatchers_share_the_ring_and_each_timer_fires_once() {
    let mut rig = Rig::new().await;
    rig.sweep_every = Duration::from_millis(200);
    let (a, stop_a) = rig.started("a").await;
    let (b, stop_b, handle) = rig.start("b");
    let half = async || (handle.status().shards == Shard::COUNT / 2).then_some(());
    support::eventually(PATIENCE, "half of the shards held", half).await;
    let mut expected = HashSet::new();
    for number in 0..40 {
        let id = format!("timer-{number}");
        rig.insert(&id, 50.0).await;
        expected.insert(id);
    }
    let mut fired = HashSet::new();
    while fired.len() < expected.len() {
        let (id, _) = rig.next_sent().await;
        assert!(fired.insert(id.clone()), "{id} fired twice");
    }
    assert_eq!(fired, expected);
    rig.succeeded(40).await;
    stop_a.cancel();
    stop_b.cancel();
    a.await.unwrap();
    b.await.unwrap();
}

/// The store of a database whose clock is set by so many microseconds. It keeps the names of its runs.
#[derive(Clone)]
struct Set {
    store: Store,
    by: Arc<AtomicI64>,
    is_away: Arc<AtomicBool>,
}

impl Set {
    fn moved(&self, at: Timestamp, sign: i64) -> Timestamp {
        Timestamp::from_micros(at.micros() + sign * self.by.load(Ordering::SeqCst))
    }
}

impl ports::Store for Set {
    async fn now(&self) -> Result<Timestamp, Unavailable> {
        if self.is_away.load(Ordering::SeqCst) {
            return Err(Unavailable { doing: "a test", source: "the database is away".into() });
        }
        Ok(self.moved(self.store.now().await?, 1))
    }

    async fn lease(&self, request: LeaseRequest) -> Result<LeaseGrant, Unavailable> {
        self.store.lease(request).await
    }

    async fn load(&self, request: LoadRequest) -> Result<Vec<Entry>, Unavailable> {
        self.store.load(request).await
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Claimed, Unavailable> {
        let mut claimed = self.store.claim(request).await?;
        for run in &mut claimed.runs {
            run.key.claimed_at = self.moved(run.key.claimed_at, 1);
        }
        Ok(claimed)
    }

    async fn adopt(&self, owner: &Owner, leases: &[Lease], limit: usize) -> Result<Vec<Run>, Unavailable> {
        self.store.adopt(owner, leases, limit).await
    }

    async fn settle(&self, owner: &Owner, settlements: &[Settlement]) -> Result<Vec<Written>, Unavailable> {
        let mut settlements = settlements.to_vec();
        for settlement in &mut settlements {
            settlement.run.key.claimed_at = self.moved(settlement.run.key.claimed_at, -1);
        }
        self.store.settle(owner, &settlements).await
    }

    async fn leave(&self, owner: &Owner) -> Result<(), Unavailable> {
        self.store.leave(owner).await
    }
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread")]
async fn a_database_clock_that_is_set_is_followed() {
    let mut rig = Rig::new().await;
    let store = Set { store: rig.store.clone(), by: Arc::default(), is_away: Arc::default() };
    // Before it starts, since nobody tells of them.
    rig.insert("soon", 500.0).await;
    let in_an_hour = rig.insert("in an hour", 3_600_500.0).await;
    let (task, stop, _) = rig.start_on("a", store.clone(), Clock::system());
    assert_eq!(rig.next_sent().await.0, "soon");
    // A run's name is translated by what the clock is set by when it is claimed and when it is settled.
    rig.succeeded(1).await;
    let micros = i64::try_from(HOUR.as_micros()).unwrap();
    store.by.store(micros, Ordering::SeqCst);
    let (id, sent_at) = rig.next_sent().await;
    assert_eq!(id, "in an hour");
    assert!(sent_at >= in_an_hour, "{sent_at} is before {in_an_hour}");
    rig.succeeded(2).await;

    // Back again: what is due by the hour that is no more does not leave, and what is due by the one that is, does.
    store.by.store(0, Ordering::SeqCst);
    let early = rig.insert("early", 1_800_000.0).await;
    rig.tell("early", early);
    let on_time = rig.insert("on time", 1_500.0).await;
    rig.tell("on time", on_time);
    let (id, sent_at) = rig.next_sent().await;
    assert_eq!(id, "on time");
    assert!(sent_at >= on_time && sent_at < early, "{sent_at}");
    rig.succeeded(3).await;
    // The early one may have been claimed before the step was noticed; a stop would wait for it.
    drop(stop);
    task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_fired_while_the_clock_is_not_trusted_and_all_of_it_afterwards() {
    let mut rig = Rig::new().await;
    let store = Set { store: rig.store.clone(), by: Arc::default(), is_away: Arc::default() };
    let limits = Limits { age_max: Duration::from_secs(2), ..Limits::default() };
    let (task, stop, handle) = rig.start_on("a", store.clone(), Clock::with_limits(limits));
    let first = rig.insert("first", 0.0).await;
    rig.tell("first", first);
    assert_eq!(rig.next_sent().await.0, "first");
    rig.succeeded(1).await;
    let day = 86_400_000_000;
    let troubles: [(&str, &dyn Fn(bool)); 2] = [
        ("Old", &|on| store.is_away.store(on, Ordering::SeqCst)),
        // All that is due for two days would leave at once.
        ("Far", &|on| store.by.store(if on { 2 * day } else { 0 }, Ordering::SeqCst)),
    ];
    for (succeeded, (name, trouble)) in (2..).zip(troubles) {
        trouble(true);
        let doubted = async || handle.status().doubt.filter(|doubt| format!("{doubt:?}").starts_with(name));
        support::eventually(PATIENCE, "the clock is doubted", doubted).await;
        let due_at = rig.insert(name, 0.0).await;
        rig.tell(name, due_at);
        let seen = async || (handle.status().queued == 1).then_some(());
        support::eventually(PATIENCE, "the timer is known", seen).await;
        assert!(rig.sent.try_recv().is_err(), "{name}: a timer left");
        trouble(false);
        assert_eq!(rig.next_sent().await.0, name);
        rig.succeeded(succeeded).await;
    }
    stop.cancel();
    task.await.unwrap();
}
