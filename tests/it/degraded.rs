//! A process that somebody should look at and that serves all the same, through the built binary: PostgreSQL is away, or
//! the slot comes near its bound.

use std::time::Duration;

use serde_json::Value;

use super::chaos::proxy::{Proxy, Weather};
use super::support::http::get;
use super::support::server::{Server, folder, migrate};
use super::support::{PATIENCE, cluster, connect, eventually, migrated, new_cluster};

const TABLES: &str = "create table notes (id int primary key, body text, _change_selector text);
                      alter table notes replica identity full;
                      create table other (id int);
                      select walclock.publish('notes')";

/// What it says of its parts. It is ready in both forms, and healthy.
async fn ready_and_verbose(server: &Server) -> String {
    for path in ["/health", "/ready"] {
        let answer = get(&server.url(), path, &[]).await;
        assert_eq!((answer.status, &answer.body[..]), (200, &b""[..]), "{path}");
    }
    let verbose = get(&server.url(), "/ready?verbose", &[]).await;
    let text = String::from_utf8(verbose.body.to_vec()).unwrap();
    assert_eq!(verbose.status, 200, "{text}");
    text
}

async fn insert(sql: &tokio_postgres::Client, first: i32) {
    let insert = "insert into notes select n, 'body', 'a' from generate_series($1::int, $1::int + 9) n";
    sql.execute(insert, &[&first]).await.unwrap();
}

/// The changes, once there are so many.
async fn changes(server: &Server, count: usize) -> Value {
    eventually(PATIENCE, "all changes are there", async || {
        let (status, mut page) = server.get("/changes?scope=a").await;
        assert_eq!(status, 200, "{page}");
        let changes = page["changes"].take();
        (changes.as_array().unwrap().len() == count).then_some(changes)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_postgresql_is_told_and_takes_nobody_out_of_service() {
    let mut cluster = tokio::task::spawn_blocking(|| new_cluster(&[])).await.unwrap();
    let url = cluster.url("postgres");
    let server = Server::start(&url, &folder()).await;
    let sql = connect(&url).await;
    sql.batch_execute(TABLES).await.unwrap();
    insert(&sql, 0).await;
    let before = changes(&server, 10).await;
    let well = async || {
        let text = ready_and_verbose(&server).await;
        (text.starts_with("Ready\n") && text.contains("\nfeed: ready\n") && text.contains("\ndatabase: ready\n"))
            .then_some(())
    };
    eventually(PATIENCE, "all is well", well).await;

    cluster = tokio::task::spawn_blocking(move || {
        cluster.crash();
        cluster
    })
    .await
    .unwrap();
    let told = async || {
        let text = ready_and_verbose(&server).await;
        assert_eq!(changes(&server, 10).await, before, "the journal is served");
        let lines = ["\nfeed: degraded: cannot reach PostgreSQL at ", "\ndatabase: degraded: "];
        (text.starts_with("Ready\n") && lines.iter().all(|line| text.contains(line))).then_some(())
    };
    eventually(PATIENCE, "the outage is told", told).await;
    let verbose = get(&server.url(), "/ready?verbose", &[("accept", "application/json")]).await;
    let said: Value = serde_json::from_slice(&verbose.body).unwrap();
    assert_eq!((verbose.status, &said["status"], &said["reason"]), (200, &"Ready".into(), &Value::Null));
    let feed = said["checks"].as_array().unwrap().iter().find(|check| check["name"] == "feed").unwrap();
    assert!(feed["status"] == "degraded" && feed["detail"].as_str().unwrap().contains("PostgreSQL"), "{feed}");

    let _cluster = tokio::task::spawn_blocking(move || {
        cluster.restart().unwrap();
        cluster
    })
    .await
    .unwrap();
    eventually(PATIENCE, "all is well again", well).await;
    insert(&connect(&url).await, 10).await;
    changes(&server, 20).await;
}

/// It takes connections, and nothing that is asked on one is answered.
const HANGING: Weather = Weather { up_stalls: true, down_stalls: true, delay: Duration::ZERO, piece_bytes_max: 0 };

#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_that_hangs_is_told_of_as_one_that_is_away() {
    let url = migrated().await;
    let proxy = Proxy::start(cluster().port()).await;
    proxy.set(HANGING);
    let server = Server::spawn_unmigrated(&proxy.url(&url), &folder(), &["--roles", "api"]);
    let silent = "database: PostgreSQL has not answered within 4s";
    let not_ready = async || server.ready().await.filter(|answer| *answer == (503, silent.into())).map(drop);
    eventually(PATIENCE, "who starts meanwhile is not ready", not_ready).await;
    proxy.set(Weather::default());
    server.until_ready().await;

    proxy.set(HANGING);
    let told = async || ready_and_verbose(&server).await.contains(&silent.replace(": ", ": degraded: ")).then_some(());
    eventually(PATIENCE, "a hang is told", told).await;
}

/// How much of what it may keep the slot keeps, in percent.
async fn used(sql: &tokio_postgres::Client) -> i64 {
    let query = "select kept * 100 / (kept + safe_wal_size)
                 from (select (pg_current_wal_lsn() - restart_lsn)::int8 as kept, safe_wal_size
                       from pg_replication_slots) as slot";
    sql.query_one(query, &[]).await.unwrap().get(0)
}

/// A transaction that does not end keeps the slot where it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_comes_near_its_bound_is_told_of_in_the_log_and_to_who_asks() {
    let small = [("max_wal_size", "1GB"), ("max_slot_wal_keep_size", "64MB")];
    let cluster = tokio::task::spawn_blocking(move || new_cluster(&small)).await.unwrap();
    let url = cluster.url("postgres");
    migrate(&url);
    let server = Server::spawn_unmigrated(&url, &folder(), &["--roles", "changeserver"]);
    server.until_ready().await;
    let (sql, open) = (connect(&url).await, connect(&url).await);
    sql.batch_execute(TABLES).await.unwrap();
    open.batch_execute("begin; insert into other values (1)").await.unwrap();
    let share = " % of what max_slot_wal_keep_size allows";
    let warnings = || server.log().lines().filter(|line| line.contains("WARN") && line.contains(share)).count();
    assert_eq!(warnings(), 0, "too early");

    for (times, threshold) in [50, 80].into_iter().enumerate() {
        while used(&sql).await < threshold + 2 {
            sql.batch_execute("insert into other select generate_series(1, 10000)").await.unwrap();
        }
        let told = async || {
            let text = ready_and_verbose(&server).await;
            let (_, reason) = text.split_once("\nfeed: degraded: the replication slot keeps ")?;
            let percent = reason.split_once(share)?.0.rsplit_once(' ')?.1.parse::<i64>().unwrap();
            assert!(percent < threshold + 20, "it was to be told of {threshold} %: {text}");
            (percent >= threshold && warnings() == times + 1).then_some(())
        };
        eventually(PATIENCE, &format!("{threshold} % are told in the log, once, and to who asks"), told).await;
    }
}
