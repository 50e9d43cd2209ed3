//! Timers fired per second from a backlog of due ones, PostgreSQL, walclock and the receiver on the same cores and
//! everything durable, beside what a plain HTTP client reaches against the same receiver. And how late timers are that
//! were set in advance.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use walclock::clock::{Timestamp, wall};

use crate::plain_client;
use crate::receiver::Receiver;
use crate::support::{CoresBusy, Database, Server, quantile};

const BACKLOG: u32 = 50_000;
const SLOTS: usize = 64;
const PLAIN_REQUESTS: usize = 1_000;
const ROUNDS: u32 = 3;
/// Timers spread evenly over so many seconds.
const SPREAD: u32 = 5_000;
const SPREAD_SECONDS: u32 = 20;

pub async fn run() {
    let database = Database::start(&[("max_wal_size", "4GB")]);
    walclock::store::migrate::run(&walclock::pg::Settings::parse(&database.url()).expect("a URL"))
        .await
        .expect("the schema");
    backlog(&database).await;
    lateness(&database).await;
}

async fn backlog(database: &Database) {
    let receiver = Receiver::start(|_| {}).await;
    let client = database.connect().await;
    println!("backlog of {BACKLOG} due timers, callbacks/s until the last one has arrived");
    for round in 1..=ROUNDS {
        let plain = plain_client::rate(receiver.port, SLOTS, PLAIN_REQUESTS).await;
        let insert = "insert into walclock.timers (namespace, id, execute_at, callback_url, payload)
            select 'bench', 'r' || $1::int || '-' || n, now(), $2, '{\"order\": 7}' from generate_series(1, $3::int) n";
        let rows = i32::try_from(BACKLOG).expect("a small number");
        client
            .execute(insert, &[&i32::try_from(round).expect("a small number"), &receiver.url(), &rows])
            .await
            .expect("a backlog");
        client.batch_execute("vacuum analyze walclock.timers").await.expect("statistics");
        let before = receiver.received();
        let busy = CoresBusy::now();
        let server = Server::start(&database.url(), &database.folder.path().join("walclock")).await;
        let first = until(&receiver, before + 1).await;
        let last = until(&receiver, before + u64::from(BACKLOG)).await;
        settled(&client).await;
        let durable = Instant::now();
        let rate = f64::from(BACKLOG) / last.duration_since(first).as_secs_f64();
        println!(
            "  round {round}: plain client {plain:7.0}   walclock {rate:7.0} ({:.0} µs of CPU each, cores {:.0} % busy), all settled {:.2} s later   ratio {:.2}",
            server.cpu_seconds() * 1e6 / f64::from(BACKLOG),
            busy.since() * 100.0,
            durable.duration_since(last).as_secs_f64(),
            rate / plain
        );
        server.terminate().await;
    }
    println!(
        "  limit: walclock, PostgreSQL and the receiver share the cores; what these are not busy with is waiting for a step"
    );
}

async fn lateness(database: &Database) {
    let arrivals: Arc<Mutex<Vec<f64>>> = Arc::default();
    let noted = arrivals.clone();
    let receiver = Receiver::start(move |headers| {
        let now = wall();
        let due =
            headers.get("walclock-scheduled-for").and_then(|value| value.to_str().ok()?.parse::<Timestamp>().ok());
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let late = (now.micros() - due.expect("its due time").micros()) as f64 / 1e3;
        noted.lock().expect("no panic before").push(late);
    })
    .await;
    let server = Server::start(&database.url(), &database.folder.path().join("walclock")).await;
    let client = database.connect().await;
    let insert = "insert into walclock.timers (namespace, id, execute_at, callback_url)
        select 'bench', 'spread-' || n, now() + interval '2 s' + n * $1::int * interval '1 microsecond', $2
        from generate_series(1, $3::int) n";
    let [step, count] =
        [SPREAD_SECONDS * 1_000_000 / SPREAD, SPREAD].map(|n| i32::try_from(n).expect("a small number"));
    client.execute(insert, &[&step, &receiver.url(), &count]).await.expect("timers");
    until(&receiver, u64::from(SPREAD)).await;
    server.terminate().await;
    let mut late = std::mem::take(&mut *arrivals.lock().expect("no panic before"));
    late.sort_by(f64::total_cmp);
    println!(
        "{SPREAD} timers over {SPREAD_SECONDS} s, received - due: p50 {:.2} ms   p99 {:.2} ms   earliest {:+.2} ms   latest {:.2} ms",
        quantile(&late, 0.5),
        quantile(&late, 0.99),
        quantile(&late, 0.0),
        quantile(&late, 1.0)
    );
}

/// Waits until so many callbacks have arrived; returns when that was.
async fn until(receiver: &Receiver, count: u64) -> Instant {
    let start = Instant::now();
    while receiver.received() < count {
        assert!(start.elapsed() < Duration::from_secs(120), "{} of {count} callbacks came", receiver.received());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Instant::now()
}

/// Waits until every outcome has been written.
async fn settled(client: &tokio_postgres::Client) {
    let query =
        "select exists (select from walclock.timers) or exists (select from walclock.runs where state = 'running')";
    while client.query_one(query, &[]).await.expect("an answer").get::<_, bool>(0) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
