//! A server under load: writers, readers, a walclock process, and the checkers in the end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use walclock::domain::sequence::Lsn;
use walclock::feed::journal;

use super::checks::{Violation, acknowledged, check};
use super::ledger::{History, Life};
use super::readers::{Place, Reader};
use super::writers::{Load, make_tables};
use crate::support::server::{Server, folder, migrate};
use crate::support::{connect, eventually, scratch};

/// How long anything may take on a busy machine before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Who reads: one scope, several, none, and all.
const READERS: [&[&str]; 4] = [&["a"], &["b", "c"], &[""], &["a", "b", "c", "d"]];
const WRITERS: usize = 4;
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// Names the seed where a test fails, to be given back as `SEED=n`.
pub struct Seed(u64);

impl Seed {
    /// The one of the command line, else a new one.
    pub fn new() -> Self {
        Self(number("SEED").unwrap_or_else(|| fastrand::u64(..)))
    }

    pub fn rng(&self) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.0)
    }
}

impl Drop for Seed {
    #[expect(clippy::print_stderr, reason = "a test tells how it is repeated")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to repeat it: SEED={}", self.0);
        }
    }
}

/// How many times longer than usual to go on: `WALCLOCK_SOAK=n`.
pub fn soak() -> usize {
    number("WALCLOCK_SOAK").map_or(1, |factor| usize::try_from(factor).unwrap())
}

#[expect(clippy::disallowed_methods, reason = "given on the command line of a test")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Everything of one run.
pub struct World {
    /// The database, with nothing between.
    pub database: String,
    /// The database as walclock reaches it.
    via: String,
    /// walclock's folder; its slot is named alike.
    pub folder: PathBuf,
    pub server: Option<Server>,
    pub place: Place,
    pub load: Load,
    pub readers: Vec<Reader>,
    pub rng: fastrand::Rng,
    _seed: Seed,
}

impl World {
    /// On an empty database, which walclock reaches through `via`. The load begins at once.
    pub async fn start(database: &str, via: &str) -> Self {
        let seed = Seed::new();
        let mut rng = seed.rng();
        migrate(database);
        let sql = connect(database).await;
        make_tables(&sql).await;
        let folder = folder();
        let server = serve(via, &folder);
        server.until_ready().await;
        let place: Place = Arc::new(Mutex::new(server.url()));
        let load = Load::start(database, &mut rng, WRITERS, PAUSE_MAX);
        let readers = READERS
            .iter()
            .map(|scopes| Reader::start(&place, database, &mut rng, History::new(&scopes.join("+"), scopes)))
            .collect();
        let (database, via, server) = (database.to_owned(), via.to_owned(), Some(server));
        Self { database, via, folder, server, place, load, readers, rng, _seed: seed }
    }

    pub fn slot(&self) -> &str {
        self.folder.file_name().unwrap().to_str().unwrap()
    }

    /// Starts walclock anew, without waiting for it.
    pub fn restart(&mut self) {
        let server = serve(&self.via, &self.folder);
        *self.place.lock() = server.url();
        self.server = Some(server);
    }

    /// Ends walclock as a crash would, and compares what it acknowledged with what it left in its journal.
    pub async fn kill(&mut self) {
        self.server.take().unwrap().kill();
        let sql = connect(&self.database).await;
        let released = async || {
            let (confirmed, pid) = slot(&sql, self.slot()).await?;
            pid.is_none().then_some(confirmed)
        };
        let confirmed = eventually(PATIENCE, "the walsender notices", released).await;
        assert_eq!(acknowledged(confirmed, durable(&self.folder)), [], "after a kill");
    }

    /// A random span within these milliseconds.
    pub fn span(&mut self, milliseconds: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.rng.u64(milliseconds))
    }

    /// Waits until each reader has been told more than so many changes since the last call.
    pub async fn progress(&self, more: usize) {
        let before: Vec<usize> = self.readers.iter().map(Reader::told).collect();
        let progress = async || {
            let told = self.readers.iter().map(Reader::told);
            told.zip(&before).all(|(told, before)| told >= before + more).then_some(())
        };
        eventually(PATIENCE, "all readers are told more", progress).await;
    }

    /// The load ends, the readers catch up, and all is compared.
    pub async fn finish(self) -> Vec<History> {
        let (ledger, tables) = self.load.finish().await;
        let committed = ledger.iter().filter(|transaction| transaction.committed()).count();
        assert!(committed > 20, "only {committed} transactions were committed: nothing was tested");
        let sql = connect(&self.database).await;
        let end = lsn(&sql, "select pg_current_wal_insert_lsn()::text").await;
        // The cursor is the newest sequence of the whole feed: behind this one lies all that was committed before.
        sql.batch_execute("insert into plain values (-1, 0, '', 'end')").await.unwrap();
        for reader in &self.readers {
            let there = async || (reader.at().lsn >= end).then_some(());
            eventually(PATIENCE, "a reader catches up", async || {
                assert!(!reader.is_finished(), "a reader met an answer that it cannot take");
                there().await
            })
            .await;
        }
        let mut histories = Vec::new();
        for reader in self.readers {
            histories.push(reader.finish().await);
        }
        assert_fine(&check(&ledger, &tables, &histories));
        again(&self.place, &self.database, &histories, end).await;
        histories
    }
}

/// The feed read a second time is the same, byte for byte.
async fn again(place: &Place, database: &str, histories: &[History], end: Lsn) {
    for history in histories.iter().filter(|history| history.lives.len() == 1) {
        let fresh = History { lives: vec![Life::default()], ..history.clone() };
        let reader = Reader::start(place, database, &mut fastrand::Rng::new(), fresh);
        eventually(PATIENCE, "it is read again", async || (reader.at().lsn >= end).then_some(())).await;
        let fresh = reader.finish().await;
        let bytes = |history: &History| history.lives[0].changes().map(|told| told.raw.clone()).collect::<Vec<_>>();
        assert!(bytes(history) == bytes(&fresh), "reader {}: the feed differs when it is read again", history.name);
    }
}

/// Fails with the first few violations.
fn assert_fine(violations: &[Violation]) {
    let first: Vec<String> = violations.iter().take(10).map(|(rule, what)| format!("{rule:?}: {what}")).collect();
    assert!(violations.is_empty(), "{} violations, first:\n{}", violations.len(), first.join("\n"));
}

/// A changeserver and nothing else, so that all the work is the feed's.
pub fn serve(via: &str, folder: &Path) -> Server {
    Server::spawn_unmigrated(via, folder, &["--roles", "changeserver"])
}

/// What a slot was told that it may forget, and who streams from it.
pub async fn slot(sql: &tokio_postgres::Client, name: &str) -> Option<(Lsn, Option<i32>)> {
    let query = "select confirmed_flush_lsn::text, active_pid from pg_replication_slots where slot_name = $1";
    let row = sql.query_opt(query, &[&name]).await.ok()??;
    Some((row.get::<_, Option<&str>>(0)?.parse().unwrap(), row.get(1)))
}

async fn lsn(sql: &tokio_postgres::Client, query: &str) -> Lsn {
    sql.query_one(query, &[]).await.unwrap().get::<_, &str>(0).parse().unwrap()
}

/// Up to where the journal of a process that is gone takes up the stream. It is looked at in a copy: to open it is to
/// repair it.
fn durable(folder: &Path) -> Lsn {
    let copy = tempfile::tempdir_in(scratch()).unwrap();
    for file in std::fs::read_dir(folder.join("journal")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    let (_writer, journal) = journal::open(journal::Config::new(copy.path())).unwrap();
    journal.durable()
}
