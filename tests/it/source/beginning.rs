//! The first slot: what its creation waits for is told, and it is there as soon as that is over.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio_postgres::Client;
use walclock::domain::sequence::Lsn;
use walclock::feed::ingest::Status;

use super::feed::{Feed, insert};
use super::{PATIENCE, publish_notes};
use crate::support;

#[tokio::test(flavor = "multi_thread")]
async fn old_transactions_are_named_until_they_are_over() {
    let url = support::database().await;
    let client = publish_notes(&url).await;
    let mut feed = Feed::new(&url);
    feed.config.intervals.explain = Duration::from_millis(50);
    let (first, second) = (support::connect(&url).await, support::connect(&url).await);
    let pid = async |client: &Client| -> i32 {
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

/// PostgreSQL overlooks what a transaction does to a table that begins when the slot has begun to be made, where another one is
/// decoded before it is over: the stream would leave out the column, and end at the first row of the truncated table.
#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_of_tables_while_the_slot_is_made_is_known_to_the_stream() {
    for change in ["alter table notes add later text default 'known'", "savepoint s; truncate notes; release s"] {
        let url = support::database().await;
        let client = publish_notes(&url).await;
        client.batch_execute("alter publication feed add table other").await.unwrap();
        let (old, changing) = (support::connect(&url).await, support::connect(&url).await);
        old.batch_execute("begin").await.unwrap();
        let old_txid = txid(&old).await;
        let mut running = Feed::new(&url).start();
        until_waited_for(&client, &old_txid).await;
        changing.batch_execute(&format!("begin; {change}")).await.unwrap();
        let changing_txid = txid(&changing).await;
        old.batch_execute("commit").await.unwrap();
        until_waited_for(&client, &changing_txid).await;
        client.batch_execute("insert into other values (1)").await.unwrap();
        changing.batch_execute("commit").await.unwrap();
        running.wait_for("live", |status| *status == Status::Streaming).await;
        insert(&client, 0..1).await;
        running.ids(1).await;
        let row = &running.bodies().await[0]["newRow"];
        assert_eq!(row.get("later").is_some(), change.contains("later"), "{row}");
        running.stop().await;
    }
}

/// A server that crashed would come back without what it had not flushed, and begin anew where the feed had been already.
#[tokio::test(flavor = "multi_thread")]
async fn where_the_feed_begins_is_on_the_disk_of_its_server() {
    let cluster = || support::new_cluster(&[("synchronous_commit", "off")]);
    let cluster = tokio::task::spawn_blocking(cluster).await.unwrap();
    let url = cluster.url("postgres");
    let client = publish_notes(&url).await;
    let sql = "select pid from pg_stat_activity where backend_type = 'walwriter'";
    let wal_writer = Pid::from_raw(client.query_one(sql, &[]).await.unwrap().get(0)).unwrap();
    kill_process(wal_writer, Signal::STOP).unwrap();
    let running = Feed::new(&url).live().await;
    let flushed = client.query_one("select pg_current_wal_flush_lsn()::text", &[]).await.unwrap();
    kill_process(wal_writer, Signal::CONT).unwrap();
    let flushed: Lsn = flushed.get::<_, &str>(0).parse().unwrap();
    let begins = running.journal.durable();
    assert!(flushed >= begins, "it begins at {begins}, and {flushed} is flushed");
    running.stop().await;
}

/// The transaction that this session is in, as text.
async fn txid(client: &Client) -> String {
    client.query_one("select pg_current_xact_id()::text", &[]).await.unwrap().get(0)
}

/// Waits until somebody waits for the end of this transaction, in this database: slots of others wait for it as well.
async fn until_waited_for(client: &Client, txid: &str) {
    let sql = "select from pg_locks join pg_stat_activity using (pid) \
               where transactionid::text = $1 and not granted and datname = current_database()";
    support::eventually(PATIENCE, "its end is waited for", async || {
        client.query_opt(sql, &[&txid]).await.unwrap().map(drop)
    })
    .await;
}
