//! What plain SQL takes for a callback is what the server takes over HTTP, so that none can only fail at its moment.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_postgres::types::Json;
use walclock::domain::callback::{Callback, check_headers};
use walclock::domain::lease::Owner;
use walclock::domain::limits;
use walclock::domain::shard::Shard;

use super::world::Postgres;
use crate::contract::{self, World};

type Headers = BTreeMap<String, String>;

/// The constraint that the row breaks; none where it is taken.
async fn refusal(world: &Postgres, table: &str, url: &str, headers: &Headers) -> Option<String> {
    let insert = match table {
        "timers" => {
            "insert into walclock.timers (namespace, id, execute_at, callback_url, callback_headers)
             values ('n', gen_random_uuid()::text, now(), $1, $2)"
        }
        _ => {
            "insert into walclock.schedules (namespace, id, cron, callback_url, callback_headers)
             values ('n', gen_random_uuid()::text, '* * * * *', $1, $2)"
        }
    };
    let error = world.client.execute(insert, &[&url, &Json(headers)]).await.err()?;
    let broken = error.as_db_error().and_then(|error| error.constraint());
    Some(broken.unwrap_or_else(|| panic!("{url} {headers:?}: {error:?}")).to_owned())
}

fn headers(names: &[&str], value: &str) -> Headers {
    names.iter().map(|name| ((*name).to_owned(), value.to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_sql_takes_the_headers_that_the_server_takes() {
    let world = Postgres::new().await;
    let names = "connection Content-Length EXPECT host hosts x-host keep-alive proxy proxy- Proxy-Authorization te tea
                 trailer Trailers transfer-encoding upgrade walclock walclock- Walclock-Fence webhook webhook-id
                 x-webhook-id content-type user-agent traceparent !#$%&'*+-.^_`|~ a:b a/b";
    let mut tried: Vec<Headers> = names.split_whitespace().map(|name| headers(&[name], "a")).collect();
    // Every character that one byte of UTF-8 or two may stand for, but the zero, which no text of PostgreSQL has.
    let values = ('\u{1}'..='\u{100}').map(|c| format!("a{c}b"));
    tried.extend(values.map(|value| headers(&["x"], &value)));
    tried.extend(["", " ", "\t", "\u{1f980}"].map(|value| headers(&["x"], value)));
    let most = limits::CALLBACK_HEADER_BYTES_MAX;
    tried.extend([most - 2, most - 1, most].map(|bytes| headers(&["x"], &"a".repeat(bytes))));
    tried.extend([most / 2 - 1, most / 2].map(|bytes| headers(&["x", "y"], &"a".repeat(bytes))));
    // Short in themselves, but not as the text of JSON.
    tried.extend([most / 2, most - 9].map(|bytes| headers(&["x"], &"\"".repeat(bytes))));
    let many: Vec<String> = (0..=limits::CALLBACK_HEADERS_MAX).map(|number| format!("x-{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    tried.extend([headers(&many, ""), headers(&many[1..], ""), Headers::new(), headers(&["x", "te"], "")]);
    for headers in &tried {
        let wanted = check_headers(headers);
        for table in ["timers", "schedules"] {
            let refusal = refusal(&world, table, "http://localhost/", headers).await;
            let told: String = format!("{headers:?}").chars().take(80).collect();
            assert_eq!(refusal.is_none(), wanted.is_ok(), "{table} {told}: {refusal:?}, and {wanted:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_sql_takes_only_urls_that_can_be_called() {
    let world = Postgres::new().await;
    for (url, is_good) in [
        ("http://example.com", true),
        ("HTTP://Example.com:/", true),
        ("https://example.com:8443?at=12:30", true),
        ("http://example.com:00080/a:b/c", true),
        ("http://example.com:65535/", true),
        ("http://[::1]/", true),
        ("http://[::ffff:127.0.0.1]:80/", true),
        ("http://example.com/a@b:c", true),
        ("http://example.com:65536/", false),
        ("http://example.com:100000", false),
        ("http://example.com:0?x", false),
        ("http://example.com:000/", false),
        ("http://example.com:http/", false),
        ("http://example.com:80:80/", false),
        ("http://:80/", false),
        ("http://[::1]:65536/", false),
        ("http://[::x]/", false),
        ("http://user:word@example.com/", false),
        ("http://user@example.com/", false),
        ("http://@example.com/", false),
    ] {
        for table in ["timers", "schedules"] {
            let refusal = refusal(&world, table, url, &Headers::new()).await;
            assert_eq!(refusal.is_none(), is_good, "{table} {url}: {refusal:?}");
        }
        let timeout = Duration::from_secs(30);
        let callback = Callback { url: url.to_owned(), method: "POST".to_owned(), headers: Headers::new(), timeout };
        assert_eq!(callback.check().is_ok(), is_good, "{url}: {:?}", callback.check());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_stood_before_it_was_refused_may_move() {
    let world = Postgres::new().await;
    let a = Owner("a".to_owned());
    let grant = contract::lease(&world, &a, Shard::COUNT).await;
    let key = contract::key("old");
    contract::put_due(&world, &key).await;
    let insert = "insert into walclock.schedules (namespace, id, cron, callback_url)
                  values ('n', 'old', '* * * * *', 'http://localhost/')";
    world.client.batch_execute(insert).await.unwrap();
    for table in ["timers", "schedules"] {
        let constraint = format!("{table}_fit");
        let ask = "select pg_get_constraintdef(oid) from pg_constraint where conname = $1";
        let definition: String = world.client.query_one(ask, &[&constraint]).await.unwrap().get(0);
        let age = format!(
            "alter table walclock.{table} drop constraint {constraint};
             update walclock.{table} set callback_headers = '{{\"Host\": \"a\"}}';
             alter table walclock.{table} add constraint {constraint} {definition}"
        );
        world.client.batch_execute(&age).await.unwrap();
    }
    let run = contract::claim(&world, &a, &grant, &[&key]).await.runs.remove(0);
    assert_eq!(contract::settle(&world, &a, &[contract::defer(&run, run.key.claimed_at)]).await, [true]);
    assert!(world.timer(&key).await.is_some());
    // A schedule's moments are refused with its timers, and it is told why.
    let moves = world.client.execute("update walclock.schedules set next_at = now()", &[]).await;
    let error = moves.expect_err("it makes no timers");
    assert_eq!(error.as_db_error().and_then(|error| error.constraint()), Some("schedules_callback_headers_reserved"));
    let rests = "update walclock.schedules set next_at = now(), error = 'its timers are refused'";
    assert_eq!(world.client.execute(rests, &[]).await.unwrap(), 1);
}
