//! How fast a backlog of the slot becomes durable in the journal and readable, beside `pg_recvlogical` with pgoutput
//! into /dev/null on a slot of the same age; and the CPU time it takes, beside a client that only counts the messages.

use std::time::{Duration, Instant};

use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;
use walclock::domain::scope::Scope;
use walclock::domain::sequence::{Lsn, Sequence};
use walclock::feed::ingest::{self, Ingest, Status};
use walclock::feed::journal::{self, Journal};
use walclock::feed::query::Query;
use walclock::feed::reader::Reader;
use walclock::feed::{assemble, source};
use walclock::pg::Settings;

use crate::counting;
use crate::support::{Database, cpu_seconds, size, walsender_seconds};
use crate::verdict::{Target, Verdict};

const ROUNDS: usize = 3;
/// Rows of a transaction, and how much faster than the reference the drain is to be.
const CASES: [(usize, f64); 3] = [(1, 2.0), (10, 2.0), (1_000, 1.2)];

/// What is drained: the database with a backlog, and a slot of each contender for each round.
struct World {
    database: Database,
    settings: Settings,
    client: Client,
    rows: usize,
    /// Where the backlog ends.
    end: String,
}

/// One drain.
struct Drain {
    took: Duration,
    cpu: f64,
    walsender_cpu: f64,
}

pub async fn run() -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for (rows_per_transaction, target) in CASES {
        verdicts.extend(drains(rows_per_transaction, target).await);
    }
    verdicts
}

async fn drains(rows_per_transaction: usize, target: f64) -> [Verdict; 2] {
    let world = World::new(rows_per_transaction).await;
    let rows = world.rows;
    println!("drain of {rows} rows of 200 bytes in transactions of {rows_per_transaction}, rows/s");
    let (mut ratios, mut cpu_ratios, mut walsender_busy) = (Vec::new(), Vec::new(), 0.0);
    for round in 0..ROUNDS {
        let theirs = world.drain_peer(round).await;
        let ours = world.drain(round).await;
        let counted = counting::count(world.database.cluster.port(), &format!("counted{round}"), lsn(&world.end));
        assert!(counted.messages > rows, "each row is a message");
        let rate = |drain: &Drain| rows as f64 / drain.took.as_secs_f64();
        println!(
            "  round {}: pg_recvlogical {:7.0} ({:.1} CPU s, walsender {:.1})   walclock, durable {:7.0} ({:.1} CPU s, walsender {:.1})   a count of the messages {:7.0} ({:.1} CPU s)",
            round + 1,
            rate(&theirs),
            theirs.cpu,
            theirs.walsender_cpu,
            rate(&ours),
            ours.cpu,
            ours.walsender_cpu,
            rows as f64 / counted.took.as_secs_f64(),
            counted.cpu
        );
        walsender_busy += 100.0 * ours.walsender_cpu / ours.took.as_secs_f64() / ROUNDS as f64;
        ratios.push(rate(&ours) / rate(&theirs));
        cpu_ratios.push(ours.cpu / counted.cpu);
    }
    let limit = format!("the walsender is busy for {walsender_busy:.0} % of the drain");
    [
        Verdict::new(
            format!("drain in transactions of {rows_per_transaction}, of pg_recvlogical's rate"),
            ratios,
            Target::AtLeast(target),
            limit,
        ),
        Verdict::new(
            "CPU of that drain, of a count of the messages",
            cpu_ratios,
            Target::AtMost(1.0),
            "decoding, rendering, checksums, fsync",
        ),
    ]
}

impl World {
    async fn new(rows_per_transaction: usize) -> Self {
        let database = Database::start(&[("max_wal_size", "8GB"), ("max_replication_slots", "20")]);
        let client = database.connect().await;
        let settings = Settings::parse(&database.url()).expect("a URL");
        database.migrate().await;
        let table = "create table rows (id int primary key, _change_selector text, body text);
            alter table rows replica identity full;
            select walclock.publish('rows')";
        client.batch_execute(table).await.expect("a table");
        let rows = size("ROWS", 1_000_000);
        let mut world = Self { database, settings, client, rows, end: String::new() };
        for round in 0..ROUNDS {
            for name in ["peer", "counted"] {
                let make = "select pg_create_logical_replication_slot($1, 'pgoutput')";
                world.client.execute(make, &[&format!("{name}{round}")]).await.expect("a slot");
            }
            let mut feed = Feed::start(&world, round);
            feed.status.wait_for(|status| *status == Status::Streaming).await.expect("it makes its slot");
            feed.stop().await;
        }
        load(&world.client, rows, rows_per_transaction).await;
        let end = "select pg_current_wal_flush_lsn()::text";
        world.end = world.client.query_one(end, &[]).await.expect("a position").get(0);
        world
    }

