//! The way to the server goes wrong while both ends live.

use tokio_postgres::Client;
use walclock::feed::ingest::Status;
use walclock::localpg::Cluster;

use super::DEADLINE;
use super::feed::{Feed, filled, insert, range};
use super::proxy::{Fault, Proxy};
use crate::support;

/// A feed behind a proxy, live and with ten notes, and a client that does without the proxy.
async fn behind_a_proxy(cluster: &Cluster) -> (Proxy, Client, Feed, super::feed::Running) {
    let proxy = Proxy::start(cluster.port()).await;
    let url = cluster.url("postgres");
    let (_, feed, running, _) = filled(&proxy.url(&url, cluster.port())).await;
    (proxy, support::connect(&url).await, feed, running)
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
async fn a_stream_that_is_swallowed_is_noticed() {
    let cluster = cluster("1s").await;
    let (proxy, client, _feed, running) = behind_a_proxy(&cluster).await;
    let before = walsenders(&client).await;
    proxy.set(Fault::SwallowStream);
    insert(&client, 10..20).await;
    assert_eq!(running.ids(20).await, range(0..20));
    assert_ne!(walsenders(&client).await, before, "it came by the way that swallows");
    running.stop().await;
}

/// As when this process, or the network, stands still for longer than the server waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_standstill_that_the_server_gives_up_on_loses_and_repeats_nothing() {
    let cluster = cluster("1s").await;
    let (proxy, client, _feed, mut running) = behind_a_proxy(&cluster).await;
    proxy.set(Fault::Freeze);
    insert(&client, 10..20).await;
    support::eventually(DEADLINE, "the server gives the walsender up", async || {
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
    let (proxy, client, _feed, running) = behind_a_proxy(&cluster).await;
    let before = walsenders(&client).await;
    proxy.set(Fault::HalfOpen);
    insert(&client, 10..20).await;
    assert_eq!(running.ids(20).await, range(0..20));
    let after = walsenders(&client).await;
    assert!(after.len() == 1 && after != before, "{before:?}, then {after:?}");
    running.stop().await;
}
