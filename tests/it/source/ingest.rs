//! From the slot into the journal: resumed and acknowledged.

use std::time::{Duration, SystemTime};

use tokio_postgres::Client;
use walclock::domain::sequence::{Lsn, Sequence};
use walclock::feed::ingest::{Intervals, Status};
use walclock::feed::source;

use super::feed::{Feed, confirmed, insert, range, wal_end};
use super::{PATIENCE, publish_notes};
use crate::support;

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_where_the_journal_ends() {
    let url = support::database().await;
    let client = publish_notes(&url).await;
    let feed = Feed::new(&url);
    let running = feed.live().await;
    insert(&client, 0..100).await;
    assert_eq!(running.ids(100).await, range(0..100));
    running.stop().await;
    insert(&client, 100..150).await;
    let running = feed.live().await;
    insert(&client, 150..200).await;
    assert_eq!(running.ids(200).await, range(0..200));
    running.stop().await;
    source::drop_slot(&feed.config.source.settings, feed.slot()).await.unwrap();
}

/// The journal syncs when a group is full and never for a lack of time, so that what was received stays without a sync
/// for as many reports as we like to see.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_before_it_is_durable() {
    const GROUP: i32 = 100;
    let url = support::database().await;
    let client = publish_notes(&url).await;
    let mut feed = Feed::new(&url);
    // Where the feed begins is waited for until it is synced.
    feed.live().await.stop().await;
    feed.journal.sync_after = Duration::from_secs(86_400);
    feed.journal.sync_changes = u64::try_from(GROUP).unwrap();
    let running = feed.live().await;
    for first in [0, GROUP] {
        insert(&client, first..first + GROUP - 1).await;
        running.ids(usize::try_from(first + GROUP - 1).unwrap()).await;
        let end = running.changes(Sequence::ZERO).await.unwrap().last.lsn;
        reported(&client, feed.slot(), end).await;
        let acknowledged = confirmed(&client, feed.slot()).await;
        let durable = running.journal.durable();
        assert!(durable < end, "what was received was synced: nothing is tested");
        assert!(acknowledged <= durable, "{acknowledged} was acknowledged, {durable} is durable");

        // With the last one of the group all of it is synced.
        insert(&client, first + GROUP - 1..first + GROUP).await;
        support::eventually(PATIENCE, "what is durable is acknowledged", async || {
            let acknowledged = confirmed(&client, feed.slot()).await;
            let durable = running.journal.durable();
            assert!(acknowledged <= durable, "{acknowledged} was acknowledged, {durable} is durable");
            (acknowledged > end).then_some(())
        })
        .await;
    }
    running.stop().await;
}