    /// `pg_recvlogical` to the end of the backlog.
    async fn drain_peer(&self, round: usize) -> Drain {
        let start = Instant::now();
        let slot = format!("peer{round}");
        let mut peer = Database::program("pg_recvlogical")
            .args(["--dbname", &self.database.url(), "--slot", &slot])
            .args(["--start", "--no-loop", "--endpos", &self.end, "-f", "/dev/null"])
            .args(["-o", "proto_version=1", "-o", "publication_names=walclock"])
            .spawn()
            .expect("pg_recvlogical runs");
        let (mut cpu, mut walsender_cpu) = (0.0, 0.0);
        loop {
            if let Some(status) = peer.try_wait().expect("a child") {
                assert!(status.success(), "pg_recvlogical reaches the end");
                return Drain { took: start.elapsed(), cpu, walsender_cpu };
            }
            cpu = cpu_seconds(peer.id()).max(cpu);
            walsender_cpu = walsender_seconds(&self.client, &slot).await.unwrap_or_default().max(walsender_cpu);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Our drain, until all is durable and readable. The CPU time is that of this process.
    async fn drain(&self, round: usize) -> Drain {
        let cpu = cpu_seconds(std::process::id());
        let start = Instant::now();
        let feed = Feed::start(self, round);
        let over = feed.read("over").await;
        feed.journal.watch_durable().wait_for(|durable| *durable > over.lsn).await.expect("it becomes durable");
        let (took, cpu) = (start.elapsed(), cpu_seconds(std::process::id()) - cpu);
        let walsender_cpu = walsender_seconds(&self.client, &format!("ours{round}")).await.unwrap_or_default();
        feed.stop().await;
        Drain { took, cpu, walsender_cpu }
    }
}

/// Commits the backlog, and behind it one row that says that it is over.
async fn load(client: &Client, rows: usize, rows_per_transaction: usize) {
    let transactions = rows / rows_per_transaction;
    let load = format!(
        "do $$ begin
             for n in 0..{transactions} - 1 loop
                 insert into rows select n * {rows_per_transaction} + i, 'bench', repeat('x', 200)
                 from generate_series(1, {rows_per_transaction}) i;
                 commit;
             end loop;
         end $$"
    );
    // One call each: a loop that commits cannot share its call with other statements.
    for statement in [
        "set synchronous_commit = off",
        &load,
        "set synchronous_commit = on",
        "insert into rows values (0, 'over', '')",
    ] {
        client.batch_execute(statement).await.expect("a backlog");
    }
}

/// A position as PostgreSQL prints it.
fn lsn(text: &str) -> u64 {
    let (high, low) = text.split_once('/').expect("a position");
    let number = |hex| u64::from_str_radix(hex, 16).expect("a position");
    Lsn(number(high) << 32 | number(low)).0
}

/// The way in, from the slot to the journal, within this process.
struct Feed {
    journal: Journal,
    status: tokio::sync::watch::Receiver<Status>,
    shutdown: CancellationToken,
    running: tokio::task::JoinHandle<std::io::Result<Result<(), source::Error>>>,
}

impl Feed {
    fn start(world: &World, round: usize) -> Self {
        let folder = world.database.folder.path().join(format!("journal{round}"));
        let (writer, journal) = journal::open(journal::Config::new(folder)).expect("a journal");
        let config = ingest::Config {
            source: source::Config {
                settings: world.settings.clone(),
                slot: format!("ours{round}"),
                publications: vec!["walclock".to_owned()],
            },
            assemble: assemble::Config { selector_columns: vec!["_change_selector".to_owned()] },
            intervals: ingest::Intervals::default(),
        };
        let ingest = Ingest::new(config, writer, journal.clone());
        let status = ingest.status();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(ingest.run_apart(shutdown.clone()));
        Self { journal, status, shutdown, running }
    }

    /// Waits until there is a change of the scope; returns its sequence.
    async fn read(&self, scope: &str) -> Sequence {
        let query = Query {
            scopes: vec![Scope::parse(scope).expect("a scope")],
            since: Sequence::ZERO,
            limit: 1,
            block: Duration::from_secs(300),
            snapshot: None,
        };
        let page = Reader::new(self.journal.clone()).changes(query).await.expect("a page");
        assert_eq!(page.changes.len(), 1, "the backlog ends in time");
        page.last
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.running.await.expect("no panic").expect("a thread").expect("it ends well");
    }
}
