//! What the database's writers get done while the feed drains its slot, beside the same with `pg_recvlogical`: pgbench
//! with rows one by one, and with a hundred at a time, in turn.

use std::process::{Child, Stdio};

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
        println!("pgbench with {clients} clients that insert {what} at a time, rows/s, {seconds} s each");
        let file = database.folder.path().join("script");
        std::fs::write(&file, script).expect("a script");
        let mut ratios = Vec::new();
        for round in 1..=ROUNDS {
            let (mut measured, mut behind) = ([f64::NAN; 2], [f64::NAN; 2]);
            // Who goes first changes, since the table grows.
            for turn in [round % 2, 1 - round % 2] {
                client.batch_execute("truncate rows; checkpoint").await.expect("an empty table");
                let drainer = Drainer::start(&database, &client, turn == 1).await;
                measured[turn] = rows * pgbench(&database, &file, clients, seconds);
                behind[turn] = megabytes_behind(&client).await;
                drainer.stop(&client).await;
            }
            let [theirs, ours] = measured;
            println!(
                "  round {round}: beside pg_recvlogical {theirs:8.0} ({:.0} MB of WAL behind at the end)   \
                 beside walclock {ours:8.0} ({:.0})",
                behind[0], behind[1]
            );
            ratios.push(ours / theirs);
        }
        let what = format!("inserts of {what} beside it, of those beside pg_recvlogical");
        verdicts.push(Verdict::new(what, ratios, Target::AtLeast(1.0), "the cores are shared by all"));
    }
    verdicts
}

/// How much WAL the slot's reader has still to be sent, in megabytes.
async fn megabytes_behind(client: &Client) -> f64 {
    let query = "select (pg_wal_lsn_diff(pg_current_wal_lsn(), s.sent_lsn) / 1e6)::float8
        from pg_stat_replication s join pg_replication_slots on active_pid = s.pid where slot_name = $1";
    client.query_one(query, &[&SLOT]).await.expect("a walsender").get(0)
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
