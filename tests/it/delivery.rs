//! Callbacks over real sockets: what is sent, what each answer means, and what a bad receiver or a bad URL can do.

mod end_to_end;
mod follower;
mod guarded;
mod names;
pub(crate) mod receiver;
mod shortage;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use receiver::{Act, Receiver, Request, answer, ok};
use serde_json::value::RawValue;
use walclock::clock::{Clock, Timestamp};
use walclock::delivery::{Client, Config};
use walclock::dispatch::ports::Delivery;
use walclock::domain::callback::{Callback, Verdict};
use walclock::domain::lease::Epoch;
use walclock::domain::limits;
use walclock::domain::retry::RetryPolicy;
use walclock::domain::run::{Attempt, Run, RunKey};
use walclock::domain::timer::{Definition, Timer, TimerKey};
use walclock::domain::webhook;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER_SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";

/// A run of a timer that calls `url`.
fn run(url: &str) -> Run {
    let key = TimerKey::new("shop", "order \"7\"");
    let callback = Callback {
        url: url.to_owned(),
        method: "POST".to_owned(),
        headers: BTreeMap::new(),
        timeout: Duration::from_secs(30),
    };
    let definition = Definition {
        key: key.clone(),
        execute_at: "2026-11-21T09:30:00.25Z".parse().unwrap(),
        callback,
        payload: Some(RawValue::from_string("{\"b\": 1.0,  \"a\":\"ü\"}".to_owned()).unwrap()),
        retry: RetryPolicy::default(),
    };
    let created_at = Timestamp::from_micros(1_700_000_000_000_000);
    let timer = Timer { attempts: 1, ..Timer::new(definition, created_at) };
    Run {
        key: RunKey { timer: key, claimed_at: created_at },
        timer,
        epoch: Epoch(7),
        secrets: Arc::from([]),
        adoptions: 0,
        unwanted: false,
    }
}

/// A client that may call this machine.
fn client() -> Client {
    client_with(Config::default())
}

fn client_with(config: Config) -> Client {
    Client::new(Config { allow: vec!["127.0.0.0/8".parse().unwrap()], ..config }, Clock::system())
}

fn error(attempt: &Attempt) -> &str {
    match &attempt.verdict {
        Verdict::Retry { error, .. } | Verdict::Failed { error } => error,
        Verdict::Succeeded | Verdict::Reschedule(_) => panic!("no error in {attempt:?}"),
    }
}

fn is_retry(attempt: &Attempt) -> bool {
    matches!(attempt.verdict, Verdict::Retry { .. })
}

/// One attempt at a receiver that does this with its first request.
async fn attempt(act: fn() -> Act) -> Attempt {
    let receiver = Receiver::start(move |_, _| act()).await;
    let attempt = client().attempt(&run(&receiver.url())).await.unwrap();
    assert!(attempt.sent_at <= attempt.answered_at);
    attempt
}

