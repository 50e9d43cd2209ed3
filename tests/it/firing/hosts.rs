//! What callbacks share: a host has so many under way and so many a second, one that does nothing but fail is spared, and
//! a namespace leaves room for the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::StatusCode;
use tokio::sync::Semaphore;
use tokio_postgres::Client;
use walclock::clock::wall;

use crate::support::receiver::Receiver;
use crate::support::server::{Server, folder};
use crate::support::{PATIENCE, connect, eventually, migrated};

/// Timers that are due at once, have one attempt, and are patient with their receiver.
const INSERT: &str = "insert into walclock.timers
    (namespace, id, execute_at, callback_url, callback_timeout_seconds, retry_attempts_max)
    select $1, gen_random_uuid()::text, clock_timestamp(), $2, 300, 1 from generate_series(1, $3)";

/// A server on a database of its own.
struct Host {
    server: Server,
    sql: Client,
}

impl Host {
    async fn start(flags: &[&str]) -> Self {
        let database = migrated().await;
        // Leases that a busy machine does not lose.
        let flags = [&["--lease-ttl", "10s"], flags].concat();
        let server = Server::spawn_unmigrated(&database, &folder(), &flags);
        server.until_ready().await;
        Self { server, sql: connect(&database).await }
    }

    /// Sets so many timers that are due now.
    async fn set(&self, namespace: &str, url: &str, timers: usize) {
        let timers = i32::try_from(timers).unwrap();
        self.sql.execute(INSERT, &[&namespace, &url, &timers]).await.unwrap();
    }

    async fn metric(&self, name: &str) -> f64 {
        eventually(PATIENCE, name, async || self.server.metric(name).await).await
    }

    /// Times that a host was begun to be spared.
    async fn spared(&self) -> f64 {
        self.metric("walclock_hosts_spared_total").await
    }
}

/// A receiver that holds its answers until it is let.
struct Gate {
    receiver: Receiver,
    answers: Arc<Semaphore>,
    /// The most calls that ever waited for their answers together.
    peak: Arc<AtomicUsize>,
}

