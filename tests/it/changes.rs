//! `GET /changes` from a commit in PostgreSQL to the answer on a socket: the cases of the original change server, each
//! under both names of the parameter, and what walclock adds to them.

mod collapse;
mod events;
pub mod feed;
mod forms;
mod refusals;

use std::time::{Duration, Instant};

use serde_json::json;
use tokio_postgres::IsolationLevel;

use crate::support;
use feed::{Feed, PATIENCE};

/// Each case twice: with `scope` and with `selector` as the parameter's name.
macro_rules! for_both_names {
    ($($case:ident)*) => {
        mod scope {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::$case("scope").await;
            })*
        }
        mod selector {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::$case("selector").await;
            })*
        }
    };
}

for_both_names! {
    an_empty_database_has_no_changes
    an_insert_is_found
    the_selector_column_can_have_another_name
    the_next_insert_is_found_behind_the_first
    a_snapshot_hides_what_it_shows
    pages_end_at_their_limit
    scopes_are_apart_and_together
    a_long_poll_ends_empty_after_its_time
    a_long_poll_answers_with_exactly_the_insert
    a_long_poll_with_a_snapshot_waits_for_what_it_does_not_show
    without_a_scope_the_rows_without_one_are_told
    an_insert_is_found_under_either_of_two_scopes
    what_was_purged_is_too_old
    bad_characters_are_refused
    a_row_that_moves_is_told_to_both_scopes
}

async fn an_empty_database_has_no_changes(name: &str) {
    let feed = Feed::start().await;
    for query in [format!("{name}=foo"), format!("{name}=foo&since=0.0.0&block=0"), String::new()] {
        let page = feed.page(&query).await;
        assert_eq!((page.first.as_str(), page.last.as_str(), page.changes.len()), ("0.0.0", "0.0.0", 0), "{query}");
    }
}

async fn an_insert_is_found(name: &str) {
    let feed = Feed::start().await;
    feed.insert("one", "foo").await;
    let page = feed.page(&format!("{name}=foo&since=0.0.0")).await;
    assert_eq!(page.names(), ["one"]);
    let change = &page.changes[0];
    let (lsn, index) = (change["commitSequence"].as_u64().unwrap(), change["commitIndex"].as_u64().unwrap());
    assert_eq!(page.sequence(0), format!("{:x}.{:x}.{index:x}", lsn >> 32, lsn & 0xffff_ffff));
    assert_eq!((page.first.as_str(), page.last.as_str()), (page.sequence(0), page.sequence(0)));
    assert_eq!(change["newRow"]["_change_selector"], json!({"value": "foo", "type": 25}));
    assert_eq!((&change["operation"], &change["table"]), (&json!(1), &json!("public.items")));
}

async fn the_selector_column_can_have_another_name(name: &str) {
    let feed = Feed::with("create table items (id serial primary key, name text, tenant text)", &["tenant"]).await;
    feed.commit("insert into items (name, tenant) values ('one', 'foo')").await;
    assert_eq!(feed.page(&format!("{name}=foo")).await.names(), ["one"]);
    assert!(feed.page("").await.changes.is_empty());
}

async fn the_next_insert_is_found_behind_the_first(name: &str) {
    let feed = Feed::start().await;
    feed.insert("one", "foo").await;
    let first = feed.page(&format!("{name}=foo")).await;
    feed.insert("two", "foo").await;
    let next = feed.page(&format!("{name}=foo&since={}", first.last)).await;
    assert_eq!((next.names(), &next.first), (vec!["two"], &first.first));
    assert_eq!(next.last, next.sequence(0));
    assert!(feed.page(&format!("{name}=foo&since={}", next.last)).await.changes.is_empty());
}

async fn a_snapshot_hides_what_it_shows(name: &str) {
    let feed = Feed::start().await;
    let insert = |row: &str| format!("insert into items (name, _change_selector) values ('{row}', 'foo')");
    let (mut second, mut third) = (support::connect(&feed.database).await, support::connect(&feed.database).await);
    // Open while the snapshot is taken, and begun before what it shows.
    let late = third.transaction().await.unwrap();
    late.batch_execute(&insert("n3")).await.unwrap();
    feed.insert("n1", "foo").await;
    let taking = second.build_transaction().isolation_level(IsolationLevel::RepeatableRead).start().await.unwrap();
    taking.batch_execute("select").await.unwrap();
    taking.batch_execute(&insert("n2")).await.unwrap();
    let snapshot: String = taking.query_one("select txid_current_snapshot()::text", &[]).await.unwrap().get(0);
    taking.commit().await.unwrap();
    late.commit().await.unwrap();
    let all = async || Some(feed.page(&format!("{name}=foo")).await).filter(|page| page.changes.len() == 3);
    assert_eq!(support::eventually(PATIENCE, "all are there", all).await.names(), ["n1", "n2", "n3"]);
    let rest = feed.page(&format!("{name}=foo&snapshot={snapshot}")).await;
    assert_eq!(rest.names(), ["n2", "n3"]);
}

