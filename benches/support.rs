//! What the benches share: a private PostgreSQL with default durability, the built binary, and figures.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls};
use walclock::localpg::{Cluster, Config};
use walclock::pg::Settings;

/// A private PostgreSQL that is removed with the bench.
pub struct Database {
    pub cluster: Cluster,
    pub folder: tempfile::TempDir,
}

impl Database {
    /// Starts one; its durability is PostgreSQL's default.
    pub fn start(settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).expect("PostgreSQL's user may enter");
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let config = Config { folder: folder.path().join("pg"), programs: None, settings };
        Self { cluster: Cluster::start(config).expect("PostgreSQL starts"), folder }
    }

    pub fn url(&self) -> String {
        self.cluster.url("postgres")
    }

    /// The process that all others of the server are children of.
    pub fn postmaster(&self) -> u32 {
        let file = self.cluster.data().join("postmaster.pid");
        let text = std::fs::read_to_string(file).expect("a server that runs");
        text.lines().next().and_then(|line| line.trim().parse().ok()).expect("a process id")
    }

    /// Makes walclock's schema.
    pub async fn migrate(&self) {
        let settings = Settings::parse(&self.url()).expect("a URL");
        walclock::store::migrate::run(&settings).await.expect("the schema");
    }

    pub async fn connect(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.url(), NoTls).await.expect("PostgreSQL answers");
        tokio::spawn(connection);
        client
    }

    /// Runs one of PostgreSQL's own programs of the newest version that is installed.
    pub fn program(name: &str) -> Command {
        let mut folders: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        folders.sort();
        let found = folders.into_iter().rev().map(|folder| folder.join("bin").join(name)).find(|path| path.exists());
        Command::new(found.unwrap_or_else(|| PathBuf::from(name)))
    }
}

/// One kept HTTP connection.
pub struct Connection(hyper::client::conn::http1::SendRequest<http_body_util::Full<bytes::Bytes>>);

impl Connection {
    pub async fn open(url: &str) -> Self {
        let address = url.strip_prefix("http://").expect("an http URL");
        let socket = tokio::net::TcpStream::connect(address).await.expect("the server listens");
        socket.set_nodelay(true).expect("a socket option");
        let (sender, connection) =
            hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(socket)).await.expect("a connection");
        tokio::spawn(connection);
        Self(sender)
    }

    /// The body of the answer, which must be a 200.
    pub async fn get(&mut self, path: &str) -> bytes::Bytes {
        self.answer(path, hyper::Request::get(path), "").await
    }

    /// The body of the answer to JSON, which must be a 200.
    pub async fn post(&mut self, path: &str, json: String) -> bytes::Bytes {
        self.answer(path, hyper::Request::post(path).header("content-type", "application/json"), json).await
    }

    async fn answer(
        &mut self,
        path: &str,
        request: hyper::http::request::Builder,
        body: impl Into<bytes::Bytes>,
    ) -> bytes::Bytes {
        let request = request.header("host", "bench").body(http_body_util::Full::new(body.into()));
        let answer = self.0.send_request(request.expect("a request")).await.expect("an answer");
        let status = answer.status();
        let body = http_body_util::BodyExt::collect(answer.into_body()).await.expect("a body").to_bytes();
        assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
        body
    }
}

