//! `GET /changes` as server-sent events: what the long poll tells, over one connection.

use std::time::Duration;

use serde_json::{Value, json};

use super::feed::{Feed, PATIENCE};
use crate::support::events::{Block, Events};
use crate::support::{self, eventually};

async fn open(feed: &Feed, query: &str, id: &str) -> Events {
    match Events::open(&feed.server, query, id).await {
        Ok(events) => events,
        Err(answer) => panic!("no stream: {:?}", answer.map(|answer| (answer.status, answer.body))),
    }
}

/// Everything that a long-polling reader is told up to the change whose name is `last`, by pages of different sizes.
async fn polled(feed: &Feed, query: &str, last: &str) -> Vec<Value> {
    let (mut since, mut changes) = ("0.0.0".to_owned(), Vec::new());
    for limit in [1, 7, 100].into_iter().cycle() {
        let page = feed.page(&format!("{query}&since={since}&limit={limit}&block=60")).await;
        since = page.last.clone();
        let end = page.names().iter().position(|name| *name == last);
        changes.extend(page.changes.into_iter().take(end.map_or(usize::MAX, |end| end + 1)));
        if end.is_some() {
            break;
        }
    }
    changes
}

/// The same from streams that are broken off at random and taken up again.
async fn streamed(feed: &Feed, query: &str, last: &str, mut random: fastrand::Rng) -> Vec<Value> {
    let (mut id, mut changes) = (String::new(), Vec::<Value>::new());
    loop {
        let query = format!("{query}&limit={}&since=0.0.0", random.usize(1..200));
        let mut events = open(feed, &query, &id).await;
        for _ in 0..random.usize(0..150) {
            changes.push(events.change().await);
            assert_eq!(changes.last().unwrap()["sequence"], events.id, "the id is the sequence");
            if changes.last().unwrap()["newRow"]["name"]["value"] == last {
                return changes;
            }
        }
        id = events.id;
    }
}

