//! Very many timers that are far from due, and what they change: how long an INSERT takes to its callback, how late others
//! are, memory, the CPU time of an idle server, and its start. Beside them the same without them, in the same run.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::arrivals::Arrivals;
use crate::support::{Database, Server, quantile, size};
use crate::verdict::{Target, Verdict};
use crate::{insert_to_callback, lateness};

/// Timers of one statement that fills the table.
const CHUNK: usize = 100_000;

/// What is looked at.
struct Figures {
    start_seconds: f64,
    insert_p50: f64,
    late_p50: f64,
    late_p99: f64,
    idle_cores: f64,
    resident_kib: f64,
}

pub async fn run() -> Vec<Verdict> {
    let (far, count, seconds) = (size("FAR", 1_000_000), size("TIMERS", 1_000), size("SECONDS", 10));
    let database = Database::start(&[("max_wal_size", "8GB")]);
    // Once for nothing, so that both looks find the same: a journal, and the schema.
    Server::start_migrated(&database).await.terminate().await;
    let client = database.connect().await;
    let arrivals = Arrivals::start().await;

    println!("{far} timers of the next years, beside none");
    let before = look(&database, &client, &arrivals, "before", count, seconds).await;
    fill(&client, &arrivals, far).await;
    let after = look(&database, &client, &arrivals, "after", count, seconds).await;
    for (name, figures) in [("none", &before), ("many", &after)] {
        println!(
            "  {name}: start {:.2} s   INSERT to callback p50 {:.3} ms   late p50 {:.3}, p99 {:.3} ms   idle {:.1} % of a core   {:.1} MiB",
            figures.start_seconds,
            figures.insert_p50,
            figures.late_p50,
            figures.late_p99,
            figures.idle_cores * 100.0,
            figures.resident_kib / 1024.0
        );
    }
    let plan = "an index range per page, and nothing is kept beyond the horizon";
    let ratio = |what: &str, figure: fn(&Figures) -> f64| {
        let what = format!("{far} far timers: {what}, times that of none");
        Verdict::new(what, vec![figure(&after) / figure(&before)], Target::AtMost(1.1), plan)
    };
    vec![
        ratio("INSERT to callback, p50", |figures| figures.insert_p50),
        ratio("lateness, p50", |figures| figures.late_p50),
        ratio("memory", |figures| figures.resident_kib),
        verdict(far, "cores when idle", after.idle_cores, 0.02),
        verdict(far, "seconds to start", after.start_seconds, 2.0),
    ]
}

fn verdict(far: usize, what: &str, value: f64, most: f64) -> Verdict {
    Verdict::new(
        format!("{far} far timers: {what}"),
        vec![value],
        Target::AtMost(most),
        "the sweep, the leases and the clock",
    )
}

async fn look(
    database: &Database,
    client: &Client,
    arrivals: &Arrivals,
    name: &str,
    count: usize,
    seconds: usize,
) -> Figures {
    let started = Instant::now();
    let server = Server::start(&database.url(), &database.folder.path().join("walclock")).await;
    // It has started once it fires: the first of these was due before.
    let (all, _) = insert_to_callback::measure(client, arrivals, &format!("{name}-first"), 1).await;
    let start_seconds = started.elapsed().as_secs_f64();
    assert_eq!(all.len(), 1);

    let (inserts, _) = insert_to_callback::measure(client, arrivals, name, count / 2).await;
    let seconds = u32::try_from(seconds).expect("a small number");
    let step = Duration::from_secs(seconds.into()) / u32::try_from(count).expect("a small number");
    let late = lateness::measure(client, arrivals, name, count, step).await;

    let (idle, cpu) = (Instant::now(), server.cpu_seconds());
    tokio::time::sleep(Duration::from_secs(seconds.into())).await;
    let idle_cores = (server.cpu_seconds() - cpu) / idle.elapsed().as_secs_f64();
    let resident_kib = server.resident_kib();
    server.terminate().await;
    Figures {
        start_seconds,
        insert_p50: quantile(&inserts, 0.5),
        late_p50: quantile(&late, 0.5),
        late_p99: quantile(&late, 0.99),
        idle_cores,
        resident_kib,
    }
}

/// Inserts so many timers, due one a second from tomorrow on, while no server runs: what it would hear of them when it is
/// back is made durable by it first, which is no part of its start. Their slot is dropped with them unread.
async fn fill(client: &Client, arrivals: &Arrivals, far: usize) {
    let drop_slot = "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = 'walclock'";
    client.execute(drop_slot, &[]).await.expect("nobody streams from it");
    let insert = "insert into walclock.timers (namespace, id, execute_at, callback_url, payload)
        select 'far', n::text, now() + interval '1 day' + n * interval '1 second', $1, '{\"order\": 7}'
        from generate_series($2::int, $3::int) n";
    for first in (1..=far).step_by(CHUNK) {
        let [first, last] = [first, far.min(first + CHUNK - 1)].map(|n| i32::try_from(n).expect("a small number"));
        client.execute(insert, &[&arrivals.receiver.url(), &first, &last]).await.expect("timers");
    }
    for statement in ["vacuum analyze walclock.timers", "checkpoint"] {
        client.batch_execute(statement).await.expect("statistics, and a quiet disk");
    }
}
