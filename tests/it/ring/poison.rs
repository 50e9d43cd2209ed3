//! A callback whose dispatcher never lives to see its end.

use std::sync::Arc;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, Ring};
use crate::support::eventually;
use crate::support::receiver::Receiver;
use crate::support::server::Server;

/// So long that no dispatcher loses one while it lives.
const LEASE: &str = "60s";

/// A receiver that ends who calls, while the callback is under way.
async fn killer(victim: &Arc<Mutex<Option<Pid>>>) -> Receiver {
    let victim = victim.clone();
    Receiver::answering(move |_| {
        if let Some(pid) = victim.lock().take() {
            kill_process(pid, Signal::KILL).unwrap();
        }
        Box::pin(std::future::pending())
    })
    .await
}

/// Sets a timer of so many attempts that kills whoever calls, three times; the attempt is given up then, and the timer has
/// this status.
async fn is_given_up(attempts_max: i32, status: &str) {
    let ring = Ring::new().await;
    let victim = Arc::new(Mutex::new(None));
    let receiver = killer(&victim).await;
    // The next attempt, if there is one, does not come while this one is looked at.
    let insert = "insert into walclock.timers
                      (namespace, id, execute_at, callback_url, retry_attempts_max, retry_interval_first, retry_interval_max)
                  values ('default', 'deadly', now(), $1, $2, '1 hour', '1 hour')";
    ring.sql.execute(insert, &[&receiver.url(), &attempts_max]).await.unwrap();
    for call in 1..=3 {
        let server = start(&ring, &victim);
        let called = async || (receiver.calls().len() == call && victim.lock().is_none()).then_some(());
        eventually(PATIENCE, &format!("call {call}"), called).await;
        server.kill();
        ring.expire_leases().await;
    }
    // The fourth one neither calls nor dies.
    let server = ring.dispatcher(LEASE);
    let written = async || {
        let query = "select status, attempts, last_error from walclock.timer_status where last_error is not null";
        ring.sql.query_opt(query, &[]).await.unwrap()
    };
    let row = eventually(PATIENCE, "the attempt is given up", written).await;
    assert_eq!(server.terminate().await, 0);
    assert_eq!((row.get::<_, &str>(0), row.get::<_, i32>(1)), (status, 1));
    let error = "no outcome: its dispatcher was gone 3 times before the callback was over";
    assert_eq!(row.get::<_, &str>(2), error);
    assert_eq!(receiver.calls().len(), 3);
}

/// Starts a dispatcher that is the victim before it can call.
fn start(ring: &Ring, victim: &Mutex<Option<Pid>>) -> Server {
    let mut victim = victim.lock();
    let server = ring.dispatcher(LEASE);
    *victim = Some(server.pid());
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_kills_its_dispatcher_ends_as_a_failed_attempt() {
    is_given_up(2, "pending").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_attempt_that_kills_its_dispatcher_is_the_end() {
    is_given_up(1, "failed").await;
}
