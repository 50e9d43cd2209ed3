//! What is published changes while rows are written: tables, columns and partitions come and go, and nothing is lost.

use std::collections::BTreeSet;
use std::time::Duration;

use walclock::feed::ingest::{Intervals, Status};

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

/// Waits until the feed says this of what is published.
async fn wait_for_hole(running: &mut Running, what: &str) {
    let says = |shown: &Option<String>| shown.as_ref().is_some_and(|shown| shown.contains(what));
    let said = tokio::time::timeout(PATIENCE, running.unpublished.wait_for(says)).await.map(|said| said.is_ok());
    assert_eq!(said.ok(), Some(true), "it does not say {what}: {:?}", *running.unpublished.borrow());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unpublished_is_said_also_where_it_is_back_again() {
    let url = support::database().await;
    let client = support::connect(&url).await;
    let schema = "create table notes (id int primary key, body text, _change_selector text);
                  create table first (id int primary key); create table second (id int primary key);
                  create table dropped (id int primary key);
                  create publication feed for table notes, first, second, dropped";
    client.batch_execute(schema).await.unwrap();
    let mut feed = Feed::new(&url);
    let short = Duration::from_millis(50);
    feed.config.intervals = Intervals { pulse: short, heartbeat: short, ..Intervals::default() };
    let mut running = feed.live().await;
    // What it sees first is all that it can compare with: so again and again, until it has seen one of them.
    support::eventually(PATIENCE, "a table that was dropped and added again", async || {
        let again = "alter publication feed drop table second; alter publication feed add table second";
        client.batch_execute(again).await.unwrap();
        let shown = running.unpublished.borrow().clone();
        shown.filter(|shown| shown.contains("dropped from the publication and added again: public.second")).map(drop)
    })
    .await;
    client.batch_execute("alter publication feed set (publish = 'insert')").await.unwrap();
    let kinds =
        "updates, deletes, truncates no longer published: public.dropped, public.first, public.notes, public.second";
    wait_for_hole(&mut running, kinds).await;
    // Nor does it wait for who has a published table to himself.
    let locking = support::connect(&url).await;
    locking.batch_execute("begin; lock table notes in access exclusive mode").await.unwrap();
    client.batch_execute("drop table dropped; alter publication feed drop table first").await.unwrap();
    wait_for_hole(&mut running, "; no longer published: public.first").await;
    locking.batch_execute("rollback").await.unwrap();
    let shown = running.unpublished.borrow().clone().unwrap();
    assert!(!shown.contains("no longer published: public.dropped;"), "its rows are gone with it: {shown}");
    assert_eq!(*running.status.borrow(), Status::Streaming, "the others' readers miss nothing");
    assert_eq!(running.changes(walclock::domain::sequence::Sequence::ZERO).await.unwrap().changes.len(), 0);
    running.stop().await;
}
