//! Several changeservers beside each other on one database, each with its own slot: the same sequences and the same bytes
//! everywhere, so that a reader may go to another one at any moment.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_postgres::Client;
use walclock::domain::sequence::Sequence;

use super::support::events::{Block, Events};
use super::support::server::{Server, folder};
use super::support::{PATIENCE, connect, eventually, http, migrated};

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

    /// The process that streams to a server. A slot is also in use by who makes it, and what is committed meanwhile it
    /// may never tell.
    async fn walsender(&self, server: usize) -> i32 {
        let query = "select pid from pg_replication_slots join pg_stat_replication on pid = active_pid
                     where slot_name = $1 and state in ('catchup', 'streaming')";
        let ask = async || self.sql.query_opt(query, &[&self.slot(server)]).await.unwrap();
        eventually(PATIENCE, "the slot streams", ask).await.get(0)
    }

    /// Ends a server as a crash would, and starts it again.
    async fn crash(&mut self, server: usize) {
        self.servers.remove(server).kill();
        let new = Server::spawn_unmigrated(&self.database, &self.folders[server], &FLAGS);
        new.until_ready().await;
        self.urls.lock()[server] = new.url();
        self.servers.insert(server, new);
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
        assert_ne!(self.walsender(server).await, old, "the server has made another one");
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

fn sequence(change: &str) -> Sequence {
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
    fn new(urls: &Arc<Mutex<Vec<String>>>, scopes: &'static str, since: &str, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        let urls = Arc::clone(urls);
        Self { urls, scopes, random, since: since.to_owned(), seen: Vec::new(), too_old: BTreeMap::new() }
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
        let (since, last): (Sequence, Sequence) = (self.since.parse().unwrap(), page.last_sequence.parse().unwrap());
        assert!(last >= since, "{} was taken back to {last}", self.since);
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

/// Transactions of every kind, from one of several who write at the same time.
async fn write(client: &Client, writer: usize, phase: usize) {
    let mut random = fastrand::Rng::with_seed((writer * 10 + phase) as u64);
    for round in 0..30 {
        let scope = ["'a'", "'b'", "'c'", "null"][random.usize(0..4)];
        let insert = format!("insert into items (name, _change_selector) select '{writer}-{phase}-{round}', {scope}");
        let own = format!("name like '{writer}-%' and id % 5 = {}", random.u8(0..5));
        let sql = match random.u8(0..12) {
            0 => format!("{insert} from generate_series(1, 40)"),
            1 | 2 => format!("update items set _change_selector = {scope} where {own}"),
            3 => format!("delete from items where {own} and id % 2 = 0"),
            4 => format!("begin; {insert}; savepoint s; {insert}; rollback to s; {insert}; commit"),
            5 => format!("begin; {insert} from generate_series(1, 20); rollback"),
            6 => "begin; select pg_current_xact_id(); commit".to_owned(),
            7 => "truncate other".to_owned(),
            _ => insert,
        };
        client.batch_execute(&sql).await.unwrap();
    }
    let huge =
        format!("insert into items (name, _change_selector) select '{writer}-huge', 'b' from generate_series(1, 1000)");
    if writer == phase {
        client.batch_execute(&huge).await.unwrap();
    }
}

/// All writers, once.
async fn load(writers: &[Client], phase: usize) {
    futures_util::future::join_all(writers.iter().enumerate().map(|(writer, client)| write(client, writer, phase)))
        .await;
}

/// The rows that are left when the changes are applied one after another.
fn fold(changes: &[String]) -> BTreeMap<String, String> {
    let mut rows = BTreeMap::new();
    for change in changes {
        let change: serde_json::Value = serde_json::from_str(change).unwrap();
        let id = |row: &str| change[row]["id"]["value"].as_str().unwrap_or_default().to_owned();
        match change["operation"].as_u64().unwrap() {
            1 => assert_eq!(rows.insert(id("newRow"), text(&change)), None, "an insert of what is there: {change}"),
            2 => assert!(rows.insert(id("newRow"), text(&change)).is_some(), "an update of nothing: {change}"),
            3 => assert!(rows.remove(&id("oldRow")).is_some(), "a delete of nothing: {change}"),
            _ => {}
        }
    }
    rows
}

fn text(change: &serde_json::Value) -> String {
    let row = &change["newRow"];
    format!("{} {}", row["name"]["value"], row["_change_selector"]["value"])
}

const SCOPES: [&str; 5] = [
    "scope=a&scope=end",
    "scope=b&scope=end",
    "scope=b&scope=c&scope=end",
    "scope=nothing&scope=end",
    "scope=a&scope=b&scope=c&scope=end",
];

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_change_servers_at_random_see_everything_once_while_servers_die() {
    let mut world = World::new(3).await;
    world.sql.batch_execute("insert into items (name, _change_selector) values ('begin', 'end')").await.unwrap();
    let mut begin = Vec::new();
    for server in &world.servers {
        let first = async || Some(everything(&server.url(), "scope=end", "0.0.0").await).filter(|all| all.0.len() == 1);
        begin.push(eventually(PATIENCE, "the first change is there", first).await);
    }
    assert!(begin.iter().all(|first| *first == begin[0]));
    let since = begin.remove(0).1;
    let read = |(scopes, seed)| tokio::spawn(Wanderer::new(&world.urls, scopes, &since, seed).run());
    let readers: Vec<_> = SCOPES.into_iter().chain([SCOPES[2], SCOPES[4]]).zip(1..).map(read).collect();
    let mut writers = Vec::new();
    for _ in 0..4 {
        writers.push(connect(&world.database).await);
    }
    load(&writers, 0).await;
    tokio::join!(load(&writers, 1), world.crash(2));
    tokio::join!(load(&writers, 2), world.lose_slot(1));
    load(&writers, 3).await;
    world.sql.batch_execute("insert into items (name, _change_selector) values ('end', 'end')").await.unwrap();

    let urls = world.urls.lock().clone();
    for url in &urls {
        // The readers may have had the end from another one.
        let all_of = async || everything(url, "scope=end", "0.0.0").await.0;
        let is_end = |change: &String| change.contains(r#""name":{"value":"end""#);
        eventually(PATIENCE, "a server has the end", async || all_of().await.last().filter(|c| is_end(c)).map(drop))
            .await;
    }
    let mut told = BTreeMap::new();
    for reader in readers {
        let reader = tokio::time::timeout(PATIENCE, reader).await.expect("a reader ends").unwrap();
        let (all, _) = everything(&urls[0], reader.scopes, &since).await;
        assert!(all.is_sorted_by_key(|change| sequence(change)), "in order");
        assert_eq!(reader.seen.len(), all.len(), "{}", reader.scopes);
        assert!(reader.seen == all, "{}: the same changes, byte by byte", reader.scopes);
        assert!(reader.too_old.keys().all(|server| *server == 1), "only one had a gap: {:?}", reader.too_old);
        assert!(everything(&urls[2], reader.scopes, &since).await.0 == all, "so it is after a crash");
        // The one that had lost its slot has what came afterwards.
        let (rest, first) = everything(&urls[1], reader.scopes, "0.0.0").await;
        let first: Sequence = first.parse().unwrap();
        let expected: Vec<_> = all.iter().filter(|change| sequence(change) >= first).cloned().collect();
        assert!(rest == expected && !rest.is_empty(), "{}: the end of the same", reader.scopes);
        told.insert(reader.scopes, all);
    }
    let (status, error) = world.servers[1].get(&format!("/changes?scope=a&since={since}")).await;
    assert_eq!((status, error["code"].as_str()), (400, Some("SNAPSHOT_TOO_OLD")), "it says what it does not have");

    let rows =
        "select id::text, to_jsonb(name)::text || ' ' || coalesce(to_jsonb(_change_selector)::text, 'null') from items
        where _change_selector is not null and name <> 'begin'";
    let rows = world.sql.query(rows, &[]).await.unwrap();
    let table: BTreeMap<String, String> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let folded = fold(&told[SCOPES[4]]);
    assert!(table.len() > 1_000 && folded == table, "the changes make the table");
    assert!(told[SCOPES[3]].len() > 1, "a TRUNCATE is told to everyone");
}

/// A process that is held still; it goes on when this is dropped.
struct Held(rustix::process::Pid);

impl Held {
    fn new(pid: i32) -> Self {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        Self(pid)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(self.0, rustix::process::Signal::CONT);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_ahead_of_a_slower_server_waits_there_and_is_never_taken_back() {
    let world = World::new(2).await;
    let urls = world.urls.lock().clone();
    let held = Held::new(world.walsender(1).await);
    let insert = async |name: &str| {
        let insert = "insert into items (name, _change_selector) values ($1, 'a')";
        world.sql.execute(insert, &[&name]).await.unwrap();
    };
    insert("one").await;
    let one = async || Some(everything(&urls[0], "scope=a", "0.0.0").await.0).filter(|all| all.len() == 1);
    let ahead = sequence(&eventually(PATIENCE, "the quick one has it", one).await[0]).to_string();
    let (status, page) = world.servers[1].get(&format!("/changes?scope=a&since={ahead}")).await;
    assert_eq!((status, page["lastSequence"].as_str()), (200, Some(&*ahead)));
    assert!(everything(&urls[1], "scope=a", "0.0.0").await.0.is_empty(), "the slow one is behind");

    let path = format!("/changes?scope=a&since={ahead}&block=300");
    let waiting = tokio::spawn({
        let (url, path) = (urls[1].clone(), path.clone());
        async move { http::get(&url, &path, &[]).await }
    });
    let Ok(mut events) = Events::open(&urls[1], "scope=a", &ahead).await else { panic!("a stream") };
    let both = async || {
        let metrics = String::from_utf8(http::get(&urls[1], "/metrics", &[]).await.body.to_vec()).unwrap();
        metrics.lines().any(|line| line == "walclock_waiters 2").then_some(())
    };
    eventually(PATIENCE, "both wait", both).await;
    drop(held);
    let one = async || Some(everything(&urls[1], "scope=a", "0.0.0").await.0).filter(|all| all.len() == 1);
    eventually(PATIENCE, "the slow one has caught up", one).await;
    assert!(!waiting.is_finished(), "what the reader has is no news");
    insert("two").await;
    let answer = waiting.await.unwrap();
    let page: Page<'_> = serde_json::from_slice(&answer.body).unwrap();
    let change = events.change().await;
    assert_eq!((page.changes.len(), &change["newRow"]["name"]["value"]), (1, &"two".into()));
    assert_eq!(serde_json::from_str::<serde_json::Value>(page.changes[0].get()).unwrap(), change);
    assert_eq!(page.last_sequence, events.id);
}
