//! What is published changes while rows are written: tables, columns and partitions come and go, and nothing is lost.

use std::collections::BTreeSet;

use walclock::feed::ingest::Status;

use super::PATIENCE;
use super::ddl::{Load, assert_fold_is_table, loaded, probe};
use super::feed::{Feed, Running};
use super::fold::Fold;
use crate::support;

fn assert_whole(running: &Running, fold: &Fold) {
    assert_eq!((fold.gaps, running.status.borrow().clone()), (0, Status::Streaming));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_published_under_load_is_told_from_there_on() {
    let url = support::migrated().await;
    let client = support::connect(&url).await;
    let schema = "create table notes (id int primary key, body text, _change_selector text);
                  alter table notes replica identity full";
    client.batch_execute(schema).await.unwrap();
    let mut feed = Feed::new(&url);
    feed.config.source.publications = vec!["walclock_timers".to_owned(), "walclock".to_owned()];
    let running = feed.live().await;
    let mut fold = Fold::new(running.reader.clone());
    let load = Load::start(&url).await;
    load.some().await;
    client.batch_execute("select walclock.publish('notes')").await.unwrap();
    load.some().await;
    // What was there before is in no change; from here on the changes make up the table.
    client.batch_execute("truncate notes").await.unwrap();
    probe(&client, &mut fold, "notes", 1000, "walclock.publish").await;
    load.some().await;
    load.stop().await;
    assert_fold_is_table(&client, &mut fold).await;
    assert_whole(&running, &fold);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_list_that_changes_under_load_changes_what_is_told() {
    if support::server_major().await < 15 {
        return support::say_skipped("a_column_list_that_changes_under_load_changes_what_is_told", "no column lists");
    }
    let url = support::database().await;
    let (client, running, mut fold, load) = loaded(&url).await;
    // A list must have the columns of the replica identity.
    client.batch_execute("alter table notes replica identity default").await.unwrap();
    for (id, columns) in (1000..).zip([
        &["id", "_change_selector"][..],
        &["id", "body", "_change_selector"],
        &["_change_selector", "id"],
        &["id", "_change_selector", "body"],
    ]) {
        load.some().await;
        let list = columns.join(", ");
        client.batch_execute(&format!("alter publication feed set table notes ({list})")).await.unwrap();
        let insert = format!("insert into notes (id, body, _change_selector) values ({id}, 'probe', 's')");
        client.batch_execute(&insert).await.unwrap();
        let told = support::eventually(PATIENCE, "a new row", async || {
            fold.follow().await;
            fold.rows.get(&id).map(|row| row.keys().cloned().collect::<BTreeSet<_>>())
        })
        .await;
        assert_eq!(told, columns.iter().map(|name| (*name).to_owned()).collect(), "{list}");
    }
    client.batch_execute("alter publication feed set table notes").await.unwrap();
    load.some().await;
    load.stop().await;
    client.batch_execute("insert into notes select n, 'b', 's' from generate_series(3000, 3019) n").await.unwrap();
    assert_fold_is_table(&client, &mut fold).await;
    assert_whole(&running, &fold);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_come_and_go_under_load_lose_nothing() {
    let url = support::database().await;
    let client = support::connect(&url).await;
    let schema = "create table notes (id int primary key, body text, _change_selector text) partition by range (id);
        create table low partition of notes for values from (0) to (50);
        create table probes partition of notes for values from (1000) to (2000);
        create table high (like notes including all);
        alter table notes replica identity full;
        alter table low replica identity full;
        alter table probes replica identity full;
        alter table high replica identity full;
        create publication feed for table notes with (publish_via_partition_root = true)";
    client.batch_execute(schema).await.unwrap();
    let running = Feed::new(&url).live().await;
    let mut fold = Fold::new(running.reader.clone());
    let load = Load::start(&url).await;
    for (id, step) in (1000..).zip([
        "alter table notes attach partition high for values from (50) to (100)",
        "alter table notes detach partition low",
        "alter table notes attach partition low for values from (0) to (50)",
        "alter table notes detach partition high",
        "alter table notes attach partition high for values from (50) to (100)",
        "create table beyond partition of notes for values from (100) to (200)",
        "drop table beyond",
    ]) {
        load.some().await;
        client.batch_execute(step).await.unwrap();
        probe(&client, &mut fold, "notes", id, step).await;
    }
    load.some().await;
    load.stop().await;
    assert_fold_is_table(&client, &mut fold).await;
    assert_whole(&running, &fold);
    running.stop().await;
}
