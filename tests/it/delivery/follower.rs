//! The change feed of another process, as the dispatcher follows it, and the moments in it as PostgreSQL prints them.

use std::time::Duration;

use serde_json::json;
use walclock::clock::{Clock, Timestamp};
use walclock::delivery::changes::{Follower, InvalidUrl, entries};
use walclock::dispatch::ports::{Entry, Feed, FeedError};
use walclock::domain::sequence::Sequence;
use walclock::domain::shard::Shard;
use walclock::domain::timer::TimerKey;

use super::receiver::{Act, Receiver, answer};
use crate::support;

fn follower(receiver: &Receiver, path: &str) -> Follower {
    Follower::new(&format!("http://127.0.0.1:{}{path}", receiver.port), Clock::system()).unwrap()
}

/// The change that inserted this timer, due at this text of a moment.
fn inserted(id: &str, execute_at: &str) -> serde_json::Value {
    json!({"operation": 1, "table": "walclock.timers", "sequence": "0.10.0", "newRow": {
        "namespace": {"value": "shop", "type": 25}, "id": {"value": id, "type": 25},
        "execute_at": {"value": execute_at, "type": 1184}, "retry_at": {"value": null, "type": 1184}}})
}

fn page(last: &str, changes: &[serde_json::Value]) -> Act {
    let body = json!({"lastSequence": last, "firstSequence": "0.1.0", "changes": changes});
    Act::Send(answer(200, "content-type: application/json\r\n", &body.to_string()))
}

