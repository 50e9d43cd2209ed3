//! How late timers are that were set in advance, beside a thread that sleeps until the same moments and sends a request
//! over a kept connection: what the machine itself is late by.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tokio_postgres::Client;
use walclock::clock::{Timestamp, wall};

use crate::arrivals::Arrivals;
use crate::support::{Database, Server, quantile, size};
use crate::verdict::{Target, Verdict};

/// How long before the first of them is due they are set.
pub const AHEAD: Duration = Duration::from_secs(2);

pub async fn run() -> Vec<Verdict> {
    let (count, seconds, rounds) = (size("TIMERS", 5_000), size("SECONDS", 20), size("ROUNDS", 3));
    let database = Database::start(&[]);
    let server = Server::start_migrated(&database).await;
    let client = database.connect().await;
    let arrivals = Arrivals::start().await;
    let step = Duration::from_secs(seconds as u64) / u32::try_from(count).expect("a small number");

    println!(
        "{count} timers set in advance, spread over {seconds} s, received - due in ms, beside a thread that sleeps"
    );
    let mut figures = [Vec::new(), Vec::new(), Vec::new()];
    for round in 1..=rounds {
        let ours = measure(&client, &arrivals, &format!("late-{round}"), count, step).await;
        // As long a look, with fewer of them: a thread has one request under way at a time.
        let theirs = bare(&arrivals, count / 5, step * 5).await;
        for (name, late) in [("a thread", &theirs), ("walclock", &ours)] {
            let [p50, p99, least, most] = [0.5, 0.99, 0.0, 1.0].map(|share| quantile(late, share));
            println!("  round {round}: {name}  p50 {p50:.3}  p99 {p99:.3}  earliest {least:+.3}  latest {most:.3}");
        }
        for (values, share) in figures.iter_mut().zip([0.5, 0.99, 0.0]) {
            values.push(quantile(&ours, share));
        }
    }
    server.terminate().await;
    let [p50, p99, least] = figures;
    let limit = "the request's own way, and what else the cores do at the moment";
    vec![
        Verdict::new("lateness of timers set in advance: ms, p50", p50, Target::AtMost(0.5), limit),
        Verdict::new("lateness of timers set in advance: ms, p99", p99, Target::AtMost(3.0), limit),
        Verdict::new("the earliest of them: ms behind its due moment", least, Target::AtLeast(0.0), "the promise"),
    ]
}

/// Sets so many timers, one each `step`, and returns by how many milliseconds each was late, sorted. None is missing.
pub async fn measure(client: &Client, arrivals: &Arrivals, name: &str, count: usize, step: Duration) -> Vec<f64> {
    let insert = "insert into walclock.timers (namespace, id, execute_at, callback_url)
        select 'bench', $1 || '-' || n, clock_timestamp() + ($2 + n * $3::float8) * interval '1 second', $4
        from generate_series(1, $5::int) n";
    let count_int = i32::try_from(count).expect("a small number");
    let (ahead, step) = (AHEAD.as_secs_f64(), step.as_secs_f64());
    client.execute(insert, &[&name, &ahead, &step, &arrivals.receiver.url(), &count_int]).await.expect("timers");
    let come = arrivals.take(count).await;
    assert_eq!(come.len(), count, "each timer fires once");
    sorted(come.iter().map(|arrival| arrival.late_millis))
}

pub fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The same of a thread that sleeps.
async fn bare(arrivals: &Arrivals, count: usize, step: Duration) -> Vec<f64> {
    let port = arrivals.receiver.port;
    let sender = std::thread::spawn(move || {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("the receiver listens");
        socket.set_nodelay(true).expect("a TCP socket");
        let (first_at, first) = (wall(), Instant::now());
        for n in 1..=u32::try_from(count).expect("a small number") {
            let due_at: Timestamp = first_at.after(step * n);
            #[expect(clippy::disallowed_methods, reason = "what is measured is a thread that sleeps")]
            std::thread::sleep((step * n).saturating_sub(first.elapsed()));
            let head = format!("walclock-scheduled-for: {due_at}\r\ncontent-length: 2\r\n\r\n{{}}");
            write!(socket, "POST /hook HTTP/1.1\r\nhost: bench\r\n{head}").expect("a request");
            let mut answer = [0; 1024];
            assert!(socket.read(&mut answer).expect("an answer") > 0);
        }
    });
    let come = arrivals.take(count).await;
    sender.join().expect("no panic");
    sorted(come.iter().map(|arrival| arrival.late_millis))
}
