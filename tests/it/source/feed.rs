//! What the tests of the way in share: a feed over a folder, and what is asked of it and of its server.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;
use walclock::domain::scope::Scope;
use walclock::domain::sequence::{Lsn, Sequence};
use walclock::feed::ingest::{Config, Ingest, Intervals, Status};
use walclock::feed::journal::{self, Journal};
use walclock::feed::query::{self, Page, Query};
use walclock::feed::reader::Reader;
use walclock::feed::{assemble, source};
use walclock::localpg::Cluster;

use super::{PATIENCE, config, publish_notes};
use crate::support;

/// A feed that can be stopped and started over the same folder.
pub struct Feed {
    pub config: Config,
    pub journal: journal::Config,
}

/// The feed while it runs.
pub struct Running {
    pub journal: Journal,
    pub reader: Reader,
    pub status: watch::Receiver<Status>,
    pub warning: watch::Receiver<Option<String>>,
    pub unpublished: watch::Receiver<Option<String>>,
    pub shutdown: CancellationToken,
    pub task: JoinHandle<Result<(), source::Error>>,
}

impl Feed {
    pub fn new(url: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let folder = support::scratch().join(format!("ingest{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        let assemble = assemble::Config { selector_columns: vec!["_change_selector".to_owned()] };
        let config = Config { source: config(url), assemble, intervals: Intervals::default() };
        Self { config, journal: journal::Config::new(folder) }
    }

    pub fn start(&self) -> Running {
        let (writer, journal) = journal::open(self.journal.clone()).unwrap();
        let ingest = Ingest::new(self.config.clone(), writer, journal.clone());
        let (status, warning, unpublished) = (ingest.status(), ingest.warning(), ingest.unpublished());
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(ingest.run(shutdown.clone()));
        Running { reader: Reader::new(journal.clone()), journal, status, warning, unpublished, shutdown, task }
    }

    /// Starts it and waits until it is live.
    pub async fn live(&self) -> Running {
        let mut running = self.start();
        running.wait_for("live", |status| *status == Status::Streaming).await;
        running
    }

    pub fn slot(&self) -> &str {
        &self.config.source.slot
    }
}

impl Running {
    pub async fn wait_for(&mut self, what: &str, is: impl FnMut(&Status) -> bool) {
        let reached = tokio::time::timeout(PATIENCE, self.status.wait_for(is)).await.map(|status| status.is_ok());
        assert_eq!(reached.ok(), Some(true), "not {what}: {:?}", *self.status.borrow());
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }

    pub async fn changes(&self, since: Sequence) -> Result<Page, query::Error> {
        let scopes = vec![Scope::parse("s").unwrap()];
        self.reader.changes(Query { scopes, since, limit: 100_000, block: Duration::ZERO, snapshot: None }).await
    }

    /// The body of every change.
    pub async fn bodies(&self) -> Vec<serde_json::Value> {
        let changes = self.changes(Sequence::ZERO).await.unwrap().changes;
        changes.iter().map(|change| serde_json::from_slice(&change.body).unwrap()).collect()
    }

    /// The ids of all notes in the feed, when there are so many.
    pub async fn ids(&self, count: usize) -> Vec<i64> {
        support::eventually(PATIENCE, "all notes are in the feed", async || {
            let ids: Vec<_> =
                self.changes(Sequence::ZERO).await.unwrap().changes.iter().map(|one| id(&one.body)).collect();
            (ids.len() >= count).then_some(ids)
        })
        .await
    }
}

pub fn id(change: &[u8]) -> i64 {
    let change: serde_json::Value = serde_json::from_slice(change).unwrap();
    change["newRow"]["id"]["value"].as_str().unwrap().parse().unwrap()
}

pub async fn insert(client: &Client, ids: std::ops::Range<i32>) {
    let sql = "insert into notes select n, 'body', 's' from generate_series($1::int, $2::int - 1) n";
    client.execute(sql, &[&ids.start, &ids.end]).await.unwrap();
}

/// Up to where the slot has been told that it may forget.
pub async fn confirmed(client: &Client, slot: &str) -> Lsn {
    let sql = "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = $1";
    client.query_one(sql, &[&slot]).await.unwrap().get::<_, String>(0).parse().unwrap()
}

pub async fn wal_end(client: &Client) -> Lsn {
    client.query_one("select pg_current_wal_lsn()::text", &[]).await.unwrap().get::<_, String>(0).parse().unwrap()
}

pub fn range(ids: std::ops::Range<i64>) -> Vec<i64> {
    ids.collect()
}

/// A live feed with the notes 0 to 9 in it, and the position behind them.
pub async fn filled(url: &str) -> (Client, Feed, Running, Sequence) {
    let client = publish_notes(url).await;
    let feed = Feed::new(url);
    let running = feed.live().await;
    insert(&client, 0..10).await;
    running.ids(10).await;
    let before = running.changes(Sequence::ZERO).await.unwrap().last;
    (client, feed, running, before)
}

pub async fn while_down(mut cluster: Cluster, act: impl FnOnce() + Send + 'static) -> Cluster {
    let restarted = tokio::task::spawn_blocking(move || {
        cluster.stop();
        act();
        cluster.restart().unwrap();
        cluster
    });
    restarted.await.unwrap()
}

pub fn copy_folder(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}