fn sequence(text: &str) -> Sequence {
    text.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn news_are_asked_for_by_shard_and_read() {
    let truncated = json!({"operation": 4, "table": "public.orders", "sequence": "0.f.0"});
    let changes = [inserted("a", "1970-01-01 00:00:01+00"), truncated, inserted("ü", "1970-01-01 00:00:02+00")];
    let mut receiver = Receiver::start(move |_, _| page("0.10.3", &changes)).await;
    let follower = follower(&receiver, "/feed/");
    for (wait, block) in [(0, 0), (1, 1), (1000, 1), (1001, 2), (300_000, 300)] {
        let wait = Duration::from_millis(wait);
        let news = follower.follow(&[Shard(0), Shard(255)], sequence("0.a.1"), wait).await.unwrap();
        let due = |id, seconds: i64| Entry {
            due_at: Timestamp::from_micros(seconds * 1_000_000),
            key: TimerKey::new("shop", id),
        };
        assert_eq!((news.entries, news.last), (vec![due("a", 1), due("ü", 2)], sequence("0.10.3")));
        let request = receiver.request().await;
        let query =
            format!("scope=walclock.timers%2F0&scope=walclock.timers%2F255&since=0.a.1&block={block}&limit=500");
        assert_eq!(request.line, format!("GET /feed/changes?{query} HTTP/1.1"));
        assert_eq!(request.headers["accept"], "application/json");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_no_longer_reaches_back_is_a_gap() {
    let receiver = Receiver::start(|_, _| {
        let body =
            r#"{"code":"SNAPSHOT_TOO_OLD","error":"The client is operating on an old snapshot","description":""}"#;
        Act::Send(answer(400, "", body))
    })
    .await;
    let news = follower(&receiver, "").follow(&[Shard(1)], sequence("0.a.1"), Duration::ZERO).await;
    assert!(matches!(news, Err(FeedError::Gap)), "{news:?}");
}

/// A feed that has told nothing yet gives no position: what it told first may have come behind a gap.
#[tokio::test(flavor = "multi_thread")]
async fn to_leave_the_position_zero_is_a_gap() {
    let receiver = Receiver::start(|_, number| page(["0.0.0", "0.10.0"][number.min(1)], &[])).await;
    let follower = follower(&receiver, "");
    let since = follower.position().await.unwrap();
    assert_eq!(since, Sequence::ZERO);
    let news = follower.follow(&[Shard(1)], since, Duration::ZERO).await;
    assert!(matches!(news, Err(FeedError::Gap)), "{news:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_failure_is_an_unavailable_feed() {
    for act in [
        (|| Act::Send(answer(400, "", r#"{"code":"PARAMETER_INVALID"}"#))) as fn() -> Act,
        || Act::Send(answer(503, "", r#"{"code":"SNAPSHOT_TOO_OLD"}"#)),
        || Act::Send(answer(302, "location: /\r\n", "")),
        || Act::Send(answer(200, "", "{}")),
        || Act::Send(answer(200, "", r#"{"lastSequence":"nonsense","changes":[]}"#)),
        || Act::SendAndClose(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{".to_vec()),
        || Act::SendAndClose(Vec::new()),
    ] {
        let receiver = Receiver::start(move |_, _| act()).await;
        let news = follower(&receiver, "").follow(&[Shard(1)], sequence("0.a.1"), Duration::ZERO).await;
        assert!(matches!(news, Err(FeedError::Unavailable(_))), "{news:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_cannot_be_read_does_not_keep_back_the_others() {
    let odd = json!({"operation": 1000, "table": 7, "newRow": "none"});
    let changes = [inserted("a", "soon"), odd, json!(null), inserted("b", "1970-01-01 00:00:01+00")];
    let receiver = Receiver::start(move |_, _| page("0.10.3", &changes)).await;
    let news = follower(&receiver, "").follow(&[Shard(1)], sequence("0.a.1"), Duration::ZERO).await.unwrap();
    let ids: Vec<&str> = news.entries.iter().map(|entry| &*entry.key.id).collect();
    assert_eq!((&ids[..], news.last), (&["b"][..], sequence("0.10.3")));
}

/// TRUNCATE is told to every scope, so even a scope without rows may have a full page before the newest change.
#[tokio::test(flavor = "multi_thread")]
async fn the_position_is_the_end_of_the_last_page() {
    let truncated = json!({"operation": 4, "table": "public.orders", "sequence": "0.f.0"});
    let mut receiver = Receiver::start(move |_, number| match number {
        0 => page("0.f.0", &vec![truncated.clone(); 500]),
        _ => page("0.ff.1", &[]),
    })
    .await;
    assert_eq!(follower(&receiver, "").position().await.unwrap(), sequence("0.ff.1"));
    let lines = [receiver.request().await.line, receiver.request().await.line];
    assert!(lines[0].contains("since=0.0.0&block=0&"), "{lines:?}");
    assert!(lines[1].contains("since=0.f.0&block=0&"), "{lines:?}");
}

#[tokio::test]
async fn a_url_that_is_none_is_refused() {
    for url in ["", "localhost:8080", "unix:/run/feed", "http://user@localhost/"] {
        assert!(matches!(Follower::new(url, Clock::system()), Err(InvalidUrl)), "{url}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn moments_mean_what_postgresql_means() {
    let client = support::connect(&support::database().await).await;
    let moments = "select t::text, (extract(epoch from t) * 1000000)::bigint
         from unnest(array['4713-11-24 00:00:00+00 BC', '0001-12-31 23:59:59+00 BC', '0001-01-01 00:00:00+00',
             '1883-11-18 12:03:57+00', '1900-02-28 23:59:59.999999+00', '1970-01-01 00:00:00+00', '2000-02-29 00:00:00+00',
             '2026-03-29 01:30:00+00', '2026-11-21 20:07:21.667984+00', '2100-02-28 23:00:00.1+00',
             '12345-06-07 08:09:10+00', '290000-12-31 23:59:59.999999+00']::timestamptz[]) t
         union all
         select t::text, (extract(epoch from t) * 1000000)::bigint
         from generate_series('1999-12-01'::timestamptz, '2005-01-01', '7 hours 13 minutes 0.000017 seconds') t";
    for zone in ["UTC", "Asia/Kolkata", "America/New_York", "Australia/Lord_Howe", "Africa/Monrovia"] {
        client.batch_execute(&format!("set time zone '{zone}'; set datestyle to iso, dmy")).await.unwrap();
        for row in client.query(moments, &[]).await.unwrap() {
            let (text, micros): (String, i64) = (row.get(0), row.get(1));
            let change = inserted("a", &text).to_string();
            let found = entries::entries([change.as_bytes()]);
            assert_eq!(found[0].due_at, Timestamp::from_micros(micros), "{text} in {zone}");
        }
    }
}
