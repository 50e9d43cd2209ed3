//! walclock beside graphile_worker, the fastest of the other job runners on PostgreSQL: the same PostgreSQL, the same receiver, in
//! turn. `PEER` names the program that runs it, which `make bench-peers` builds from `benches/peers`.
//!
//! The peer promises less: it deletes a job that is over, where walclock keeps its outcome; it deletes by the job's number alone,
//! so that a worker that has lost a job may end it for the one that has it now; and the jobs of a worker that died wait for a
//! recovery that is off unless asked for. One address is given to it beforehand, where each of walclock's timers has its own,
//! which is checked. So its figures are what a claim, a POST and a delete cost. Neither signs here.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::arrivals::Arrivals;
use crate::receiver::Receiver;
use crate::support::{Database, Server, cpu_seconds, family_cpu_seconds, quantile, size};
use crate::verdict::{Target, Verdict};
use crate::{burst, lateness, timers_fired};

/// After so long without a callback the peer is taken to have left the rest of its jobs.
const STALLED_AFTER: Duration = Duration::from_secs(20);
/// How often a round in which the peer left some of its jobs is tried.
const TRIES: usize = 4;
/// What its documentation and its own benches suggest, from few jobs at once to many. The best of them is taken.
const TUNINGS: [Tuning; 6] = [
    Tuning { concurrency: 16, size: 500, queues: 1, delay: 5, poll: 5 },
    Tuning { concurrency: 64, size: 500, queues: 1, delay: 5, poll: 5 },
    Tuning { concurrency: 64, size: 5_000, queues: 1, delay: 5, poll: 5 },
    Tuning { concurrency: 64, size: 1_250, queues: 4, delay: 5, poll: 5 },
    Tuning { concurrency: 128, size: 2_000, queues: 1, delay: 20, poll: 5 },
    Tuning { concurrency: 500, size: 5_000, queues: 1, delay: 5, poll: 5 },
];
/// Milliseconds between two polls where lateness counts: it is as late as it polls.
const SHARP_POLL: u32 = 1;
/// So many jobs, the first of them due after some seconds, each of the others some later. All have the payload of walclock's.
const INSERT: &str = "select count(*) from graphile_worker.add_jobs(array(
        select row('callback', '{\"order\": 7}', null, clock.now + ($2 + n * $3::float8) * interval '1 second',
            null, null, null, null)::graphile_worker.job_spec
        from (select clock_timestamp() as now) clock, generate_series(1, $1::int) n))";

/// How the peer is set up: jobs at once, jobs in each of its local queues, milliseconds for which completions are gathered,
/// and between two polls.
#[derive(Clone, Copy, Debug)]
struct Tuning {
    concurrency: u32,
    size: u32,
    queues: u32,
    delay: u32,
    poll: u32,
}

pub async fn run() -> Vec<Verdict> {
    let bench = Bench { peer: peer(), database: Database::start(&[("max_wal_size", "4GB")]) };
    bench.database.migrate().await;
    let client = bench.database.connect().await;
    let receiver = Receiver::start(|_| {}).await;
    bench.migrate(&receiver);
    let backlog = size("TIMERS", 50_000);
    println!("backlog of {backlog} due jobs, callbacks/s of graphile_worker until the last one has arrived");
    let mut best = (0.0, TUNINGS[0]);
    for tuning in TUNINGS {
        let rate = bench.fire(&client, &receiver, tuning, backlog).await;
        if rate > best.0 {
            best = (rate, tuning);
        }
    }
    println!("the best of them beside walclock: {:?}", best.1);
    let mut verdicts = vec![bench.backlog(&client, &receiver, best.1, backlog).await];
    verdicts.extend(bench.ahead(&client, Tuning { poll: SHARP_POLL, ..best.1 }).await);
    verdicts
}

/// The program that runs the peer.
fn peer() -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "a bench has no settings")]
    let named = std::env::var_os("PEER");
    PathBuf::from(named.expect("PEER names the built program of benches/peers: make bench-peers"))
}

/// What all rounds have in common.
struct Bench {
    peer: PathBuf,
    database: Database,
}

