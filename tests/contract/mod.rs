//! What every `dispatch::ports::Store` must do: the same cases run against PostgreSQL and against the simulation's model.
//!
//! A [`World`] is a store with nothing in it, and what stands behind its back: clients that write and lock rows, and time
//! that makes leases run out. `for_each_case!` makes a test of each case. [`schedules`] has the same for `ScheduleStore`.

mod cases;
mod claims;
mod leases;
pub mod schedules;
mod settles;

use std::time::Duration;

use serde_json::value::RawValue;
use walclock::clock::Timestamp;
use walclock::dispatch::ports::{ClaimRequest, Claimed, Entry, LeaseGrant, LeaseRequest, LoadRequest, Store};
use walclock::domain::callback::{Callback, Verdict};
use walclock::domain::lease::{Epoch, Lease, Owner};
use walclock::domain::retry::RetryPolicy;
use walclock::domain::run::{Attempt, Ending, Run, Settlement, State};
use walclock::domain::shard::Shard;
use walclock::domain::timer::{Definition, Timer, TimerKey};

pub use cases::*;

/// A store with nothing in it, and what happens to its tables without it.
pub trait World {
    /// The store under test.
    type Store: Store;
    /// What another session's open transaction has locked; dropping it ends the transaction.
    type Hold;

    /// The store under test.
    fn store(&self) -> &Self::Store;

    /// A client inserts a timer that has made no attempt, or replaces the pending one of the same key by it.
    async fn put(&self, definition: &Definition);

    /// A client deletes a pending timer.
    async fn delete(&self, key: &TimerKey);

    /// Another client locks a pending timer's row in an open transaction.
    async fn hold(&self, key: &TimerKey) -> Self::Hold;

    /// A write under the lease of this shard is under way.
    async fn write_under(&self, shard: Shard) -> Self::Hold;

    /// That transaction ends.
    async fn end(&self, hold: Self::Hold);

    /// The lease of a shard runs out.
    async fn expire(&self, shard: Shard);

    /// The store's clock is set back: everybody's leases lie that much farther ahead.
    async fn set_back(&self, span: Duration);

    /// When the lease of a shard runs out, and when its owner counts as dead; none where it has no owner.
    async fn expiries(&self, shard: Shard) -> Option<(Timestamp, Timestamp)>;

    /// A namespace gets these secrets.
    async fn set_secrets(&self, namespace: &str, secrets: &[&str]);

    /// The pending timer of this key.
    async fn timer(&self, key: &TimerKey) -> Option<Timer>;

    /// The runs of this key, oldest first.
    async fn runs(&self, key: &TimerKey) -> Vec<RunRow>;

    /// The logged attempts of this key that were followed by another, oldest first.
    async fn attempts(&self, key: &TimerKey) -> Vec<AttemptRow>;
}

/// A run at rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRow {
    pub claimed_at: Timestamp,
    pub epoch: Epoch,
    pub state: State,
    pub attempts: u32,
    pub sent_at: Option<Timestamp>,
    pub answered_at: Option<Timestamp>,
    pub status: Option<u16>,
    pub reply: Option<String>,
    pub last_error: Option<String>,
}

/// An attempt at rest that was followed by another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptRow {
    pub attempt: u32,
    pub due_at: Timestamp,
    pub sent_at: Timestamp,
    pub answered_at: Timestamp,
    pub status: Option<u16>,
    pub error: Option<String>,
}

/// Longer than any test.
pub const TTL: Duration = Duration::from_secs(600);
/// More rows than any case has.
pub const MANY: usize = 1000;

pub fn owner(name: &str) -> Owner {
    Owner(name.to_owned())
}

pub fn key(id: &str) -> TimerKey {
    TimerKey::new("space", id)
}

