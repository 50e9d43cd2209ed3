//! The built binary, run as a child process the way a user runs it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use super::{eventually, scratch};

/// A `walclock serve` with all roles. It is killed when it is dropped.
pub struct Server {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Server {
    /// Migrates the database, starts the server and waits until it is ready. Its journal lives in `folder`.
    pub async fn start(database_url: &str, folder: &Path) -> Self {
        let server = Self::spawn(database_url, folder);
        server.until_ready().await;
        server
    }

    /// The same, without waiting.
    pub fn spawn(database_url: &str, folder: &Path) -> Self {
        let walclock = env!("CARGO_BIN_EXE_walclock");
        let migrated = Command::new(walclock).args(["migrate", "--database-url", database_url]).output().unwrap();
        assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
        let port = walclock::localpg::free_port().unwrap();
        let log = folder.with_extension("log");
        std::fs::create_dir_all(folder).unwrap();
        let slot = folder.file_name().unwrap().to_str().unwrap();
        let stderr = File::options().create(true).append(true).open(&log).unwrap();
        let child = Command::new(walclock)
            .args(["serve", "--database-url", database_url, "--slot", slot, "--port", &port.to_string()])
            .args(["--callback-allow", "127.0.0.0/8", "--lease-ttl", "2s", "--auto-create-namespaces", "--data-dir"])
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(stderr.try_clone().unwrap())
            .stderr(stderr)
            .spawn()
            .unwrap();
        Self { child, port, log }
    }

    /// Waits until `/ready` says so.
    pub async fn until_ready(&self) {
        let ready = async || match self.try_get("/ready").await {
            Some((200, _)) => Some(()),
            Some(_) | None => None,
        };
        eventually(Duration::from_secs(60), &format!("ready; see {}", self.log.display()), ready).await;
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
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
        let ended = async || self.child.try_wait().unwrap();
        eventually(Duration::from_secs(30), "the server ends", ended).await.code().unwrap_or(-1)
    }

    /// The status and the JSON of an answer; fails where there is none.
    pub async fn get(&self, path: &str) -> (u16, serde_json::Value) {
        let (status, body) = self.try_get(path).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    /// The status and the JSON of the answer to a POST.
    pub async fn post(&self, path: &str, body: &serde_json::Value) -> (u16, serde_json::Value) {
        let request = hyper::Request::post(self.url() + path).header("content-type", "application/json");
        let (status, body) = send(request.body(Full::from(body.to_string())).unwrap()).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn try_get(&self, path: &str) -> Option<(u16, Bytes)> {
        send(hyper::Request::get(self.url() + path).body(Full::default()).unwrap()).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn send(request: hyper::Request<Full<Bytes>>) -> Option<(u16, Bytes)> {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let answer = client.request(request).await.ok()?;
    let status = answer.status().as_u16();
    Some((status, answer.into_body().collect().await.ok()?.to_bytes()))
}

/// A folder, and with it a slot, for one server.
pub fn folder() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    scratch().join(format!("walclock_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)))
}
