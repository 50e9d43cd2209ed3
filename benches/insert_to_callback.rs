//! How long it takes from the call of an INSERT, of a timer that is due at once, to the arrival of its callback, at 50 a
//! second; and how that divides into its legs.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::arrivals::{Arrivals, NUMBER};
use crate::lateness::sorted;
use crate::support::{Database, Server, quantile, size};
use crate::verdict::{Target, Verdict};

/// 50 a second.
const PACE: Duration = Duration::from_millis(20);

pub async fn run() -> Vec<Verdict> {
    let (count, rounds) = (size("TIMERS", 500), size("ROUNDS", 3));
    let database = Database::start(&[]);
    let server = Server::start_migrated(&database).await;
    let client = database.connect().await;
    let arrivals = Arrivals::start().await;

    println!("from an INSERT's call to the callback's arrival, {count} at 50/s, ms (p50 / p99)");
    let (mut p50, mut p99) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let name = format!("insert-{round}");
        let (all, inserts) = measure(&client, &arrivals, &name, count).await;
        let both = |values: &[f64]| format!("{:.3} / {:.3}", quantile(values, 0.5), quantile(values, 0.99));
        let [to_claim, to_send] = legs(&client, &name).await;
        println!(
            "  round {round}: in all {}   the INSERT alone {}   its begin to the claim {}   claim to send {}",
            both(&all),
            both(&inserts),
            both(&to_claim),
            both(&to_send)
        );
        p50.push(quantile(&all, 0.5));
        p99.push(quantile(&all, 0.99));
    }
    server.terminate().await;
    let limit = "the INSERT's own fsync, the walsender, one claim, one request";
    vec![
        Verdict::new("INSERT's call to the callback: ms, p50", p50, Target::AtMost(1.7), limit),
        Verdict::new("INSERT's call to the callback: ms, p99", p99, Target::AtMost(3.5), limit),
    ]
}

/// Inserts so many timers that are due at once, and returns in milliseconds, sorted, how long each took to its callback,
/// and how long each INSERT took alone.
pub async fn measure(client: &Client, arrivals: &Arrivals, name: &str, count: usize) -> (Vec<f64>, Vec<f64>) {
    let sql = "insert into walclock.timers (namespace, id, execute_at, callback_url, callback_headers)
        values ('bench', $1, now(), $2, jsonb_build_object($3::text, $4::text))";
    let insert = client.prepare(sql).await.expect("a statement");
    let url = arrivals.receiver.url();
    let (mut called, mut inserts) = (Vec::with_capacity(count), Vec::with_capacity(count));
    let start = tokio::time::Instant::now();
    for number in 0..count {
        tokio::time::sleep_until(start + PACE * u32::try_from(number).expect("a small number")).await;
        let (id, text) = (format!("{name}-{number}"), number.to_string());
        let call = Instant::now();
        client.execute(&insert, &[&id, &url, &NUMBER, &text]).await.expect("an INSERT");
        called.push(call);
        inserts.push(call.elapsed().as_secs_f64() * 1e3);
    }
    let come = arrivals.take(count).await;
    let took = come.iter().map(|arrival| {
        let call = called.get(arrival.number).expect("a number of ours");
        arrival.at.duration_since(*call).as_secs_f64() * 1e3
    });
    (sorted(took), sorted(inserts.into_iter()))
}

/// In milliseconds, sorted: from the begin of each INSERT's transaction to its claim, and from there to the request.
async fn legs(client: &Client, name: &str) -> [Vec<f64>; 2] {
    let settled = "select exists (select from walclock.under_way)";
    while client.query_one(settled, &[]).await.expect("an answer").get::<_, bool>(0) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let sql = "select extract(epoch from claimed_at - created_at)::float8 * 1000,
                      extract(epoch from sent_at - claimed_at)::float8 * 1000
               from walclock.runs where id like $1 || '-%'";
    let rows = client.query(sql, &[&name]).await.expect("the runs");
    [0, 1].map(|column| sorted(rows.iter().map(|row| row.get(column))))
}
