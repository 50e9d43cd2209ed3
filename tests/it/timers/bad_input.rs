//! Requests that are no good, and what the face says about each. None of them may reach the tables or become a 500.

use serde_json::{Value, json};
use walclock::service::timers::Config;

use super::face::{Face, create_request, selection, timeless, with};

/// Calls with each bad body and compares message and details.
async fn check(face: &Face, operation: &str, body: &Value, expected: Value) {
    let answer = face.call(operation, body).await;
    assert_eq!((answer.status, &answer.json["error"]), (400, &json!("INVALID_INPUT")), "{body}: {}", answer.text);
    let mut found = timeless(&answer);
    found.as_object_mut().unwrap().remove("error");
    assert_eq!(found, expected, "{body}");
}

/// What the face says of a field whose value is wrong.
fn wrong(field: &str, value: &str, allowed: &str) -> Value {
    json!({ "message": format!("{field} must be {allowed}"), "details": { "field": field, "value": value } })
}

const NAMES: &str = "1 to 255 bytes without control characters";
const IDS: &str = "1 to 255 characters, none a control character";
const MOMENTS: &str = "an RFC 3339 timestamp with an offset, such as 2030-12-20T15:30:00Z";
const SPANS: &str = "a duration such as 300ms, 30s or 1h30m";
const SECONDS: &str = "a whole number of seconds from 1 to 300";
const ABSOLUTE: &str = "an absolute http or https URL";
const PUBLIC: &str = "a URL of a public address, or of a range that is allowed";

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_value_is_named_with_what_is_allowed() {
    let face = Face::start().await;
    let long = "n".repeat(256);
    let long_shown = format!("{}…", "n".repeat(100));
    for (field, value, shown, allowed) in [
        ("namespace", json!(""), "", NAMES),
        ("namespace", json!(long), long_shown.as_str(), NAMES),
        ("namespace", json!("a\u{0}"), "a\u{0}", NAMES),
        ("namespace", json!(7), "7", "a text"),
        ("id", json!(""), "", IDS),
        ("id", json!("a\nb"), "a\nb", IDS),
        ("id", json!(long), &long_shown, IDS),
        ("id", json!(["a"]), "[\"a\"]", "a text"),
        ("executeAt", json!("2020-01-01T00:00:00Z"), "2020-01-01T00:00:00Z", "a future timestamp"),
        ("executeAt", json!("1969-12-31T23:59:59Z"), "1969-12-31T23:59:59Z", "a future timestamp"),
        ("executeAt", json!("9999-01-01T00:00:00Z"), "9999-01-01T00:00:00Z", "at most 100 years ahead"),
        ("executeAt", json!("infinity"), "infinity", MOMENTS),
        ("executeAt", json!("294277-01-01T00:00:00Z"), "294277-01-01T00:00:00Z", MOMENTS),
        ("executeAt", json!("2030-01-01T00:00:00"), "2030-01-01T00:00:00", MOMENTS),
        ("executeAt", json!("2030-01-01T24:00:00Z"), "2030-01-01T24:00:00Z", MOMENTS),
        ("executeAt", json!("2030-01-01T23:59:60Z"), "2030-01-01T23:59:60Z", MOMENTS),
        ("executeAt", json!(1_893_456_000_000_i64), "1893456000000", MOMENTS),
        ("callbackUrl", json!("example.com"), "example.com", ABSOLUTE),
        ("callbackUrl", json!("file:///etc/passwd"), "file:///etc/passwd", ABSOLUTE),
        ("callbackUrl", json!("gopher://example.com/"), "gopher://example.com/", ABSOLUTE),
        ("callbackUrl", json!("http://a:b@example.com/"), "http://a:b@example.com/", "a URL without user-info"),
        ("callbackUrl", json!("http://example.com/#a"), "http://example.com/#a", "a URL without a fragment"),
        ("callbackUrl", json!({}), "{}", "a text"),
        ("payload", json!([]), "[]", "a JSON object"),
        ("payload", json!("{}"), "\"{}\"", "a JSON object"),
        ("callbackTimeoutSeconds", json!(0), "0", SECONDS),
        ("callbackTimeoutSeconds", json!(301), "301", SECONDS),
        ("callbackTimeoutSeconds", json!(-1), "-1", SECONDS),
        ("callbackTimeoutSeconds", json!(1.5), "1.5", SECONDS),
        ("callbackTimeoutSeconds", json!(u64::MAX), "18446744073709552000", SECONDS),
        ("callbackTimeoutSeconds", json!("30"), "\"30\"", SECONDS),
        ("retryPolicy", json!([]), "[]", "an object"),
        ("retryPolicy", json!("none"), "\"none\"", "an object"),
    ] {
        let body = with(create_request("a"), json!({ field: value }));
        check(&face, "create", &body, wrong(field, shown, allowed)).await;
        let in_update = if field == "id" { "timerId" } else { field };
        let body = with(selection("a"), json!({ in_update: value }));
        check(&face, "update", &body, wrong(in_update, shown, allowed)).await;
    }
    let rows = face.sql.query("select from walclock.namespaces", &[]).await.unwrap();
    assert_eq!(rows.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_has_bounds() {
    let face = Face::start().await;
    let (spans, waits) = ("a duration from 0s to 864000h", "a duration from 1ms to 864000h");
    let (counts, factors) = ("a whole number from 1 to 2147483647", "a number from 1.0 to 100");
    for (field, value, shown, allowed) in [
        ("maxAttempts", json!(0), "0", counts),
        ("maxAttempts", json!(3_000_000_000_u32), "3000000000", counts),
        ("maxAttempts", json!(-1), "-1", counts),
        ("maxAttempts", json!("3"), "\"3\"", counts),
        ("maxRetries", json!(-1), "-1", "a whole number from 0 to 2147483646"),
        ("maxAttemptsDuration", json!("864000h1s"), "864000h1s", spans),
        ("maxAttemptsDuration", json!("1 hour"), "1 hour", SPANS),
        ("maxAttemptsDuration", json!(3600), "3600", SPANS),
        ("initialInterval", json!("0s"), "0s", waits),
        ("initialInterval", json!("-1s"), "-1s", SPANS),
        ("initialInterval", json!("PT1S"), "PT1S", SPANS),
        ("initialInterval", json!("99999999999999d"), "99999999999999d", SPANS),
        ("backoffMultiplier", json!(0), "0", factors),
        ("backoffMultiplier", json!(100.5), "100.5", factors),
        ("backoffMultiplier", json!("NaN"), "\"NaN\"", factors),
        ("maxInterval", json!("0.5ms"), "500us", waits),
    ] {
        let body = with(create_request("a"), json!({ "retryPolicy": { field: value } }));
        check(&face, "create", &body, wrong(&format!("retryPolicy.{field}"), shown, allowed)).await;
    }
    let both = with(create_request("a"), json!({ "retryPolicy": { "maxAttempts": 1, "maxRetries": 1 } }));
    check(&face, "create", &both, wrong("retryPolicy.maxRetries", "1", "left out beside maxAttempts")).await;
    let unknown = with(create_request("a"), json!({ "retryPolicy": { "jitter": 1 } }));
    let expected = json!({
        "message": "unknown field retryPolicy.jitter, expected one of maxAttempts, maxRetries, maxAttemptsDuration, \
                    initialInterval, backoffMultiplier, maxInterval",
        "details": { "field": "retryPolicy.jitter" },
    });
    check(&face, "create", &unknown, expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_never_called_is_refused_however_it_is_written() {
    let face = Face::start().await;
    for url in [
        "http://127.0.0.1/",
        "http://127.1/",
        "http://0x7f.1/",
        "http://2130706433/",
        "http://[::1]/",
        "http://[::ffff:7f00:1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://localhost/",
        "http://LOCALHOST./",
        "http://a.localhost/",
        "http://169.254.169.254/",
        "http://10.0.0.1/",
        "http://0.0.0.0/",
    ] {
        let body = with(create_request("a"), json!({ "callbackUrl": url }));
        check(&face, "create", &body, wrong("callbackUrl", url, PUBLIC)).await;
        let body = with(selection("a"), json!({ "callbackUrl": url }));
        check(&face, "update", &body, wrong("callbackUrl", url, PUBLIC)).await;
    }
    let callback_allow = vec!["127.0.0.0/8".parse().unwrap()];
    let dev = Face::start_with(Config { auto_create: true, callback_allow }).await;
    for (url, status) in
        [("http://127.0.0.1:9/", 200), ("http://localhost/", 200), ("http://10.0.0.1/", 400), ("http://8.8.8.8/", 200)]
    {
        let answer = dev.call("create", &with(create_request("a"), json!({ "callbackUrl": url }))).await;
        assert_eq!(answer.status, status, "{url}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_lacks_or_is_too_many_is_named() {
    let face = Face::start().await;
    for (operation, good) in [
        ("create", create_request("a")),
        ("get", selection("a")),
        ("update", selection("a")),
        ("delete", selection("a")),
    ] {
        for field in good.as_object().unwrap().keys() {
            let expected = json!({ "message": format!("{field} is required"), "details": { "field": field } });
            let mut lacking = good.clone();
            lacking.as_object_mut().unwrap().remove(field);
            check(&face, operation, &lacking, expected.clone()).await;
            check(&face, operation, &with(good.clone(), json!({ field: null })), expected).await;
            let name = serde_json::to_string(field).unwrap();
            let twice = good.to_string().replacen('{', &format!("{{{name}:\"x\","), 1);
            let answer = face.call_text(operation, twice).await;
            let expected = json!({
                "error": "INVALID_INPUT", "message": format!("duplicate field {field}"), "details": { "field": field },
            });
            assert_eq!((answer.status, timeless(&answer)), (400, expected));
        }
        for server_owned in ["status", "attempts", "createdAt", "fence", "shard"] {
            let answer = face.call(operation, &with(good.clone(), json!({ server_owned: 1 }))).await;
            let message = answer.json["message"].as_str().unwrap();
            assert!(message.starts_with(&format!("unknown field {server_owned}, expected one of ")), "{message}");
            assert_eq!((answer.status, &answer.json["details"]), (400, &json!({ "field": server_owned })));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_object_is_refused() {
    let face = Face::start().await;
    face.create("a").await;
    let good = selection("a").to_string();
    let nested = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let deep = format!(r#"{{"namespace":"n","timerId":"a","payload":{nested}}}"#);
    let deep_object = format!(r#"{{"namespace":"n","timerId":"a","payload":{{"a":{nested}}}}}"#);
    let large_payload =
        format!(r#"{{"namespace":"n","timerId":"a","payload":{{"a":"{}"}}}}"#, "x".repeat(100 * 1024 - 7));
    let large = format!(r#"{{"namespace":"n","timerId":"a","payload":{{"a":"{}"}}}}"#, "x".repeat(256 * 1024));
    let bodies: &[(&[u8], &str)] = &[
        (b"", "the body must be a JSON object: EOF"),
        (b"null", "the body must be a JSON object: invalid type: null"),
        (b"[]", "the body must be a JSON object: invalid type: sequence"),
        (b"{", "the body must be a JSON object: EOF"),
        (b"{} {}", "the body must be a JSON object: trailing characters"),
        (&[good.as_bytes(), b"x"].concat(), "the body must be a JSON object: trailing characters"),
        (&[b"\xef\xbb\xbf", good.as_bytes()].concat(), "the body must be a JSON object: expected value"),
        (b"{\"namespace\":\"\xff\"}", "the body must be a JSON object: invalid unicode"),
        (b"{'namespace':'n'}", "the body must be a JSON object: key must be a string"),
        (b"namespace=n&timerId=a", "the body must be a JSON object: expected ident"),
        (br#"{"namespace":"n","timerId":"\ud800"}"#, "timerId must be a text"),
        (br#"{"namespace":"n","timerId":"a\u0000"}"#, "timerId must be 1 to 255 characters"),
        (
            br#"{"namespace":"n","timerId":"a","backoffMultiplier":NaN}"#,
            "the body must be a JSON object: expected value",
        ),
        (br#"{"namespace":"n","timerId":"a","payload":{"a":01}}"#, "the body must be a JSON object: invalid number"),
        (br#"{"namespace":"n","timerId":"a","payload":{"a":1,}}"#, "the body must be a JSON object: key must be"),
        (deep.as_bytes(), "payload must be a JSON object"),
        (deep_object.as_bytes(), "payload must be nested at most 128 deep"),
        (large_payload.as_bytes(), "payload must be at most 102400 bytes of JSON"),
        (large.as_bytes(), "the body must be at most 262144 bytes long"),
    ];
    for (body, message) in bodies {
        let answer = face.call_text("update", body.to_vec()).await;
        let found = answer.json["message"].as_str().unwrap();
        assert!(found.starts_with(message), "{found}, and not {message}");
        assert_eq!((answer.status, &answer.json["error"]), (400, &json!("INVALID_INPUT")), "{message}");
    }
    assert_eq!(face.call("get", &selection("a")).await.json.get("payload"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_must_say_that_it_is_json() {
    let face = Face::start().await;
    for content_type in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("application/xml")] {
        let mut request = face.request("POST", "/api/v1/timers/create");
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let answer = face.send(request, create_request("a").to_string()).await;
        let expected = json!({ "error": "INVALID_INPUT", "message": "the Content-Type must be application/json" });
        assert_eq!((answer.status, timeless(&answer)), (400, expected), "{content_type:?}");
    }
    let request =
        face.request("POST", "/api/v1/timers/create").header("content-type", "Application/JSON;charset=utf-8");
    assert_eq!(face.send(request, create_request("a").to_string()).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_method_or_path_is_refused_in_the_same_form() {
    let face = Face::start().await;
    for method in ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        for operation in ["create", "get", "update", "delete"] {
            let answer = face.send(face.request(method, &format!("/api/v1/timers/{operation}")), "").await;
            let expected = json!({ "error": "METHOD_NOT_ALLOWED", "message": "the method must be POST" });
            assert_eq!((answer.status, timeless(&answer)), (405, expected), "{method} {operation}");
            assert_eq!(answer.allow.as_deref(), Some("POST"), "{method} {operation}");
        }
    }
    for path in ["/api/v1/timers", "/api/v1/timers/", "/api/v1/timers/list", "/api/v1/timers/create/a"] {
        let answer = face.send(face.request("POST", path), "{}").await;
        let expected = json!({ "error": "NOT_FOUND", "message": format!("there is no operation {path}") });
        assert_eq!((answer.status, timeless(&answer)), (404, expected));
    }
}
