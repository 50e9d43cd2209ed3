//! A server under load: writers, readers, a walclock process, and the checkers in the end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use walclock::domain::sequence::{Lsn, Sequence};
use walclock::feed::journal;

use super::checks::{Violation, acknowledged, check};
use super::ledger::{History, Life};
use super::readers::{Place, Reader, read_base};
use super::writers::{Held, Load, make_tables};
pub use crate::support::PATIENCE;
use crate::support::server::{Server, folder, migrate};
use crate::support::{connect, eventually, scratch};

/// Who reads: one scope, several, none, and all.
const READERS: [&[&str]; 4] = [&["a"], &["b", "c"], &[""], &["a", "b", "c", "d"]];
const WRITERS: usize = 4;
const PAUSE_MAX: Duration = Duration::from_millis(20);
/// A changeserver and nothing else, so that all the work is the feed's.
const FLAGS: &[&str] = &["--roles", "changeserver"];

/// Names the seed where a test fails, to be given back as `SEED=n`.
pub struct Seed(u64);

impl Seed {
    /// The one of the command line, else a new one.
    pub fn new() -> Self {
        Self(number("SEED").unwrap_or_else(|| fastrand::u64(..)))
    }

    /// The one of the command line, else always the same, but for a long run.
    fn steady() -> Self {
        Self(number("SEED").unwrap_or_else(|| if soak() == 1 { 1 } else { fastrand::u64(..) }))
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

/// How many times longer than usual to go on: `SOAK=n`.
pub fn soak() -> usize {
    number("SOAK").map_or(1, |factor| usize::try_from(factor).unwrap())
}

#[expect(clippy::disallowed_methods, reason = "given on the command line of a test")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Starts a walclock on a database, over a folder, with flags; none where the machine does not permit that.
pub type Spawn = Box<dyn Fn(&str, &Path, &[&str]) -> Option<Server>>;

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
    flags: Vec<&'static str>,
    spawn: Spawn,
    load: Option<Load>,
    readers: Vec<Reader>,
    pub rng: fastrand::Rng,
    _seed: Seed,
}

/// A reader that was away for a while: see [`World::follow`].
#[derive(Clone, Copy)]
pub struct Returned {
    reader: usize,
    /// How often it had been sent back to a beginning before.
    gaps: usize,
}

impl World {
    /// On an empty database, which walclock reaches through `via`. The load begins when walclock is ready, and readers
    /// of all kinds follow it from the first change on.
    pub async fn start(database: &str, via: &str) -> Self {
        let mut world = Self::empty(database, via, Seed::new()).await;
        world.restart();
        world.begin().await
    }

    /// The same with a walclock that is started in another way, now and ever after; none where that is not permitted.
    pub async fn start_by(database: &str, spawn: Spawn) -> Option<Self> {
        let mut world = Self::empty(database, database, Seed::new()).await;
        world.spawn = spawn;
        world.try_restart()?;
        Some(world.begin().await)
    }

