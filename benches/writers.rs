//! What the database's writers get done while the feed drains its slot, beside the same with `pg_recvlogical`: pgbench
//! with rows one by one, and with a hundred at a time, in turn.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::support::{Database, Server, pgbench, size};
use crate::verdict::{Target, Verdict};

const ROUNDS: usize = 4;
const ONE: &str = "insert into rows (_change_selector, body) values ('bench', repeat('x', 200));\n";
const HUNDRED: &str =
    "insert into rows (_change_selector, body) select 'bench', repeat('x', 200) from generate_series(1, 100);\n";

pub async fn run() -> Vec<Verdict> {
    let seconds = size("SECONDS", 10);
    let database = Database::start(&[("max_wal_size", "8GB")]);
    let client = database.connect().await;
    let settings = walclock::pg::Settings::parse(&database.url()).expect("a URL");
    walclock::store::migrate::run(&settings).await.expect("the schema");
    let table =
        "create table rows (id bigint generated always as identity primary key, _change_selector text, body text);
        alter table rows replica identity full;
        select walclock.publish('rows')";
    client.batch_execute(table).await.expect("a table");
    let mut verdicts = Vec::new();
    for (what, script, clients, rows) in [("one row", ONE, "8", 1.0), ("100 rows", HUNDRED, "2", 100.0)] {
        println!("pgbench with {clients} clients that insert {what} at a time, rows/s, {seconds} s each");
        let file = database.folder.path().join("script");
        std::fs::write(&file, script).expect("a script");
        let mut ratios = Vec::new();
        for round in 1..=ROUNDS {
            let mut measured = [f64::NAN; 2];
            // Who goes first changes, since the table grows.
            for turn in [round % 2, 1 - round % 2] {
                client.batch_execute("truncate rows; checkpoint").await.expect("an empty table");
                let drainer = Drainer::start(&database, &client, turn == 1).await;
                measured[turn] = rows * pgbench(&database, &file, clients, seconds);
                drainer.stop(&client).await;
            }
            let [theirs, ours] = measured;
            println!("  round {round}: beside pg_recvlogical {theirs:8.0}   beside walclock {ours:8.0}");
            ratios.push(ours / theirs);
        }
        let what = format!("inserts of {what} beside it, of those beside pg_recvlogical");
        verdicts.push(Verdict::new(what, ratios, Target::AtLeast(1.0), "the cores are shared by all"));
    }
    verdicts
}

/// What keeps the slot empty meanwhile. Its slot is as young as it is.
enum Drainer {
    Walclock(Server),
    Peer(Child),
}

const SLOT: &str = "drained";

impl Drainer {
    async fn start(database: &Database, client: &Client, is_ours: bool) -> Self {
        if is_ours {
            let data = database.folder.path().join("walclock");
            let flags = ["--roles", "changeserver", "--slot", SLOT];
            return Self::Walclock(Server::start_with(&database.url(), &data, &flags).await);
        }
        let make = "select pg_create_logical_replication_slot($1, 'pgoutput')";
        client.execute(make, &[&SLOT]).await.expect("a slot");
        let peer = Database::program("pg_recvlogical")
            .args(["--dbname", &database.url(), "--slot", SLOT, "--start", "--no-loop", "-f", "/dev/null"])
            .args(["-o", "proto_version=1", "-o", "publication_names=walclock"])
            .stderr(Stdio::null())
            .spawn()
            .expect("pg_recvlogical runs");
        until(client, "select active from pg_replication_slots where slot_name = $1").await;
        Self::Peer(peer)
    }

    /// Ends it, and drops its slot.
    async fn stop(self, client: &Client) {
        match self {
            Self::Walclock(server) => server.terminate().await,
            Self::Peer(mut peer) => {
                peer.kill().expect("it is there");
                peer.wait().expect("a child");
            }
        }
        until(client, "select not active from pg_replication_slots where slot_name = $1").await;
        client.execute("select pg_drop_replication_slot($1)", &[&SLOT]).await.expect("the slot goes");
    }
}

async fn until(client: &Client, query: &str) {
    let start = Instant::now();
    while !client.query_one(query, &[&SLOT]).await.expect("an answer").get::<_, bool>(0) {
        assert!(start.elapsed() < Duration::from_secs(120), "{query}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
