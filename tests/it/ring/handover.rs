//! Dispatchers come and go under load, and no callback is made twice for it.

use std::time::Duration;

use super::{PATIENCE, Ring};
use crate::support::eventually;
use crate::support::receiver::Receiver;

/// Sets timers a moment ahead, one after the other, until it is told to stop; returns how many.
async fn keep_setting(ring: &Ring, url: &str, stop: &tokio::sync::Notify) -> usize {
    let insert = "insert into walclock.timers (namespace, id, execute_at, callback_url)
                  values ('default', $1, clock_timestamp() + interval '100 ms', $2)";
    let (mut count, mut stopped) = (0, std::pin::pin!(stop.notified()));
    loop {
        ring.sql.execute(insert, &[&format!("h{count}"), &url]).await.unwrap();
        count += 1;
        if tokio::time::timeout(Duration::from_millis(3), stopped.as_mut()).await.is_ok() {
            return count;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_and_a_leave_repeat_no_callback() {
    let ring = Ring::new().await;
    let receiver = Receiver::slow(Duration::from_millis(300)).await;
    // So long that even a machine that is busy with other things has its callbacks over before a shard must change hands.
    let first = ring.dispatcher("20s");
    ring.until_shared_by(1).await;
    let stop = tokio::sync::Notify::new();
    let (url, changes) = (receiver.url(), async {
        let some = async || (receiver.calls().len() >= 50).then_some(());
        eventually(PATIENCE, "callbacks are under way", some).await;
        let second = ring.dispatcher("20s");
        ring.until_shared_by(2).await;
        let owner = ring.owner_of(&second).await;
        let worked = async || {
            let query = "select from walclock.runs join walclock.shards using (shard, epoch)
                         where owner = $1 and state = 'succeeded' limit 1";
            ring.sql.query_opt(query, &[&owner]).await.unwrap()
        };
        eventually(PATIENCE, "the second one works", worked).await;
        assert_eq!(first.terminate().await, 0);
        ring.until_shared_by(1).await;
        stop.notify_one();
        second
    });
    let (set, second) = tokio::join!(keep_setting(&ring, &url, &stop), changes);
    let over = async || {
        let query = "select count(*) from walclock.runs where state = 'succeeded'";
        (ring.sql.query_one(query, &[]).await.unwrap().get::<_, i64>(0) == i64::try_from(set).unwrap()).then_some(())
    };
    eventually(PATIENCE, "all are over", over).await;
    let repeated: Vec<String> =
        receiver.by_timer().into_iter().filter(|(_, calls)| calls.len() != 1).map(|(timer, _)| timer).collect();
    assert_eq!(repeated, [""; 0], "of {set}");
    drop(second);
}