impl Gate {
    async fn start() -> Self {
        let (answers, peak, open) = (Arc::new(Semaphore::new(0)), Arc::<AtomicUsize>::default(), AtomicUsize::new(0));
        let (gate, most, open) = (Arc::clone(&answers), Arc::clone(&peak), Arc::new(open));
        let receiver = Receiver::answering(move |_| {
            let (gate, open) = (Arc::clone(&gate), Arc::clone(&open));
            most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            Box::pin(async move {
                gate.acquire().await.unwrap().forget();
                open.fetch_sub(1, Ordering::SeqCst);
                (StatusCode::OK, r#"{"ok":true}"#.to_owned())
            })
        });
        Self { receiver: receiver.await, answers, peak }
    }

    fn count(&self) -> usize {
        self.receiver.calls().len()
    }
}

/// A receiver that answers the call of each number, counted from 0, with this status.
async fn by_number(status: impl Fn(usize) -> StatusCode + Send + Sync + 'static) -> Receiver {
    let number = AtomicUsize::new(0);
    Receiver::answering(move |_| {
        let status = status(number.fetch_add(1, Ordering::SeqCst));
        Box::pin(async move { (status, r#"{"ok":true}"#.to_owned()) })
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_has_exactly_as_many_calls_under_way_as_it_may_while_more_are_due() {
    const AT_ONCE: usize = 7;
    const DUE: usize = 40;
    let host = Host::start(&["--callbacks-per-host-max", "7"]).await;
    let gates = [Gate::start().await, Gate::start().await];
    for gate in &gates {
        host.set("default", &gate.receiver.url(), DUE).await;
    }
    let mut answered = 0;
    for answers in [0, 1, 2 * AT_ONCE] {
        answered += answers;
        gates.iter().for_each(|gate| gate.answers.add_permits(answers));
        let all_there = async || {
            #[expect(clippy::cast_precision_loss, reason = "a few dozen")]
            let under_way = gates.iter().map(|gate| gate.count() - answered.min(gate.count())).sum::<usize>() as f64;
            let waiting = host.metric("walclock_callbacks_waiting").await;
            #[expect(clippy::cast_precision_loss, reason = "a few dozen")]
            let due = (gates.len() * (DUE - answered)) as f64;
            let is_full = gates.iter().all(|gate| gate.count() >= answered + AT_ONCE);
            (is_full && under_way + waiting == due).then_some(())
        };
        eventually(PATIENCE, "all that is due is under way or waits", all_there).await;
        for gate in &gates {
            assert_eq!(gate.count(), answered + AT_ONCE, "after {answered} answers");
        }
    }
    gates.iter().for_each(|gate| gate.answers.add_permits(DUE));
    let all = async || gates.iter().all(|gate| gate.count() == DUE).then_some(());
    eventually(PATIENCE, "all are called", all).await;
    for gate in &gates {
        assert_eq!(gate.peak.load(Ordering::SeqCst), AT_ONCE);
    }
}

/// Only from above: on a busy machine they come as slowly as they like.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_gets_no_more_calls_a_second_than_it_may() {
    const RATE: f64 = 20.0;
    const DUE: usize = 60;
    /// What may leave at once besides: a tenth of a second's worth, and the first one.
    const BURST: f64 = RATE / 10.0 + 1.0;
    let host = Host::start(&["--callbacks-per-host-rate-max", "20"]).await;
    let receiver = Receiver::start().await;
    let set_at = wall();
    host.set("default", &receiver.url(), DUE).await;
    eventually(PATIENCE, "all are called", async || (receiver.calls().len() == DUE).then_some(())).await;
    let mut calls: Vec<_> = receiver.calls().iter().map(|call| call.at).collect();
    calls.sort_unstable();
    for (number, at) in (1_u32..).zip(calls) {
        let allowed = BURST + RATE * at.since(set_at).as_secs_f64();
        assert!(f64::from(number) <= allowed, "{number} calls after {:?}", at.since(set_at));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_spared_once_it_has_failed_as_often_in_a_row_as_it_may() {
    const DUE: usize = 30;
    // One after the other, so that failures in a row are in a row.
    let host = Host::start(&["--callbacks-per-host-failures", "3", "--callbacks-per-host-max", "1"]).await;
    let unsteady = by_number(|number| match number % 3 {
        2 => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    });
    let unsteady = unsteady.await;
    host.set("default", &unsteady.url(), DUE).await;
    let all = async || (unsteady.calls().len() == DUE || host.spared().await > 0.0).then_some(());
    eventually(PATIENCE, "all are called", all).await;
    assert_eq!(host.spared().await, 0.0, "it has never failed three times in a row");

    let broken = by_number(|_| StatusCode::SERVICE_UNAVAILABLE).await;
    host.set("default", &broken.url(), DUE).await;
    let resting = async || {
        let (spared, calls, still) = (host.spared().await, broken.calls().len(), host.spared().await);
        // Each time that it is tried in vain, it is spared anew.
        let calls = f64::from(u32::try_from(calls).unwrap());
        assert!(calls <= 3.0 + still, "{calls} calls, and spared {still} times");
        (spared > 0.0 && spared == still && calls <= 2.0 + spared).then_some((spared, calls))
    };
    let (spared, calls) = eventually(PATIENCE, "it is spared", resting).await;
    assert_eq!(calls, 2.0 + spared, "three calls, and one for each time after the first");
}

/// Notes whose timers are put back, with or without an attempt.
const NOTE_PUT_BACK: &str = "create table put_back (namespace text not null, error text not null);
    create function note_put_back() returns trigger language plpgsql as $$ begin
        insert into put_back values (new.namespace, new.last_error);
        return null;
    end $$;
    create trigger note_put_back after insert on walclock.timers for each row when (new.retry_at is not null)
        execute function note_put_back()";

/// Behind one gateway each namespace has a receiver of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_whose_callbacks_fail_puts_off_no_other_at_the_same_host() {
    const DUE: usize = 40;
    let host = Host::start(&["--callbacks-per-host-failures", "3", "--callbacks-per-host-max", "4"]).await;
    host.sql.batch_execute(NOTE_PUT_BACK).await.unwrap();
    let gateway = Receiver::answering(|call| {
        let fails = call.body["namespace"] == "failing";
        let status = if fails { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
        Box::pin(async move { (status, r#"{"ok":true}"#.to_owned()) })
    });
    let gateway = gateway.await;
    let count =
        async |query: &str| usize::try_from(host.sql.query_one(query, &[]).await.unwrap().get::<_, i64>(0)).unwrap();
    host.set("failing", &gateway.url(), DUE).await;
    let is_put_off = async || {
        let put_off = count("select count(*) from put_back where namespace = 'failing'").await;
        (put_off > 0).then_some(())
    };
    eventually(PATIENCE, "the failing one is spared", is_put_off).await;

    host.set("well", &gateway.url(), DUE).await;
    let over = "select count(*) from walclock.runs where namespace = 'well' and state = 'succeeded' and attempts = 1";
    eventually(PATIENCE, "the other is called", async || (count(over).await == DUE).then_some(())).await;
    assert_eq!(count("select count(*) from put_back where namespace = 'well'").await, 0);
    // It was spared throughout, but for the calls that tried.
    let failed = gateway.calls().iter().filter(|call| call.body["namespace"] == "failing").count();
    assert!(failed < DUE / 2, "{failed} calls of the failing one");
    assert!(host.spared().await >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_whose_callbacks_hang_leaves_places_for_others_at_the_same_host() {
    /// Of nine places eight.
    const PLACES: &str = "18";
    const SHARE: usize = 16;
    const DUE: usize = 10;
    let host = Host::start(&["--callbacks-per-host-max", PLACES]).await;
    let gateway = Receiver::answering(|call| {
        let hangs = call.body["namespace"] == "hanging";
        Box::pin(async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            (StatusCode::OK, r#"{"ok":true}"#.to_owned())
        })
    });
    let gateway = gateway.await;
    let count = |namespace: &str| gateway.calls().iter().filter(|call| call.body["namespace"] == namespace).count();
    host.set("hanging", &gateway.url(), 100).await;
    eventually(PATIENCE, "its share is taken", async || (count("hanging") >= SHARE).then_some(())).await;
    host.set("well", &gateway.url(), DUE).await;
    eventually(PATIENCE, "the other is called", async || (count("well") >= DUE).then_some(())).await;
    assert_eq!((count("hanging"), count("well")), (SHARE, DUE), "none of those that hang has its answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_host_is_spared_where_none_is_to_be() {
    const DUE: usize = 60;
    let host = Host::start(&["--callbacks-per-host-failures", "0", "--callbacks-per-host-max", "1"]).await;
    let broken = by_number(|_| StatusCode::SERVICE_UNAVAILABLE).await;
    host.set("default", &broken.url(), DUE).await;
    let all = async || {
        let query = "select count(*) from walclock.runs where state = 'failed'";
        let failed: i64 = host.sql.query_one(query, &[]).await.unwrap().get(0);
        (usize::try_from(failed) == Ok(DUE) || host.spared().await > 0.0).then_some(())
    };
    eventually(PATIENCE, "all have failed", all).await;
    assert_eq!((host.spared().await, broken.calls().len()), (0.0, DUE));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_whose_receivers_hang_leaves_room_for_another() {
    const AT_ONCE: usize = 200;
    const DUE: usize = 20;
    let host = Host::start(&["--callbacks-max", "200"]).await;
    let (hanging, well) = (Gate::start().await, Receiver::start().await);
    host.set("hanging", &hanging.receiver.url(), 3_000).await;
    let crowded = async || (hanging.count() > AT_ONCE / 2).then_some(());
    eventually(PATIENCE, "many calls hang", crowded).await;
    host.set("well", &well.url(), DUE).await;
    let all = async || (well.calls().len() >= DUE).then_some(());
    eventually(PATIENCE, "those of the other namespace are called", all).await;
    let under_way = hanging.count();
    assert!((AT_ONCE / 2..AT_ONCE).contains(&under_way), "{under_way} calls hang, and none has its answer");
}
