//! Snapshot and feed together: nothing is missing between them, and nothing is told twice.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_postgres::Client;

use super::*;
use crate::support;

const SEEDS: u64 = 24;
const WRITERS: u64 = 8;
const TABLE: &str = "create table items (id text primary key, value text, _change_selector text);
                     alter table items replica identity full";

/// Some transaction: inserts, updates that may move between the scopes, deletes, and pauses between them.
fn transaction(random: &mut fastrand::Rng, writer: u64, fresh: &mut u64) -> String {
    let mut statements = vec!["begin".to_owned()];
    for _ in 0..random.u32(1..5) {
        let id = format!("{writer}-{}", random.u64(0..=*fresh));
        let scope = ["foo", "bar"][random.usize(0..2)];
        statements.push(match random.u32(0..4) {
            0 | 1 => {
                *fresh += 1;
                format!("insert into items values ('{writer}-{fresh}', '{}', '{scope}')", random.u64(..))
            }
            2 => format!("update items set value = value || 'x', _change_selector = '{scope}' where id = '{id}'"),
            _ => format!("delete from items where id = '{id}'"),
        });
        statements.push(format!("select pg_sleep({})", random.f64() * 0.004));
    }
    statements.push(if random.u32(0..8) == 0 { "rollback".to_owned() } else { "commit".to_owned() });
    statements.join(";")
}

async fn write(client: Client, writer: u64, seed: u64, stop: Arc<AtomicBool>) {
    let mut random = fastrand::Rng::with_seed(seed * WRITERS + writer);
    let mut fresh = seed * 1_000_000;
    while !stop.load(Ordering::Relaxed) {
        client.batch_execute(&transaction(&mut random, writer, &mut fresh)).await.unwrap();
    }
}

/// Follows from the snapshot on, with both parameters, until it has what a marker committed; folds what it is told.
async fn follow(feed: &Feed, snapshot: &Value, until: u64, limit: u32) -> Fold {
    let mut fold = Fold::of(snapshot);
    let info = snapshot["snapshotInfo"].as_str().unwrap();
    let mut since = String::new();
    loop {
        let page = feed.page(&format!("scope=foo&snapshot={info}&since={since}&limit={limit}&block=1")).await;
        page.changes.iter().for_each(|change| fold.apply(change));
        since = page.last;
        let reached = walclock::domain::sequence::Sequence::from_str(&since).unwrap().lsn.0;
        if page.changes.is_empty() && reached >= until {
            return fold;
        }
    }
}

/// What the table holds, in the words of the feed.
async fn truth(feed: &Feed) -> Vec<(String, String)> {
    let sql = "select id, value from items where _change_selector = 'foo' order by id collate \"C\"";
    let rows = feed.client.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshot_and_changes_fold_to_the_table() {
    let database = support::database().await;
    let client = support::connect(&database).await;
    client.batch_execute(TABLE).await.unwrap();
    client.batch_execute("create publication walclock for all tables").await.unwrap();
    // It begins before the slot does, and ends after the snapshot.
    let old = support::connect(&database).await;
    old.batch_execute("begin; select count(*) from items").await.unwrap();
    let feed = Feed::on(&database, client, &SELECTORS).await;
    old.batch_execute("insert into items values ('old', 'from before the slot', 'foo')").await.unwrap();
    let url = serve(&feed).await;
    for seed in 0..SEEDS {
        let stop = Arc::new(AtomicBool::new(false));
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            writers.spawn(write(support::connect(&database).await, writer, seed, stop.clone()));
        }
        let mut random = fastrand::Rng::with_seed(seed);
        feed.client.batch_execute(&format!("select pg_sleep({})", random.f64() * 0.05)).await.unwrap();
        let snapshot = take(&url, "scope=foo").await;
        if seed == 0 {
            assert!(!column(&snapshot, "public.items", "id").contains(&"old"));
            old.batch_execute("commit").await.unwrap();
        }
        feed.client.batch_execute(&format!("select pg_sleep({})", random.f64() * 0.05)).await.unwrap();
        stop.store(true, Ordering::Relaxed);
        while let Some(ended) = writers.join_next().await {
            ended.unwrap();
        }
        feed.commit(&format!("insert into items values ('marker-{seed}', '', 'foo')")).await;
        let until = feed.reader.position().lsn.0;
        let fold = follow(&feed, &snapshot, until, random.u32(1..50)).await;
        let folded: Vec<(String, String)> =
            fold.0.iter().map(|(id, row)| (id.clone(), row["value"]["value"].as_str().unwrap().to_owned())).collect();
        assert_eq!(folded, truth(&feed).await, "seed {seed}, {}", snapshot["snapshotInfo"]);
        // Now that nobody writes, another snapshot is the same, byte for byte.
        assert_eq!(fold, Fold::of(&take(&url, "scope=foo").await), "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_arrived_before_it_was_visible_is_told() {
    let cluster = support::new_cluster(&[("synchronous_standby_names", "nobody")]);
    let admin = support::connect(&cluster.url("postgres")).await;
    // But for the writer's, no commit waits for the standby that there is not.
    admin.batch_execute("set synchronous_commit = local").await.unwrap();
    admin.batch_execute("create database unseen").await.unwrap();
    admin.batch_execute("alter database unseen set synchronous_commit = local").await.unwrap();
    let client = support::connect(&cluster.url("unseen")).await;
    client.batch_execute(TABLE).await.unwrap();
    client.batch_execute("create publication walclock for all tables").await.unwrap();
    let feed = Feed::on(&cluster.url("unseen"), client, &SELECTORS).await;
    let url = serve(&feed).await;
    let writer = support::connect(&feed.database).await;
    writer.batch_execute("set synchronous_commit = on").await.unwrap();
    let waiting = feed.waiting("scope=foo&block=300").await;
    let commit =
        tokio::spawn(async move { writer.batch_execute("insert into items values ('1', 'unseen', 'foo')").await });
    assert_eq!(waiting.await.unwrap().changes.len(), 1, "it has arrived");
    assert!(!commit.is_finished(), "and its commit waits");
    let snapshot = take(&url, "scope=foo").await;
    assert_eq!(Fold::of(&snapshot), Fold::default(), "nobody sees it");
    let page = feed.page(&format!("scope=foo&snapshot={}", snapshot["snapshotInfo"].as_str().unwrap())).await;
    assert_eq!(page.changes.len(), 1, "so it is told");
}
