//! Ten thousand readers that wait: how long one commit takes to reach them all, what each of them costs in memory, and
//! what they cost a reader of another scope.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::crowd::{Crowd, last_sequence};
use crate::support::{Connection, Database, Server, quantile, size};
use crate::verdict::{Target, Verdict};

const ROUNDS: usize = 3;
/// Crowds that come and go, one after the other.
const CROWDS: usize = 6;
/// So many of them show what a crowd takes; by then memory is to be back, and what the later ones take is held against it.
const CROWDS_FIRST: usize = 3;
/// Commits of one round of the reader of another scope.
const COMMITS: u32 = 200;
/// How often it is looked whether the server still gives memory back, and how often at most.
const GIVEN_BACK_EVERY: Duration = Duration::from_secs(2);
const GIVEN_BACK_LOOKS_MAX: usize = 10;
/// 100 commits a second.
const PACE: Duration = Duration::from_millis(10);

pub async fn run() -> Vec<Verdict> {
    let readers = size("READERS", 10_000);
    let database = Database::start(&[]);
    let server = Server::start_feed(&database).await;
    let client = database.connect().await;
    let table = "create table news (id int generated always as identity primary key, _change_selector text);
        alter table news replica identity full;
        select walclock.publish('news')";
    client.batch_execute(table).await.expect("a table");
    // What the server needs once, whoever waits: it is no cost of a reader.
    commit(&client, "all").await;
    // Told, so that nobody meets it who asks for what is newer than the newest.
    Connection::open(&server.url).await.get("/changes?scope=all&block=60").await;

    let mut verdicts = fan_out(&server, &client, readers).await;
    verdicts.push(beside(&server, &client, readers).await);
    verdicts
}

async fn commit(client: &Client, scope: &str) {
    client.execute("insert into news (_change_selector) values ($1)", &[&scope]).await.expect("an insert");
}

/// What the rounds of one crowd after the other have shown.
#[derive(Default)]
struct Shown {
    /// From the commit to the last answer, in seconds.
    took: Vec<f64>,
    /// Server's memory with all of them waiting, and after they left, in KiB.
    waiting: Vec<f64>,
    left: Vec<f64>,
    cpu: f64,
}

async fn fan_out(server: &Server, client: &Client, readers: usize) -> Vec<Verdict> {
    println!("one commit to {readers} readers that wait for it, over kept connections");
    let mut shown = Shown::default();
    let before = server.resident_kib();
    for round in 1..=CROWDS {
        one_crowd(server, client, readers, &mut shown).await;
        println!(
            "  round {round}: last answer after {:.3} s, {:.0} KiB with all waiting, {:.0} KiB after they left, {before:.0} KiB at first",
            shown.took.last().unwrap_or(&f64::NAN),
            shown.waiting.last().unwrap_or(&f64::NAN),
            shown.left.last().unwrap_or(&f64::NAN),
        );
    }
    let each = shown.waiting.iter().map(|kib| (kib - before) / readers as f64).collect();
    let more = |kib: &f64, than: f64| 100.0 * (kib / than - 1.0);
    let (first, later) = shown.waiting.split_at(CROWDS_FIRST);
    let usual = first.iter().sum::<f64>() / first.len() as f64;
    let left = &shown.left[CROWDS_FIRST - 1..];
    let answers = (2 * CROWDS * readers) as f64;
    let limit = format!("CPU: walclock {:.0} µs for each question and answer", shown.cpu * 1e6 / answers);
    vec![
        Verdict::new(format!("{readers} readers: s to the last answer"), shown.took, Target::AtMost(1.0), limit),
        Verdict::new("KiB resident for each that waits", each, Target::AtMost(8.0), "the connection's task"),
        Verdict::new(
            "% of memory that a later crowd takes more than the first three",
            // Less is nothing left over.
            later.iter().map(|kib| more(kib, usual)).collect(),
            Target::AtMost(5.0),
            "",
        ),
        Verdict::new(
            "% of memory by which it differs from before, after they left",
            left.iter().map(|kib| more(kib, before).abs()).collect(),
            Target::AtMost(5.0),
            "",
        ),
    ]
}

