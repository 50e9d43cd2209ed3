//! What the integration tests share: one private PostgreSQL for all of them, and a database each.

pub mod events;
pub mod http;
pub mod preload;
pub mod receiver;
pub mod server;

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls};
use walclock::localpg::{Cluster, Config};

/// How long anything may take on a busy machine before a test fails. It only bounds a test that fails anyway, so it is long.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A cluster that is gone, data and all, when the test process ends.
pub fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    // Several processes of several tests have their connections to it.
    CLUSTER.get_or_init(|| new_cluster(&[("max_connections", "500")]))
}

/// A cluster of its own for a test that stops or breaks it. Its folder is removed by the next test run.
pub fn new_cluster(settings: &[(&str, &str)]) -> Cluster {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let folder = scratch().join(format!("pg{}", COUNT.fetch_add(1, Ordering::Relaxed)));
    // Most tests leave a slot behind in the database that they had.
    let fast = [("fsync", "off"), ("max_wal_senders", "60"), ("max_replication_slots", "400")];
    let settings = fast.iter().chain(settings).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Cluster::start(Config { folder, programs: programs(), settings }).unwrap()
}

/// Where PostgreSQL's programs are, if not in their usual place: so the same tests run on every version.
pub fn programs() -> Option<PathBuf> {
    walclock::config::pg_programs()
}

/// The major version of PostgreSQL that the tests run on.
pub async fn server_major() -> u32 {
    static MAJOR: tokio::sync::OnceCell<u32> = tokio::sync::OnceCell::const_new();
    let ask = async || {
        let cluster = tokio::task::spawn_blocking(cluster).await.unwrap();
        let sql = "select current_setting('server_version_num')::int4 / 10000";
        let major: i32 = connect(&cluster.url("postgres")).await.query_one(sql, &[]).await.unwrap().get(0);
        u32::try_from(major).unwrap()
    };
    *MAJOR.get_or_init(ask).await
}

/// Says that a test does nothing here, and why: `make test` shows it when all is over, and `make test-matrix` shows it, and runs
/// it where it counts.
#[expect(clippy::print_stdout, reason = "it is what the test runner shows of a test")]
pub fn say_skipped(test: &str, why: &str) {
    let line = format!("skipped: {test}: {why}\n");
    print!("{line}");
    let mut list = File::options().create(true).append(true).open(scratch().join("skipped")).unwrap();
    list.write_all(line.as_bytes()).unwrap();
}

/// A folder for this process alone; those of processes that are gone are removed.
pub fn scratch() -> PathBuf {
    static SCRATCH: OnceLock<PathBuf> = OnceLock::new();
    let make = || {
        let all = std::env::temp_dir().join("walclock-it");
        for old in std::fs::read_dir(&all).into_iter().flatten().flatten() {
            if !PathBuf::from("/proc").join(old.file_name()).exists() {
                let _ = std::fs::remove_dir_all(old.path());
            }
        }
        let own = all.join(std::process::id().to_string());
        std::fs::create_dir_all(&own).unwrap();
        own
    };
    SCRATCH.get_or_init(make).clone()
}

/// Runs SQL on its own connection.
pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// An empty database of its own for one test, in the shared cluster; returns its URL.
pub async fn database() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let cluster = tokio::task::spawn_blocking(cluster).await.unwrap();
    connect(&cluster.url("postgres")).await.batch_execute(&format!("create database {name}")).await.unwrap();
    cluster.url(&name)
}

/// Asks again and again until there is an answer, or fails at the deadline.
pub async fn eventually<T>(deadline: Duration, what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(start.elapsed() < deadline, "not within {deadline:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A database of its own with the schema, for one test; returns its URL. The schema is migrated once, into a template.
pub async fn migrated() -> String {
    static TEMPLATE: tokio::sync::OnceCell<String> = tokio::sync::OnceCell::const_new();
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let template = TEMPLATE
        .get_or_init(|| async {
            let url = database().await;
            walclock::store::migrate::run(&walclock::pg::Settings::parse(&url).unwrap()).await.unwrap();
            url.rsplit('/').next().unwrap().to_owned()
        })
        .await;
    let name = format!("migrated_{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let copy = format!("create database {name} template {template}");
    let admin = connect(&cluster().url("postgres")).await;
    // A session of the migration may take a moment to be gone, and a template must have none.
    eventually(PATIENCE, "a copy of the template", async || admin.batch_execute(&copy).await.ok()).await;
    cluster().url(&name)
}