#[tokio::test(flavor = "multi_thread")]
async fn the_request_says_what_the_contract_says() {
    let mut receiver = Receiver::start(|_, _| ok()).await;
    let mut run = run(&receiver.url());
    run.timer.attempts = 3;
    run.timer.retry_at = Some("2026-11-21T09:31:00Z".parse().unwrap());
    run.timer.definition.callback.headers.insert("Authorization".to_owned(), "Bearer x".to_owned());
    let clock = Clock::system();
    let before = clock.now().micros() / 1_000_000;
    let made = client().attempt(&run).await.unwrap();
    assert_eq!((made.verdict, made.status), (Verdict::Succeeded, Some(200)));
    assert_eq!(made.reply_head, r#"{"ok":true}"#);

    let Request { line, headers, body, .. } = receiver.request().await;
    assert_eq!(line, "POST /hook?a=b HTTP/1.1");
    let expected = concat!(
        r#"{"timerId":"order \"7\"","namespace":"shop","executeAt":"2026-11-21T09:30:00.25Z","#,
        r#""payload":{"b": 1.0,  "a":"ü"},"attempt":3}"#
    );
    assert_eq!(String::from_utf8(body).unwrap(), expected);
    for (name, value) in [
        ("host", format!("127.0.0.1:{}", receiver.port)),
        ("content-type", "application/json".to_owned()),
        ("content-length", expected.len().to_string()),
        ("user-agent", format!("walclock/{}", env!("CARGO_PKG_VERSION"))),
        ("authorization", "Bearer x".to_owned()),
        ("walclock-attempt", "3".to_owned()),
        ("walclock-scheduled-for", "2026-11-21T09:31:00Z".to_owned()),
        ("walclock-fence", "7".to_owned()),
        ("webhook-id", webhook::id(&run.timer)),
    ] {
        assert_eq!(headers.get(name), Some(&value), "{name}");
    }
    let sent: i64 = headers["webhook-timestamp"].parse().unwrap();
    assert!((before..=clock.now().micros() / 1_000_000).contains(&sent));
    let trace: Vec<&str> = headers["traceparent"].split('-').collect();
    assert_eq!(trace.iter().map(|part| part.len()).collect::<Vec<_>>(), [2, 32, 16, 2]);
    assert!(!headers.contains_key("webhook-signature"), "no secret, no signature");
    assert_eq!(headers.len(), 11);
}

/// HMAC by its definition (RFC 2104), apart from the code under test.
fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    assert!(key.len() <= 64);
    let pad = |with: u8| (0..64).map(|i| key.get(i).unwrap_or(&0) ^ with).collect::<Vec<u8>>();
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_secret_signs_the_bytes_that_were_sent() {
    use base64::Engine;
    let base64 = base64::engine::general_purpose::STANDARD;
    let mut receiver = Receiver::start(|_, _| ok()).await;
    let secrets = [SECRET, OTHER_SECRET];
    let run = Run { secrets: secrets.iter().map(|text| text.parse().unwrap()).collect(), ..run(&receiver.url()) };
    client().attempt(&run).await.unwrap();

    let Request { headers, body, .. } = receiver.request().await;
    let mut message = format!("{}.{}.", headers["webhook-id"], headers["webhook-timestamp"]).into_bytes();
    message.extend(body);
    let expected = secrets.map(|text| {
        let key = base64.decode(text.strip_prefix("whsec_").unwrap()).unwrap();
        format!("v1,{}", base64.encode(hmac_sha256(&key, &message)))
    });
    assert_eq!(headers["webhook-signature"], expected.join(" "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_has_no_body() {
    let mut receiver = Receiver::start(|_, _| ok()).await;
    let mut run = run(&receiver.url());
    run.timer.definition.callback.method = "GET".to_owned();
    assert_eq!(client().attempt(&run).await.unwrap().verdict, Verdict::Succeeded);
    let request = receiver.request().await;
    assert_eq!((request.line.as_str(), request.body.len()), ("GET /hook?a=b HTTP/1.1", 0));
    assert!(!request.headers.contains_key("content-type"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_attempt_has_the_same_id() {
    let mut receiver = Receiver::start(|_, _| Act::Send(answer(500, "", ""))).await;
    let (client, first) = (client(), run(&receiver.url()));
    let mut second = first.clone();
    second.timer.attempts = 2;
    second.epoch = Epoch(8);
    let mut rescheduled = first.clone();
    rescheduled.timer.definition.execute_at = first.timer.definition.execute_at.after(Duration::from_secs(1));
    let mut ids = Vec::new();
    for run in [&first, &second, &rescheduled] {
        client.attempt(run).await.unwrap();
        ids.push(receiver.request().await.headers["webhook-id"].clone());
    }
    assert_eq!(ids[0], ids[1]);
    assert_ne!(ids[0], ids[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timers_bad_headers_fail_it_and_nothing_is_sent() {
    let mut receiver = Receiver::start(|_, _| ok()).await;
    for (name, value) in [
        ("Host", "elsewhere"),
        ("content-length", "0"),
        ("Transfer-Encoding", "chunked"),
        ("webhook-signature", "v1,AAAA"),
        ("walclock-fence", "9"),
        ("proxy-authorization", "x"),
        ("bad name", "x"),
        ("x-split", "a\r\nhost: elsewhere"),
        ("x-long", &"x".repeat(limits::CALLBACK_HEADER_BYTES_MAX)),
    ] {
        let mut run = run(&receiver.url());
        run.timer.definition.callback.headers.insert(name.to_owned(), value.to_owned());
        let made = client().attempt(&run).await.unwrap();
        assert!(matches!(&made.verdict, Verdict::Failed { error } if error.contains("header")), "{name}: {made:?}");
    }
    assert_eq!(receiver.requests_left(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_has_its_verdict() {
    let retry = |made: &Attempt| is_retry(made);
    let failed = |made: &Attempt| matches!(made.verdict, Verdict::Failed { .. });
    let no_sooner = |made: &Attempt| matches!(made.verdict, Verdict::Retry { not_before: Some(at), .. } if at == made.answered_at.after(Duration::from_secs(60)));
    type Check<'a> = &'a dyn Fn(&Attempt) -> bool;
    let cases: [(u16, &'static str, &'static str, Check); 13] = [
        (200, "", r#"{"ok":true,"nextExecuteAt":"2100-01-01T00:00:00Z"}"#, &|made| made.verdict == Verdict::Succeeded),
        (200, "", r#"{"ok":false,"nextExecuteAt":"2100-01-01T00:00:00Z"}"#, &|made| {
            made.verdict == Verdict::Reschedule("2100-01-01T00:00:00Z".parse().unwrap())
        }),
        (200, "", r#"{"ok":false,"nextExecuteAt":"2000-01-01T00:00:00Z"}"#, &|made| {
            made.verdict == Verdict::Reschedule(made.answered_at)
        }),
        (200, "", r#"{"ok":false}"#, &retry),
        (200, "", "fine", &retry),
        (204, "", "", &retry),
        (400, "", "", &failed),
        (408, "retry-after: 60\r\n", "", &failed),
        (429, "", "", &failed),
        (429, "retry-after: 60\r\n", "", &no_sooner),
        (503, "Retry-After: 60\r\n", "", &no_sooner),
        (500, "", "down", &retry),
        (302, "location: /elsewhere\r\n", "", &retry),
    ];
    for (status, headers, body, check) in cases {
        let receiver = Receiver::start(move |_, _| Act::Send(answer(status, headers, body))).await;
        let made = client().attempt(&run(&receiver.url())).await.unwrap();
        assert!(check(&made), "{status} {headers} {body} became {made:?}");
        assert_eq!((made.status, made.reply_head.as_str()), (Some(status), body));
        assert_eq!(receiver.connections.load(Ordering::SeqCst), 1, "redirects are not followed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_in_other_clothes_are_understood() {
    for act in [
        || {
            Act::Send(
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"ok\"\r\n6\r\n:true}\r\n0\r\n\r\n"
                    .to_vec(),
            )
        },
        || Act::SendAndClose(b"HTTP/1.0 200 OK\r\n\r\n{\"ok\":true}".to_vec()),
        || Act::Send([&b"HTTP/1.1 103 Early Hints\r\n\r\n"[..], &answer(200, "", r#"{"ok":true}"#)].concat()),
    ] {
        assert_eq!(attempt(act).await.verdict, Verdict::Succeeded);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_answer_is_tried_again() {
    for (act, status) in [
        ((|| Act::SendAndClose(Vec::new())) as fn() -> Act, None),
        (|| Act::SendAndClose(b"HTTP/1.1 200 OK\r\ncontent-le".to_vec()), None),
        (|| Act::SendAndClose(b"not HTTP at all\r\n\r\n".to_vec()), None),
        (|| Act::SendAndClose(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"ok\":true}".to_vec()), Some(200)),
        (
            || Act::SendAndClose(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nb\r\n{\"ok\":true}".to_vec()),
            Some(200),
        ),
        (|| Act::Send(answer(200, &"x-header: y\r\n".repeat(10_000), r#"{"ok":true}"#)), None),
        (|| Act::Send(answer(200, &format!("x: {}\r\n", "y".repeat(1 << 20)), r#"{"ok":true}"#)), None),
        (|| Act::Send(answer(200, &head_line(limits::REPLY_HEADERS_BYTES_MAX), r#"{"ok":true}"#)), None),
    ] {
        let made = attempt(act).await;
        assert!(is_retry(&made) && made.status == status && made.connected, "{made:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_connection_is_tried_again() {
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let made = client().attempt(&run(&format!("http://127.0.0.1:{port}/"))).await.unwrap();
    assert!(is_retry(&made) && made.status.is_none(), "{made:?}");
    assert!(error(&made).contains("not connected: ") && !made.connected, "{made:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_out_covers_the_whole_attempt_and_closes_the_connection() {
    for (act, status) in [
        ((|| Act::Hang) as fn() -> Act, None),
        (|| Act::Drip(b"HTTP/1.1 200 OK\r\n".to_vec()), None),
        (|| Act::Drip(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n".to_vec()), Some(200)),
    ] {
        // A busy machine may take long until there is a connection, or a head.
        for (timeout, said) in [(300, "300ms"), (3_000, "3s"), (30_000, "30s")] {
            let mut receiver = Receiver::start(move |_, _| act()).await;
            let mut run = run(&receiver.url());
            run.timer.definition.callback.timeout = Duration::from_millis(timeout);
            let made = client().attempt(&run).await.unwrap();
            assert!(is_retry(&made), "{made:?}");
            assert_eq!(error(&made), format!("timed out after {said}"));
            if (made.connected, made.status) == (true, status) {
                receiver.end().await;
                break;
            }
            assert!(timeout < 30_000, "{made:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_answer_is_read_to_its_bound_only() {
    const GIB: usize = 1 << 30;
    let mut receiver =
        Receiver::start(|_, _| Act::Flood(format!("HTTP/1.1 200 OK\r\ncontent-length: {GIB}\r\n\r\n").into(), GIB))
            .await;
    let made = client().attempt(&run(&receiver.url())).await.unwrap();
    assert!(is_retry(&made) && made.status == Some(200), "{made:?}");
    assert!(made.reply_head.len() <= limits::REPLY_HEAD_BYTES_MAX);
    assert!(!made.reply_head.contains('\0'), "PostgreSQL stores no NUL");
    // What the sockets' buffers hold has left too.
    assert!(receiver.end().await < 64 << 20);
}

/// A header of so many bytes.
fn head_line(bytes: usize) -> String {
    format!("x-long: {}\r\n", "y".repeat(bytes - 10))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_answer_is_understood_whole_and_its_connection_used_again() {
    let note = "x".repeat(limits::REPLY_BYTES_MAX - 100);
    let succeeds = answer(200, &head_line(15 << 10), &format!(r#"{{"note":"{note}","ok":true}}"#));
    let fails = answer(500, "", &note);
    let mut receiver =
        Receiver::start(move |_, number| Act::Send(if number % 2 == 0 { fails.clone() } else { succeeds.clone() }))
            .await;
    let client = client();
    for succeeded in [false, true, false, true] {
        let made = client.attempt(&run(&receiver.url())).await.unwrap();
        assert_eq!(made.verdict == Verdict::Succeeded, succeeded, "{made:?}");
        assert_eq!(made.reply_head.len(), limits::REPLY_HEAD_BYTES_MAX);
        assert_eq!(receiver.request().await.connection, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_used_again() {
    let mut receiver = Receiver::start(|_, _| ok()).await;
    let client = client();
    for _ in 0..3 {
        assert_eq!(client.attempt(&run(&receiver.url())).await.unwrap().verdict, Verdict::Succeeded);
        assert_eq!(receiver.request().await.connection, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_is_closed_when_its_time_is_over() {
    let mut receiver = Receiver::start(|_, _| ok()).await;
    let client = client_with(Config { idle_max: Duration::from_millis(20), ..Config::default() });
    client.attempt(&run(&receiver.url())).await.unwrap();
    receiver.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_that_closes_under_the_request_costs_no_attempt() {
    let mut receiver = Receiver::start(|connection, number| match (connection, number) {
        (0, 1) => Act::SendAndClose(Vec::new()),
        (_, _) => ok(),
    })
    .await;
    let (client, run) = (client(), run(&receiver.url()));
    for _ in 0..2 {
        let made = client.attempt(&run).await.unwrap();
        assert_eq!(made.verdict, Verdict::Succeeded, "{made:?}");
    }
    let seen = [receiver.request().await, receiver.request().await, receiver.request().await];
    assert_eq!(seen.each_ref().map(|request| request.connection), [0, 0, 1]);
    assert_eq!(seen[1].headers["webhook-id"], seen[2].headers["webhook-id"]);
    assert_eq!(seen[1].body, seen[2].body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_repeated_once_at_most_and_never_after_a_first_byte() {
    for (script, requests) in [
        // The new connection closes as well.
        ((|_, number| if number == 0 { ok() } else { Act::SendAndClose(Vec::new()) }) as fn(usize, usize) -> Act, 2),
        (|_, number| if number == 0 { ok() } else { Act::SendAndClose(b"H".to_vec()) }, 1),
    ] {
        let mut receiver = Receiver::start(move |connection, number| match connection {
            0 => script(connection, number),
            _ => Act::SendAndClose(Vec::new()),
        })
        .await;
        let (client, run) = (client(), run(&receiver.url()));
        client.attempt(&run).await.unwrap();
        receiver.request().await;
        let made = client.attempt(&run).await.unwrap();
        assert!(is_retry(&made), "{made:?}");
        assert_eq!(receiver.requests_left(), requests);
    }
}

/// It may have begun with the request, which costs an attempt then.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_not_repeated_where_the_server_had_it_for_long() {
    let mut receiver = Receiver::start(|_, number| match number {
        0 => ok(),
        _ => Act::CloseAfter(Duration::from_millis(1100)),
    })
    .await;
    let (client, run) = (client(), run(&receiver.url()));
    client.attempt(&run).await.unwrap();
    receiver.request().await;
    let made = client.attempt(&run).await.unwrap();
    assert!(is_retry(&made), "{made:?}");
    assert_eq!(receiver.requests_left(), 1);
}

/// Its status has said it all.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_final_also_where_its_body_does_not_come_whole() {
    let head = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 100\r\n\r\nabc";
    for act in [Act::SendAndClose(head.to_vec()), Act::Send(head.to_vec())] {
        let receiver = Receiver::start(move |_, _| act.clone()).await;
        let mut run = run(&receiver.url());
        run.timer.definition.callback.timeout = Duration::from_secs(3);
        let made = client().attempt(&run).await.unwrap();
        assert!(matches!(&made.verdict, Verdict::Failed { error } if error == "answered 400"), "{made:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_not_kept_is_not_tried_twice() {
    let mut receiver = Receiver::start(|_, _| Act::SendAndClose(Vec::new())).await;
    assert!(is_retry(&client().attempt(&run(&receiver.url())).await.unwrap()));
    assert_eq!(receiver.requests_left(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_never_more_connections_than_allowed() {
    let mut receiver = Receiver::start(|_, _| Act::Hang).await;
    let client = Arc::new(client_with(Config { connections_max: 2, ..Config::default() }));
    let mut run = run(&receiver.url());
    let mut under_way = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let (client, run) = (client.clone(), run.clone());
        under_way.spawn(async move { client.attempt(&run).await.unwrap() });
        receiver.request().await;
    }
    run.timer.definition.callback.timeout = Duration::from_millis(100);
    assert_eq!(error(&client.attempt(&run).await.unwrap()), "timed out after 100ms");
    assert_eq!(receiver.connections.load(Ordering::SeqCst), 2);
}

/// With one connection for two servers, each request must get it from the one before: no one waits for a connection that
/// lies idle, and none is kept while someone waits.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_gives_way_to_who_waits() {
    let (first, second) = (Receiver::start(|_, _| ok()).await, Receiver::start(|_, _| ok()).await);
    let config = Config { connections_max: 1, idle_max: Duration::from_secs(300), ..Config::default() };
    let client = Arc::new(client_with(config));
    for receiver in [&first, &second] {
        assert_eq!(client.attempt(&run(&receiver.url())).await.unwrap().verdict, Verdict::Succeeded);
    }
    let mut under_way = tokio::task::JoinSet::new();
    for receiver in [&first, &second].into_iter().cycle().take(40) {
        let (client, run) = (client.clone(), run(&receiver.url()));
        under_way.spawn(async move { client.attempt(&run).await.unwrap() });
    }
    for made in under_way.join_all().await {
        assert_eq!(made.verdict, Verdict::Succeeded);
    }
}
