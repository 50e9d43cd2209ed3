//! A callback whose dispatcher never lives to see its end.

use std::sync::Arc;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, Ring};
use crate::support::eventually;
use crate::support::receiver::Receiver;

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

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_kills_its_dispatcher_ends_as_a_failed_attempt() {
    let ring = Ring::new().await;
    let victim = Arc::new(Mutex::new(None));
    let receiver = killer(&victim).await;
    let insert = "insert into walclock.timers (namespace, id, execute_at, callback_url, retry_attempts_max)
                  values ('default', $1, now(), $2, $3)";
    for (id, attempts_max) in [("again", 2), ("over", 1)] {
        ring.sql.execute(insert, &[&id, &receiver.url(), &attempts_max]).await.unwrap();
        let calls_before = receiver.calls().len();
        for call in 1..=3 {
            let server = ring.dispatcher("1s");
            *victim.lock() = Some(server.pid());
            let called =
                async || (receiver.calls().len() >= calls_before + call && victim.lock().is_none()).then_some(());
            eventually(PATIENCE, &format!("call {call} of {id}"), called).await;
            server.kill();
        }
        // The fourth one neither calls nor dies.
        let server = ring.dispatcher("1s");
        let written = async || {
            let query = "select status, attempts, last_error from walclock.timer_status
                         where id = $1 and last_error is not null";
            ring.sql.query_opt(query, &[&id]).await.unwrap()
        };
        let row = eventually(PATIENCE, "the attempt is given up", written).await;
        assert_eq!(server.terminate().await, 0);
        let expected = if attempts_max == 1 { "failed" } else { "pending" };
        assert_eq!((row.get::<_, &str>(0), row.get::<_, i32>(1)), (expected, 1));
        let error = "no outcome: its dispatcher was gone 3 times before the callback was over";
        assert_eq!(row.get::<_, &str>(2), error);
        assert_eq!(receiver.by_timer()[id].len(), 3);
        let delete = "delete from walclock.timers where id = $1";
        ring.sql.execute(delete, &[&id]).await.unwrap();
    }
}
