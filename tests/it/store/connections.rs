//! Who gets which connection.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use walclock::domain::timer::TimerKey;
use walclock::pg::Settings;
use walclock::service::Error;
use walclock::service::timers::{self, Timers};
use walclock::store::{Config, Store, clock};

use crate::chaos::proxy::{End, Proxy};
use crate::support;

/// A database for whose general use there is a single connection.
async fn narrow() -> Store {
    let settings = Settings::parse(&support::migrated().await).unwrap();
    Store::new(Config { connections: 1, ..Config::new(settings) }).unwrap()
}

async fn backend(store: &Store) -> i32 {
    let client = store.client().await.unwrap();
    client.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn nobody_waits_behind_the_question_of_a_request_that_was_dropped() {
    let store = narrow().await;
    let timers = Timers::new(timers::Config::default(), store.clone());
    let key = TimerKey::new("default", "absent");
    let kept = backend(&store).await;
    assert!(matches!(timers.get(&key).await, Err(Error::NotFound { .. })));
    assert_eq!(backend(&store).await, kept, "a connection without a debt is used again");
    // As where a caller hangs up: the question has left, and nobody awaits the answer.
    assert!(timers.get(&key).now_or_never().is_none());
    assert_ne!(backend(&store).await, kept);
}

#[tokio::test]
async fn the_database_is_watched_however_many_requests_there_are() {
    let store = narrow().await;
    let _all = store.client().await.unwrap();
    clock::ping(&store).await.unwrap();
}

/// What becomes of all that lie idle while a firewall forgets them: whoever asks first waits in vain, and nobody after him.
#[tokio::test(flavor = "multi_thread")]
async fn one_connection_that_answers_nothing_casts_doubt_on_all_that_lie_idle() {
    let direct = support::migrated().await;
    let proxy = Proxy::before(&direct).await;
    let store = Store::new(Config::new(Settings::parse(&proxy.url(&direct)).unwrap())).unwrap();
    let timers = Timers::new(timers::Config::default(), store.clone());
    let key = TimerKey::new("default", "absent");
    let held = join_all((0..3).map(|_| store.client())).await;
    for client in &held {
        client.as_ref().unwrap().query_one("select 1", &[]).await.unwrap();
    }
    drop(held);
    assert_eq!(proxy.accepted(), 3);
    proxy.end(End::Forget);
    assert!(tokio::time::timeout(Duration::from_secs(4), timers.get(&key)).await.is_err(), "nobody answers");
    for _ in 0..2 {
        assert!(matches!(timers.get(&key).await, Err(Error::NotFound { .. })));
    }
    assert_eq!(proxy.accepted(), 4, "the others were not asked, and one new connection is enough");
}
