//! What the database's writers get done while the feed drains its slot, beside the same with `pg_recvlogical`: pgbench
//! with rows one by one, and with a hundred at a time, in turn. Whoever falls behind meanwhile leaves the cores to the
//! writers, so the work is over only when the slot is drained.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::support::{Database, Server, drop_slot, pgbench, size, until_active};
use crate::verdict::{Target, Verdict};

const ROUNDS: usize = 4;
const ONE: &str = "insert into rows (_change_selector, body) values ('bench', repeat('x', 200));\n";
const HUNDRED: &str =
    "insert into rows (_change_selector, body) select 'bench', repeat('x', 200) from generate_series(1, 100);\n";

pub async fn run() -> Vec<Verdict> {
    let seconds = size("SECONDS", 10);
    let database = Database::start(&[("max_wal_size", "8GB")]);
    let client = database.connect().await;
    database.migrate().await;
    let table =
        "create table rows (id bigint generated always as identity primary key, _change_selector text, body text);
        alter table rows replica identity full;
        select walclock.publish('rows')";
    client.batch_execute(table).await.expect("a table");
    let mut verdicts = Vec::new();
    for (what, script, clients, rows) in [("one row", ONE, "8", 1.0), ("100 rows", HUNDRED, "2", 100.0)] {
        println!(
            "pgbench with {clients} clients that insert {what} at a time, {seconds} s each: rows/s inserted, and drained"
        );
        let file = database.folder.path().join("script");
        std::fs::write(&file, script).expect("a script");
        let mut ratios = Vec::new();
        for round in 1..=ROUNDS {
            let mut measured = [Work::default(); 2];
            // Who goes first changes, since the table grows.
            for turn in [round % 2, 1 - round % 2] {
                client.batch_execute("truncate rows; checkpoint").await.expect("an empty table");
                let drainer = Drainer::start(&database, &client, turn == 1).await;
                let start = Instant::now();
                let inserted = rows * pgbench(&database, &file, clients, seconds);
                let behind = megabytes_behind(&client).await;
                until_drained(&client).await;
                let drained = inserted * seconds as f64 / start.elapsed().as_secs_f64();
                measured[turn] = Work { inserted, behind, drained };
                drainer.stop(&client).await;
            }
            let [theirs, ours] = measured;
            println!("  round {round}: beside pg_recvlogical {}   beside walclock {}", theirs.line(), ours.line());
            ratios.push(ours.drained / theirs.drained);
        }
        let what = format!("rows/s by {what}, until drained, of those with pg_recvlogical");
        verdicts.push(Verdict::new(what, ratios, Target::AtLeast(1.0), "the cores are shared by all"));
    }
    verdicts
}

/// What was done in one turn.
#[derive(Clone, Copy, Default)]
struct Work {
    /// Rows a second while pgbench ran.
    inserted: f64,
    /// How much WAL the slot's reader had still to be sent then, in megabytes.
    behind: f64,
    /// The same rows a second, until all of them had been sent.
    drained: f64,
}

impl Work {
    fn line(&self) -> String {
        let Self { inserted, behind, drained } = self;
        format!("{inserted:8.0} ({behind:.0} MB of WAL behind) {drained:8.0}")
    }
}

/// How much WAL the slot's reader has still to be sent, in megabytes.
async fn megabytes_behind(client: &Client) -> f64 {
    let query = "select (pg_wal_lsn_diff(pg_current_wal_lsn(), s.sent_lsn) / 1e6)::float8
        from pg_stat_replication s join pg_replication_slots on active_pid = s.pid where slot_name = $1";
    client.query_one(query, &[&SLOT]).await.expect("a walsender").get(0)
}

/// Waits until the slot's reader has been sent all that is there now. That it has also confirmed it, each of them says by a
/// timer of its own.
async fn until_drained(client: &Client) {
    let end = "select pg_current_wal_flush_lsn()::text";
    let end: String = client.query_one(end, &[]).await.expect("a position").get(0);
    let query = "select s.sent_lsn >= $2::text::pg_lsn
        from pg_stat_replication s join pg_replication_slots on active_pid = s.pid where slot_name = $1";
    while !client.query_one(query, &[&SLOT, &end]).await.expect("a walsender").get::<_, bool>(0) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
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
        until_active(client, SLOT).await;
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
        drop_slot(client, SLOT).await;
    }
}