async fn pages_end_at_their_limit(name: &str) {
    let feed = Feed::start().await;
    for item in ["one", "two", "three"] {
        feed.insert(item, "foo").await;
    }
    feed.commit("insert into items (name, _change_selector) values ('four', 'foo'), ('five', 'foo')").await;
    let all = feed.page(&format!("{name}=foo")).await;
    assert_eq!(all.names(), ["one", "two", "three", "four", "five"]);
    assert!(feed.page(&format!("{name}=other")).await.changes.is_empty());
    let future = "fffffff0.0.0";
    let ahead = feed.page(&format!("{name}=foo&since={future}")).await;
    assert_eq!((ahead.changes.len(), ahead.last.as_str()), (0, future), "lastSequence never goes below since");
    let none = feed.page(&format!("{name}=foo&limit=0&since={}", all.first)).await;
    assert_eq!((none.changes.len(), &none.last), (0, &all.first), "limit=0 skips nothing");
    let one = feed.page(&format!("{name}=foo&limit=1")).await;
    assert_eq!((one.names(), one.last.as_str()), (vec!["one"], one.sequence(0)));
    let (status, error) = feed.get(&format!("{name}=foo&limit=100001")).await;
    assert_eq!((status, &error["code"]), (400, &json!("PARAMETER_INVALID")));
    // A page may end inside a transaction, and the next one goes on there.
    let mut since = "0.0.0".to_owned();
    let mut seen = Vec::new();
    while seen.len() < 5 {
        let page = feed.page(&format!("{name}=foo&limit=2&since={since}")).await;
        assert!(!page.changes.is_empty());
        seen.extend(page.changes.iter().map(|change| change["sequence"].clone()));
        since = page.last;
    }
    let expected: Vec<_> = all.changes.iter().map(|change| change["sequence"].clone()).collect();
    assert_eq!(seen, expected);
}

async fn scopes_are_apart_and_together(name: &str) {
    let feed = Feed::start().await;
    for round in 1..=3 {
        feed.insert(&format!("foo{round}"), "foo").await;
        feed.insert(&format!("bar{round}"), "bar").await;
    }
    let both = feed.page(&format!("{name}=foo&{name}=bar")).await;
    assert_eq!(both.names(), ["foo1", "bar1", "foo2", "bar2", "foo3", "bar3"]);
    let alone = feed.page(&format!("{name}=foo")).await;
    assert_eq!((alone.names(), &alone.last), (vec!["foo1", "foo2", "foo3"], &both.last));
    assert_eq!(both.last, both.sequence(5));
    let bar = feed.page(&format!("{name}=bar&limit=2")).await;
    assert_eq!((bar.names(), bar.last.as_str()), (vec!["bar1", "bar2"], both.sequence(3)));
    let unknown = feed.page(&format!("{name}=baz")).await;
    assert_eq!((unknown.changes.len(), unknown.last), (0, both.last));
}

async fn a_long_poll_ends_empty_after_its_time(name: &str) {
    let feed = Feed::start().await;
    feed.insert("one", "foo").await;
    let last = feed.page(&format!("{name}=foo")).await.last;
    let began = Instant::now();
    let page = feed.page(&format!("{name}=foo&since={last}&block=1")).await;
    assert!(began.elapsed() >= Duration::from_secs(1), "it waited");
    assert_eq!((page.changes.len(), page.last), (0, last));
}

async fn a_long_poll_answers_with_exactly_the_insert(name: &str) {
    let feed = Feed::start().await;
    feed.insert("one", "foo").await;
    let last = feed.page(&format!("{name}=foo")).await.last;
    let waiting = feed.waiting(&format!("{name}=foo&since={last}&block=300")).await;
    feed.insert("other", "bar").await;
    assert!(!waiting.is_finished() && feed.reader.waiters() == 1, "another scope ends no wait");
    feed.insert("two", "foo").await;
    let page = waiting.await.unwrap();
    assert_eq!((page.names(), page.last.as_str()), (vec!["two"], page.sequence(0)));
}

async fn a_long_poll_with_a_snapshot_waits_for_what_it_does_not_show(name: &str) {
    let feed = Feed::start().await;
    feed.insert("one", "foo").await;
    let snapshot = feed.client.query_one("select pg_current_snapshot()::text", &[]).await.unwrap();
    let snapshot: String = snapshot.get(0);
    let waiting = feed.waiting(&format!("{name}=foo&snapshot={snapshot}&block=300")).await;
    feed.insert("two", "foo").await;
    assert_eq!(waiting.await.unwrap().names(), ["two"]);
}

async fn without_a_scope_the_rows_without_one_are_told(name: &str) {
    let tables = "create table items (id serial primary key, name text, _change_selector text);
                  create table plain (id serial primary key, name text)";
    let feed = Feed::with(tables, &["_change_selector"]).await;
    feed.commit("insert into items (name, _change_selector) values ('null', null), ('empty', ''), ('foo', 'foo')")
        .await;
    feed.commit("insert into plain (name) values ('absent')").await;
    for query in [String::new(), format!("{name}=")] {
        assert_eq!(feed.page(&query).await.names(), ["null", "empty", "absent"], "{query}");
    }
    assert_eq!(feed.page(&format!("{name}=foo")).await.names(), ["foo"]);
}

