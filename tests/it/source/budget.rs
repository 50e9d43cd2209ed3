//! The slot's budget on a real server: told before it is used up.

use std::time::Duration;

use walclock::feed::ingest::Status;
use walclock::pg::Settings;
use walclock::store::doctor::{self, Finding, Level};

use super::PATIENCE;
use super::feed::{filled, insert};
use crate::support;

/// A transaction that does not end keeps the slot where it is, however well the feed follows.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_comes_near_its_bound_is_told_of_in_time() {
    let small = [("max_wal_size", "1GB"), ("max_slot_wal_keep_size", "64MB")];
    let cluster = tokio::task::spawn_blocking(move || support::new_cluster(&small)).await.unwrap();
    let url = cluster.url("postgres");
    let (client, mut feed, running, _) = filled(&url).await;
    running.stop().await;
    feed.config.intervals.pulse = Duration::from_millis(50);
    let mut running = feed.live().await;
    assert_eq!(*running.warning.borrow(), None);
    let writer = support::connect(&url).await;
    writer.batch_execute("begin; insert into other values (1)").await.unwrap();

    let mut told = Vec::new();
    for least in [50, 80] {
        let line = support::eventually(PATIENCE, "the next threshold is told", async || {
            client.batch_execute("insert into other select generate_series(1, 10000)").await.unwrap();
            let line = running.warning.borrow_and_update().clone();
            line.filter(|line| percent(line) >= least)
        })
        .await;
        assert!(line.contains("at the present rate it is lost in"), "{line}");
        told.push(percent(&line));
    }
    assert!(told[0] < 80, "told only when it was nearly too late: {told:?}");
    assert_eq!(*running.status.borrow(), Status::Streaming, "a warning is no reason to send readers away");

    // Without a stream it is told all the same.
    client.batch_execute("drop publication feed").await.unwrap();
    insert(&client, 10..11).await;
    running.wait_for("waiting", |status| matches!(status, Status::Waiting { .. })).await;
    support::eventually(PATIENCE, "the bound is passed and told of", async || {
        client.batch_execute("insert into other select generate_series(1, 10000)").await.unwrap();
        running.warning.borrow().as_deref().filter(|line| percent(line) == 100).map(|_| ())
    })
    .await;

    // Room again.
    writer.batch_execute("rollback").await.unwrap();
    client.batch_execute("create publication feed for table notes").await.unwrap();
    running.wait_for("live again", |status| *status == Status::Streaming).await;
    support::eventually(PATIENCE, "all is well", async || {
        client.batch_execute("checkpoint").await.unwrap();
        running.warning.borrow().is_none().then_some(())
    })
    .await;
    running.stop().await;
}

/// What the doctor says of the slots.
async fn doctor_says(url: &str) -> Finding {
    let findings = doctor::examine(&Settings::parse(url).unwrap(), &[], &[]).await.unwrap();
    findings.into_iter().find(|finding| finding.what.starts_with("the slot ")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_judges_the_slot_as_the_feed_does_and_its_repair_gives_it_room() {
    let cluster = tokio::task::spawn_blocking(|| support::new_cluster(&[("max_wal_size", "1GB")])).await.unwrap();
    let url = cluster.url("postgres");
    let (client, _, running, _) = filled(&url).await;
    let found = doctor_says(&url).await;
    assert!(found.level == Level::Ok && found.what.ends_with("MiB of WAL"), "without a bound: {found:?}");
    client.batch_execute("alter system set max_slot_wal_keep_size = '64MB'").await.unwrap();
    client.batch_execute("select pg_reload_conf()").await.unwrap();
    support::eventually(PATIENCE, "there is a bound", async || {
        Some(doctor_says(&url).await).filter(|found| found.what.ends_with("allows"))
    })
    .await;
    let found = doctor_says(&url).await;
    assert!(found.level == Level::Ok && percent(&found.what) < 50, "{found:?}");
    let writer = support::connect(&url).await;
    writer.batch_execute("begin; insert into other values (1)").await.unwrap();
    for (least, end) in [(50, "allows"), (80, "allows: it is soon lost")] {
        let found = support::eventually(PATIENCE, "the slot keeps so much", async || {
            client.batch_execute("insert into other select generate_series(1, 10000)").await.unwrap();
            Some(doctor_says(&url).await).filter(|found| percent(&found.what) >= least)
        })
        .await;
        assert!(found.level == Level::Warning && found.what.ends_with(end), "{found:?}");
    }
    for statement in doctor_says(&url).await.fix_sql.unwrap().split("; ") {
        client.batch_execute(statement).await.unwrap();
    }
    support::eventually(PATIENCE, "it has room again", async || {
        Some(doctor_says(&url).await).filter(|found| found.level == Level::Ok)
    })
    .await;
    writer.batch_execute("rollback").await.unwrap();
    running.stop().await;
}

fn percent(line: &str) -> u8 {
    let (before, _) = line.split_once(" %").unwrap();
    before.rsplit(' ').next().unwrap().parse().unwrap()
}