/// A timer in which nothing is as it is by default.
pub fn definition(key: &TimerKey, execute_at: Timestamp) -> Definition {
    Definition {
        key: key.clone(),
        execute_at,
        callback: Callback {
            url: format!("https://example.com/{}?q=1", key.id.len()),
            method: "PUT".to_owned(),
            headers: [("x-one", "1"), ("X-Two", "a b")].map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            timeout: Duration::from_secs(7),
        },
        payload: Some(RawValue::from_string(r#"{ "b": 1.0,  "a": "ü\u0000" }"#.to_owned()).unwrap()),
        retry: RetryPolicy {
            attempts_max: Some(5),
            attempts_duration: Duration::from_secs(3 * 86_400),
            interval_first: Duration::from_micros(1_500),
            multiplier: 1.25,
            interval_max: Duration::from_secs(90),
        },
    }
}

/// Leases as many shards as there are free ones, up to `shards_max`.
pub async fn lease(world: &impl World, owner: &Owner, shards_max: usize) -> LeaseGrant {
    let request = LeaseRequest { owner: owner.clone(), ttl: TTL, release: Vec::new(), anew: Vec::new(), shards_max };
    world.store().lease(request).await.unwrap()
}

/// The epoch in which a shard is held.
pub fn epoch(grant: &LeaseGrant, shard: Shard) -> Epoch {
    grant.held.iter().find(|lease| lease.shard == shard).expect("the shard is held").epoch
}

/// The moment this long ago, by the store's clock.
pub async fn ago(world: &impl World, span: Duration) -> Timestamp {
    world.store().now().await.unwrap().before(span)
}

/// A client inserts a timer that was due a second ago.
pub async fn put_due(world: &impl World, key: &TimerKey) -> Definition {
    let definition = definition(key, ago(world, Duration::from_secs(1)).await);
    world.put(&definition).await;
    definition
}

/// Claims these timers in the epochs of a grant, up to now.
pub async fn claim(world: &impl World, owner: &Owner, grant: &LeaseGrant, keys: &[&TimerKey]) -> Claimed {
    let timers = keys.iter().map(|key| ((*key).clone(), epoch(grant, key.shard()))).collect();
    let until = world.store().now().await.unwrap();
    world.store().claim(ClaimRequest { owner: owner.clone(), timers, until }).await.unwrap()
}

/// Inserts a due timer and claims it.
pub async fn run(world: &impl World, owner: &Owner, grant: &LeaseGrant, key: &TimerKey) -> Run {
    put_due(world, key).await;
    let mut claimed = claim(world, owner, grant, &[key]).await;
    assert_eq!(claimed.runs.len(), 1, "{:?}", claimed.left);
    claimed.runs.remove(0)
}

/// An attempt at this run that was answered with `status`.
pub fn attempt(run: &Run, status: u16, verdict: Verdict) -> Attempt {
    let sent_at = run.key.claimed_at.after(Duration::from_millis(1));
    let answered_at = sent_at.after(Duration::from_millis(2));
    Attempt {
        sent_at,
        answered_at,
        connected: true,
        status: Some(status),
        reply_head: "the answer".to_owned(),
        verdict,
    }
}

pub fn succeeded(run: &Run) -> Settlement {
    Settlement { run: run.clone(), attempt: attempt(run, 200, Verdict::Succeeded), ending: Ending::Succeeded }
}

pub fn failed(run: &Run) -> Settlement {
    let verdict = Verdict::Failed { error: "status 404".to_owned() };
    Settlement { run: run.clone(), attempt: attempt(run, 404, verdict), ending: Ending::Failed }
}

pub fn retry_at(run: &Run, at: Timestamp) -> Settlement {
    let verdict = Verdict::Retry { not_before: None, error: "status 503".to_owned() };
    Settlement { run: run.clone(), attempt: attempt(run, 503, verdict), ending: Ending::RetryAt(at) }
}

pub fn reschedule(run: &Run, at: Timestamp) -> Settlement {
    Settlement { run: run.clone(), attempt: attempt(run, 200, Verdict::Reschedule(at)), ending: Ending::Reschedule(at) }
}

pub fn defer(run: &Run, at: Timestamp) -> Settlement {
    let attempt = Attempt::unmade(run.key.claimed_at.after(Duration::from_millis(1)), "its host is down".to_owned());
    Settlement { run: run.clone(), attempt, ending: Ending::Defer(at) }
}

pub fn give_up(run: &Run) -> Settlement {
    Settlement { ending: Ending::GivenUp, ..defer(run, run.key.claimed_at) }
}

pub async fn settle(world: &impl World, owner: &Owner, settlements: &[Settlement]) -> Vec<bool> {
    world.store().settle(owner, settlements).await.unwrap().into_iter().map(Result::unwrap).collect()
}

/// The entries of some shards, all that are due up to `until`.
pub async fn load(world: &impl World, shards: Vec<Shard>, until: Timestamp) -> Vec<Entry> {
    world.store().load(LoadRequest { shards, after: None, until, limit: MANY }).await.unwrap()
}

/// Everything that a definition holds, for comparison.
pub fn shown(definition: &Definition) -> String {
    format!("{definition:?}")
}