/// Waits until the walsender has been told, and has taken in, that everything up to `end` has been received. Its reports
/// are taken one by one: when the next one is there, all of the one before has been.
async fn reported(client: &Client, slot: &str, end: Lsn) {
    let report = async || -> Option<SystemTime> {
        let sql = "select reply_time from pg_stat_replication r join pg_replication_slots s on s.active_pid = r.pid
                   where slot_name = $1 and write_lsn > $2::text::pg_lsn";
        client.query_opt(sql, &[&slot, &end.to_string()]).await.unwrap()?.get(0)
    };
    let first = support::eventually(PATIENCE, "what was received is reported", report).await;
    let next = async || report().await.filter(|next| *next != first);
    support::eventually(PATIENCE, "the next report", next).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_feed_moves_its_slot_past_what_is_not_for_it() {
    let url = support::database().await;
    let client = publish_notes(&url).await;
    let feed = Feed::new(&url);
    let running = feed.live().await;
    client.batch_execute("insert into other select generate_series(1, 10000)").await.unwrap();
    let end = wal_end(&client).await;
    support::eventually(PATIENCE, "the idle slot moves", async || {
        (confirmed(&client, feed.slot()).await >= end).then_some(())
    })
    .await;
    // The position that was acknowledged is known after a restart: it is no gap.
    running.stop().await;
    let running = feed.live().await;
    insert(&client, 0..1).await;
    assert_eq!(running.ids(1).await, [0]);
    assert_eq!(running.changes(Sequence::ZERO).await.unwrap().first, running.journal.range().last);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_publication_is_waited_for_and_a_missing_right_is_not() {
    let url = support::database().await;
    let client = support::connect(&url).await;
    let feed = Feed::new(&url);
    let mut running = feed.start();
    let names_it = |status: &Status| matches!(status, Status::Starting { why } if why.contains("publication feed"));
    running.wait_for("waiting for the publication", names_it).await;
    assert!(running.status.borrow().not_ready().is_some());
    publish_notes(&url).await;
    running.wait_for("live", |status| *status == Status::Streaming).await;
    insert(&client, 0..1).await;
    assert_eq!(running.ids(1).await, [0]);
    running.stop().await;

    let role = feed.slot();
    client.batch_execute(&format!("create role {role} login")).await.unwrap();
    let mut poor = Feed::new(&url.replace("postgres@", &format!("{role}@")));
    poor.config.source.slot = format!("{role}_2");
    let error = poor.start().task.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("alter role"), "{error}");
    client.batch_execute(&format!("drop role {role}")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_postgresql_is_survived() {
    let mut cluster =
        tokio::task::spawn_blocking(|| support::new_cluster(&[("wal_sender_timeout", "3s")])).await.unwrap();
    let url = cluster.url("postgres");
    let client = publish_notes(&url).await;
    let feed = Feed::new(&url);
    let mut running = feed.live().await;
    insert(&client, 0..100).await;
    for crash in [false, true] {
        cluster = tokio::task::spawn_blocking(move || {
            if crash {
                cluster.crash()
            } else {
                cluster.stop()
            }
            cluster
        })
        .await
        .unwrap();
        running.wait_for("waiting", |status| matches!(status, Status::Waiting { .. })).await;
        assert_eq!(running.status.borrow().not_ready(), None, "the journal is served meanwhile");
        cluster = tokio::task::spawn_blocking(move || {
            cluster.restart().unwrap();
            cluster
        })
        .await
        .unwrap();
        running.wait_for("live again", |status| *status == Status::Streaming).await;
    }
    let client = support::connect(&url).await;
    insert(&client, 100..200).await;
    assert_eq!(running.ids(200).await, range(0..200));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_leave_on_time_so_that_the_walsender_stays() {
    let cluster =
        tokio::task::spawn_blocking(|| support::new_cluster(&[("wal_sender_timeout", "600ms")])).await.unwrap();
    let url = cluster.url("postgres");
    let client = publish_notes(&url).await;
    let feed = Feed::new(&url);
    let mut running = feed.live().await;
    // It is idle for many times the timeout. A machine that stands still for as long costs it, too; then the next one grows old.
    let old = "select from pg_stat_replication where clock_timestamp() - backend_start > interval '3 seconds'";
    support::eventually(PATIENCE, "a walsender grows old", async || {
        client.query_opt(old, &[]).await.unwrap().map(|_| ())
    })
    .await;
    running.wait_for("still live", |status| *status == Status::Streaming).await;
    running.stop().await;
}

/// One transaction takes much longer than the walsender waits for a sign of life.
#[tokio::test(flavor = "multi_thread")]
async fn reports_leave_on_time_inside_a_huge_transaction() {
    const ROWS: i32 = 200_000;
    let cluster = tokio::task::spawn_blocking(|| support::new_cluster(&[("wal_sender_timeout", "2s")])).await.unwrap();
    let url = cluster.url("postgres");
    let client = publish_notes(&url).await;
    let mut feed = Feed::new(&url);
    // A write for nearly every row makes a slow reader, behind whom the stream comes to stand.
    feed.journal.buffer_bytes = 1 << 10;
    let running = feed.live().await;
    let walsender = async || -> Vec<i32> {
        let rows = client.query("select pid from pg_stat_replication", &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    let sql = "insert into notes select n, repeat('x', 200), 's' from generate_series($1::int, $2::int - 1) n";
    let mut rows = 0;
    // A machine that stands still for the timeout costs the walsender, too; then the next transaction shows it.
    support::eventually(PATIENCE, "a walsender outlasts a transaction", async || {
        let (walsenders, last) = (walsender().await, running.journal.range().last);
        client.execute(sql, &[&rows, &(rows + ROWS)]).await.unwrap();
        rows += ROWS;
        let seen = support::eventually(PATIENCE, "the transaction is in", async || {
            Some(running.journal.range().last).filter(|seen| *seen != last)
        })
        .await;
        assert_eq!(seen.index, u32::try_from(ROWS - 1).unwrap(), "all of it becomes visible at once");
        (walsenders.len() == 1 && walsender().await == walsenders).then_some(())
    })
    .await;
    running.stop().await;
}

/// What somebody set for the role, the database or the server does not show in the feed.
#[tokio::test(flavor = "multi_thread")]
async fn values_look_alike_whatever_the_database_is_set_to() {
    let url = support::database().await;
    let client = publish_notes(&url).await;
    let name: String = client.query_one("select current_database()::text", &[]).await.unwrap().get(0);
    for setting in [
        "bytea_output = escape",
        "datestyle = 'SQL, DMY'",
        "intervalstyle = sql_standard",
        "extra_float_digits = -3",
        "timezone = 'Asia/Kolkata'",
        "client_encoding = latin1",
    ] {
        client.batch_execute(&format!("alter database {name} set {setting}")).await.unwrap();
    }
    let sql = "create table shapes (id int, b bytea, t timestamptz, d date, i interval, f float8, u text,
                                    _change_selector text);
               alter publication feed add table shapes";
    client.batch_execute(sql).await.unwrap();
    let feed = Feed::new(&url);
    let running = feed.live().await;
    let sql = r"insert into shapes values
        (0, '\x00ff', '2026-11-21 20:07:21.5+00', '2026-11-21', '1 day 02:03:04', 0.1::float8 + 0.2, 'ü', 's')";
    client.batch_execute(sql).await.unwrap();
    running.ids(1).await;
    let change = running.changes(Sequence::ZERO).await.unwrap().changes.remove(0);
    let change: serde_json::Value = serde_json::from_slice(&change.body).unwrap();
    let shown = ["b", "t", "d", "i", "f", "u"].map(|name| change["newRow"][name]["value"].as_str().unwrap());
    let expected = [r"\x00ff", "2026-11-21 20:07:21.5+00", "2026-11-21", "1 day 02:03:04", "0.30000000000000004", "ü"];
    assert_eq!(shown, expected);
    running.stop().await;
}

/// The WAL is one for all databases of a server: what a neighbour writes must not pile up behind our slot.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_feed_moves_its_slot_past_what_a_neighbour_writes() {
    let (url, neighbour) = (support::database().await, support::database().await);
    let client = publish_notes(&url).await;
    let mut feed = Feed::new(&url);
    let short = Duration::from_millis(50);
    feed.config.intervals = Intervals { pulse: short, heartbeat: short, note: short, ..Intervals::default() };
    let running = feed.live().await;
    let neighbour = support::connect(&neighbour).await;
    neighbour.batch_execute("create table busy as select generate_series(1, 100000)").await.unwrap();
    let end = wal_end(&client).await;
    support::eventually(PATIENCE, "PostgreSQL may remove the neighbour's WAL", async || {
        // Each describes the transactions under way, without which a slot does not let go of the WAL.
        client.batch_execute("checkpoint").await.unwrap();
        let sql = "select restart_lsn::text from pg_replication_slots where slot_name = $1";
        let restart: Lsn = client.query_one(sql, &[&feed.slot()]).await.unwrap().get::<_, String>(0).parse().unwrap();
        (restart >= end).then_some(())
    })
    .await;
    running.stop().await;
}
