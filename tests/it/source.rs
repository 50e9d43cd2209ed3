//! Integration: the replication client and the way into the journal, on a real PostgreSQL.

mod beginning;
mod budget;
mod claim;
mod ddl;
pub mod failover;
mod feed;
mod fold;
mod gaps;
mod ingest;
mod login;
mod partitions;
mod proxy;
mod publication;
mod published;
mod rights;
mod stream;
mod ways;
mod wrap;

use walclock::feed::source::{Config, Connection, Facts, Server};
use walclock::pg::Settings;

use crate::support::{self, PATIENCE};

const PUBLICATION: &str = "feed";

/// The settings for a database of a test, with a slot named after it.
fn config(url: &str) -> Config {
    let settings = Settings::parse(url).unwrap();
    let slot = format!("slot_{}", settings.config().get_dbname().unwrap());
    Config { settings, slot, publications: vec![PUBLICATION.to_owned()] }
}

/// Both connections to the one server of the settings.
async fn connect(settings: &Settings) -> (Server, Connection, Facts) {
    let server = Server::connect(settings).await.unwrap();
    let facts = server.facts().await.unwrap();
    (server, Connection::open(settings).await.unwrap(), facts)
}

/// A published table `notes (id, body, _change_selector)` in an empty database.
async fn publish_notes(url: &str) -> tokio_postgres::Client {
    let client = support::connect(url).await;
    let sql = "create table notes (id int primary key, body text, _change_selector text);
               alter table notes replica identity full;
               create table other (id int);
               create publication feed for table notes";
    client.batch_execute(sql).await.unwrap();
    client
}
