//! Dispatchers under load: processes, clients, a receiver, triggers that note every write, and the checkers in the end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use tokio_postgres::Client;
use walclock::clock::{Timestamp, wall};

use super::checks::{Violation, check};
use super::clients::{Desk, Load};
use super::ledger::{Attempt, Evidence, Fault, Lease, Residue, Run, Write};
use super::sink::Sink;
use crate::chaos::world::Seed;
pub use crate::support::PATIENCE;
use crate::support::server::{Server, folder};
use crate::support::{connect, eventually};

const CLIENTS: usize = 4;
const PAUSE_MAX: Duration = Duration::from_millis(12);

/// Calls behind the last fault, for which nothing excuses anything.
const CALM_CALLS: usize = 30;

/// Notes each write of a dispatcher to the runs with the epoch that its shard's lease has at that moment, and each change of
/// a lease. That a run is cancelled is written by clients, under no lease.
const AUDIT: &str = "
    create schema audit;
    create table audit.writes (timer text not null, number bigint, execute_at timestamptz not null, attempt integer not null,
                               epoch bigint not null, lease bigint not null, is_end boolean not null);
    create table audit.leases (number bigserial, at timestamptz not null default clock_timestamp(),
                               shard smallint not null, epoch bigint not null, owner text, lapsed boolean not null);
    create function audit.note_write() returns trigger language plpgsql as $$
    declare run walclock.runs;
    begin
        if tg_op = 'DELETE' then run := old; else run := new; end if;
        insert into audit.writes
        select run.id, (run.payload->>'n')::bigint, run.execute_at, run.attempts, run.epoch, epoch,
               tg_op = 'UPDATE' and old.answered_at is null and run.answered_at is not null
        from walclock.shards where shard = run.shard;
        return null;
    end $$;
    create function audit.note_lease() returns trigger language plpgsql as $$
    begin
        insert into audit.leases (shard, epoch, owner, lapsed)
        values (new.shard, new.epoch, new.owner,
                old.owner is not null and old.epoch <> new.epoch and old.expires_at <= clock_timestamp());
        return null;
    end $$;
    create trigger note_write after insert or delete on walclock.runs
        for each row execute function audit.note_write();
    create trigger note_change after update on walclock.runs
        for each row when (old.cancelled = new.cancelled) execute function audit.note_write();
    create trigger note_lease after update on walclock.shards
        for each row when (old.owner is distinct from new.owner or old.epoch <> new.epoch)
        execute function audit.note_lease()";

/// A walclock process, and how it is started again.
pub struct Node {
    folder: PathBuf,
    /// The database as it reaches it.
    via: String,
    flags: Vec<String>,
    /// What is set in its environment besides.
    variables: Vec<(String, PathBuf)>,
    pub server: Option<Server>,
}

impl Node {
    /// One with these flags that reaches the database by this URL.
    pub fn new(via: &str, flags: &[&str]) -> Self {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Self { folder: folder(), via: via.to_owned(), flags, variables: Vec::new(), server: None }
    }

    /// The same with these variables in its environment.
    pub fn among(self, variables: Vec<(String, PathBuf)>) -> Self {
        Self { variables, ..self }
    }

    pub fn server(&self) -> &Server {
        self.server.as_ref().expect("it was started")
    }

    fn start(&mut self) {
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        self.server = Some(Server::spawn_among(&self.variables, &self.via, &self.folder, &flags));
    }

    /// Whether it offers this to others.
    fn has(&self, role: &str) -> bool {
        let roles = self.flags.iter().position(|flag| flag == "--roles").map(|at| &self.flags[at + 1]);
        roles.is_none_or(|roles| roles.contains(role))
    }

    /// The value of a metric; none where nobody answers.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        self.server.as_ref()?.metric(name).await
    }

    /// The slot of its changeserver is named like its folder.
    pub fn slot(&self) -> &str {
        self.folder.file_name().unwrap().to_str().unwrap()
    }
}

/// Everything of one run.
pub struct World {
    /// The database, with nothing between.
    pub database: String,
    pub nodes: Vec<Node>,
    pub sink: Arc<Sink>,
    pub desk: Desk,
    load: Option<Load>,
    faults: Vec<Fault>,
    pub rng: fastrand::Rng,
    _seed: Seed,
}

impl World {
    /// On a database with the schema: so many processes that do everything, all alike.
    pub async fn start(database: &str, nodes: usize) -> Self {
        Self::start_with(database, (0..nodes).map(|_| Node::new(database, &[])).collect()).await
    }

    /// The same for a test without a fault: the leases are those of a real server, so that a busy machine does not lose
    /// them.
    pub async fn start_well(database: &str, nodes: usize) -> Self {
        let node = |_| Node::new(database, &["--lease-ttl", "10s"]);
        Self::start_with(database, (0..nodes).map(node).collect()).await
    }

    pub async fn start_with(database: &str, nodes: Vec<Node>) -> Self {
        Self::start_behind(database, nodes, |_| {}).await
    }

