//! Very many timers that are due at the same instant: how long until the last callback has arrived, beside as many plain
//! requests to the same receiver.

use std::time::Duration;

use tokio_postgres::Client;

use crate::arrivals::Arrivals;
use crate::plain_client;
use crate::support::{Database, Server, size};
use crate::verdict::{Target, Verdict};

/// Connections of the plain client: more would only wait for the cores.
const SLOTS: usize = 64;
/// How long before the instant they are set.
pub const AHEAD_SECONDS: f64 = 4.0;

pub async fn run() -> Vec<Verdict> {
    let (count, rounds) = (size("TIMERS", 10_000), size("ROUNDS", 5));
    let database = Database::start(&[("max_wal_size", "4GB")]);
    let server = Server::start_migrated(&database).await;
    let client = database.connect().await;
    let arrivals = Arrivals::start().await;

    println!("{count} timers due at one instant, ms until the last callback, beside {count} plain requests");
    let (mut ratios, mut lasts) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let requests = count.div_ceil(SLOTS);
        let plain = plain_client::rate(arrivals.receiver.port, SLOTS, requests).await;
        arrivals.take(SLOTS * requests).await;
        let plain = count as f64 / plain * 1e3;
        let late = measure(&client, &arrivals, round, count).await;
        let [first, p50, last] = [0.0, 0.5, 1.0].map(|share| crate::support::quantile(&late, share));
        println!(
            "  round {round}: plain {plain:.0}   walclock first {first:.2}, half {p50:.0}, last {last:.0}   ratio {:.2}",
            last / plain
        );
        ratios.push(last / plain);
        lasts.push(last);
    }
    server.terminate().await;
    let limit = "claims and settles share the cores with the callbacks";
    vec![
        Verdict::new(
            "10,000 timers at one instant: time over that of plain requests",
            ratios,
            Target::AtMost(2.0),
            limit,
        ),
        Verdict::new("10,000 timers at one instant: ms until the last", lasts, Target::AtMost(461.0), limit),
    ]
}

/// Sets so many timers for one instant, and returns by how many milliseconds each was late, sorted. The rounds are numbered.
pub async fn measure(client: &Client, arrivals: &Arrivals, round: usize, count: usize) -> Vec<f64> {
    let insert = "insert into walclock.timers (namespace, id, execute_at, callback_url)
        select 'bench', 'burst-' || $1::int || '-' || n, now() + $2 * interval '1 second', $3
        from generate_series(1, $4::int) n";
    let [round, count_int] = [round, count].map(|n| i32::try_from(n).expect("a small number"));
    let url = arrivals.receiver.url();
    client.execute(insert, &[&round, &AHEAD_SECONDS, &url, &count_int]).await.expect("timers");
    let late = crate::lateness::sorted(arrivals.take(count).await.iter().map(|arrival| arrival.late_millis));
    assert_eq!(late.len(), count, "each timer fires once");
    // What is settled behind the callbacks is not to meet the next round.
    let pending = "select exists (select from walclock.under_way)";
    while client.query_one(pending, &[]).await.expect("an answer").get::<_, bool>(0) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    late
}