/// A crowd comes, is answered, asks again, is answered again, and leaves.
async fn one_crowd(server: &Server, client: &Client, readers: usize, shown: &mut Shown) {
    let cpu = server.cpu_seconds();
    let mut since = newest(server).await;
    let mut crowd = Crowd::connect(server.port, readers);
    let mut resident = f64::NAN;
    for _ in 0..2 {
        crowd.ask(|_| format!("/changes?scope=all&block=300&since={since}"));
        server.until_waiting(readers).await;
        // The second wait of a connection counts: by then its answer has left all that an answer leaves.
        resident = server.resident_kib();
        commit(client, "all").await;
        let committed = Instant::now();
        let body = crowd.answers();
        shown.took.push(committed.elapsed().as_secs_f64());
        since = last_sequence(&body).to_owned();
    }
    shown.waiting.push(resident);
    shown.cpu += server.cpu_seconds() - cpu;
    drop(crowd);
    server.until_waiting(0).await;
    shown.left.push(given_back(server).await);
}

/// The server's memory once it shrinks no more: the allocator gives back what has been free for a second.
async fn given_back(server: &Server) -> f64 {
    let mut now = server.resident_kib();
    for _ in 0..GIVEN_BACK_LOOKS_MAX {
        tokio::time::sleep(GIVEN_BACK_EVERY).await;
        let before = std::mem::replace(&mut now, server.resident_kib());
        if now > before * 0.99 {
            break;
        }
    }
    now
}

async fn newest(server: &Server) -> String {
    let page = Connection::open(&server.url).await.get("/changes?scope=none").await;
    last_sequence(&String::from_utf8_lossy(&page)).to_owned()
}

/// The latency of one reader, with and without a crowd that waits for other scopes, in turn. Its p50 is judged: the p99 is one of
/// the three longest of [`COMMITS`], and where server, PostgreSQL and readers share two cores it differs by more than the
/// bound from round to round with nobody waiting. So it is told, and by how much it does.
async fn beside(server: &Server, client: &Client, readers: usize) -> Verdict {
    println!("one commit to its one reader, with {readers} waiting for other scopes and with none");
    let (mut ratios, mut tails, mut tails_alone) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let alone = latencies(server, client).await;
        let mut crowd = Crowd::connect(server.port, readers);
        let since = newest(server).await;
        crowd.ask(|number| format!("/changes?scope=other-{number}&block=300&since={since}"));
        server.until_waiting(readers).await;
        let among = latencies(server, client).await;
        drop(crowd);
        server.until_waiting(0).await;
        let at = |sorted: &[f64]| (quantile(sorted, 0.5), quantile(sorted, 0.99));
        let ((alone_p50, alone_p99), (among_p50, among_p99)) = (at(&alone), at(&among));
        println!(
            "  round {round}: alone p50 {alone_p50:.3} ms, p99 {alone_p99:.3} ms; among the others p50 {among_p50:.3} ms, p99 {among_p99:.3} ms"
        );
        ratios.push(among_p50 / alone_p50);
        tails.push(among_p99 / alone_p99);
        tails_alone.push(alone_p99);
    }
    tails.sort_by(f64::total_cmp);
    tails_alone.sort_by(f64::total_cmp);
    let limit = format!(
        "the same steps either way; its p99 is {:.3} of that with none, the longest of which is {:.2} of the shortest",
        quantile(&tails, 0.5),
        quantile(&tails_alone, 1.0) / quantile(&tails_alone, 0.0),
    );
    let what = format!("p50 latency with {readers} readers of other scopes, of that with none");
    Verdict::new(what, ratios, Target::AtMost(1.2), limit)
}

/// Milliseconds from before each insert to its answer, sorted.
async fn latencies(server: &Server, client: &Client) -> Vec<f64> {
    let mut reader = Crowd::connect(server.port, 1);
    let mut since = newest(server).await;
    let insert = client.prepare("insert into news (_change_selector) values ('hot')").await.expect("a statement");
    let mut latencies = Vec::new();
    let start = Instant::now();
    for n in 0..COMMITS {
        reader.ask(|_| format!("/changes?scope=hot&block=300&since={since}"));
        tokio::time::sleep_until((start + PACE * n).into()).await;
        let sent = Instant::now();
        client.execute(&insert, &[]).await.expect("an insert");
        since = last_sequence(&reader.answers()).to_owned();
        latencies.push(sent.elapsed().as_secs_f64() * 1e3);
    }
    latencies.sort_by(f64::total_cmp);
    latencies
}
