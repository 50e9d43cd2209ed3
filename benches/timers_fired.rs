//! Timers fired per second from a backlog of due ones, PostgreSQL, walclock and the receiver on the same cores and
//! everything durable, beside what a plain HTTP client reaches against the same receiver.

use std::time::{Duration, Instant};

use crate::plain_client;
use crate::receiver::Receiver;
use crate::support::{CoresBusy, Database, Server};

const BACKLOG: u32 = 50_000;
const SLOTS: usize = 64;
const PLAIN_REQUESTS: usize = 1_000;
const ROUNDS: u32 = 3;

pub async fn run() {
    let database = Database::start(&[("max_wal_size", "4GB")]);
    walclock::store::migrate::run(&walclock::pg::Settings::parse(&database.url()).expect("a URL"))
        .await
        .expect("the schema");
    backlog(&database).await;
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
