//! Timers created per second: over HTTP one by one on 16 connections, by batches of a thousand, and by COPY; each beside plain
//! INSERTs by pgbench with 16 clients into the same table in the same round. Everything is durable, and nobody dispatches.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::SinkExt;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::support::{Connection, CoresBusy, Database, Server, pgbench, size};
use crate::verdict::{Target, Verdict};

const ROUNDS: usize = 3;
const CONNECTIONS: usize = 16;
/// Connections that send batches: while one is being stored the next is on its way.
const BATCH_CONNECTIONS: usize = 2;
const BATCH: usize = 1_000;
const COPIED: usize = 200_000;
const DUE: &str = "2090-01-02T03:04:05Z";
const URL: &str = "http://example.com/hook";
const INSERT: &str = "\\set id random(1, 1000000000000)
insert into walclock.timers (namespace, id, execute_at, callback_url, payload)
values ('bench', 'plain-' || :id, '2090-01-02T03:04:05Z', 'http://example.com/hook', '{\"order\": 7}');\n";

pub async fn run() -> Vec<Verdict> {
    let seconds = size("SECONDS", 8);
    let database = Database::start(&[("max_wal_size", "8GB")]);
    let client = database.connect().await;
    database.migrate().await;
    client.batch_execute("insert into walclock.namespaces (name) values ('bench')").await.expect("a namespace");
    let script = database.folder.path().join("insert");
    std::fs::write(&script, INSERT).expect("a script");
    let data = database.folder.path().join("walclock");
    let server = Server::start_with(&database.url(), &data, &["--roles", "api"]).await;
    println!(
        "timers/s created; {CONNECTIONS} connections, batches of {BATCH} on {BATCH_CONNECTIONS}, {seconds} s each; COPY of {COPIED}"
    );
    let mut ratios = [Vec::new(), Vec::new(), Vec::new()];
    for round in 1..=ROUNDS {
        empty(&client).await;
        let plain = pgbench(&database, &script, &CONNECTIONS.to_string(), seconds);
        empty(&client).await;
        let (busy, cpu) = (CoresBusy::now(), server.cpu_seconds());
        let single = over_http(&server, &format!("r{round}"), CONNECTIONS, 1, seconds).await;
        let (busy, cpu) = (busy.since() * 100.0, (server.cpu_seconds() - cpu) * 1e6 / (single * seconds as f64));
        let lone = over_http(&server, &format!("lone{round}"), 1, 1, 2).await;
        empty(&client).await;
        let batched = over_http(&server, &format!("b{round}"), BATCH_CONNECTIONS, BATCH, seconds).await;
        empty(&client).await;
        let copied = copy(&client).await;
        println!(
            "  round {round}: pgbench {plain:7.0}   one by one {single:7.0} ({cpu:.0} µs of walclock's CPU each, cores {busy:.0} % busy; \
             one connection {lone:.0})   batches {batched:7.0}   COPY {copied:7.0}"
        );
        for (ratios, rate) in ratios.iter_mut().zip([single, batched, copied]) {
            ratios.push(rate / plain);
        }
    }
    let [single, batched, copied] = ratios;
    let verdict = |what: &str, ratios, limit| {
        let what = format!("timers created {what}, of pgbench's INSERTs");
        Verdict::new(what, ratios, Target::AtLeast(0.7), limit)
    };
    vec![
        verdict("over HTTP one by one", single, "the cores are shared by PostgreSQL, walclock and the clients"),
        verdict("by batch", batched, "one statement at a time computes, indexes and writes"),
        verdict("by COPY", copied, "PostgreSQL alone: constraints, generated columns and two indexes"),
    ]
}

async fn empty(client: &Client) {
    client.batch_execute("truncate walclock.timers; checkpoint").await.expect("an empty table");
}

/// Timers per second that so many connections create, so many by each request.
async fn over_http(server: &Server, name: &str, connections: usize, batch: usize, seconds: usize) -> f64 {
    let start = Instant::now();
    let end = start + Duration::from_secs(seconds as u64);
    let mut clients = JoinSet::new();
    for client in 0..connections {
        let (url, name) = (server.url.clone(), format!("{name}-{client}"));
        clients.spawn(async move {
            let mut connection = Connection::open(&url).await;
            let mut created = 0;
            while Instant::now() < end {
                let mut timers = (created..created + batch).map(|n| {
                    json!({ "namespace": "bench", "id": format!("{name}-{n}"), "executeAt": DUE, "callbackUrl": URL,
                            "payload": { "order": 7 } })
                });
                if batch == 1 {
                    let timer = timers.next_back().expect("one").to_string();
                    connection.post("/api/v1/timers/create", timer).await;
                } else {
                    let body = json!({ "timers": timers.collect::<Vec<_>>() }).to_string();
                    let answer = connection.post("/api/v1/timers/create-batch", body).await;
                    assert!(!answer.windows(8).any(|part| part == b"\"error\":"), "all of them are stored");
                }
                created += batch;
            }
            created
        });
    }
    let created: usize = clients.join_all().await.into_iter().sum();
    created as f64 / start.elapsed().as_secs_f64()
}

/// Rows per second of one COPY.
async fn copy(client: &Client) -> f64 {
    let start = Instant::now();
    let copy = "copy walclock.timers (namespace, id, execute_at, callback_url, payload) from stdin";
    let mut sink = pin!(client.copy_in::<_, bytes::Bytes>(copy).await.expect("COPY"));
    for first in (0..COPIED).step_by(BATCH) {
        let rows = (first..first + BATCH).map(|n| format!("bench\tcopied-{n}\t{DUE}\t{URL}\t{{\"order\": 7}}\n"));
        sink.send(rows.collect::<String>().into()).await.expect("it takes rows");
    }
    assert_eq!(sink.finish().await.expect("it commits"), COPIED as u64);
    COPIED as f64 / start.elapsed().as_secs_f64()
}
