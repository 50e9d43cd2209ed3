//! Timers fired per second from a backlog of due ones, PostgreSQL, walclock and the receiver on the same cores and
//! everything durable, beside what a plain HTTP client reaches against the same receiver. And what a fired timer costs:
//! CPU of each of the three, statements, WAL and row versions.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::plain_client;
use crate::receiver::Receiver;
use crate::support::{CoresBusy, Database, Server, cpu_seconds, family_cpu_seconds, size};
use crate::verdict::{Target, Verdict};

const SLOTS: usize = 64;
const PLAIN_REQUESTS: usize = 1_000;
/// What the fastest of the other job runners on PostgreSQL reaches, graphile_worker in Rust, as a share of the plain client
/// on the same quiet machine with two cores: 23,300 of 101,000 a second. A share, because the machine at hand is another
/// one, or busy.
const PEER_SHARE: f64 = 23_300.0 / 101_000.0;
/// By how much walclock is to be faster.
const AHEAD_MIN: f64 = 1.5;
/// Each timer is inserted into `runs`, and its run updated once. Whatever moves it and keeps what became of it needs as many.
/// And one for each claim, with room for those that are not full.
const VERSIONS_MAX: f64 = 2.05;
/// Batches of 1,000 rows, one to claim and one to settle: 0.002, with room for those that are not full and the leases'.
const STATEMENTS_MAX: f64 = 0.05;
/// The slot of the round before, where there was one.
pub const DROP_SLOT: &str =
    "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = 'walclock'";

pub async fn run() -> Vec<Verdict> {
    let database = Database::start(&[("max_wal_size", "4GB")]);
    database.migrate().await;
    let (backlog, rounds) = (size("TIMERS", 50_000), size("ROUNDS", 3));
    let receiver = Receiver::start(|_| {}).await;
    let client = database.connect().await;
    println!("backlog of {backlog} due timers, callbacks/s until the last one has arrived");
    let mut found = Vec::new();
    for round in 1..=rounds {
        found.push(fire(&database, &client, &receiver, round, backlog).await);
    }
    let pick = |value: fn(&Round) -> f64| found.iter().map(value).collect::<Vec<f64>>();
    vec![
        Verdict::new(
            "timers fired, × the fastest peer at the plain client's rate",
            pick(|round| round.rate / (round.plain * PEER_SHARE)),
            Target::AtLeast(AHEAD_MIN),
            "CPU: walclock, PostgreSQL and the receiver share the cores",
        ),
        Verdict::new(
            "row versions per fired timer",
            pick(|round| round.work.versions),
            Target::AtMost(VERSIONS_MAX),
            "the move and the outcome; deletes write none",
        ),
        Verdict::new(
            "transactions per fired timer",
            pick(|round| round.work.transactions),
            Target::AtMost(STATEMENTS_MAX),
            "batches of 1,000, and the leases",
        ),
    ]
}

/// What one backlog gave.
pub struct Round {
    pub plain: f64,
    pub rate: f64,
    /// Per timer.
    work: Work,
}

/// What PostgreSQL has done.
#[derive(Clone, Copy)]
struct Work {
    transactions: f64,
    wal_bytes: f64,
    page_images: f64,
    versions: f64,
    /// Of the versions, those that no index had to follow.
    hot: f64,
    deletes: f64,
}

impl Work {
    /// Without the leases, which cost by the second, and the insert of the backlog itself.
    async fn so_far(client: &Client) -> Self {
        let query = "select (select xact_commit from pg_stat_database where datname = current_database())::float8,
                   (select wal_bytes from pg_stat_wal)::float8, (select wal_fpi from pg_stat_wal)::float8,
                   sum(case when relname = 'timers' then n_tup_upd else n_tup_ins + n_tup_upd end)::float8,
                   sum(n_tup_hot_upd)::float8, sum(n_tup_del)::float8
            from pg_stat_user_tables where schemaname = 'walclock' and relname not in ('shards', 'dispatchers')";
        // Of this session, too: what it has done itself must not be told only in the next round.
        client.batch_execute("select pg_stat_clear_snapshot()").await.expect("an answer");
        let row = client.query_one(query, &[]).await.expect("figures");
        let at = |place: usize| row.get::<_, f64>(place);
        let [transactions, wal_bytes, page_images] = [at(0), at(1), at(2)];
        Self { transactions, wal_bytes, page_images, versions: at(3), hot: at(4), deletes: at(5) }
    }

