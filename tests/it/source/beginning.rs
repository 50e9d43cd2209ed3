//! The first slot: what its creation waits for is told, and it is there as soon as that is over.

use std::time::Duration;

use walclock::feed::ingest::Status;

use super::feed::{Feed, insert};
use super::publish_notes;
use crate::support;

#[tokio::test(flavor = "multi_thread")]
async fn old_transactions_are_named_until_they_are_over() {
    let url = support::database().await;
    let client = publish_notes(&url).await;
    let mut feed = Feed::new(&url);
    feed.config.intervals.explain = Duration::from_millis(50);
    let (first, second) = (support::connect(&url).await, support::connect(&url).await);
    let pid = async |client: &tokio_postgres::Client| -> i32 {
        client.batch_execute("begin; insert into notes values (1000 + pg_backend_pid(), 'b', 's')").await.unwrap();
        client.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0)
    };
    let names = |status: &Status, pid: i32| matches!(status, Status::Starting { why } if why.split_once("pids ").is_some_and(|(_, pids)| pids.contains(&pid.to_string())));
    let first_pid = pid(&first).await;
    let mut running = feed.start();
    running.wait_for("told of the first", |status| names(status, first_pid)).await;
    assert!(running.status.borrow().not_ready().is_some());
    // One that begins meanwhile is waited for as well.
    let second_pid = pid(&second).await;
    first.batch_execute("commit").await.unwrap();
    running.wait_for("told of the second", |status| names(status, second_pid) && !names(status, first_pid)).await;
    second.batch_execute("commit").await.unwrap();
    running.wait_for("live", |status| *status == Status::Streaming).await;
    insert(&client, 0..1).await;
    running.ids(1).await;
    running.stop().await;
}
