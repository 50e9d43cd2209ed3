//! How fast a backlog of the slot becomes durable in the journal and readable, beside `pg_recvlogical` with pgoutput
//! into /dev/null on a slot of the same age.

use std::process::Command;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use walclock::domain::scope::Scope;
use walclock::domain::sequence::Sequence;
use walclock::feed::ingest::{self, Ingest, Status};
use walclock::feed::journal::{self, Journal};
use walclock::feed::query::Query;
use walclock::feed::reader::Reader;
use walclock::feed::{assemble, source};
use walclock::pg::Settings;

use crate::support::{Database, cpu_seconds};

const ROWS: u32 = 1_000_000;
const ROWS_PER_TRANSACTION: u32 = 10;
const ROUNDS: usize = 3;

pub async fn run() {
    let database = Database::start(&[("max_wal_size", "8GB")]);
    let client = database.connect().await;
    let settings = Settings::parse(&database.url()).expect("a URL");
    walclock::store::migrate::run(&settings).await.expect("the schema");
    let table = "create table rows (id int primary key, _change_selector text, body text);
        alter table rows replica identity full;
        select walclock.publish('rows')";
    client.batch_execute(table).await.expect("a table");
    for round in 0..ROUNDS {
        let made = recvlogical(&database, round).args(["--create-slot", "--plugin=pgoutput"]).status();
        assert!(made.expect("pg_recvlogical runs").success(), "pg_recvlogical makes its slot");
        let mut feed = Feed::start(&database, &settings, round);
        feed.status.wait_for(|status| *status == Status::Streaming).await.expect("it makes its slot");
        feed.stop().await;
    }
    load(&client).await;
    let end: String =
        client.query_one("select pg_current_wal_flush_lsn()::text", &[]).await.expect("a position").get(0);

    println!("drain of {ROWS} rows of 200 bytes in transactions of {ROWS_PER_TRANSACTION}, rows/s");
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let (theirs, theirs_cpu) = drain_peer(&database, round, &end);
        let (ours, ours_cpu) = drain(&database, &settings, round).await;
        let (theirs, ours) = (f64::from(ROWS) / theirs.as_secs_f64(), f64::from(ROWS) / ours.as_secs_f64());
        println!(
            "  round {}: pg_recvlogical {theirs:8.0} ({theirs_cpu:.1} CPU s), walclock, durable {ours:8.0} ({ours_cpu:.1} CPU s)   ratio {:.2}",
            round + 1,
            ours / theirs
        );
        ratios.push(ours / theirs);
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "  ratio, median of {ROUNDS}: {:.2}   (the walsender's send() per message is the limit of both)",
        ratios[ROUNDS / 2]
    );
}

/// Commits the backlog, and behind it one row that says that it is over.
async fn load(client: &tokio_postgres::Client) {
    let transactions = ROWS / ROWS_PER_TRANSACTION;
    let load = format!(
        "do $$ begin
             for n in 0..{transactions} - 1 loop
                 insert into rows select n * {ROWS_PER_TRANSACTION} + i, 'bench', repeat('x', 200)
                 from generate_series(1, {ROWS_PER_TRANSACTION}) i;
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

fn recvlogical(database: &Database, round: usize) -> Command {
    let mut command = Database::program("pg_recvlogical");
    command.args(["--dbname", &database.url(), "--slot", &format!("peer{round}")]);
    command
}

/// The time `pg_recvlogical` takes to the end of the backlog, and the CPU time it uses itself.
fn drain_peer(database: &Database, round: usize, end: &str) -> (Duration, f64) {
    let start = Instant::now();
    let mut peer = recvlogical(database, round)
        .args(["--start", "--no-loop", "--endpos", end, "-f", "/dev/null"])
        .args(["-o", "proto_version=1", "-o", "publication_names=walclock"])
        .spawn()
        .expect("pg_recvlogical runs");
    let mut cpu = 0.0;
    loop {
        if let Some(status) = peer.try_wait().expect("a child") {
            assert!(status.success(), "pg_recvlogical reaches the end");
            return (start.elapsed(), cpu);
        }
        cpu = cpu_seconds(peer.id()).max(cpu);
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// The time until the backlog is durable and readable, and the CPU time of this process.
async fn drain(database: &Database, settings: &Settings, round: usize) -> (Duration, f64) {
    let cpu = cpu_seconds(std::process::id());
    let start = Instant::now();
    let feed = Feed::start(database, settings, round);
    let over = feed.read("over").await;
    feed.journal.watch_durable().wait_for(|durable| *durable > over.lsn).await.expect("it becomes durable");
    let took = (start.elapsed(), cpu_seconds(std::process::id()) - cpu);
    feed.stop().await;
    took
}

/// The way in, from the slot to the journal, within this process.
struct Feed {
    journal: Journal,
    status: tokio::sync::watch::Receiver<Status>,
    shutdown: CancellationToken,
    running: tokio::task::JoinHandle<Result<(), source::Error>>,
}

impl Feed {
    fn start(database: &Database, settings: &Settings, round: usize) -> Self {
        let folder = database.folder.path().join(format!("journal{round}"));
        let (writer, journal) = journal::open(journal::Config::new(folder)).expect("a journal");
        let config = ingest::Config {
            source: source::Config {
                settings: settings.clone(),
                slot: format!("ours{round}"),
                publications: vec!["walclock".to_owned()],
            },
            assemble: assemble::Config { selector_columns: vec!["_change_selector".to_owned()] },
            intervals: ingest::Intervals::default(),
        };
        let ingest = Ingest::new(config, writer, journal.clone());
        let status = ingest.status();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(ingest.run(shutdown.clone()));
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
        self.running.await.expect("it does not panic").expect("it ends well");
    }
}
