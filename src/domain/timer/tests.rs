//! The rules on a timer, as tables.

use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).expect("the test writes JSON")
}

fn definition() -> Definition {
    Definition {
        key: TimerKey::new("default", "a"),
        execute_at: NOW.after(Duration::from_secs(1)),
        callback: Callback {
            url: "https://example.com/hook".to_owned(),
            method: "POST".to_owned(),
            headers: std::collections::BTreeMap::new(),
            timeout: Duration::from_secs(30),
        },
        payload: Some(raw("{}")),
        retry: RetryPolicy::default(),
    }
}

#[test]
fn an_id_is_short_and_printable() {
    for (id, good) in [
        ("a", true),
        ("order/7 ü 字 👩‍🚀", true),
        (&"字".repeat(255), true),
        ("", false),
        (&"a".repeat(256), false),
        ("a\0b", false),
        ("a\tb", false),
        ("a\u{9f}", false),
        ("a\u{2029}", false),
    ] {
        assert_eq!(TimerKey::new("n", id).check().is_ok(), good, "{id:?}");
    }
}

#[test]
fn a_definition_is_checked_whole() {
    assert_eq!(definition().check().map(|host| host.to_string()).as_deref(), Ok("example.com"));
    let bad_callback = Callback { url: "example.com".to_owned(), ..definition().callback };
    let bad_retry = RetryPolicy { multiplier: 0.5, ..RetryPolicy::default() };
    for (bad, field) in [
        (Definition { key: TimerKey::new("", "a"), ..definition() }, Field::Namespace),
        (Definition { key: TimerKey::new("n", ""), ..definition() }, Field::Id),
        (Definition { payload: Some(raw("[]")), ..definition() }, Field::Payload),
        (Definition { callback: bad_callback, ..definition() }, Field::CallbackUrl),
        (Definition { retry: bad_retry, ..definition() }, Field::RetryMultiplier),
    ] {
        assert_eq!(bad.check().expect_err("it is bad").field, field, "{bad:?}");
    }
}

#[test]
fn an_update_is_checked_where_it_says_something() {
    assert_eq!(Update::default().check(), Ok(None));
    assert_eq!(Update { payload: Some(None), ..Update::default() }.check(), Ok(None));
    let moved = Update { callback_url: Some("http://127.1/".to_owned()), ..Update::default() };
    assert_eq!(moved.check(), Ok(Some(Host::Ipv4(std::net::Ipv4Addr::LOCALHOST))));
    let bad_retry = RetryPolicy { attempts_max: Some(0), ..RetryPolicy::default() };
    let bad_headers = BTreeMap::from([("Host".to_owned(), "x".to_owned())]);
    for (bad, field) in [
        (Update { callback_url: Some(String::new()), ..Update::default() }, Field::CallbackUrl),
        (Update { callback_timeout: Some(Duration::ZERO), ..Update::default() }, Field::CallbackTimeout),
        (Update { payload: Some(Some(raw("1"))), ..Update::default() }, Field::Payload),
        (Update { retry: bad_retry.into(), ..Update::default() }, Field::RetryAttemptsMax),
        (Update { callback_method: Some("post".to_owned()), ..Update::default() }, Field::CallbackMethod),
        (Update { callback_headers: Some(bad_headers), ..Update::default() }, Field::CallbackHeaders),
    ] {
        assert_eq!(bad.check().expect_err("it is bad").field, field, "{bad:?}");
    }
}

#[test]
fn a_moment_lies_in_the_future_and_not_too_far() {
    let micro = Duration::from_micros(1);
    for (at, allowed) in [
        (NOW.after(micro), None),
        (NOW.after(limits::EXECUTE_AT_AHEAD_MAX), None),
        (NOW, Some("a future timestamp")),
        (NOW.before(micro), Some("a future timestamp")),
        (Timestamp::MIN, Some("a future timestamp")),
        (NOW.after(limits::EXECUTE_AT_AHEAD_MAX).after(micro), Some("at most 100 years ahead")),
        (Timestamp::MAX, Some("at most 100 years ahead")),
    ] {
        assert_eq!(check_execute_at(at, NOW).err().map(|e| e.allowed).as_deref(), allowed, "{at}");
    }
}

#[test]
fn a_payload_is_an_object_of_bounded_size_and_depth() {
    let sized = |bytes: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes - 8));
    let nested = |depth: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(depth - 1), "]".repeat(depth - 1));
    for (json, good) in [
        ("{}".to_owned(), true),
        (r#"{"a":"\ud800","a":"\u0000","b":1e400}"#.to_owned(), true),
        (sized(limits::PAYLOAD_BYTES_MAX), true),
        (sized(limits::PAYLOAD_BYTES_MAX + 1), false),
        (nested(limits::PAYLOAD_DEPTH_MAX), true),
        (nested(limits::PAYLOAD_DEPTH_MAX + 1), false),
        (nested(10_000), false),
        ("[]".to_owned(), false),
        ("null".to_owned(), false),
        ("\"{}\"".to_owned(), false),
    ] {
        assert_eq!(check_payload(&raw(&json)).is_ok(), good, "{}", json.get(..40).unwrap_or(&json));
    }
}

#[test]
fn depth_does_not_look_into_strings() {
    for (json, expected) in [
        ("1", 0),
        ("{}", 1),
        (r#"{"a":"[[[["}"#, 1),
        (r#"{"a":"\"[","b":[{}]}"#, 3),
        (r#"["\\",[]]"#, 2),
        ("[[],[[]]]", 3),
    ] {
        assert_eq!(depth(json), expected, "{json}");
    }
}

proptest! {
    #[test]
    fn checking_never_panics(namespace in ".{0,300}", id in ".{0,300}", at: i64, now: i64) {
        let _ = Definition { key: TimerKey::new(&namespace, &id), ..definition() }.check();
        let _ = check_execute_at(Timestamp::from_micros(at), Timestamp::from_micros(now));
    }
}