impl Bench {
    /// Both fire a backlog, round by round.
    async fn backlog(&self, client: &Client, receiver: &Receiver, tuning: Tuning, backlog: usize) -> Verdict {
        let mut ratios = Vec::new();
        for round in 1..=size("ROUNDS", 5) {
            let theirs = self.fire(client, receiver, tuning, backlog).await;
            let ours = timers_fired::fire(&self.database, client, receiver, round, backlog).await;
            println!(
                "  round {round}: plain client {:.0}   graphile_worker {theirs:.0}   walclock {:.0}   walclock / graphile_worker {:.2}",
                ours.plain,
                ours.rate,
                ours.rate / theirs
            );
            ratios.push(ours.rate / theirs);
        }
        let limit = "CPU: each shares the cores with PostgreSQL and the receiver";
        Verdict::new("timers fired from a backlog, × graphile_worker's", ratios, Target::AtLeast(1.5), limit)
    }

    /// Both have timers that were set in advance: many for one instant, and many one after the other.
    async fn ahead(&self, client: &Client, tuning: Tuning) -> Vec<Verdict> {
        let arrivals = Arrivals::start().await;
        let (at_once, spread, seconds) = (size("BURST", 10_000), size("SPREAD", 5_000), size("SECONDS", 20));
        let step = Duration::from_secs(seconds as u64) / u32::try_from(spread).expect("a small number");
        println!("{at_once} due at one instant, and {spread} spread over {seconds} s: received - due in ms");
        let mut ratios = [Vec::new(), Vec::new(), Vec::new()];
        for round in 1..=size("ROUNDS", 3) {
            let peer = self.start(&arrivals.receiver, tuning);
            let their_burst = set(client, &arrivals, at_once, burst::AHEAD_SECONDS, Duration::ZERO).await;
            let theirs = set(client, &arrivals, spread, lateness::AHEAD.as_secs_f64(), step).await;
            drop(peer);
            client.execute(timers_fired::DROP_SLOT, &[]).await.expect("nobody streams from it");
            let data = self.database.folder.path().join(format!("ahead-{round}"));
            let server = Server::start(&self.database.url(), &data).await;
            let our_burst = burst::measure(client, &arrivals, round, at_once).await;
            let ours = lateness::measure(client, &arrivals, &format!("late-{round}"), spread, step).await;
            server.terminate().await;
            let figures =
                |burst: &[f64], late: &[f64]| [quantile(burst, 1.0), quantile(late, 0.5), quantile(late, 0.99)];
            let (theirs, ours) = (figures(&their_burst, &theirs), figures(&our_burst, &ours));
            for (name, [last, p50, p99]) in [("graphile_worker", theirs), ("walclock", ours)] {
                println!(
                    "  round {round}: {name:<15} last of the burst {last:6.0}   spread p50 {p50:.3}  p99 {p99:.3}"
                );
            }
            for (ratios, (ours, theirs)) in ratios.iter_mut().zip(ours.into_iter().zip(theirs)) {
                ratios.push(ours / theirs);
            }
        }
        let [last, p50, p99] = ratios;
        let limit = "the peer polls each millisecond, and takes a core for it";
        vec![
            Verdict::new("the last of a burst, × graphile_worker's", last, Target::AtMost(1.0), limit),
            Verdict::new("lateness, × graphile_worker's: p50", p50, Target::AtMost(1.0), limit),
            Verdict::new("lateness, × graphile_worker's: p99", p99, Target::AtMost(1.0), limit),
        ]
    }

    /// Makes the peer's schema.
    fn migrate(&self, receiver: &Receiver) {
        let status = self.command("migrate", receiver, TUNINGS[0]).status().expect("the peer's program runs");
        assert!(status.success(), "the peer's schema: {status}");
    }

    fn start(&self, receiver: &Receiver, tuning: Tuning) -> Peer {
        Peer(self.command("work", receiver, tuning).spawn().expect("the peer's program runs"))
    }

