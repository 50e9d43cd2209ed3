//! The way to the server goes wrong while both ends live.

use std::time::Duration;

use tokio_postgres::Client;
use walclock::domain::sequence::Sequence;
use walclock::feed::ingest::{Intervals, Status};
use walclock::feed::query;
use walclock::localpg::Cluster;

use super::feed::{Feed, insert, range};
use super::proxy::{Fault, Proxy};
use super::{PATIENCE, publish_notes};
use crate::support;

/// A feed behind a proxy, live and with ten notes, and a client that does without the proxy.
async fn behind_a_proxy(cluster: &Cluster, intervals: Intervals) -> (Proxy, Client, Feed, super::feed::Running) {
    let proxy = Proxy::start(cluster.port()).await;
    let url = cluster.url("postgres");
    let client = publish_notes(&url).await;
    let mut feed = Feed::new(&proxy.url(&url, cluster.port()));
    feed.config.intervals = intervals;
    let running = feed.live().await;
    insert(&client, 0..10).await;
    running.ids(10).await;
    (proxy, client, feed, running)
}

/// A feed that asks a silent walsender soon.
fn watchful() -> Intervals {
    Intervals { silence: Duration::from_millis(200), answer: Duration::from_millis(400), ..Intervals::default() }
}

async fn cluster(walsender_timeout: &'static str) -> Cluster {
    let settings = [("wal_sender_timeout", walsender_timeout)];
    tokio::task::spawn_blocking(move || support::new_cluster(&settings)).await.unwrap()
}

async fn walsenders(client: &Client) -> Vec<i32> {
    let rows = client.query("select pid from pg_stat_replication", &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Our reports still get to the walsender, so that it stays; nothing of it gets to us.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_swallowed_is_noticed_long_before_the_walsender_would_go() {
    let cluster = cluster("10min").await;
    let (proxy, client, _feed, running) = behind_a_proxy(&cluster, watchful()).await;
    let before = walsenders(&client).await;
    proxy.set(Fault::SwallowStream);
    insert(&client, 10..20).await;
    assert_eq!(running.ids(20).await, range(0..20));
    assert_ne!(walsenders(&client).await, before, "it came by the way that swallows");
    running.stop().await;
}

/// The stream flows on; but the session that has the claim on the slot is lost, and the server is about to end it.
#[tokio::test(flavor = "multi_thread")]
async fn questions_that_are_swallowed_are_noticed_although_the_stream_flows() {
    let cluster = cluster("10min").await;
    let (proxy, client, _feed, running) = behind_a_proxy(&cluster, watchful()).await;
    let before = walsenders(&client).await;
    proxy.set(Fault::SwallowQuestions);
    insert(&client, 10..20).await;
    assert_eq!(running.ids(20).await, range(0..20));
    support::eventually(PATIENCE, "both connections are made anew", async || {
        let after = walsenders(&client).await;
        (after.len() == 1 && after != before).then_some(())
    })
    .await;
    insert(&client, 20..30).await;
    assert_eq!(running.ids(30).await, range(0..30));
    running.stop().await;
}

/// Nobody gets through, on old connections or on new ones.
#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_is_gone_is_noticed() {
    let cluster = cluster("10min").await;
    let (proxy, client, _feed, mut running) = behind_a_proxy(&cluster, watchful()).await;
    proxy.set(Fault::Freeze);
    let noticed = |status: &Status| matches!(status, Status::Waiting { why } if why.contains("does not get through"));
    running.wait_for("told that nothing gets through", noticed).await;
    insert(&client, 10..20).await;
    proxy.set(Fault::None);
    assert_eq!(running.ids(20).await, range(0..20));
    running.stop().await;
}

/// It says nothing and answers nothing for as long as it decodes: here it waits for a lock on the way. Given up, it would
/// begin anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_walsender_that_is_busy_is_not_given_up() {
    let settings = [("wal_sender_timeout", "10min"), ("log_connections", "on")];
    let cluster = tokio::task::spawn_blocking(move || support::new_cluster(&settings)).await.unwrap();
    let (_proxy, client, _feed, running) = behind_a_proxy(&cluster, watchful()).await;
    let before = walsenders(&client).await;
    client.batch_execute("create table late (like notes); alter publication feed add table late").await.unwrap();
    let mut locking = support::connect(&cluster.url("postgres")).await;
    let lock = locking.transaction().await.unwrap();
    // Where the walsender looks up that the table is published.
    lock.batch_execute("lock table pg_publication_rel").await.unwrap();
    client.batch_execute("insert into late select n, 'body', 's' from generate_series(10, 19) n").await.unwrap();
    let looks = || std::fs::read_to_string(cluster.log()).unwrap().matches("application_name=walclock").count();
    let at_first = looks();
    support::eventually(PATIENCE, "it is looked at again and again while it waits", async || {
        let sql = "select from pg_stat_activity where backend_type = 'walsender' and wait_event_type = 'Lock'";
        let waits = !client.query(sql, &[]).await.unwrap().is_empty();
        (waits && looks() >= at_first + 4).then_some(())
    })
    .await;
    lock.commit().await.unwrap();
    assert_eq!(running.ids(20).await, range(0..20));
    assert_eq!(walsenders(&client).await, before, "it was given up while it worked");
    running.stop().await;
}