    /// The same, and says where the first one is before the others are waited for.
    pub async fn start_behind(database: &str, nodes: Vec<Node>, first: impl FnOnce(&Server)) -> Self {
        let seed = Seed::new();
        let sql = connect(database).await;
        sql.batch_execute(AUDIT).await.unwrap();
        let sink = Arc::new(Sink::start());
        let endpoint = Arc::clone(&sink);
        let desk = Desk::new(database, move |script| endpoint.url_at_random(script));
        let (database, rng) = (database.to_owned(), seed.rng());
        let mut world = Self { database, nodes, sink, desk, load: None, faults: Vec::new(), rng, _seed: seed };
        for at in 0..world.nodes.len() {
            world.nodes[at].start();
        }
        world.tell();
        first(world.nodes[0].server());
        for node in &world.nodes {
            node.server().until_ready().await;
        }
        // Until each has its share, shards go from one to another with calls under way.
        world.begin_fault("the start", false, Timestamp::MIN);
        world.recovered().await;
        world
    }

    /// Waits until every shard has an owner, and each owner its share to the very shard: then nothing moves any more.
    async fn settled(&self) {
        let sql = connect(&self.database).await;
        let alive = self.nodes.iter().filter(|node| node.server.is_some() && node.has("dispatcher")).count();
        let query = "with alive as (
                select owner, row_number() over (order by started_at, owner) as rank, count(*) over () as owners
                from walclock.dispatchers where expires_at > now()
            ), held as (
                select owner, count(*) as shards from walclock.shards where expires_at > now() group by owner
            )
            select count(*) = $1 and bool_and(coalesce(shards, 0) = 256 / owners + (rank <= 256 % owners)::integer)
            from alive left join held using (owner)";
        let alive = i64::try_from(alive).unwrap();
        let is_settled = async || sql.query_one(query, &[&alive]).await.ok()?.get::<_, Option<bool>>(0)?.then_some(());
        eventually(PATIENCE, "each dispatcher has its share", is_settled).await;
    }

    /// Clients begin to do things at random.
    pub fn load(&mut self) {
        self.load = Some(Load::start(&self.desk, &mut self.rng, CLIENTS, PAUSE_MAX));
    }

    /// The same with so many clients, and the longest pause between two deeds of each.
    pub fn load_of(&mut self, clients: usize, pause_max: Duration) {
        self.load = Some(Load::start(&self.desk, &mut self.rng, clients, pause_max));
    }

    pub fn deeds(&self) -> usize {
        self.load.as_ref().map_or(0, Load::deeds)
    }

    /// Waits until so many more calls have arrived.
    pub async fn progress(&self, more: usize) {
        let before = self.sink.count();
        let arrived = async || (self.sink.count() >= before + more).then_some(());
        eventually(PATIENCE, "more calls arrive", arrived).await;
    }

    /// Waits until so many more deeds were done.
    pub async fn done(&self, more: usize) {
        let before = self.deeds();
        let done = async || (self.deeds() >= before + more).then_some(());
        eventually(PATIENCE * 20, "more is done", done).await;
    }

    /// A random span within these milliseconds.
    pub fn span(&mut self, milliseconds: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.rng.u64(milliseconds))
    }

    /// Notes that something is broken from now on, until [`World::recovered`].
    pub fn broken(&mut self, what: &str) {
        self.begin_fault(what, false, wall());
    }

    /// The same of PostgreSQL, which does not bring each claim to the disk before it says that it is made.
    pub fn crashes(&mut self) {
        self.begin_fault("PostgreSQL crashes", true, wall());
    }

    fn begin_fault(&mut self, what: &str, forgets: bool, from: Timestamp) {
        self.faults.push(Fault { what: what.to_owned(), forgets, from, until: Timestamp::MAX });
    }

    /// All that was broken is well. Its consequences are over once the leases are where they belong.
    pub async fn recovered(&mut self) {
        self.settled().await;
        for fault in self.faults.iter_mut().filter(|fault| fault.until == Timestamp::MAX) {
            fault.until = wall();
        }
    }

    /// Ends a process as a crash would.
    pub fn kill(&mut self, at: usize) {
        self.broken("a process is killed");
        self.nodes[at].server.take().expect("it runs").kill();
        self.tell();
    }

    /// Starts a process that is away, without waiting for it. What it takes over from others counts as a fault: a call
    /// that was under way may be made again.
    pub fn restart(&mut self, at: usize) {
        if self.nodes[at].server.is_none() {
            self.broken("a process joins");
            self.nodes[at].start();
            self.tell();
        }
    }

    /// Asks a process to end, and waits until it has.
    pub async fn stop(&mut self, at: usize) {
        if self.nodes[at].server().ready().await.is_none() {
            // It cannot hear yet.
            return self.kill(at);
        }
        self.broken("a process stops");
        let server = self.nodes[at].server.take().expect("it runs");
        self.tell();
        assert_eq!(server.terminate().await, 0);
    }

    pub fn freeze(&mut self, at: usize) {
        self.broken("a process is frozen");
        kill_process(self.nodes[at].server().pid(), Signal::STOP).unwrap();
    }

    pub fn thaw(&mut self, at: usize) {
        kill_process(self.nodes[at].server().pid(), Signal::CONT).unwrap();
    }

    /// Tells the clients where the API is.
    fn tell(&self) {
        let servers = self.nodes.iter().filter(|node| node.has("api")).filter_map(|node| node.server.as_ref());
        *self.desk.servers.lock() = servers.map(Server::url).collect();
    }

    /// Writes that this process made although another had taken over, and that were refused; once it says so.
    pub async fn stale(&self, at: usize) -> f64 {
        let told = async || self.nodes[at].metric("walclock_stale_writes_total").await;
        eventually(PATIENCE, "it tells of its writes", told).await
    }

    /// What was broken is over, the load goes on for a while and ends, all that is due comes to its end, and everything is
    /// compared. The processes stay.
    pub async fn finish(&mut self) -> Evidence {
        self.recovered().await;
        if let Some(load) = self.load.take() {
            self.progress(CALM_CALLS).await;
            load.finish().await;
        }
        let sql = connect(&self.database).await;
        let until = wall().after(PATIENCE * 2);
        let (quiet_at, residue) = loop {
            let (at, residue) = residue(&sql).await;
            if residue == Residue::default() || at > until {
                break (at, residue);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let acts = self.desk.book.lock().clone();
        let evidence = Evidence {
            acts,
            calls: self.sink.calls(),
            runs: runs(&sql).await,
            attempts: attempts(&sql).await,
            writes: writes(&sql).await,
            leases: leases(&sql).await,
            faults: self.faults.clone(),
            residue,
            quiet_at,
            late_max: PATIENCE,
        };
        assert!(evidence.calls.len() > 20, "only {} calls: nothing was tested", evidence.calls.len());
        assert_fine(&check(&evidence));
        evidence
    }
}

/// Fails with the first few violations.
fn assert_fine(violations: &[Violation]) {
    let first: Vec<String> = violations.iter().take(10).map(|(rule, what)| format!("{rule:?}: {what}")).collect();
    assert!(violations.is_empty(), "{} violations, first:\n{}", violations.len(), first.join("\n"));
}

/// What is left, and when that was so. A timer that is pending for a retry is waited for, too, however long its host is
/// spared.
async fn residue(sql: &Client) -> (Timestamp, Residue) {
    let query = "select clock_timestamp(),
        (select count(*) from walclock.timers
            where retry_at is not null or due_at <= clock_timestamp() + interval '2 s'),
        (select count(*) from walclock.runs where state = 'running'),
        (select case when exists (select from walclock.dispatchers where expires_at > clock_timestamp())
                then count(*) filter (where expires_at <= clock_timestamp()) else 0 end from walclock.shards),
        (select count(*) from pg_stat_activity where datname = current_database() and application_name like 'walclock%'
            and state like 'idle in transaction%')";
    let row = sql.query_one(query, &[]).await.unwrap();
    (row.get(0), Residue { overdue: row.get(1), running: row.get(2), ownerless: row.get(3), open: row.get(4) })
}

async fn runs(sql: &Client) -> Vec<Run> {
    let query = "select id, (payload->>'n')::bigint, execute_at, state, attempts, last_error from walclock.runs
        where payload is not null";
    let run = |row: &tokio_postgres::Row| Run {
        timer: row.get(0),
        number: row.get(1),
        execute_at: row.get(2),
        state: row.get(3),
        attempts: u32::try_from(row.get::<_, i32>(4)).unwrap(),
        error: row.get(5),
    };
    sql.query(query, &[]).await.unwrap().iter().map(run).collect()
}

async fn attempts(sql: &Client) -> Vec<Attempt> {
    let query = "select id, claimed_at, attempt, due_at, answered_at, status from walclock.attempts union all
        select id, claimed_at, attempts, due_at, answered_at, status from walclock.runs";
    let attempt = |row: &tokio_postgres::Row| Attempt {
        timer: row.get(0),
        claimed_at: row.get(1),
        attempt: u32::try_from(row.get::<_, i32>(2)).unwrap(),
        due_at: row.get(3),
        answered_at: row.get(4),
        status: row.get(5),
    };
    sql.query(query, &[]).await.unwrap().iter().map(attempt).collect()
}

async fn writes(sql: &Client) -> Vec<Write> {
    let query = "select timer, number, execute_at, attempt, epoch, lease, is_end from audit.writes";
    let write = |row: &tokio_postgres::Row| Write {
        timer: row.get(0),
        number: row.get(1),
        execute_at: row.get(2),
        attempt: u32::try_from(row.get::<_, i32>(3)).unwrap(),
        epoch: row.get(4),
        lease: row.get(5),
        is_end: row.get(6),
    };
    sql.query(query, &[]).await.unwrap().iter().map(write).collect()
}

async fn leases(sql: &Client) -> Vec<Lease> {
    let query = "select at, shard, epoch, owner, lapsed from audit.leases order by number";
    let lease = |row: &tokio_postgres::Row| Lease {
        at: row.get(0),
        shard: row.get(1),
        epoch: row.get(2),
        owner: row.get(3),
        lapsed: row.get(4),
    };
    sql.query(query, &[]).await.unwrap().iter().map(lease).collect()
}