/// Transactions per second of pgbench with this script.
pub fn pgbench(database: &Database, script: &Path, clients: &str, seconds: usize) -> f64 {
    let output = Database::program("pgbench")
        .args(["-n", "-M", "prepared", "-c", clients, "-j", "1", "-T", &seconds.to_string(), "-f"])
        .arg(script)
        .arg(database.url())
        .output()
        .expect("pgbench runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("tps = "));
    let rate = line.and_then(|rest| rest.split(' ').next()?.parse().ok());
    rate.unwrap_or_else(|| panic!("pgbench: {text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// A `walclock serve` as a process of its own; killed when dropped.
pub struct Server {
    child: Child,
    pub port: u16,
    pub url: String,
}

impl Server {
    /// Migrates the database, then starts it.
    pub async fn start_migrated(database: &Database) -> Self {
        database.migrate().await;
        Self::start(&database.url(), &database.folder.path().join("walclock")).await
    }

    /// Starts it on a free port with all roles, and waits until it is ready.
    pub async fn start(database_url: &str, data: &Path) -> Self {
        // Where few files may be open, most of them are for callbacks: no bench has many of these and many readers.
        let flags = ["--connections-max", "2000", "--callback-allow", "127.0.0.0/8", "--auto-create-namespaces"];
        Self::start_with(database_url, data, &flags).await
    }

    /// Migrates the database, then starts the change feed alone, for as many readers as there are file descriptors.
    pub async fn start_feed(database: &Database) -> Self {
        database.migrate().await;
        let flags = ["--roles", "changeserver", "--connections-max", "100000"];
        Self::start_with(&database.url(), &database.folder.path().join("walclock"), &flags).await
    }

    /// Starts it on a free port with these flags, and waits until it is ready.
    pub async fn start_with(database_url: &str, data: &Path, flags: &[&str]) -> Self {
        let port = walclock::localpg::free_port().expect("a free port");
        let child = Command::new(binary())
            .args(["serve", "--database-url", database_url, "--port", &port.to_string()])
            .args(flags)
            .arg("--data-dir")
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .env("WALCLOCK_LOG", "warn")
            .spawn()
            .expect("the server starts");
        let server = Self { child, port, url: format!("http://127.0.0.1:{port}") };
        let start = Instant::now();
        while !server.is_ready(port).await {
            assert!(start.elapsed() < Duration::from_secs(60), "the server is not ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server
    }

    async fn is_ready(&self, port: u16) -> bool {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let Ok(mut socket) = tokio::net::TcpStream::connect(("127.0.0.1", port)).await else { return false };
        let _ = socket.write_all(b"GET /ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await;
        answer.starts_with(b"HTTP/1.1 200")
    }

    /// Asks it to end, and waits until it has.
    pub async fn terminate(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is there");
        while self.child.try_wait().expect("a child").is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// CPU seconds it has used so far, in user and kernel.
    pub fn cpu_seconds(&self) -> f64 {
        cpu_seconds(self.child.id())
    }

    /// What of its memory is resident, in KiB.
    pub fn resident_kib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.trim_end_matches("kB").trim().parse().unwrap_or(f64::NAN)
    }

    /// Waits until so many readers wait for a change.
    pub async fn until_waiting(&self, count: usize) {
        let mut connection = Connection::open(&self.url).await;
        let start = Instant::now();
        loop {
            let metrics = connection.get("/metrics").await;
            let metrics = String::from_utf8_lossy(&metrics);
            let waiting = metrics.lines().find_map(|line| line.strip_prefix("walclock_waiters ")).unwrap_or("0");
            if waiting.parse() == Ok(count) {
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "{waiting} readers wait, not {count}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until the one value of a query of a slot's name is true.
pub async fn until_slot(client: &Client, slot: &str, query: &str) {
    let start = Instant::now();
    while !client.query_one(query, &[&slot]).await.expect("an answer").get::<_, bool>(0) {
        assert!(start.elapsed() < Duration::from_secs(120), "{query}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until somebody reads from the slot.
pub async fn until_active(client: &Client, slot: &str) {
    until_slot(client, slot, "select active from pg_replication_slots where slot_name = $1").await;
}

/// Drops a slot whose reader goes.
pub async fn drop_slot(client: &Client, slot: &str) {
    until_slot(client, slot, "select not active from pg_replication_slots where slot_name = $1").await;
    client.execute("select pg_drop_replication_slot($1)", &[&slot]).await.expect("the slot goes");
}

/// CPU seconds of a process so far, from its fields 14 and 15 in /proc (in hundredths).
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 =
        behind_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / 100.0
}

/// CPU seconds so far of a process, its children that are there, and those that are gone.
pub fn family_cpu_seconds(pid: u32) -> f64 {
    let fields = |pid: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let behind_name = stat.rsplit(')').next().unwrap_or_default();
        behind_name.split_whitespace().filter_map(|field| field.parse::<f64>().ok()).take(15).collect::<Vec<f64>>()
    };
    // Counted behind the name and the state: the parent comes first, CPU tenth to thirteenth, with that of ended children.
    let ticks = |fields: &[f64], count: usize| fields.iter().skip(10).take(count).sum::<f64>();
    let parent = f64::from(pid);
    let names = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    let children = names.map(|name| fields(&name)).filter(|fields| fields.first() == Some(&parent));
    let living: f64 = children.map(|fields| ticks(&fields, 2)).sum();
    (living + ticks(&fields(&pid.to_string()), 4)) / 100.0
}

/// The CPU seconds of the walsender that serves a slot; none while nobody streams from it.
pub async fn walsender_seconds(client: &Client, slot: &str) -> Option<f64> {
    let query = "select active_pid from pg_replication_slots where slot_name = $1";
    let pid: Option<i32> = client.query_opt(query, &[&slot]).await.expect("an answer")?.get(0);
    Some(cpu_seconds(u32::try_from(pid?).expect("a process id")))
}

/// The server that was built with the benches, or the one that WALCLOCK names, to compare another build.
fn binary() -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "a bench has no settings")]
    let named = std::env::var_os("WALCLOCK");
    named.map_or_else(|| env!("CARGO_BIN_EXE_walclock").into(), PathBuf::from)
}

/// A whole number from the environment, for trials of another size.
pub fn size(name: &str, default: usize) -> usize {
    #[expect(clippy::disallowed_methods, reason = "a bench has no settings")]
    let given = std::env::var(name).ok();
    given.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a whole number, not {text:?}")))
}

/// How much of all cores has been used, from the first line of /proc/stat (in hundredths of a second).
pub struct CoresBusy {
    idle: f64,
    all: f64,
}

impl CoresBusy {
    pub fn now() -> Self {
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let fields: Vec<f64> =
            stat.lines().next().unwrap_or_default().split_whitespace().filter_map(|field| field.parse().ok()).collect();
        // The fourth and fifth are idle and waiting for a disk.
        Self { idle: fields.iter().skip(3).take(2).sum(), all: fields.iter().take(8).sum() }
    }

    /// The share that was busy from then until now.
    pub fn since(&self) -> f64 {
        let now = Self::now();
        1.0 - (now.idle - self.idle) / (now.all - self.all)
    }
}

/// The value below which the given share of the sorted values lies.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index within the slice")]
    let place = (last as f64 * share).round() as usize;
    sorted.get(place).copied().unwrap_or(f64::NAN)
}
