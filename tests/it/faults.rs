//! Faults, end to end: what was committed is fired, whatever dies meanwhile.

use std::collections::BTreeSet;

use axum::http::StatusCode;

use super::support::receiver::Receiver;
use super::support::server::{Server, folder};
use super::support::{PATIENCE, connect, database, eventually, new_cluster};

/// Each timer's repeats carry one id, and no two timers share one.
fn assert_ids_are_stable(receiver: &Receiver) {
    let mut seen = BTreeSet::new();
    for (timer, calls) in receiver.by_timer() {
        let ids: BTreeSet<&str> = calls.iter().map(|call| call.header("webhook-id")).collect();
        assert_eq!(ids.len(), 1, "{timer} was called under {ids:?}");
        assert!(seen.insert(ids.into_iter().next().unwrap().to_owned()), "{timer} shares its id");
        for call in calls {
            assert!(call.at >= call.scheduled_for(), "{timer} came early");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_with_200_timers_under_way_all_fire() {
    let url = database().await;
    let folder = folder();
    // Nobody answers before the kill.
    let (answer, killed) = tokio::sync::watch::channel(false);
    let receiver = Receiver::answering(move |_| {
        let mut killed = killed.clone();
        Box::pin(async move {
            let _ = killed.wait_for(|killed| *killed).await;
            (StatusCode::OK, r#"{"ok":true}"#.to_owned())
        })
    })
    .await;
    let server = Server::start(&url, &folder).await;
    let sql = connect(&url).await;
    let insert = "insert into walclock.timers (namespace, id, execute_at, callback_url)
        select 'default', 'k' || n, now() + n * interval '5 ms', $1 from generate_series(1, 200) n";
    sql.execute(insert, &[&receiver.url()]).await.unwrap();
    let some = async || (receiver.calls().len() >= 60).then_some(());
    eventually(PATIENCE, "some callbacks are under way", some).await;
    server.kill();
    answer.send_replace(true);

    let server = Server::start(&url, &folder).await;
    let all = async || (receiver.by_timer().len() == 200).then_some(());
    eventually(PATIENCE, "all 200 fire", all).await;
    let over = async || {
        let query = "select (select count(*) from walclock.timers) + (select count(*) from walclock.runs where state = 'running')";
        (sql.query_one(query, &[]).await.unwrap().get::<_, i64>(0) == 0).then_some(())
    };
    eventually(PATIENCE, "all are settled", over).await;
    assert_ids_are_stable(&receiver);
    assert!(receiver.calls().len() > 200, "those that were under way at the kill were called again");
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_postgresql_under_load_loses_nothing() {
    for crash in [false, true] {
        let mut cluster = new_cluster(&[("fsync", "on"), ("wal_sender_timeout", "3s")]);
        let url = cluster.url("postgres");
        let receiver = Receiver::start().await;
        let server = Server::start(&url, &folder()).await;
        let committed = tokio::spawn(insert_until_cut(url.clone(), receiver.url(), 0));
        let some = async || (receiver.calls().len() >= 100).then_some(());
        eventually(PATIENCE, "callbacks are under way", some).await;
        let cluster = tokio::task::spawn_blocking(move || {
            if crash {
                cluster.crash()
            } else {
                cluster.stop()
            }
            cluster.restart().unwrap();
            cluster
        })
        .await
        .unwrap();
        let mut expected = committed.await.unwrap();

        let after = insert_some(&connect(&url).await, &receiver.url(), 1_000_000, 50).await;
        expected.extend(after);
        let all = async || {
            let fired = receiver.by_timer();
            expected.iter().all(|id| fired.contains_key(id)).then_some(())
        };
        eventually(PATIENCE, &format!("all {} committed timers fire", expected.len()), all).await;
        assert_ids_are_stable(&receiver);
        drop((server, cluster));
    }
}

/// Inserts one timer a transaction until the connection breaks; returns those whose commit was acknowledged.
async fn insert_until_cut(url: String, callback_url: String, first: u32) -> Vec<String> {
    let sql = connect(&url).await;
    let mut committed = Vec::new();
    for n in first.. {
        let id = format!("r{n}");
        let insert = "insert into walclock.timers (namespace, id, execute_at, callback_url)
            values ('default', $1, now() + interval '20 ms', $2)";
        match sql.execute(insert, &[&id, &callback_url]).await {
            Ok(_) => committed.push(id),
            Err(_) => break,
        }
    }
    committed
}

async fn insert_some(sql: &tokio_postgres::Client, callback_url: &str, first: u32, count: u32) -> Vec<String> {
    let mut ids = Vec::new();
    for n in first..first + count {
        let id = format!("r{n}");
        let insert =
            "insert into walclock.timers (namespace, id, execute_at, callback_url) values ('default', $1, now(), $2)";
        sql.execute(insert, &[&id, &callback_url]).await.unwrap();
        ids.push(id);
    }
    ids
}
