//! What a refused call is told of its parameters: which one, what it was, and what it may be.

use serde_json::json;

use super::feed::Feed;
use crate::support::http;

const LIMIT: &str = "a whole number from 0 to 100000";
const BLOCK: &str = "a whole number of seconds from 0";
const SCOPE: &str = "1 to 255 of the characters 0-9 A-Z a-z _ . : / -";
const POSITION: &str = "a sequence as an answer has it: hi.lo.index or timeline.hi.lo.index, in hexadecimal";
const SNAPSHOT: &str = "a snapshot as pg_current_snapshot() has it: xmin:xmax:xip,xip, in whole numbers";

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_parameter_is_told_with_its_value_and_what_it_may_be() {
    let feed = Feed::start().await;
    let many: String = (0..=1000).map(|n| format!("&selector=s{n}")).collect();
    let long = format!("since={}", "%C3%BC".repeat(101));
    for (query, description, parameter, value, allowed) in [
        ("limit=ten", "limit", "limit", "ten", LIMIT),
        ("limit=-1", "limit", "limit", "-1", LIMIT),
        ("limit=100001", "limit too high, exceeds max 100000", "limit", "100001", LIMIT),
        ("block=1.5", "block", "block", "1.5", BLOCK),
        ("scope=a%20b", "Invalid char in scope param", "scope", "a b", SCOPE),
        ("scope=x&selector=%ff", "Invalid char in selector param", "selector", "%ff", SCOPE),
        (many.as_str(), "selector: 1001 scopes, exceeds max 1000", "selector", "1001 scopes", "at most 1000 scopes"),
        ("since=0", "since", "since", "0", POSITION),
        ("snapshot=1:2:x", "snapshot", "snapshot", "1:2:x", SNAPSHOT),
        // What would steer a terminal, and what is long.
        ("since=a%1B%5B2J%C2%9B%0A", "since", "since", "a\u{fffd}[2J\u{fffd}\u{fffd}", POSITION),
        (long.as_str(), "since", "since", &format!("{}…", "ü".repeat(100)), POSITION),
    ] {
        let (status, error) = feed.get(query).await;
        let details = json!({ "parameter": parameter, "value": value, "allowed": allowed });
        let expected = json!({
            "code": "PARAMETER_INVALID", "error": "A parameter has an invalid value", "description": description,
            "details": details,
        });
        assert_eq!((status, error), (400, expected), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_event_stream_is_told_what_it_may_ask() {
    let feed = Feed::start().await;
    for (query, position, parameter, value, allowed) in [
        ("limit=0", "", "limit", "0", "a whole number from 1 to 100000"),
        ("", "0.9", "Last-Event-ID", "0.9", POSITION),
    ] {
        let headers = [("accept", "text/event-stream"), ("last-event-id", position)];
        let answer = http::get(&feed.server, &format!("/changes?{query}"), &headers).await;
        let error: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        let details = json!({ "parameter": parameter, "value": value, "allowed": allowed });
        assert_eq!((answer.status, &error["details"]), (400, &details), "{query}");
    }
}
