//! Several changeservers beside each other on one database, each with its own slot: the same sequences and the same bytes
//! everywhere, so that a reader may go to another one at any moment.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_postgres::Client;

use super::support::events::{Block, Events};
use super::support::server::{Server, folder};
use super::support::{connect, eventually, http, migrated};

/// How long anything may take on a busy machine before a test fails.
const PATIENCE: Duration = Duration::from_secs(120);
const FLAGS: [&str; 2] = ["--roles", "changeserver"];

/// Changeservers on one database, with a published table.
struct World {
    database: String,
    sql: Client,
    folders: Vec<PathBuf>,
    servers: Vec<Server>,
    /// Where each of them is reached now.
    urls: Arc<Mutex<Vec<String>>>,
}

impl World {
    async fn new(count: usize) -> Self {
        let database = migrated().await;
        let sql = connect(&database).await;
        let tables = "create table items (id bigserial primary key, name text, _change_selector text);
                      create table other (id int);
                      alter table items replica identity full;
                      alter table other replica identity full;
                      select walclock.publish('items'), walclock.publish('other')";
        sql.batch_execute(tables).await.unwrap();
        let folders: Vec<PathBuf> = (0..count).map(|_| folder()).collect();
        let start = |folder: &PathBuf| Server::spawn_unmigrated(&database, folder, &FLAGS);
        let servers: Vec<Server> = folders.iter().map(start).collect();
        for server in &servers {
            server.until_ready().await;
        }
        let urls = Arc::new(Mutex::new(servers.iter().map(Server::url).collect()));
        Self { database, sql, folders, servers, urls }
    }

    fn slot(&self, server: usize) -> &str {
        self.folders[server].file_name().unwrap().to_str().unwrap()
    }

    /// The process that streams to a server.
    async fn walsender(&self, server: usize) -> i32 {
        let query = "select active_pid from pg_replication_slots where slot_name = $1 and active_pid is not null";
        let ask = async || self.sql.query_opt(query, &[&self.slot(server)]).await.unwrap();
        eventually(PATIENCE, "the slot is in use", ask).await.get(0)
    }

    /// Ends a server as a crash would, and starts it again.
    async fn crash(&mut self, server: usize) {
        let new = Server::spawn_unmigrated(&self.database, &self.folders[server], &FLAGS);
        std::mem::replace(&mut self.servers[server], new).kill();
        // Its journal was locked until then.
        let new = Server::spawn_unmigrated(&self.database, &self.folders[server], &FLAGS);
        std::mem::replace(&mut self.servers[server], new).kill();
        self.servers[server].until_ready().await;
        self.urls.lock()[server] = self.servers[server].url();
    }

    /// Takes the slot of a server away, with the WAL that it kept.
    async fn lose_slot(&self, server: usize) {
        let old = self.walsender(server).await;
        let lose = async || {
            let drop = "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1";
            let terminate = "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1";
            let _ = self.sql.execute(terminate, &[&self.slot(server)]).await;
            self.sql.execute(drop, &[&self.slot(server)]).await.ok()
        };
        eventually(PATIENCE, "the slot is gone", lose).await;
        assert_ne!(self.walsender(server).await, old, "it has made another one");
    }
}

/// What a page is, with the bytes of its changes as they came.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page<'a> {
    first_sequence: String,
    last_sequence: String,
    #[serde(borrow)]
    changes: Vec<&'a RawValue>,
}

/// All that a server has of these scopes behind `since`, and its firstSequence.
async fn everything(url: &str, scopes: &str, since: &str) -> (Vec<String>, String) {
    let path = format!("/changes?{scopes}&since={since}&limit=100000");
    let answer = http::get(url, &path, &[]).await;
    assert_eq!(answer.status, 200, "{url}{path}: {}", String::from_utf8_lossy(&answer.body));
    let page: Page<'_> = serde_json::from_slice(&answer.body).unwrap();
    (page.changes.iter().map(|change| change.get().to_owned()).collect(), page.first_sequence)
}

fn sequence(change: &str) -> walclock::domain::sequence::Sequence {
    serde_json::from_str::<serde_json::Value>(change).unwrap()["sequence"].as_str().unwrap().parse().unwrap()
}

/// A reader that goes to another server whenever it likes.
struct Wanderer {
    urls: Arc<Mutex<Vec<String>>>,
    scopes: &'static str,
    random: fastrand::Rng,
    since: String,
    seen: Vec<String>,
    /// How often it was told that it is too old, and where.
    too_old: BTreeMap<usize, usize>,
}

impl Wanderer {
    fn new(urls: &Arc<Mutex<Vec<String>>>, scopes: &'static str, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        let urls = Arc::clone(urls);
        Self { urls, scopes, random, since: "0.0.0".to_owned(), seen: Vec::new(), too_old: BTreeMap::new() }
    }

    /// Reads until the change that is named `end`.
    async fn run(mut self) -> Self {
        while !self.seen.last().is_some_and(|change| change.contains(r#""name":{"value":"end""#)) {
            let servers = self.urls.lock().clone();
            let server = self.random.usize(0..servers.len());
            match self.random.bool() {
                true => self.poll(server, &servers[server]).await,
                false => self.stream(server, &servers[server]).await,
            }
        }
        self
    }

    /// One call that may wait, and may be given up while it does.
    async fn poll(&mut self, server: usize, url: &str) {
        let limit = self.random.usize(1..200);
        let path = format!("/changes?{}&since={}&limit={limit}&block=30", self.scopes, self.since);
        let patience = Duration::from_millis(self.random.u64(1..400));
        let answer = tokio::time::timeout(patience, http::try_request("GET", url, &path, &[], "")).await;
        let Ok(Some(answer)) = answer else { return };
        if answer.status != 200 {
            return self.refused(server, answer.status, &answer.body);
        }
        let page: Page<'_> = serde_json::from_slice(&answer.body).unwrap();
        let (since, last) = (self.since.parse().unwrap(), page.last_sequence.parse().unwrap());
        assert!::<walclock::domain::sequence::Sequence>(last >= since, "{} was taken back to {last}", self.since);
        self.seen.extend(page.changes.iter().map(|change| change.get().to_owned()));
        self.since = page.last_sequence;
    }

    /// A stream that is broken off after a while.
    async fn stream(&mut self, server: usize, url: &str) {
        let query = format!("{}&since={}&limit={}", self.scopes, self.since, self.random.usize(1..200));
        let mut events = match Events::open(url, &query, &self.since).await {
            Ok(events) => events,
            Err(Some(answer)) => return self.refused(server, answer.status, &answer.body),
            Err(None) => return,
        };
        let patience = Duration::from_millis(self.random.u64(1..400));
        let end = tokio::time::Instant::now() + patience;
        while let Ok(block) = tokio::time::timeout_at(end, events.block()).await {
            match block {
                Block::Event(kind, data) if kind.is_empty() => self.seen.push(data),
                Block::Event(_, error) => return self.refused(server, 400, error.as_bytes()),
                Block::Silent => {}
                Block::End | Block::Broken => break,
            }
            self.since.clone_from(&events.id);
        }
    }

    fn refused(&mut self, server: usize, status: u16, body: &[u8]) {
        let body = String::from_utf8_lossy(body);
        match status {
            400 if body.contains("SNAPSHOT_TOO_OLD") => *self.too_old.entry(server).or_default() += 1,
            503 => {}
            _ => panic!("{status}: {body}"),
        }
    }
}