/// As when this process, or the network, stands still for longer than the server waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_standstill_that_the_server_gives_up_on_loses_and_repeats_nothing() {
    let cluster = cluster("1s").await;
    let (proxy, client, _feed, mut running) = behind_a_proxy(&cluster, Intervals::default()).await;
    proxy.set(Fault::Freeze);
    insert(&client, 10..20).await;
    support::eventually(PATIENCE, "the server gives the walsender up", async || {
        walsenders(&client).await.is_empty().then_some(())
    })
    .await;
    insert(&client, 20..30).await;
    proxy.set(Fault::None);
    assert_eq!(running.ids(30).await, range(0..30));
    running.wait_for("live", |status| *status == Status::Streaming).await;
    running.stop().await;
}

/// Both sessions of before are still there for the server, and would be for far longer than this test lasts.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_whose_end_the_server_has_not_noticed_do_not_stand_in_the_way() {
    let cluster = cluster("10min").await;
    let (proxy, client, _feed, running) = behind_a_proxy(&cluster, Intervals::default()).await;
    let before = walsenders(&client).await;
    proxy.set(Fault::HalfOpen);
    insert(&client, 10..20).await;
    assert_eq!(running.ids(20).await, range(0..20));
    let after = walsenders(&client).await;
    assert!(after.len() == 1 && after != before, "{before:?}, then {after:?}");
    running.stop().await;
}

/// PostgreSQL ends the walsender in the same words as at a restart; the slot tells the two apart.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_lost_under_a_stream_is_a_gap_and_not_a_loop() {
    let small = [
        ("max_wal_size", "32MB"),
        ("min_wal_size", "32MB"),
        ("max_slot_wal_keep_size", "16MB"),
        ("wal_sender_timeout", "10min"),
        ("log_connections", "on"),
    ];
    let cluster = tokio::task::spawn_blocking(move || support::new_cluster(&small)).await.unwrap();
    let (proxy, client, feed, running) = behind_a_proxy(&cluster, Intervals::default()).await;
    let before = running.changes(Sequence::ZERO).await.unwrap().last;
    proxy.set(Fault::Freeze);
    support::eventually(PATIENCE, "the slot is lost", async || {
        client.batch_execute("insert into other select generate_series(1, 200000)").await.unwrap();
        client.batch_execute("checkpoint").await.unwrap();
        let sql = "select wal_status from pg_replication_slots where slot_name = $1";
        let status: String = client.query_one(sql, &[&feed.slot()]).await.unwrap().get(0);
        (status == "lost").then_some(())
    })
    .await;
    let logins =
        || std::fs::read_to_string(cluster.log()).unwrap().matches("replication connection authorized").count();
    let logins_before = logins();
    proxy.set(Fault::None);
    support::eventually(PATIENCE, "readers are told", async || {
        matches!(running.changes(before).await, Err(query::Error::TooOld)).then_some(())
    })
    .await;
    insert(&client, 10..11).await;
    assert_eq!(running.ids(1).await, [10]);
    let attempts = logins() - logins_before;
    assert!((1..=3).contains(&attempts), "{attempts} logins for replication");
    running.stop().await;
}