async fn write(database: String, writer: u64) {
    let mut random = fastrand::Rng::with_seed(writer);
    let client = support::connect(&database).await;
    for round in 0..60 {
        let scope = ["a", "b", "c"][random.usize(0..3)];
        let name = format!("{writer}-{round}");
        let sql = match random.u8(0..10) {
            0 => format!(
                "insert into items (name, _change_selector) select '{name}', '{scope}' from generate_series(1, 50)"
            ),
            1..=3 => format!("update items set _change_selector = '{scope}' where name like '{writer}-1%'"),
            4 => format!("delete from items where name like '{writer}-2%'"),
            5 => format!("begin; insert into items (name, _change_selector) values ('gone', '{scope}'); rollback"),
            6 => "truncate other".to_owned(),
            _ => format!("insert into items (name, _change_selector) values ('{name}', '{scope}')"),
        };
        client.batch_execute(&sql).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_broken_off_at_random_tells_what_the_long_poll_does() {
    let feed = Feed::start().await;
    feed.client.batch_execute("create table other (id int); alter table other replica identity full").await.unwrap();
    let writers: Vec<_> = (0..3).map(|writer| tokio::spawn(write(feed.database.clone(), writer))).collect();
    let reading = async |query: &str, seed: u64| {
        let random = fastrand::Rng::with_seed(seed);
        let (polled, streamed) = tokio::join!(polled(&feed, query, "end"), streamed(&feed, query, "end", random));
        assert_eq!(streamed.len(), polled.len(), "{query}");
        assert!(streamed == polled, "{query}");
        polled.len()
    };
    let over = async {
        for writer in writers {
            writer.await.unwrap();
        }
        feed.commit(
            "insert into items (name, _change_selector) select 'end', scope from unnest(array['a', 'b', 'c', null]) scope",
        )
        .await;
    };
    let reads = async {
        tokio::join!(
            reading("scope=a", 1),
            reading("scope=a&scope=b", 2),
            reading("scope=c&scope=b", 3),
            reading("", 4)
        )
    };
    let ((a, both, ..), ()) = tokio::time::timeout(PATIENCE, async { tokio::join!(reads, over) }).await.unwrap();
    assert!(a > 30 && both > a, "the writers wrote: {a}, {both}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_an_answer_that_proxies_leave_alone() {
    let feed = Feed::start().await;
    feed.insert("one", "foo").await;
    let mut events = open(&feed, "scope=foo", "").await;
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-store"),
        ("x-accel-buffering", "no"),
        ("transfer-encoding", "chunked"),
    ] {
        assert_eq!(events.headers[name], value);
    }
    assert!(!events.headers.contains_key("content-encoding"), "each event must be readable when it comes");
    assert_eq!(events.change().await["newRow"]["name"]["value"], "one");
    // While the stream waits.
    feed.insert("two", "foo").await;
    assert_eq!(events.change().await["newRow"]["name"]["value"], "two");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_control_character_travels_in_one_line() {
    let feed = Feed::start().await;
    let mut events = open(&feed, "scope=foo", "").await;
    let controls: String =
        (1..32_u8).map(char::from).chain("\r\n\n\r\u{7f}\u{85}\u{2028}\u{2029}data: x\n\nid: 9".chars()).collect();
    let insert = "insert into items (name, _change_selector) values ($1, 'foo')";
    feed.client.execute(insert, &[&controls]).await.unwrap();
    let change = events.change().await;
    assert_eq!(change["newRow"]["name"]["value"], controls);
    assert_eq!(change, feed.page("scope=foo").await.changes[0]);
    assert_eq!(events.id, change["sequence"].as_str().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_moves_the_position_of_a_reader_without_matches() {
    let feed = Feed::start().await;
    // Nobody waits longer than a second at this face.
    let quick = feed.face(Duration::from_secs(1)).await;
    let mut events = Events::open(&quick, "scope=quiet", "").await.ok().unwrap();
    feed.insert("one", "busy").await;
    feed.insert("two", "busy").await;
    let newest = feed.page("scope=busy").await.last;
    while events.id != newest {
        assert_eq!(events.block().await, Block::Silent);
    }
    feed.purge_all();
    let before = feed.get("scope=quiet&since=0.0.1").await;
    assert_eq!((before.0, &before.1["code"]), (400, &json!("SNAPSHOT_TOO_OLD")), "where it was before");
    let mut events = open(&feed, "scope=quiet", &events.id).await;
    feed.insert("three", "quiet").await;
    assert_eq!(events.change().await["newRow"]["name"]["value"], "three");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_grows_too_old_is_told_and_ends() {
    let feed = Feed::start().await;
    // More than the sockets of both sides take, so that the server waits for its reader.
    feed.commit(
        "insert into items (name, _change_selector) select repeat('x', 4000000), 'foo' from generate_series(1, 12)",
    )
    .await;
    let mut events = open(&feed, "scope=foo&limit=1", "").await;
    events.change().await;
    feed.purge_all();
    let error = loop {
        match events.block().await {
            Block::Event(kind, data) if kind == "error" => break data,
            Block::Event(..) | Block::Silent => {}
            other => panic!("no error, but {other:?}"),
        }
    };
    let error: Value = serde_json::from_str(&error).unwrap();
    assert_eq!(error["code"], "SNAPSHOT_TOO_OLD");
    assert_eq!(events.block().await, Block::End);
    let again = Events::open(&feed.server, "scope=foo", &events.id).await.err().flatten().unwrap();
    assert_eq!(again.status, 400, "whoever comes again is told so at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn mark_down_and_shutdown_end_streams_at_once() {
    for close in [walclock::service::health::Health::mark_down, walclock::service::health::Health::shut_down] {
        let feed = Feed::start().await;
        let mut events = open(&feed, "scope=foo", "").await;
        feed.insert("one", "foo").await;
        events.change().await;
        close(&feed.health);
        let ended = async { while events.block().await != Block::End {} };
        tokio::time::timeout(PATIENCE, ended).await.expect("the stream ends");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_reader_goes_away_frees_its_place() {
    let feed = Feed::start().await;
    let mut streams = Vec::new();
    for _ in 0..10 {
        streams.push(open(&feed, "scope=foo", "").await);
    }
    let waiters = async |count| (feed.reader.waiters() == count).then_some(());
    eventually(PATIENCE, "all wait", async || waiters(10).await).await;
    streams.truncate(3);
    eventually(PATIENCE, "seven are gone", async || waiters(3).await).await;
    feed.insert("one", "foo").await;
    for events in &mut streams {
        assert_eq!(events.change().await["newRow"]["name"]["value"], "one");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_with_a_snapshot_hides_what_that_shows_for_good() {
    let feed = Feed::start().await;
    let mut late = support::connect(&feed.database).await;
    let open_transaction = late.transaction().await.unwrap();
    open_transaction.batch_execute("insert into items (name, _change_selector) values ('late', 'foo')").await.unwrap();
    feed.insert("one", "foo").await;
    let snapshot = feed.client.query_one("select pg_current_snapshot()::text", &[]).await.unwrap();
    let mut events = open(&feed, &format!("scope=foo&snapshot={}", snapshot.get::<_, String>(0)), "").await;
    feed.insert("two", "foo").await;
    open_transaction.commit().await.unwrap();
    feed.insert("three", "foo").await;
    for expected in ["two", "late", "three"] {
        assert_eq!(events.change().await["newRow"]["name"]["value"], expected);
    }
}