async fn an_insert_is_found_under_either_of_two_scopes(name: &str) {
    let feed = Feed::start().await;
    feed.insert("one", "foo").await;
    for query in [format!("{name}=foo&{name}=bar"), format!("{name}=bar&scope=foo"), format!("selector=foo&{name}=foo")]
    {
        assert_eq!(feed.page(&query).await.names(), ["one"], "{query}");
    }
}

async fn what_was_purged_is_too_old(name: &str) {
    let feed = Feed::start().await;
    feed.insert("one", "foo").await;
    let first = feed.page(&format!("{name}=foo")).await.last;
    feed.insert("two", "foo").await;
    let second = feed.page(&format!("{name}=foo&since={first}")).await.last;
    feed.purge_all();
    let (status, error) = feed.get(&format!("{name}=foo&since={first}")).await;
    assert_eq!((status, &error["code"]), (400, &json!("SNAPSHOT_TOO_OLD")));
    let (status, error) = feed.get(&format!("{name}=foo&snapshot=1:1:")).await;
    assert_eq!((status, &error["code"]), (400, &json!("SNAPSHOT_TOO_OLD")), "it does not show what was purged");
    for query in [format!("{name}=foo"), format!("{name}=foo&since={second}")] {
        let page = feed.page(&query).await;
        assert_eq!((page.changes.len(), &page.first, &page.last), (0, &second, &second), "{query}");
    }
    feed.insert("three", "foo").await;
    assert_eq!(feed.page(&format!("{name}=foo&since={second}")).await.names(), ["three"]);
}

async fn bad_characters_are_refused(name: &str) {
    let feed = Feed::start().await;
    for value in ["a%20b", "a*", "a%2Cb", "%00", "%ff", "%", "foo&NAME=%24"] {
        let (status, error) = feed.get(&format!("{name}={}", value.replace("NAME", name))).await;
        let description = format!("Invalid char in {name} param");
        let expected = json!({
            "code": "PARAMETER_INVALID", "error": "A parameter has an invalid value", "description": description,
            "details": error["details"],
        });
        assert_eq!((status, &error), (400, &expected), "{value}");
        assert_eq!(error["details"]["parameter"], name, "{value}");
    }
}

async fn a_row_that_moves_is_told_to_both_scopes(name: &str) {
    let feed = Feed::start().await;
    feed.insert("one", "foo").await;
    let since = feed.page("").await.last;
    feed.commit("update items set _change_selector = 'bar', name = 'moved'").await;
    for (query, operation, new, old) in [
        (format!("{name}=foo"), 3, false, true),
        (format!("{name}=bar"), 1, true, false),
        (format!("{name}=foo&{name}=bar"), 2, true, true),
    ] {
        let page = feed.page(&format!("{query}&since={since}")).await;
        assert_eq!(page.changes.len(), 1, "{query}");
        let change = &page.changes[0];
        assert_eq!(change["operation"], operation, "{query}");
        assert_eq!((change.get("newRow").is_some(), change.get("oldRow").is_some()), (new, old), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncate_is_told_to_everyone() {
    let feed = Feed::start().await;
    let waiting = feed.waiting("scope=nothing-was-ever-here&block=300").await;
    feed.commit("truncate items").await;
    let page = waiting.await.unwrap();
    assert_eq!((page.changes.len(), &page.changes[0]["operation"]), (1, &json!(4)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_becomes_visible_as_a_whole() {
    let feed = Feed::start().await;
    let waiting = feed.waiting("scope=a&scope=b&block=300").await;
    let rows: Vec<String> = (0..500).map(|row| format!("('{row}', '{}')", ["a", "b"][row % 2])).collect();
    feed.commit(&format!("insert into items (name, _change_selector) values {}", rows.join(", "))).await;
    assert_eq!(waiting.await.unwrap().changes.len(), 100, "the default limit");
    let page = feed.page("scope=a&scope=b&limit=1000").await;
    let expected: Vec<String> = (0..500).map(|row| row.to_string()).collect();
    assert_eq!(page.names(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_goes_answers_those_who_wait() {
    let feed = Feed::start().await;
    feed.insert("one", "foo").await;
    let last = feed.page("scope=foo").await.last;
    let waiting = feed.waiting(&format!("scope=foo&since={last}&block=300")).await;
    feed.health.mark_down();
    let page = waiting.await.unwrap();
    assert_eq!((page.changes.len(), page.last), (0, last));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_frees_its_place() {
    let feed = Feed::start().await;
    let waiting = feed.waiting("scope=foo&block=300").await;
    waiting.abort();
    let freed = async || (feed.reader.waiters() == 0).then_some(());
    support::eventually(PATIENCE, "the place is free", freed).await;
}