    /// What has come since, per timer.
    fn since(self, then: Self, timers: f64) -> Self {
        let per_timer = |now: f64, then: f64| (now - then) / timers;
        Self {
            transactions: per_timer(self.transactions, then.transactions),
            wal_bytes: per_timer(self.wal_bytes, then.wal_bytes),
            page_images: per_timer(self.page_images, then.page_images),
            versions: per_timer(self.versions, then.versions),
            hot: per_timer(self.hot, then.hot),
            deletes: per_timer(self.deletes, then.deletes),
        }
    }

    /// What has been done once all of these timers are over: sessions tell of it some time after they did it.
    async fn told(client: &Client, then: Self, timers: f64) -> Self {
        let start = Instant::now();
        loop {
            let work = Self::so_far(client).await.since(then, timers);
            if (work.deletes >= 1.0 && work.versions >= 2.0) || start.elapsed() > Duration::from_secs(10) {
                return work;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Inserts a backlog and has it fired; the rounds of one database are numbered.
pub async fn fire(database: &Database, client: &Client, receiver: &Receiver, round: usize, backlog: usize) -> Round {
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let (count, timers) = (u64::try_from(backlog).expect("a small number"), backlog as f64);
    let plain = plain_client::rate(receiver.port, SLOTS, PLAIN_REQUESTS).await;
    insert(client, &receiver.url(), round, backlog).await;
    // The slot is made when the server starts, after the backlog: no feed catches up with what was inserted before.
    client.execute(DROP_SLOT, &[]).await.expect("nobody streams from it");
    let (before, then) = (receiver.received(), Work::so_far(client).await);
    let postmaster = database.postmaster();
    let (own_then, pg_then) = (cpu_seconds(std::process::id()), family_cpu_seconds(postmaster));
    let busy = CoresBusy::now();
    let data = database.folder.path().join(format!("walclock-{round}"));
    let server = Server::start(&database.url(), &data).await;
    let first = until(receiver, before + 1).await;
    let last = until(receiver, before + count).await;
    settled(client).await;
    let durable = Instant::now();
    let each = |seconds: f64| seconds * 1e6 / timers;
    let (walclock, busy) = (each(server.cpu_seconds()), busy.since() * 100.0);
    let (own, pg) = (each(cpu_seconds(std::process::id()) - own_then), each(family_cpu_seconds(postmaster) - pg_then));
    server.terminate().await;
    let work = Work::told(client, then, timers).await;
    let rate = timers / last.duration_since(first).as_secs_f64();
    println!(
        "  round {round}: plain client {plain:7.0}   walclock {rate:7.0}   ratio {:.2}   all settled {:.2} s later",
        rate / plain,
        durable.duration_since(last).as_secs_f64(),
    );
    println!(
        "    per timer: CPU µs of walclock {walclock:.1}, PostgreSQL {pg:.1}, the receiver {own:.1} (cores {busy:.0} % busy)"
    );
    println!(
        "    per timer: {:.4} transactions, {:.0} bytes of WAL with {:.3} page images, {:.2} row versions of which {:.2} HOT, {:.2} deletes",
        work.transactions, work.wal_bytes, work.page_images, work.versions, work.hot, work.deletes
    );
    Round { plain, rate, work }
}

async fn insert(client: &Client, url: &str, round: usize, backlog: usize) {
    let [round, rows] = [round, backlog].map(|n| i32::try_from(n).expect("a small number"));
    let insert = "insert into walclock.timers (namespace, id, execute_at, callback_url, payload)
        select 'bench', 'r' || $1::int || '-' || n, now(), $2, '{\"order\": 7}' from generate_series(1, $3::int) n";
    client.execute(insert, &[&round, &url, &rows]).await.expect("a backlog");
    client.batch_execute("vacuum analyze walclock.timers").await.expect("statistics");
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

/// Waits until every outcome has been written. It is asked seldom: each time PostgreSQL walks over what was deleted.
async fn settled(client: &Client) {
    let query = "select exists (select from walclock.timers) or exists (select from walclock.under_way)";
    while client.query_one(query, &[]).await.expect("an answer").get::<_, bool>(0) {
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}
