//! Where the stream does not go on where the journal ends: readers are told, never a silent hole.

use walclock::domain::sequence::Sequence;
use walclock::feed::ingest::Status;
use walclock::feed::{query, source};
use walclock::localpg::Cluster;
use walclock::pg::Settings;

use super::feed::{copy_folder, filled, insert, range, while_down};
use super::proxy::{Fault, Proxy};
use super::{PATIENCE, publish_notes};
use crate::support;

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_made_anew_behind_our_back_is_a_gap_and_readers_are_told() {
    let url = support::database().await;
    let (client, feed, running, before) = filled(&url).await;
    running.stop().await;

    source::drop_slot(&feed.config.source.settings, feed.slot()).await.unwrap();
    insert(&client, 10..13).await;
    let sql = "select pg_create_logical_replication_slot($1::text, 'pgoutput')::text";
    client.query_one(sql, &[&feed.slot()]).await.unwrap();

    let running = feed.live().await;
    insert(&client, 13..15).await;
    assert_eq!(running.ids(2).await, [13, 14]);
    assert!(matches!(running.changes(before).await, Err(query::Error::TooOld)));
    running.stop().await;
}

/// Whether the stream goes on where the journal ends was looked at, and is no longer so when it begins.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_advanced_just_before_the_stream_begins_is_a_gap() {
    let (url, port) = (support::database().await, support::cluster().port());
    let proxy = Proxy::start(port).await;
    let (client, feed, running, before) = filled(&proxy.url(&url, port)).await;
    running.stop().await;
    proxy.set(Fault::HoldStart);
    let mut running = feed.start();
    tokio::time::timeout(PATIENCE, proxy.until_held()).await.expect("it asks for its stream");
    insert(&client, 10..13).await;
    let sql = "select pg_replication_slot_advance($1::text::name, pg_current_wal_lsn())::text";
    client.query_one(sql, &[&feed.slot()]).await.unwrap();
    proxy.set(Fault::None);

    running.wait_for("live", |status| *status == Status::Streaming).await;
    insert(&client, 13..15).await;
    assert_eq!(running.ids(2).await, [13, 14]);
    assert!(matches!(running.changes(before).await, Err(query::Error::TooOld)));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_gone_is_made_again_and_is_a_gap() {
    let url = support::database().await;
    let (client, feed, running, before) = filled(&url).await;
    running.stop().await;
    source::drop_slot(&feed.config.source.settings, feed.slot()).await.unwrap();
    insert(&client, 10..13).await;
    let running = feed.live().await;
    assert!(matches!(running.changes(before).await, Err(query::Error::TooOld)));
    insert(&client, 13..14).await;
    assert_eq!(running.ids(1).await, [13]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_was_gone_for_a_while_is_a_gap() {
    let url = support::database().await;
    let (client, _, mut running, before) = filled(&url).await;
    client.batch_execute("drop publication feed").await.unwrap();
    insert(&client, 10..13).await;
    running.wait_for("waiting", |status| matches!(status, Status::Waiting { .. })).await;
    // Meanwhile the journal serves what it has.
    assert_eq!(running.changes(Sequence::ZERO).await.unwrap().changes.len(), 10);
    client.batch_execute("create publication feed for table notes").await.unwrap();
    running.wait_for("live again", |status| *status == Status::Streaming).await;
    assert!(matches!(running.changes(before).await, Err(query::Error::TooOld)));
    insert(&client, 13..14).await;
    assert_eq!(running.ids(1).await, [13]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_slot_is_a_gap_and_not_a_loop() {
    let small = [("max_wal_size", "32MB"), ("min_wal_size", "32MB"), ("max_slot_wal_keep_size", "16MB")];
    let cluster = tokio::task::spawn_blocking(move || support::new_cluster(&small)).await.unwrap();
    let url = cluster.url("postgres");
    let (client, feed, running, before) = filled(&url).await;
    running.stop().await;
    support::eventually(PATIENCE, "the slot is lost", async || {
        client.batch_execute("insert into other select generate_series(1, 200000)").await.unwrap();
        client.batch_execute("checkpoint").await.unwrap();
        let sql = "select wal_status from pg_replication_slots where slot_name = $1";
        let status: String = client.query_one(sql, &[&feed.slot()]).await.unwrap().get(0);
        (status == "lost").then_some(())
    })
    .await;
    let server = source::Server::connect(&feed.config.source.settings).await.unwrap();
    let loss = server.slot(feed.slot(), "postgres").await.unwrap().unwrap().lost;
    assert_eq!(loss, Some(source::Loss::WalRemoved));
    let running = feed.live().await;
    assert!(matches!(running.changes(before).await, Err(query::Error::TooOld)));
    insert(&client, 10..11).await;
    assert_eq!(running.ids(1).await, [10]);
    running.stop().await;
}

/// PostgreSQL 18 can give up a slot that nobody reads, whatever it keeps.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_was_idle_for_too_long_is_a_gap() {
    if support::server_major().await < 18 {
        let why = "idle_replication_slot_timeout is there from PostgreSQL 18 on";
        return support::say_skipped("a_slot_that_was_idle_for_too_long_is_a_gap", why);
    }
    let idle = [("idle_replication_slot_timeout", "1s")];
    let cluster = tokio::task::spawn_blocking(move || support::new_cluster(&idle)).await.unwrap();
    let (client, feed, running, before) = filled(&cluster.url("postgres")).await;
    running.stop().await;
    let server = source::Server::connect(&feed.config.source.settings).await.unwrap();
    let loss = support::eventually(PATIENCE, "the slot is lost", async || {
        client.batch_execute("checkpoint").await.unwrap();
        server.slot(feed.slot(), "postgres").await.unwrap().unwrap().lost
    })
    .await;
    assert!(loss.to_string().contains("raise idle_replication_slot_timeout"), "{loss}");
    let running = feed.live().await;
    assert!(matches!(running.changes(before).await, Err(query::Error::TooOld)));
    insert(&client, 10..11).await;
    assert_eq!(running.ids(1).await, [10]);
    running.stop().await;
}

/// Its files are put back without a recovery: same cluster, same timeline, and positions that were used before.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_put_back_is_a_gap_and_readers_are_told() {
    let mut cluster = tokio::task::spawn_blocking(|| support::new_cluster(&[])).await.unwrap();
    let url = cluster.url("postgres");
    let (data, copy) = (cluster.data(), support::scratch().join("put_back"));
    let (_, feed, running, _) = filled(&url).await;
    running.stop().await;
    cluster = while_down(cluster, move || copy_folder(&data, &copy)).await;

    let client = support::connect(&url).await;
    let running = feed.live().await;
    client.batch_execute("insert into other select generate_series(1, 10000)").await.unwrap();
    insert(&client, 10..20).await;
    running.ids(20).await;
    let before = running.changes(Sequence::ZERO).await.unwrap().last;
    running.stop().await;
    let (data, copy) = (cluster.data(), support::scratch().join("put_back"));
    let _cluster = while_down(cluster, move || {
        std::fs::remove_dir_all(&data).unwrap();
        copy_folder(&copy, &data);
    })
    .await;

    let client = support::connect(&url).await;
    let running = feed.live().await;
    assert!(matches!(running.changes(before).await, Err(query::Error::TooOld)));
    insert(&client, 20..23).await;
    // What its slot still had to tell comes again, what was forgotten does not.
    let ids = support::eventually(PATIENCE, "the new notes are in the feed", async || {
        Some(running.ids(3).await).filter(|ids| ids.last() == Some(&22))
    });
    assert!(ids.await.iter().all(|id| !(10..20).contains(id)));
    running.stop().await;
}

/// A slip in the database URL, or a name that leads elsewhere for a moment, must not cost the journal.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_of_another_cluster_is_passed_over_unless_all_are() {
    let clusters = tokio::task::spawn_blocking(|| [(); 2].map(|()| support::new_cluster(&[])));
    let [other, known] = clusters.await.unwrap();
    let (client, mut feed, running, before) = filled(&known.url("postgres")).await;
    running.stop().await;
    let other_client = publish_notes(&other.url("postgres")).await;
    let hosts = |second: &Cluster| {
        let (first, second) = (other.port(), second.port());
        let url = format!("postgres://postgres@127.0.0.1:{first},127.0.0.1:{second}/postgres");
        Settings::parse(&url).unwrap()
    };
    feed.config.source.settings = hosts(&known);
    let running = feed.live().await;
    insert(&client, 10..12).await;
    assert_eq!(running.ids(12).await, range(0..12));
    running.stop().await;

    // Nobody can tell whether the one that is away will come back.
    let known = apart(known, Cluster::stop).await;
    let mut running = feed.start();
    let is_passed_over = |status: &Status| matches!(status, Status::Starting { why } if why.contains("is passed over"));
    running.wait_for("the other cluster is not followed", is_passed_over).await;
    assert_eq!(running.ids(12).await, range(0..12));
    let known = apart(known, |known| known.restart().unwrap()).await;
    let client = support::connect(&known.url("postgres")).await;
    insert(&client, 12..14).await;
    assert_eq!(running.ids(14).await, range(0..14), "nothing was dropped");
    running.stop().await;

    feed.config.source.settings = hosts(&other);
    let running = feed.live().await;
    assert!(matches!(running.changes(before).await, Err(query::Error::TooOld)), "all of them are of the other one");
    insert(&other_client, 0..1).await;
    assert_eq!(running.ids(1).await, [0]);
    running.stop().await;
}

async fn apart(mut cluster: Cluster, act: impl FnOnce(&mut Cluster) + Send + 'static) -> Cluster {
    let acted = tokio::task::spawn_blocking(move || {
        act(&mut cluster);
        cluster
    });
    acted.await.unwrap()
}
