//! How long after a commit's acknowledgement a reader has the change: a long-polling reader of walclock over HTTP,
//! beside `pg_recvlogical`'s own output, on the same commits.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tokio_postgres::{Client, Statement};

use crate::support::{Database, Server, quantile};
use crate::verdict::{Target, Verdict};

const COMMITS: u32 = 1_000;
const ROUNDS: i32 = 3;
/// 100 commits a second.
const PACE: Duration = Duration::from_millis(10);

pub async fn run() -> Vec<Verdict> {
    let database = Database::start(&[]);
    let server = Server::start_migrated(&database).await;
    let client = database.connect().await;
    let table = "create table ticks (id int primary key, _change_selector text);
        alter table ticks replica identity full;
        select walclock.publish('ticks')";
    client.batch_execute(table).await.expect("a table");

    let (seen_by_peer, peer_seen) = mpsc::channel();
    let mut peer = start_peer(&database, seen_by_peer);
    let (seen_by_reader, reader_seen) = mpsc::channel();
    let reader = tokio::spawn(follow(server.url.clone(), seen_by_reader));

    let insert = client.prepare("insert into ticks values ($1, 'bench')").await.expect("a statement");
    println!("commit to reader, {COMMITS} commits at 100/s, ms after the commit's acknowledgement");
    let (mut p50, mut p99) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let committed = commits(&client, &insert, round).await;
        let (ours, theirs) = (latencies(&committed, &reader_seen), latencies(&committed, &peer_seen));
        println!(
            "  round {round}: pg_recvlogical p50 {:.3}, p99 {:.3}   walclock, GET /changes p50 {:.3}, p99 {:.3}",
            theirs.0, theirs.1, ours.0, ours.1
        );
        p50.push(ours.0 - theirs.0);
        p99.push(ours.1 - theirs.1);
    }
    reader.abort();
    let _ = peer.kill();
    let _ = peer.wait();
    let limit = "two wake-ups and an HTTP answer behind the walsender's message, which both wait for";
    vec![
        Verdict::new("commit to reader: ms more than pg_recvlogical, p50", p50, Target::AtMost(0.3), limit),
        Verdict::new("commit to reader: ms more than pg_recvlogical, p99", p99, Target::AtMost(1.0), limit),
    ]
}

/// When each commit was acknowledged.
async fn commits(client: &Client, insert: &Statement, round: i32) -> Vec<Instant> {
    let mut committed = Vec::new();
    let start = Instant::now();
    for n in 0..COMMITS {
        tokio::time::sleep_until((start + PACE * n).into()).await;
        let id = round * 1_000_000 + i32::try_from(n).expect("a small number");
        client.execute(insert, &[&id]).await.expect("an insert");
        committed.push(Instant::now());
    }
    committed
}

/// p50 and p99 of the milliseconds from each commit to when it was seen. The change may be told before its writer knows
/// that the commit is done.
fn latencies(committed: &[Instant], seen: &mpsc::Receiver<Instant>) -> (f64, f64) {
    let seen =
        committed.iter().map(|at| (at, seen.recv_timeout(Duration::from_secs(10)).expect("every change is told")));
    let mut latencies: Vec<f64> = seen.map(|(at, seen)| signed_millis(*at, seen)).collect();
    latencies.sort_by(f64::total_cmp);
    (quantile(&latencies, 0.5), quantile(&latencies, 0.99))
}

fn signed_millis(from: Instant, to: Instant) -> f64 {
    match to.checked_duration_since(from) {
        Some(later) => later.as_secs_f64() * 1e3,
        None => -from.duration_since(to).as_secs_f64() * 1e3,
    }
}

/// Starts `pg_recvlogical` with test_decoding into a pipe, and tells when each insert's line comes out of it.
fn start_peer(database: &Database, seen: mpsc::Sender<Instant>) -> std::process::Child {
    let recvlogical = |action: &str| {
        let mut command = Database::program("pg_recvlogical");
        command.args(["--dbname", &database.url(), "--slot", "peer", action]);
        command
    };
    let created = recvlogical("--create-slot").arg("--plugin=test_decoding").status().expect("pg_recvlogical runs");
    assert!(created.success(), "pg_recvlogical makes its slot");
    let mut peer =
        recvlogical("--start").args(["-f", "-"]).stdout(Stdio::piped()).spawn().expect("pg_recvlogical runs");
    let lines = BufReader::new(peer.stdout.take().expect("its output is piped")).lines();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if line.starts_with("table public.ticks: INSERT") && seen.send(Instant::now()).is_err() {
                return;
            }
        }
    });
    peer
}

/// Follows the scope by long polls over one kept connection, and tells when each change was here.
async fn follow(url: String, seen: mpsc::Sender<Instant>) {
    let mut connection = crate::support::Connection::open(&url).await;
    let mut since = "0.0.0".to_owned();
    loop {
        let body = connection.get(&format!("/changes?scope=bench&limit=10000&block=60&since={since}")).await;
        let now = Instant::now();
        let page: serde_json::Value = serde_json::from_slice(&body).expect("an answer in JSON");
        since = page["lastSequence"].as_str().expect("a sequence").to_owned();
        for _ in page["changes"].as_array().expect("a list") {
            if seen.send(now).is_err() {
                return;
            }
        }
    }
}
