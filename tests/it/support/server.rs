//! The built binary, run as a child process the way a user runs it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hyper::body::Bytes;

use super::{PATIENCE, eventually, http, scratch};

/// A `walclock serve` with all roles. It is killed when it is dropped.
pub struct Server {
    child: Child,
    port: u16,
    management_port: u16,
    log: PathBuf,
}

impl Server {
    /// Migrates the database, starts the server and waits until it is ready. Its journal lives in `folder`.
    pub async fn start(database_url: &str, folder: &Path) -> Self {
        let server = Self::spawn(database_url, folder);
        server.until_ready().await;
        server
    }

    /// The same with further flags.
    pub async fn start_flagged(database_url: &str, folder: &Path, flags: &[&str]) -> Self {
        migrate(database_url);
        let server = Self::spawn_unmigrated(database_url, folder, flags);
        server.until_ready().await;
        server
    }

    /// The same with further flags, among them a management port.
    pub async fn start_managed(database_url: &str, folder: &Path, flags: &[&str], management_port: u16) -> Self {
        migrate(database_url);
        let port = management_port.to_string();
        let flags = [flags, &["--management-port", &port]].concat();
        let mut server = Self::spawn_unmigrated(database_url, folder, &flags);
        server.management_port = management_port;
        server.until_ready().await;
        server
    }

    /// Migrates and starts, without waiting.
    pub fn spawn(database_url: &str, folder: &Path) -> Self {
        migrate(database_url);
        Self::spawn_unmigrated(database_url, folder, &[])
    }

    /// Starts with further flags on a database as it is, without waiting.
    pub fn spawn_unmigrated(database_url: &str, folder: &Path, flags: &[&str]) -> Self {
        Self::spawn_among(&[], database_url, folder, flags)
    }

    /// The same with these variables in its environment.
    pub fn spawn_among(variables: &[(String, PathBuf)], database_url: &str, folder: &Path, flags: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_walclock"));
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        Self::spawn_by(command, database_url, folder, flags)
    }

