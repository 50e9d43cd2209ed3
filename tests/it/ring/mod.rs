//! Dispatchers as processes, sharing the ring of one database: they join, leave, die and stand still.

mod command;
mod handover;
mod overload;
mod poison;
mod sharing;

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Client;
use walclock::domain::shard::Shard;

use crate::support::server::{Server, folder};
use crate::support::{PATIENCE, connect, eventually, migrated};

/// Notes each round of a dispatcher with the lease table, and the shards that it took or gave away in it.
const AUDIT: &str = "
    create schema audit;
    create table audit.rounds (number bigserial, owner text not null, at timestamptz not null default clock_timestamp(),
                               xid xid8 not null default pg_current_xact_id());
    create table audit.moves (xid xid8 not null default pg_current_xact_id());
    create function audit.note_round() returns trigger language plpgsql as $$
    begin
        insert into audit.rounds (owner) values (new.owner);
        return null;
    end $$;
    create function audit.note_move() returns trigger language plpgsql as $$
    begin
        insert into audit.moves default values;
        return null;
    end $$;
    create trigger note_round after insert or update on walclock.dispatchers
        for each row execute function audit.note_round();
    create trigger note_move after update on walclock.shards
        for each row when (old.owner is distinct from new.owner) execute function audit.note_move()";

/// A database, a changeserver, and dispatchers that follow it.
struct Ring {
    database: String,
    sql: Client,
    changes: Server,
}

impl Ring {
    async fn new() -> Self {
        let database = migrated().await;
        let changes = Server::spawn_unmigrated(&database, &folder(), &["--roles", "changeserver"]);
        changes.until_ready().await;
        let sql = connect(&database).await;
        sql.batch_execute(AUDIT).await.unwrap();
        Self { sql, database, changes }
    }

    /// Starts a dispatcher whose leases last so long.
    fn dispatcher(&self, lease_ttl: &str) -> Server {
        let flags = ["--roles", "dispatcher", "--changes-url", &self.changes.url(), "--lease-ttl", lease_ttl];
        Server::spawn_unmigrated(&self.database, &folder(), &flags)
    }

    /// Lets the leases of those that are gone run out, so that nobody has to wait for that.
    async fn expire_leases(&self) {
        let expire = "update walclock.shards set expires_at = clock_timestamp() where owner is not null;
                      update walclock.dispatchers set expires_at = clock_timestamp()";
        self.sql.batch_execute(expire).await.unwrap();
    }

    /// Leaves the leases as they are when PostgreSQL's clock is set back by an hour: that much farther ahead.
    async fn set_clock_back(&self) {
        let set_back = "update walclock.shards set expires_at = expires_at + interval '1 hour' where owner is not null;
                        update walclock.dispatchers set expires_at = expires_at + interval '1 hour'";
        self.sql.batch_execute(set_back).await.unwrap();
    }

    /// Who holds which shards by leases that have not run out.
    async fn shares(&self) -> BTreeMap<String, BTreeSet<u8>> {
        let query =
            "select owner, shard from walclock.shards where owner is not null and expires_at > clock_timestamp()";
        let mut shares: BTreeMap<String, BTreeSet<u8>> = BTreeMap::new();
        for row in self.sql.query(query, &[]).await.unwrap() {
            let shard: i16 = row.get(1);
            shares.entry(row.get(0)).or_default().insert(u8::try_from(shard).unwrap());
        }
        shares
    }

    /// Waits until so many dispatchers have the whole ring among them, as evenly as can be; returns who has what.
    async fn until_shared_by(&self, dispatchers: usize) -> BTreeMap<String, BTreeSet<u8>> {
        let what = format!("{dispatchers} dispatchers share the ring evenly");
        let even = async || {
            let shares = self.shares().await;
            let sizes: Vec<usize> = shares.values().map(BTreeSet::len).collect();
            let (least, most) = (sizes.iter().min().copied()?, sizes.iter().max().copied()?);
            let is_even =
                sizes.len() == dispatchers && sizes.iter().sum::<usize>() == Shard::COUNT && most - least <= 1;
            is_even.then_some(shares)
        };
        eventually(PATIENCE, &what, even).await
    }

    /// All epochs, in the order of the shards.
    async fn epochs(&self) -> Vec<i64> {
        let query = "select epoch from walclock.shards order by shard";
        self.sql.query(query, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    }

    /// Waits until every lease has been renewed so often.
    async fn until_renewed(&self, times: usize) {
        for _ in 0..times {
            let query = "select min(expires_at), max(expires_at) from walclock.shards";
            let read = async || {
                let row = self.sql.query_one(query, &[]).await.unwrap();
                (row.get::<_, walclock::clock::Timestamp>(0), row.get::<_, walclock::clock::Timestamp>(1))
            };
            let (_, newest) = read().await;
            let renewed = async || (read().await.0 > newest).then_some(());
            eventually(PATIENCE, "the leases are renewed", renewed).await;
        }
    }

    /// The number of a dispatcher's first round: it joined.
    async fn joined(&self, owner: &str) -> i64 {
        self.number("select min(number) from audit.rounds where owner = $1", owner).await
    }

    /// The number of the last round in which a dispatcher took something or gave it away.
    async fn moved(&self, owner: &str) -> i64 {
        self.number("select max(number) from audit.rounds join audit.moves using (xid) where owner = $1", owner).await
    }

    /// The number of the last round of anybody's before the leases of a dispatcher ran out.
    async fn ran_out(&self, owner: &str) -> i64 {
        let query = "select max(number) from audit.rounds
                     where at <= (select expires_at from walclock.dispatchers where owner = $1)";
        self.number(query, owner).await
    }

    async fn number(&self, query: &str, owner: &str) -> i64 {
        self.sql.query_one(query, &[&owner]).await.unwrap().get(0)
    }

    /// How many rounds a dispatcher needed after that one until it had taken, or given away, the last shard.
    async fn rounds(&self, owner: &str, after: i64) -> i64 {
        let query = "select count(*) from audit.rounds where owner = $1 and number > $2 and number <= $3";
        let moved = self.moved(owner).await;
        self.sql.query_one(query, &[&owner, &after, &moved]).await.unwrap().get(0)
    }

    /// In how many rounds after that one a dispatcher has taken something or given it away.
    async fn moves(&self, owner: &str, after: i64) -> i64 {
        let query = "select count(*) from audit.rounds where owner = $1 and number > $2
                     and exists (select from audit.moves where moves.xid = rounds.xid)";
        self.sql.query_one(query, &[&owner, &after]).await.unwrap().get(0)
    }

    /// The owner of a process, as it has announced it.
    async fn owner_of(&self, server: &Server) -> String {
        let pid = server.pid().as_raw_nonzero().get();
        let query = "select owner from walclock.dispatchers where pid = $1";
        let announced = async || self.sql.query_opt(query, &[&pid]).await.unwrap().map(|row| row.get(0));
        eventually(PATIENCE, "it announces itself", announced).await
    }
}
