//! How long after a commit's acknowledgement a reader has the change: a long-polling reader of walclock over HTTP,
//! beside `pg_recvlogical`'s own output. One after the other: two that decode the same commit wait for each other.

use std::io::Read;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tokio_postgres::{Client, Statement};

use crate::support::{Database, Server, drop_slot, quantile, until_active};
use crate::verdict::{Target, Verdict};

const COMMITS: u32 = 1_000;
const ROUNDS: i32 = 3;
/// 100 commits a second.
const PACE: Duration = Duration::from_millis(10);
const SCOPE: &str = "a-scope-of-the-bench";

pub async fn run() -> Vec<Verdict> {
    let database = Database::start(&[]);
    let client = database.connect().await;
    database.migrate().await;
    let table = "create table ticks (id int primary key, _change_selector text);
        alter table ticks replica identity full;
        select walclock.publish('ticks')";
    client.batch_execute(table).await.expect("a table");
    let insert = client.prepare(&format!("insert into ticks values ($1, '{SCOPE}')")).await.expect("a statement");
    println!("commit to reader, {COMMITS} commits at 100/s, ms after the commit's acknowledgement");
    let (mut p50, mut p99) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let theirs = beside_peer(&database, &client, &insert, 2 * round).await;
        let ours = beside_walclock(&database, &client, &insert, 2 * round + 1).await;
        println!(
            "  round {round}: pg_recvlogical p50 {:.3}, p99 {:.3}   walclock, GET /changes p50 {:.3}, p99 {:.3}",
            theirs.0, theirs.1, ours.0, ours.1
        );
        p50.push(ours.0 - theirs.0);
        p99.push(ours.1 - theirs.1);
    }
    let limit = "two wake-ups and an HTTP answer behind the walsender's message, which both wait for";
    vec![
        Verdict::new("commit to reader: ms more than pg_recvlogical, p50", p50, Target::AtMost(0.3), limit),
        Verdict::new("commit to reader: ms more than pg_recvlogical, p99", p99, Target::AtMost(1.0), limit),
    ]
}

/// p50 and p99 of the peer.
async fn beside_peer(database: &Database, client: &Client, insert: &Statement, round: i32) -> (f64, f64) {
    let (seen, lines) = mpsc::channel();
    let mut peer = start_peer(database, seen);
    until_active(client, "peer").await;
    let latencies = latencies(&commits(client, insert, round).await, &lines);
    peer.kill().expect("it is there");
    peer.wait().expect("a child");
    drop_slot(client, "peer").await;
    latencies
}

/// The same of walclock.
async fn beside_walclock(database: &Database, client: &Client, insert: &Statement, round: i32) -> (f64, f64) {
    let data = database.folder.path().join(format!("walclock-{round}"));
    let server = Server::start_with(&database.url(), &data, &["--roles", "changeserver", "--slot", "walclock"]).await;
    let (seen, changes) = mpsc::channel();
    let reader = tokio::spawn(follow(server.url.clone(), seen));
    let latencies = latencies(&commits(client, insert, round).await, &changes);
    reader.abort();
    server.terminate().await;
    drop_slot(client, "walclock").await;
    latencies
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

/// Starts `pg_recvlogical` with pgoutput into a pipe, and tells when each insert comes out of it.
fn start_peer(database: &Database, seen: mpsc::Sender<Instant>) -> Child {
    let recvlogical = |action: &str| {
        let mut command = Database::program("pg_recvlogical");
        command.args(["--dbname", &database.url(), "--slot", "peer", action]);
        command
    };
    let created = recvlogical("--create-slot").arg("--plugin=pgoutput").status().expect("pg_recvlogical runs");
    assert!(created.success(), "pg_recvlogical makes its slot");
    let mut peer = recvlogical("--start")
        .args(["-f", "-", "-o", "proto_version=1", "-o", "publication_names=walclock"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("pg_recvlogical runs");
    let mut output = peer.stdout.take().expect("its output is piped");
    std::thread::spawn(move || {
        let mut inserts = Inserts::default();
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = output.read(&mut buffer) {
            let now = Instant::now();
            for _ in 0..inserts.count(&buffer[..length]) {
                if seen.send(now).is_err() {
                    return;
                }
            }
        }
    });
    peer
}

/// Counts inserts in what pg_recvlogical has written: each has the scope's name in it once, and nothing else has.
#[derive(Default)]
struct Inserts {
    /// The end of what came before, in which a name may have begun.
    rest: Vec<u8>,
}

impl Inserts {
    fn count(&mut self, bytes: &[u8]) -> usize {
        self.rest.extend_from_slice(bytes);
        let name = SCOPE.as_bytes();
        let found = self.rest.windows(name.len()).filter(|window| *window == name).count();
        self.rest.drain(..self.rest.len().saturating_sub(name.len() - 1));
        found
    }
}

/// Follows the scope by long polls over one kept connection, and tells when each change was here.
async fn follow(url: String, seen: mpsc::Sender<Instant>) {
    let mut connection = crate::support::Connection::open(&url).await;
    let mut since = "0.0.0".to_owned();
    loop {
        let body = connection.get(&format!("/changes?scope={SCOPE}&limit=10000&block=60&since={since}")).await;
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