    /// Migrates and starts, with no more than so many files and sockets open.
    pub fn spawn_within_files(files: u32, database_url: &str, folder: &Path) -> Self {
        migrate(database_url);
        let mut command = Command::new("sh");
        command.args(["-c", r#"ulimit -n "$0" && exec "$@""#, &files.to_string(), env!("CARGO_BIN_EXE_walclock")]);
        Self::spawn_by(command, database_url, folder, &[])
    }

    /// Migrates and starts, with no more than so many bytes of memory for all that it allocates and for the stacks of its
    /// threads, touched or not: where it wants more, it ends. On every machine it has threads for two cores.
    pub fn spawn_within_memory(bytes: u64, database_url: &str, folder: &Path) -> Self {
        migrate(database_url);
        let mut command = Command::new("sh");
        let kib = (bytes / 1024).to_string();
        command.args(["-c", r#"ulimit -d "$0" && exec "$@""#, &kib, env!("CARGO_BIN_EXE_walclock")]);
        command.env("TOKIO_WORKER_THREADS", "2");
        Self::spawn_by(command, database_url, folder, &[])
    }

    /// Migrates and starts, with `folder` on a disk of its own of so many bytes, of which `filler` are taken by a file of
    /// that name; see [`Server::file`]. None where the machine does not permit that.
    pub fn spawn_on_disk(database_url: &str, folder: &Path, bytes: u64, filler: u64, flags: &[&str]) -> Option<Self> {
        std::fs::create_dir_all(folder).unwrap();
        let script =
            r#"mount -t tmpfs -o size="$1" tmpfs "$0" && head -c "$2" /dev/zero >"$0/filler" && shift 2 && exec "$@""#;
        let on_disk = |program: &str| {
            let mut command = Command::new("unshare");
            command.args(["-Urm", "sh", "-c", script]).arg(folder);
            command.args([&bytes.to_string(), &filler.to_string(), program]);
            command
        };
        if !on_disk("true").stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
            return None;
        }
        migrate(database_url);
        Some(Self::spawn_by(on_disk(env!("CARGO_BIN_EXE_walclock")), database_url, folder, flags))
    }

    /// A file as the server sees it, also on a disk of its own.
    pub fn file(&self, path: &Path) -> PathBuf {
        Path::new("/proc").join(self.child.id().to_string()).join("root").join(path.strip_prefix("/").unwrap())
    }

    /// What it has resident, in bytes.
    pub fn memory(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    /// The most memory that it has ever had resident, in bytes.
    pub fn memory_peak(&self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    /// The most memory that it can have, in bytes.
    pub fn memory_limit(&self) -> u64 {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", self.child.id())).unwrap();
        let limit = limits.lines().find_map(|line| line.strip_prefix("Max data size")).unwrap();
        limit.split_whitespace().next().unwrap().parse().unwrap()
    }

    fn status_bytes(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let kib = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        kib.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    }

    fn spawn_by(mut command: Command, database_url: &str, folder: &Path, flags: &[&str]) -> Self {
        let port = walclock::localpg::free_port().unwrap();
        let log = folder.with_extension("log");
        std::fs::create_dir_all(folder).unwrap();
        let slot = folder.file_name().unwrap().to_str().unwrap();
        let stderr = File::options().create(true).append(true).open(&log).unwrap();
        let child = command
            .args(["serve", "--database-url", database_url, "--slot", slot, "--port", &port.to_string()])
            .args(["--callback-allow", "127.0.0.0/8", "--auto-create-namespaces", "--data-dir"])
            .arg(folder)
            .args(flags)
            .args(if flags.contains(&"--lease-ttl") { &[][..] } else { &["--lease-ttl", "2s"] })
            .stdin(Stdio::null())
            .stdout(stderr.try_clone().unwrap())
            .stderr(stderr)
            .spawn()
            .unwrap();
        Self { child, port, management_port: port, log }
    }

    /// Waits until `/ready` says so.
    pub async fn until_ready(&self) {
        let ready = async || self.ready().await.filter(|(status, _)| *status == 200).map(|_| ());
        eventually(PATIENCE, &format!("ready; see {}", self.log.display()), ready).await;
    }

    /// What `/ready` answers, if anything.
    pub async fn ready(&self) -> Option<(u16, Bytes)> {
        let answer = http::try_request("GET", &self.management_url(), "/ready", &[], "").await?;
        Some((answer.status, answer.body))
    }

    /// The value of a metric; none where nobody answers, or it has none.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let url = self.management_url();
        let call = http::try_request("GET", &url, "/metrics", &[], "");
        let answer = tokio::time::timeout(Duration::from_secs(10), call).await.ok()??;
        let text = String::from_utf8(answer.body.to_vec()).ok()?;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// What it and those before it over the same folder have said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub fn management_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.management_port)
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its process.
    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// Ends it as a crash would.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and returns its exit code once it has.
    pub async fn terminate(mut self) -> i32 {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.ended().await
    }

    /// Its exit code, once it has ended by itself.
    pub async fn ended(&mut self) -> i32 {
        let ended = async || self.child.try_wait().unwrap();
        eventually(PATIENCE, "the server ends", ended).await.code().unwrap_or(-1)
    }

    /// The status and the JSON of an answer; fails where there is none.
    pub async fn get(&self, path: &str) -> (u16, serde_json::Value) {
        let answer = http::get(&self.url(), path, &[]).await;
        (answer.status, serde_json::from_slice(&answer.body).unwrap_or_default())
    }

    /// The status and the JSON of the answer to a POST.
    pub async fn post(&self, path: &str, body: &serde_json::Value) -> (u16, serde_json::Value) {
        let headers = [("content-type", "application/json")];
        let answer = http::request("POST", &self.url(), path, &headers, &body.to_string()).await;
        (answer.status, serde_json::from_slice(&answer.body).unwrap_or_default())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Brings the schema of a database up to date, as a user would.
pub fn migrate(database_url: &str) {
    let walclock = env!("CARGO_BIN_EXE_walclock");
    let migrated = Command::new(walclock).args(["migrate", "--database-url", database_url]).output().unwrap();
    assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
}

/// A folder, and with it a slot, for one server.
pub fn folder() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    scratch().join(format!("walclock_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)))
}
