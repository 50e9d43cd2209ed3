//! A whole changeserver in the test's own process: a slot, its journal, and the face on a real socket.

use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio_postgres::Client;
use tokio_util::sync::{CancellationToken, DropGuard};
use walclock::clock::Timestamp;
use walclock::feed::ingest::{Ingest, Status};
use walclock::feed::journal::{self, Journal};
use walclock::feed::reader::Reader;
use walclock::feed::{assemble, ingest, source};
use walclock::http::{changes, server};
use walclock::pg;
use walclock::service::changes::Changes;
use walclock::service::health::Health;

use super::forms;
pub use crate::support::PATIENCE;
use crate::support::{self, http};

/// A changeserver on a database of its own. It ends with the test.
pub struct Feed {
    /// What the test itself does to the database.
    pub client: Client,
    pub database: String,
    pub reader: Reader,
    pub health: Health,
    pub journal: Journal,
    pub server: String,
    stop: DropGuard,
}

impl Feed {
    /// With the table that most cases need, whose rows are in the scope `_change_selector`.
    pub async fn start() -> Self {
        let table = "create table items (id serial primary key, name text, _change_selector text);
                     alter table items replica identity full";
        Self::with(table, &["_change_selector", "_apid_scope"]).await
    }

    /// On a database with these tables, all of them published.
    pub async fn with(tables: &str, selector_columns: &[&str]) -> Self {
        let database = support::database().await;
        let client = support::connect(&database).await;
        client.batch_execute(tables).await.unwrap();
        client.batch_execute("create publication walclock for all tables").await.unwrap();
        Self::on(&database, client, selector_columns).await
    }

    /// On this database, whose publication `walclock` is there.
    pub async fn on(database: &str, client: Client, selector_columns: &[&str]) -> Self {
        let database = database.to_owned();
        let slot: String = client.query_one("select current_database()::text", &[]).await.unwrap().get(0);

        let config = journal::Config {
            max_age: Duration::from_secs(3600),
            ..journal::Config::new(support::scratch().join(&slot))
        };
        let (writer, journal) = journal::open(config).unwrap();
        let config = ingest::Config {
            source: source::Config {
                settings: pg::Settings::parse(&database).unwrap(),
                slot,
                publications: vec!["walclock".to_owned()],
            },
            assemble: assemble::Config {
                selector_columns: selector_columns.iter().map(|name| (*name).to_owned()).collect(),
            },
            intervals: ingest::Intervals::default(),
        };
        let stop = CancellationToken::new();
        let ingest = Ingest::new(config, writer, journal.clone());
        let mut status = ingest.status();
        tokio::spawn(ingest.run(stop.clone()));
        let streaming = status.wait_for(|status| matches!(status, Status::Streaming));
        tokio::time::timeout(PATIENCE, streaming).await.expect("the stream begins").unwrap();

        let (reader, health) = (Reader::new(journal.clone()), Health::new());
        let server = serve(reader.clone(), health.clone(), Duration::from_secs(300), stop.clone()).await;
        Self { client, database, reader, health, journal, server, stop: stop.drop_guard() }
    }

    /// Runs one transaction that changes published rows, and waits until it is visible.
    pub async fn commit(&self, sql: &str) {
        let before = self.client.query_one("select (pg_current_wal_insert_lsn() - '0/0')::bigint", &[]).await.unwrap();
        let before = before.get::<_, i64>(0).cast_unsigned();
        self.client.batch_execute(sql).await.unwrap();
        let seen = async || (self.reader.position().lsn.0 >= before).then_some(());
        support::eventually(PATIENCE, "the commit is visible", seen).await;
    }

    /// One insert into `items`.
    pub async fn insert(&self, name: &str, scope: &str) {
        self.commit(&format!("insert into items (name, _change_selector) values ('{name}', '{scope}')")).await;
    }

    /// The status and the JSON of `GET /changes` with this query string.
    pub async fn get(&self, query: &str) -> (u16, Value) {
        get(&self.server, query).await
    }

    /// The same, expecting a page.
    pub async fn page(&self, query: &str) -> Page {
        page(self.get(query).await, query)
    }

    /// A call that waits; returns once it does.
    pub async fn waiting(&self, query: &str) -> tokio::task::JoinHandle<Page> {
        let (server, query) = (self.server.clone(), query.to_owned());
        let others = self.reader.waiters();
        let call = tokio::spawn(async move { page(get(&server, &query).await, &query) });
        let waits = async || (self.reader.waiters() > others).then_some(());
        support::eventually(PATIENCE, "the call waits", waits).await;
        call
    }

    /// Another face of the same feed, where nobody waits longer than so; returns its URL.
    pub async fn face(&self, block_max: Duration) -> String {
        serve(self.reader.clone(), self.health.clone(), block_max, self.stop.token().clone()).await
    }

    /// Purges as if everything had grown too old.
    pub fn purge_all(&self) {
        self.journal.purge(Timestamp::MAX).unwrap();
    }
}

async fn serve(reader: Reader, health: Health, block_max: Duration, stop: CancellationToken) -> String {
    let router = changes::routes(Changes::new(reader, health, block_max));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let config =
        server::Config { connections_max: 64, head_max: PATIENCE, stall_max: PATIENCE, drain_max: Duration::ZERO };
    tokio::spawn(server::Server::new(config, listener, router).run(stop));
    url
}

/// Every call is made in all forms, which must agree.
async fn get(server: &str, query: &str) -> (u16, Value) {
    let answer = http::get(server, &format!("/changes?{query}"), &[]).await;
    let json = (answer.status, serde_json::from_slice(&answer.body).unwrap());
    forms::agree(server, query, &json).await;
    json
}

fn page((status, body): (u16, Value), query: &str) -> Page {
    assert_eq!(status, 200, "{query}: {body}");
    let text = |name: &str| body[name].as_str().unwrap().to_owned();
    let changes = body["changes"].as_array().unwrap().clone();
    Page { first: text("firstSequence"), last: text("lastSequence"), changes }
}

/// An answer.
#[derive(Debug)]
pub struct Page {
    pub first: String,
    pub last: String,
    pub changes: Vec<Value>,
}

impl Page {
    /// The names of the new rows.
    pub fn names(&self) -> Vec<&str> {
        self.changes.iter().map(|change| change["newRow"]["name"]["value"].as_str().unwrap_or("?")).collect()
    }

    /// The sequence of a change.
    pub fn sequence(&self, place: usize) -> &str {
        self.changes[place]["sequence"].as_str().unwrap()
    }
}
