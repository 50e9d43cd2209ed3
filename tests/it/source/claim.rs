//! Who has the slot: one walclock at a time, and none that is dead.

use std::time::Duration;

use walclock::feed::ingest::Status;
use walclock::feed::source::{self, Connection, Error, Server};

use super::feed::{Feed, filled, insert, range, while_down};
use super::{PATIENCE, PUBLICATION, publish_notes};
use crate::support;

/// The walsender that streams from a slot.
async fn walsender(client: &tokio_postgres::Client, slot: &str) -> Option<i32> {
    let sql = "select active_pid from pg_replication_slots where slot_name = $1";
    client.query_one(sql, &[&slot]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_a_live_walclock_has_is_waited_for_and_never_taken() {
    let url = support::database().await;
    let (client, first, running, _) = filled(&url).await;
    let pid = walsender(&client, first.slot()).await;
    let second = Feed::new(&url);
    let mut waiting = second.start();
    let names_it = |status: &Status| matches!(status, Status::Starting { why } if why.contains("another walclock"));
    waiting.wait_for("told that the slot is another's", names_it).await;
    insert(&client, 10..20).await;
    assert_eq!(running.ids(20).await, range(0..20));
    assert_eq!(walsender(&client, first.slot()).await, pid, "the first one was cut off");
    running.stop().await;
    waiting.wait_for("live", |status| *status == Status::Streaming).await;
    waiting.stop().await;
}

/// Takes the claim on a slot from a feed that runs, for as long as what is returned lives.
async fn take_claim(url: &str, slot: &str) -> tokio_postgres::Client {
    let (client, other) = (support::connect(url).await, support::connect(url).await);
    // Who queues for a lock has it before anybody who only tries.
    let lock = format!("select pg_advisory_lock(hashtextextended('walclock slot {slot}', 0))");
    let taking = tokio::spawn(async move { other.batch_execute(&lock).await.map(|()| other) });
    let locks = "from pg_locks where locktype = 'advisory'
                 and database = (select oid from pg_database where datname = current_database())";
    let waits = format!("select exists (select {locks} and not granted)");
    let queued = async || client.query_one(&waits, &[]).await.unwrap().get::<_, bool>(0).then_some(());
    support::eventually(PATIENCE, "another one queues for the claim", queued).await;
    let end = format!("select pg_terminate_backend(pid) {locks} and granted");
    assert_eq!(client.query(&end, &[]).await.unwrap().len(), 1);
    taking.await.unwrap().unwrap()
}

fn is_stale(status: &Status, word: &str) -> bool {
    matches!(status, Status::Stale { why } if why.contains(word))
}

/// Its slot was another's for a while, and is gone by now: what it tells readers is no better while it waits for a new one.
#[tokio::test(flavor = "multi_thread")]
async fn a_stale_feed_that_waits_for_a_new_slot_is_stale() {
    let url = support::database().await;
    let (client, feed, mut running, _) = filled(&url).await;
    let other = take_claim(&url, feed.slot()).await;
    running.wait_for("told that the slot is another's", |status| is_stale(status, "another walclock")).await;
    let drop_slot = "select pg_drop_replication_slot($1)";
    let dropped = async || client.execute(drop_slot, &[&feed.slot()]).await.ok().map(drop);
    support::eventually(PATIENCE, "the walsender is gone, and the slot with it", dropped).await;
    let writer = support::connect(&url).await;
    writer.batch_execute("begin; insert into other values (1)").await.unwrap();
    drop(other);
    running.wait_for("told whom the slot waits for", |status| is_stale(status, "waits for transactions")).await;
    writer.batch_execute("commit").await.unwrap();
    running.wait_for("live", |status| *status == Status::Streaming).await;
    running.stop().await;
}

/// Whoever has the claim now moves the slot on, and nothing of what it is told arrives here: the journal does not become
/// right again by waiting, also where PostgreSQL goes away meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_feed_whose_slot_was_taken_is_not_ready_before_it_streams_again() {
    let mut cluster = tokio::task::spawn_blocking(|| support::new_cluster(&[])).await.unwrap();
    let url = cluster.url("postgres");
    let (_client, feed, mut running, _) = filled(&url).await;
    let _other = take_claim(&url, feed.slot()).await;
    running.wait_for("told that the slot is another's", |status| is_stale(status, "another walclock")).await;
    assert!(running.status.borrow().not_ready().is_some());
    assert_eq!(running.ids(10).await, range(0..10), "the journal is served all the same");

    cluster = tokio::task::spawn_blocking(move || {
        cluster.crash();
        cluster
    })
    .await
    .unwrap();
    running.wait_for("told of the outage", |status| is_stale(status, "cannot reach PostgreSQL")).await;
    assert!(running.status.borrow().not_ready().is_some(), "what it missed before is still missing");
    cluster = while_down(cluster, || {}).await;
    running.wait_for("live", |status| *status == Status::Streaming).await;
    assert_eq!(running.status.borrow().not_ready(), None);
    let _cluster = tokio::task::spawn_blocking(move || {
        cluster.crash();
        cluster
    })
    .await
    .unwrap();
    let waits = |status: &Status| matches!(status, Status::Waiting { why } if why.contains("cannot reach PostgreSQL"));
    running.wait_for("told of the next outage, which is no more than that", waits).await;
    running.stop().await;
}

/// As after a crash whose end the server has not noticed: the walsender streams on into the void. Left alone it would for
/// longer than this test lasts.
#[tokio::test(flavor = "multi_thread")]
async fn a_walsender_that_an_earlier_run_left_behind_is_ended() {
    let url = support::database().await;
    let (client, feed, running, _) = filled(&url).await;
    let durable = running.journal.durable();
    running.stop().await;
    let settings = feed.config.source.settings.clone();
    let named = settings.with_application_name(&source::application_name(feed.slot()));
    let connection = Connection::open(&named).await.unwrap();
    let stale = source::start(connection, feed.slot(), &[PUBLICATION.to_owned()], durable).await.unwrap();
    assert_eq!(walsender(&client, feed.slot()).await, Some(stale.0.pid()));
    insert(&client, 10..20).await;
    let running = feed.live().await;
    assert_eq!(running.ids(20).await, range(0..20));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walsender_that_is_not_ours_is_named_and_waited_for() {
    let url = support::database().await;
    let (client, feed, running, _) = filled(&url).await;
    let durable = running.journal.durable();
    running.stop().await;
    let connection = Connection::open(&feed.config.source.settings).await.unwrap();
    let (stream, reports) = source::start(connection, feed.slot(), &[PUBLICATION.to_owned()], durable).await.unwrap();
    let pid = stream.pid();
    let mut waiting = feed.start();
    let names_it = |status: &Status| matches!(status, Status::Starting { why } if why.contains(&pid.to_string()));
    waiting.wait_for("told who has the slot", names_it).await;
    assert_eq!(walsender(&client, feed.slot()).await, Some(pid), "somebody else's walsender was ended");
    reports.end().await.unwrap();
    stream.drain().await;
    waiting.wait_for("live", |status| *status == Status::Streaming).await;
    waiting.stop().await;
}

/// A process is frozen or out of reach: its session ends by itself, and with it the claim.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_ends_with_its_session_and_a_silent_session_ends() {
    let url = support::database().await;
    let settings = super::config(&url).settings;
    let (first, second) = (Server::connect(&settings).await.unwrap(), Server::connect(&settings).await.unwrap());
    first.claim("some_slot", PATIENCE).await.unwrap();
    let session = first.session().await.unwrap();
    assert!(matches!(second.claim("some_slot", PATIENCE).await, Err(Error::SlotClaimed { .. })));
    second.claim("some_other_slot", PATIENCE).await.unwrap();
    second.end_session(session).await.unwrap();
    let client = support::connect(&url).await;
    let claims = "select count(*) from pg_locks where locktype = 'advisory' and granted and database =
                  (select oid from pg_database where datname = current_database())";
    assert_eq!(client.query_one(claims, &[]).await.unwrap().get::<_, i64>(0), 1, "its claim is gone by then");
    second.claim("some_slot", PATIENCE).await.unwrap();
    assert!(first.session().await.is_err());

    // It says nothing for longer than it may.
    second.claim("silent_slot", Duration::from_millis(200)).await.unwrap();
    let third = Server::connect(&settings).await.unwrap();
    support::eventually(PATIENCE, "the silent session's claim is free", async || {
        third.claim("silent_slot", PATIENCE).await.ok()
    })
    .await;
}

/// One that answers nothing because it has much to do is not lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_at_work_is_told_from_one_that_waits_for_its_client() {
    let url = support::database().await;
    let client = publish_notes(&url).await;
    let config = super::config(&url);
    let (first, _connection, facts) = super::connect(&config.settings).await;
    let second = Server::connect(&config.settings).await.unwrap();
    let session = first.session().await.unwrap();
    let deserted = async |idle_min| second.is_deserted(session, idle_min).await.unwrap();
    assert!(!deserted(PATIENCE).await, "it has just answered");
    support::eventually(PATIENCE, "it waits", async || deserted(Duration::ZERO).await.then_some(())).await;

    client.batch_execute("begin; insert into other values (1)").await.unwrap();
    let slot = config.slot.clone();
    let work = tokio::spawn(async move {
        let made = first.create_slot(&slot, &facts, PATIENCE).await;
        (first, made)
    });
    support::eventually(PATIENCE, "it works", async || (!deserted(Duration::ZERO).await).then_some(())).await;
    client.batch_execute("commit").await.unwrap();
    let (first, made) = work.await.unwrap();
    made.unwrap();
    support::eventually(PATIENCE, "it waits again", async || deserted(Duration::ZERO).await.then_some(())).await;
    first.drop_slot(&config.slot).await.unwrap();
    second.end_session(session).await.unwrap();
    assert!(deserted(PATIENCE).await, "it is gone");
}
