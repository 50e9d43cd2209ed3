//! A publication that goes and comes back under load: what was left out is told as a gap, on every version.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;
use walclock::domain::sequence::Sequence;
use walclock::feed::ingest::Status;
use walclock::feed::query;

use super::PATIENCE;
use super::feed::{filled, id, insert, range};
use super::proxy::{Fault, Proxy};
use crate::support;

/// PostgreSQL 18 only warns, the versions before it end the stream. Either way nothing is left out between two changes
/// that a reader is told one after the other.
#[tokio::test(flavor = "multi_thread")]
async fn no_hole_opens_while_a_publication_comes_and_goes() {
    // The new slot waits for every transaction of its server, so there are none of other tests.
    let cluster = tokio::task::spawn_blocking(|| support::new_cluster(&[])).await.unwrap();
    let url = cluster.url("postgres");
    let (client, _, running, mut since) = filled(&url).await;
    let (written, mut count) = watch::channel(10);
    let done = AtomicBool::new(false);
    let write = async {
        let mut next = 10;
        while !done.load(Ordering::Relaxed) {
            insert(&client, next..next + 1).await;
            next += 1;
            written.send_replace(next);
        }
        next
    };
    let publish = async {
        let admin = support::connect(&url).await;
        for _ in 0..2 {
            let mut more = async |rows: i32| {
                let goal = *count.borrow() + rows;
                count.wait_for(|written| *written >= goal).await.unwrap();
            };
            more(20).await;
            admin.batch_execute("drop publication feed").await.unwrap();
            more(20).await;
            admin.batch_execute("create publication feed for table notes").await.unwrap();
        }
        done.store(true, Ordering::Relaxed);
    };
    let (mut next, ()) = tokio::join!(write, publish);
    let last = i64::from(next);

    let (mut gaps, mut previous) = (0, Some(9));
    support::eventually(PATIENCE, "the feed tells of a gap and of what came behind it", async || {
        match running.changes(since).await {
            Ok(page) => {
                for one in &page.changes {
                    let id = id(&one.body);
                    assert!(previous.is_none_or(|previous| id == previous + 1), "{id} follows {previous:?}");
                    previous = Some(id);
                }
                since = page.last;
            }
            Err(query::Error::TooOld) => {
                (since, previous) = (Sequence::ZERO, None);
                gaps += 1;
            }
            Err(error) => panic!("{error}"),
        }
        insert(&client, next..next + 1).await;
        next += 1;
        (gaps > 0 && previous >= Some(last)).then_some(())
    })
    .await;
    running.stop().await;
}

/// Its first change ends the stream. Whoever looks at the slot only then finds nobody on it, and is to hear why.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_ends_before_the_slot_is_looked_at_again_says_why() {
    let cluster = tokio::task::spawn_blocking(|| support::new_cluster(&[])).await.unwrap();
    let proxy = Proxy::start(cluster.port()).await;
    let url = proxy.url(&cluster.url("postgres"), cluster.port());
    let (client, feed, running, before) = filled(&url).await;
    running.stop().await;
    client.batch_execute("drop publication feed").await.unwrap();
    insert(&client, 10..13).await;
    client.batch_execute("create publication feed for table notes").await.unwrap();
    proxy.set(Fault::SlowLooks);
    let mut running = feed.start();
    running.wait_for("live", |status| *status == Status::Streaming).await;
    if support::server_major().await >= 18 {
        // It does not end the stream, and warns once it is on its way.
        support::eventually(PATIENCE, "the feed tells of a gap", async || {
            matches!(running.changes(before).await, Err(query::Error::TooOld)).then_some(())
        })
        .await;
    }
    assert!(matches!(running.changes(before).await, Err(query::Error::TooOld)));
    insert(&client, 13..15).await;
    assert_eq!(running.ids(2).await, [13, 14]);
    running.stop().await;
}

/// The new slot is good from the moment it is made: were it dropped again, what it has seen would be lost with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_made_anew_is_kept_although_the_connection_fails_behind_it() {
    let log = [("log_statement", "all")];
    let cluster = tokio::task::spawn_blocking(move || support::new_cluster(&log)).await.unwrap();
    let (client, _feed, mut running, before) = filled(&cluster.url("postgres")).await;
    let old = support::connect(&cluster.url("postgres")).await;
    client.batch_execute("drop publication feed").await.unwrap();
    insert(&client, 10..20).await;
    running.wait_for("missing its publication", |status| matches!(status, Status::Waiting { .. })).await;
    // The creation of the slot waits for it.
    old.batch_execute("begin; insert into other values (1)").await.unwrap();
    let pid: i32 = old.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
    client.batch_execute("create publication feed for table notes").await.unwrap();
    let waits = |status: &Status| matches!(status, Status::Waiting { why } if why.contains(&pid.to_string()));
    running.wait_for("waiting for the old transaction", waits).await;
    let ended = "select pg_terminate_backend(pid) from pg_stat_activity where backend_type = 'walsender'";
    assert_eq!(client.query(ended, &[]).await.unwrap().len(), 1);
    old.batch_execute("commit").await.unwrap();
    running.wait_for("live", |status| *status == Status::Streaming).await;
    insert(&client, 20..30).await;
    assert_eq!(running.ids(10).await, range(20..30));
    assert!(matches!(running.changes(before).await, Err(query::Error::TooOld)));
    let log = std::fs::read_to_string(cluster.log()).unwrap();
    let is_creation =
        |entry: &&str| entry.starts_with("execute") && entry.contains("pg_create_logical_replication_slot");
    // The first, and the one behind the gap.
    assert_eq!(log.split(" LOG:  ").filter(is_creation).count(), 2);
    running.stop().await;
}