    /// The same with a load that is the same every time, and further flags.
    pub async fn start_steady(database: &str, via: &str, flags: &[&'static str]) -> Self {
        let mut world = Self::empty(database, via, Seed::steady()).await;
        world.flags.extend(flags);
        world.restart();
        world.begin().await
    }

    async fn begin(mut self) -> Self {
        let world = &mut self;
        world.server().until_ready().await;
        world.load = Some(Load::start(&world.database, &mut world.rng, WRITERS, PAUSE_MAX));
        world.more_readers(1);
        // Who has no position yet asks for the oldest that there is, and cannot be told that something older is gone.
        let positioned = async || world.readers.iter().all(|reader| reader.at() != Sequence::ZERO).then_some(());
        eventually(PATIENCE, "all readers have a position", positioned).await;
        self
    }

    /// So many more readers of each kind, who follow from the first change on.
    pub fn more_readers(&mut self, of_each: usize) {
        for scopes in READERS.repeat(of_each) {
            let history = History::new(&scopes.join("+"), scopes);
            self.readers.push(Reader::start(&self.place, &self.database, &mut self.rng, history));
        }
    }

    /// The same, with a load of many writers that was there before walclock, and no readers yet.
    pub async fn start_under_load(database: &str, writers: usize) -> Self {
        let mut world = Self::loaded(database, writers).await;
        world.restart();
        world.server().until_ready().await;
        world
    }

    /// The same before walclock is there.
    pub async fn loaded(database: &str, writers: usize) -> Self {
        let mut world = Self::empty(database, database, Seed::new()).await;
        let load = Load::start(database, &mut world.rng, writers, PAUSE_MAX);
        eventually(PATIENCE, "the load runs", async || (load.committed() > 20).then_some(())).await;
        world.load = Some(load);
        world
    }

    async fn empty(database: &str, via: &str, seed: Seed) -> Self {
        let rng = seed.rng();
        migrate(database);
        make_tables(&connect(database).await).await;
        let (database, via) = (database.to_owned(), via.to_owned());
        let (place, readers) = (Place::default(), Vec::new());
        let (folder, flags) = (folder(), FLAGS.to_vec());
        let spawn: Spawn = Box::new(|via, folder, flags| Some(Server::spawn_unmigrated(via, folder, flags)));
        Self { database, via, folder, server: None, place, flags, spawn, load: None, readers, rng, _seed: seed }
    }

    pub fn server(&self) -> &Server {
        self.server.as_ref().expect("it was started")
    }

    /// A reader that takes the tables over now and follows from there. Says whether transactions were open meanwhile.
    pub async fn join(&mut self) -> bool {
        let base = read_base(&self.database).await.unwrap();
        let open = !base.snapshot.in_progress().is_empty();
        let scopes = READERS[self.rng.usize(0..READERS.len())];
        let mut history = History::new(&format!("{} from {:?}", scopes.join("+"), base.snapshot), scopes);
        history.lives[0].base = Some(base);
        self.readers.push(Reader::start(&self.place, &self.database, &mut self.rng, history));
        open
    }

    pub fn slot(&self) -> &str {
        self.folder.file_name().unwrap().to_str().unwrap()
    }

    /// Starts walclock anew, without waiting for it.
    pub fn restart(&mut self) {
        self.try_restart().expect("it was permitted the first time");
    }

    fn try_restart(&mut self) -> Option<()> {
        let server = (self.spawn)(&self.via, &self.folder, &self.flags)?;
        *self.place.lock() = server.url();
        self.server = Some(server);
        Some(())
    }

    /// Ends walclock as a crash would, and compares what it acknowledged with what it left in its journal.
    pub async fn kill(&mut self) {
        self.kill_unchecked();
        self.check_acknowledged().await;
    }

    /// Compares what was acknowledged with what is in the journal, while walclock is down.
    pub async fn check_acknowledged(&self) {
        self.check_acknowledged_in(&self.folder).await;
    }

    /// The same while walclock is there and has given its connection up: it is stopped for as long as its files are looked at.
    pub async fn check_acknowledged_stopped(&self) {
        let server = self.server();
        kill_process(server.pid(), Signal::STOP).unwrap();
        self.check_acknowledged_in(&server.file(&self.folder)).await;
        kill_process(server.pid(), Signal::CONT).unwrap();
    }

    async fn check_acknowledged_in(&self, folder: &Path) {
        let sql = connect(&self.database).await;
        let released = async || {
            let (confirmed, pid) = slot(&sql, self.slot()).await?;
            pid.is_none().then_some(confirmed)
        };
        let confirmed = eventually(PATIENCE, "the walsender notices", released).await;
        assert_eq!(acknowledged(confirmed, durable(folder)), [], "with what is left");
    }

    /// Waits until walclock, which cannot start, has said so and ended; returns all that it ever said.
    pub async fn refused(&mut self) -> String {
        let mut server = self.server.take().expect("it was started");
        assert_ne!(server.ended().await, 0, "it gave up in good order");
        server.log()
    }

    /// The same without a look at the slot.
    pub fn kill_unchecked(&mut self) {
        self.server.take().expect("it runs").kill();
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

    /// Waits until each reader has been sent back to a beginning so many times.
    pub async fn anew(&self, times: usize) {
        let sent_back = async || self.readers.iter().all(|reader| reader.gaps() >= times).then_some(());
        eventually(PATIENCE, "all readers begin anew", sent_back).await;
    }

    /// What a reader of all scopes has been told so far.
    pub fn history(&self) -> History {
        self.readers[READERS.len() - 1].history()
    }

    /// A reader that has been told this, and nothing since, goes on.
    pub fn follow(&mut self, history: History) -> Returned {
        let history = History { name: format!("{}, returned", history.name), ..history };
        let reader = Reader::start(&self.place, &self.database, &mut self.rng, history);
        let returned = Returned { reader: self.readers.len(), gaps: reader.gaps() };
        self.readers.push(reader);
        returned
    }

    /// Whether it has been sent back to a beginning.
    pub fn sent_back(&self, returned: Returned) -> bool {
        self.readers[returned.reader].gaps() > returned.gaps
    }

    /// How far any reader has been told.
    pub fn told_up_to(&self) -> Lsn {
        self.readers.iter().map(|reader| reader.at().lsn).max().expect("there are readers")
    }

    /// Begins a transaction that stays open while the load goes on.
    pub async fn hold(&mut self) -> Held {
        self.load.as_mut().expect("it runs").hold(&mut self.rng).await
    }

    /// Lets the load rest, or go on.
    pub fn rest(&self, rests: bool) {
        self.load.as_ref().expect("it runs").rest(rests);
    }

    /// Waits until the load has committed so many more transactions, and `there` has come besides.
    pub async fn commits(&self, more: usize, there: impl AsyncFn() -> Option<()>) {
        let load = self.load.as_ref().expect("it runs");
        let before = load.committed();
        eventually(PATIENCE, "it has come", there).await;
        let more = async || (load.committed() >= before + more).then_some(());
        eventually(PATIENCE, "more is committed", more).await;
    }

    /// The load ends, the readers catch up, all is compared, and the feed read again. The server stays.
    pub async fn finish(&mut self) -> Vec<History> {
        let (histories, end) = self.compare().await;
        again(&self.place, &self.database, &histories, end).await;
        histories
    }

    /// The same where the server itself has lost changes, so that they cannot be read again.
    pub async fn finish_after_loss(&mut self) {
        self.compare().await;
    }

    async fn compare(&mut self) -> (Vec<History>, Lsn) {
        let (ledger, tables) = self.load.take().expect("it is finished once").finish().await;
        let committed = ledger.iter().filter(|transaction| transaction.committed()).count();
        assert!(committed > 20, "only {committed} transactions were committed: nothing was tested");
        let sql = connect(&self.database).await;
        let end = sql.query_one("select pg_current_wal_insert_lsn()::text", &[]).await.unwrap();
        let end: Lsn = end.get::<_, &str>(0).parse().unwrap();
        // The cursor is the newest sequence of the whole feed: behind this one lies all that was committed before.
        sql.batch_execute("insert into plain values (-1, 0, '', 'end')").await.unwrap();
        let mut histories = Vec::new();
        for reader in std::mem::take(&mut self.readers) {
            eventually(PATIENCE, "a reader catches up", async || {
                assert!(!reader.is_finished(), "a reader met an answer that it cannot take");
                (reader.at().lsn >= end).then_some(())
            })
            .await;
            histories.push(reader.finish().await);
        }
        assert_fine(&check(&ledger, &tables, &histories));
        (histories, end)
    }
}

/// Tells how things stand where a test fails.
impl Drop for World {
    #[expect(clippy::print_stderr, reason = "a test tells what became of it")]
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for reader in &self.readers {
            let (told, gaps, at, ended) = (reader.told(), reader.gaps(), reader.at(), reader.is_finished());
            eprintln!("a reader: told {told} changes, up to {at}, sent back {gaps} times, ended: {ended}");
        }
        if let Some(load) = &self.load {
            eprintln!("the load: {} transactions committed, {} writers ended", load.committed(), load.ended());
        }
        if let Some(server) = &self.server {
            eprintln!("the server's log:\n{}", server.log());
        }
    }
}

/// The feed read a second time is the same, byte for byte.
async fn again(place: &Place, database: &str, histories: &[History], end: Lsn) {
    for history in histories.iter().filter(|history| history.lives.len() == 1 && history.lives[0].base.is_none()) {
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

/// A changeserver with a folder of its own.
pub fn serve(via: &str, folder: &Path) -> Server {
    Server::spawn_unmigrated(via, folder, FLAGS)
}

/// What a slot was told that it may forget, and who streams from it.
pub async fn slot(sql: &tokio_postgres::Client, name: &str) -> Option<(Lsn, Option<i32>)> {
    let query = "select confirmed_flush_lsn::text, active_pid from pg_replication_slots where slot_name = $1";
    let row = sql.query_opt(query, &[&name]).await.ok()??;
    Some((row.get::<_, Option<&str>>(0)?.parse().unwrap(), row.get(1)))
}

/// Up to where the journal of a process that is gone, or stopped, takes up the stream. It is looked at in a copy: to open it
/// is to repair it.
fn durable(folder: &Path) -> Lsn {
    let copy = tempfile::tempdir_in(scratch()).unwrap();
    for file in std::fs::read_dir(folder.join("journal")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    let (_writer, journal) = journal::open(journal::Config::new(copy.path())).unwrap();
    journal.durable()
}

/// Fails where a reader was sent back to a beginning: nothing was lost, so nobody may be.
pub fn assert_no_gap(histories: &[History]) {
    assert_gaps(histories, 0);
}

/// Fails where a reader was not sent back to a beginning exactly so many times.
pub fn assert_gaps(histories: &[History], gaps: usize) {
    for history in histories {
        assert_eq!(history.lives.len() - 1, gaps, "reader {} was sent back", history.name);
    }
}
