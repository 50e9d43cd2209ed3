//! What PostgreSQL does not let us do: one line that names the remedy, and no secret in it.

use std::process::{Command, Stdio};

use walclock::feed::ingest::Status;
use walclock::feed::source::Connection;
use walclock::localpg::Cluster;
use walclock::pg::Settings;

use super::feed::{Feed, insert};
use super::{PATIENCE, publish_notes};
use crate::support;
use crate::support::server::Server;

const SECRET: &str = "hunter2hunter2";

async fn cluster(settings: &'static [(&'static str, &'static str)]) -> Cluster {
    tokio::task::spawn_blocking(|| support::new_cluster(settings)).await.unwrap()
}

/// Runs a changeserver that cannot work to its end; returns its exit code and all that it said.
async fn serve(url: &str) -> (i32, String) {
    let folder = support::server::folder();
    let mut child = Command::new(env!("CARGO_BIN_EXE_walclock"))
        .args([
            "serve",
            "--roles",
            "changeserver",
            "--port",
            "0",
            "--publication",
            "feed",
            "--database-url",
            url,
            "--data-dir",
        ])
        .arg(&folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    support::eventually(PATIENCE, "it gives up", async || child.try_wait().unwrap()).await;
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changeserver_that_may_not_work_ends_and_says_what_to_change() {
    let cluster = cluster(&[]).await;
    let admin = support::connect(&cluster.url("postgres")).await;
    for sql in [
        format!("create role walker login replication password '{SECRET}'"),
        format!("create role poor login password '{SECRET}'"),
        "create database closed".to_owned(),
        "revoke connect on database closed from public".to_owned(),
    ] {
        admin.batch_execute(&sql).await.unwrap();
    }
    support::connect(&cluster.url("closed")).await.batch_execute("create publication feed").await.unwrap();
    let hba = "host all postgres all trust\nhost all all all scram-sha-256\n";
    std::fs::write(cluster.data().join("pg_hba.conf"), hba).unwrap();
    admin.batch_execute("select pg_reload_conf()").await.unwrap();
    publish_notes(&cluster.url("postgres")).await;
    let url = |user: &str, password: &str, database: &str, options: &str| {
        format!("postgres://{user}:{password}@127.0.0.1:{}/{database}?{options}", cluster.port())
    };
    let wrong = "hunter3hunter3";
    support::eventually(PATIENCE, "passwords are asked for", async || {
        let settings = Settings::parse(&url("walker", wrong, "postgres", "")).unwrap();
        Connection::open(&settings).await.err()
    })
    .await;
    for (url, remedy) in [
        (url("walker", wrong, "postgres", ""), "check user and password"),
        (url("nobody_knows", SECRET, "postgres", ""), "check user and password"),
        (url("walker", SECRET, "nowhere", ""), "check the database"),
        (url("walker", SECRET, "closed", ""), "grant connect on database"),
        (url("walker", SECRET, "postgres", "sslmode=require"), "offers no TLS: turn it on there"),
        (url("poor", SECRET, "postgres", ""), "alter role … replication"),
    ] {
        let (code, said) = serve(&url).await;
        assert_ne!(code, 0, "{said}");
        assert!(said.lines().any(|line| line.contains(remedy)), "{remedy}: {said}");
        assert!(!said.contains(SECRET) && !said.contains(wrong), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_writes_too_little_into_its_wal_is_told_so() {
    let cluster = cluster(&[("wal_level", "replica")]).await;
    let (code, said) = serve(&cluster.url("postgres")).await;
    assert_ne!(code, 0, "{said}");
    assert!(said.lines().any(|line| line.contains("set wal_level = logical")), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_used_up_is_named_and_waited_for() {
    let cluster = cluster(&[("max_wal_senders", "1"), ("max_replication_slots", "1")]).await;
    let url = cluster.url("postgres");
    let client = publish_notes(&url).await;
    let feed = Feed::new(&url);
    let only = Connection::open(&feed.config.source.settings).await.unwrap();
    client.batch_execute("select pg_create_physical_replication_slot('only')").await.unwrap();
    let mut running = feed.start();
    let names = |status: &Status, setting: &str| matches!(status, Status::Starting { why } if why.contains(setting));
    running.wait_for("told of max_wal_senders", |status| names(status, "raise max_wal_senders")).await;
    drop(only);
    running.wait_for("told of max_replication_slots", |status| names(status, "raise max_replication_slots")).await;
    client.batch_execute("select pg_drop_replication_slot('only')").await.unwrap();
    running.wait_for("live", |status| *status == Status::Streaming).await;
    insert(&client, 0..1).await;
    assert_eq!(running.ids(1).await, [0]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_what_would_have_kept_a_slot_that_was_lost() {
    let cluster =
        cluster(&[("max_wal_size", "32MB"), ("min_wal_size", "32MB"), ("max_slot_wal_keep_size", "16MB")]).await;
    let url = cluster.url("postgres");
    let client = publish_notes(&url).await;
    support::server::migrate(&url);
    let folder = support::server::folder();
    let flags = ["--roles", "changeserver", "--publication", "feed"];
    let server = Server::spawn_unmigrated(&url, &folder, &flags);
    server.until_ready().await;
    assert!(!server.log().contains("max_slot_wal_keep_size"), "too early");
    assert_eq!(server.terminate().await, 0);
    support::eventually(PATIENCE, "the slot is lost", async || {
        client.batch_execute("insert into other select generate_series(1, 200000)").await.unwrap();
        client.batch_execute("checkpoint").await.unwrap();
        let lost = client.query_one("select wal_status = 'lost' from pg_replication_slots", &[]).await.unwrap();
        lost.get::<_, bool>(0).then_some(())
    })
    .await;
    let server = Server::spawn_unmigrated(&url, &folder, &flags);
    server.until_ready().await;
    let log = server.log();
    let told = log.lines().find(|line| line.contains("changes are missing from the feed"));
    assert!(told.is_some_and(|line| line.contains("raise max_slot_wal_keep_size")), "{log}");
    assert_eq!(server.terminate().await, 0);
}