    fn command(&self, name: &str, receiver: &Receiver, tuning: Tuning) -> Command {
        let Tuning { concurrency, size, queues, delay, poll } = tuning;
        let mut command = Command::new(&self.peer);
        command
            .arg(name)
            .arg(format!("database={}", self.database.url()))
            .arg(format!("receiver=127.0.0.1:{}", receiver.port))
            .args([format!("concurrency={concurrency}"), format!("size={size}"), format!("queues={queues}")])
            .args([format!("delay={delay}"), format!("poll={poll}")])
            .stdin(Stdio::null());
        command
    }

    /// The peer's callbacks per second from a backlog. A round in which it leaves jobs is told of, and counts for nothing.
    async fn fire(&self, client: &Client, receiver: &Receiver, tuning: Tuning, backlog: usize) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let (count, jobs) = (u64::try_from(backlog).expect("a small number"), backlog as f64);
        let rows = i32::try_from(backlog).expect("a small number");
        for _ in 0..TRIES {
            client.query_one(INSERT, &[&rows, &0.0, &0.0]).await.expect("a backlog");
            client.batch_execute("vacuum analyze graphile_worker._private_jobs").await.expect("statistics");
            let before = receiver.received();
            let (own_then, pg_then) = (cpu_seconds(std::process::id()), family_cpu_seconds(self.database.postmaster()));
            let peer = self.start(receiver, tuning);
            let first = come(receiver, before + 1).await;
            let last = come(receiver, before + count).await;
            let (Some(first), Some(last)) = (first, last) else {
                println!("  {tuning:?}: stalled with {} of {count} callbacks", receiver.received() - before);
                drop(peer);
                clear(client).await;
                continue;
            };
            deleted(client).await;
            let each = |seconds: f64| seconds * 1e6 / jobs;
            let theirs = each(cpu_seconds(peer.0.id()));
            let own = each(cpu_seconds(std::process::id()) - own_then);
            let pg = each(family_cpu_seconds(self.database.postmaster()) - pg_then);
            let rate = jobs / last.duration_since(first).as_secs_f64();
            println!(
                "  {tuning:?}: {rate:.0}   per job: CPU µs of graphile_worker {theirs:.1}, PostgreSQL {pg:.1}, the receiver {own:.1}"
            );
            return rate;
        }
        panic!("the peer stalled {TRIES} times");
    }
}

/// A running peer; killed when dropped.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sets so many jobs of the peer, and returns by how many milliseconds each was late, sorted. Those that do not come are told of.
async fn set(client: &Client, arrivals: &Arrivals, count: usize, ahead: f64, step: Duration) -> Vec<f64> {
    let rows = i32::try_from(count).expect("a small number");
    client.query_one(INSERT, &[&rows, &ahead, &step.as_secs_f64()]).await.expect("jobs");
    let patience = step * rows.unsigned_abs() + Duration::from_secs_f64(ahead) + STALLED_AFTER;
    let late = lateness::sorted(arrivals.take_within(count, patience).await.iter().map(|arrival| arrival.late_millis));
    assert!(!late.is_empty() && late.iter().all(|late| late.is_finite()), "each callback says when it was due");
    if late.len() < count {
        println!("  graphile_worker left {} of {count} jobs", count - late.len());
        clear(client).await;
    }
    deleted(client).await;
    late
}

/// When so many callbacks had arrived; nothing once none has come for too long.
async fn come(receiver: &Receiver, count: u64) -> Option<Instant> {
    let (mut seen, mut since) = (receiver.received(), Instant::now());
    while seen < count {
        if since.elapsed() > STALLED_AFTER {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        let now = receiver.received();
        if now > seen {
            (seen, since) = (now, Instant::now());
        }
    }
    Some(Instant::now())
}

/// Waits until the peer has deleted all of its jobs.
async fn deleted(client: &Client) {
    let start = Instant::now();
    let query = "select exists (select from graphile_worker._private_jobs)";
    while client.query_one(query, &[]).await.expect("an answer").get::<_, bool>(0) {
        assert!(start.elapsed() < STALLED_AFTER, "jobs of the peer that have run are not deleted");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// Takes away what the peer has left.
async fn clear(client: &Client) {
    client.batch_execute("delete from graphile_worker._private_jobs").await.expect("no more jobs");
}
