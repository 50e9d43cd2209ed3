//! Owners that stand still for longer than their leases last, and go on as if nothing had happened.

use std::collections::BTreeSet;

use walclock::clock::{Timestamp, wall};

use super::ledger::Script;
use super::sink::Mood;
use super::world::{Node, PATIENCE, World};
use crate::chaos::proxy::{Proxy, Weather};
use crate::chaos::soak;
use crate::support::{connect, eventually, migrated};

/// Timers whose callbacks are under way when the owner stops.
const UNDER_WAY: usize = 60;

/// How long the leases last of one that stands still.
const LEASE: &str = "5s";

/// Waits until so many dispatchers hold all shards, by the lease table.
async fn held_by(world: &World, dispatchers: i64) {
    let sql = connect(&world.database).await;
    let query = "select count(*) = 256 and count(distinct owner) = $1 from walclock.shards where expires_at > now()";
    let taken = async || sql.query_one(query, &[&dispatchers]).await.unwrap().get::<_, bool>(0).then_some(());
    eventually(PATIENCE, "all shards are held", taken).await;
}

/// Timers that are due at once, so that many calls wait for their answers together.
async fn call_many(world: &World) {
    let sql = connect(&world.database).await;
    for timer in 0..UNDER_WAY {
        let want = world.desk.want(wall(), Script::Takes);
        let timer = format!("held-{}-{timer}", want.number);
        assert!(world.desk.by_sql(&sql, &timer, super::ledger::Deed::Insert(want)).await);
    }
}

/// Waits until three of these lease times have passed since that moment, by the database's clock.
async fn three_leases_since(world: &World, since: Timestamp) {
    let sql = connect(&world.database).await;
    let query = "select clock_timestamp() >= $1::timestamptz + 3 * $2::text::interval";
    let passed = async || sql.query_one(query, &[&since, &LEASE]).await.unwrap().get::<_, bool>(0).then_some(());
    eventually(PATIENCE, "three lease times are over", passed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_owner_writes_nothing_when_it_thaws() {
    let database = migrated().await;
    let nodes = (0..2).map(|_| Node::new(&database, &["--lease-ttl", LEASE])).collect();
    let mut world = World::start_with(&database, nodes).await;
    let sql = connect(&database).await;
    world.load();
    for at in 0..soak() {
        let (frozen, before) = (at % 2, world.stale(at % 2).await);
        world.progress(30).await;
        world.sink.set(Mood::Held);
        let calls = world.sink.count();
        call_many(&world).await;
        let under_way = async || (world.sink.count() >= calls + UNDER_WAY).then_some(());
        eventually(PATIENCE, "many calls are under way", under_way).await;
        world.freeze(frozen);
        let frozen_at = sql.query_one("select clock_timestamp()", &[]).await.unwrap().get(0);
        // The receivers answer, and nobody is there to hear it.
        world.sink.set(Mood::Well);
        held_by(&world, 1).await;
        world.progress(30).await;
        three_leases_since(&world, frozen_at).await;
        world.thaw(frozen);
        let refused = async || (world.stale(frozen).await > before).then_some(());
        eventually(PATIENCE, "writes of the frozen one are refused", refused).await;
        world.recovered().await;
    }
    let evidence = world.finish().await;
    let fences = |id: &str| evidence.calls.iter().filter(|call| call.webhook_id == id).map(|call| call.fence).max();
    let doubles = evidence.calls.iter().filter(|call| fences(&call.webhook_id) > Some(call.fence)).count();
    assert!(doubles > 0, "nothing that was under way was taken over");
}

/// The statements of one owner stay in the network until another has taken over, and only then come to the database, while
/// what they are about is under way once more.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_comes_when_another_has_taken_over_changes_nothing() {
    let database = migrated().await;
    let proxy = Proxy::before(&database).await;
    // Those of a real server: a busy machine does not lose them.
    let lease = ["--lease-ttl", "10s"];
    let nodes = vec![Node::new(&proxy.url(&database), &lease), Node::new(&database, &lease)];
    let mut world = World::start_with(&database, nodes).await;
    world.load();
    for _ in 0..2 * soak() {
        world.progress(30).await;
        world.sink.set(Mood::Held);
        let calls = world.sink.count();
        call_many(&world).await;
        let under_way = async || (world.sink.count() >= calls + UNDER_WAY).then_some(());
        eventually(PATIENCE, "many calls are under way", under_way).await;
        world.broken("statements stay on their way");
        proxy.set(Weather { up_stalls: true, ..Weather::default() });
        // The answers to what is under way come, and are written into the void. What comes behind it gets none: however
        // late another takes over, its own calls wait.
        let calls = world.sink.count();
        world.sink.set(Mood::HeldAfter(calls));
        let answered = async || (world.sink.answered() >= calls).then_some(());
        eventually(PATIENCE, "what was under way is answered", answered).await;
        held_by(&world, 1).await;
        let taken_over = taken_over(&world, calls).await;
        proxy.set(Weather::default());
        // Who has lost its shards is there again, and what it had sent has come before it.
        held_by(&world, 2).await;
        assert_eq!(succeeded(&world, &taken_over).await, 0, "written by who had lost its shard");
        world.sink.set(Mood::Well);
        world.recovered().await;
    }
    world.finish().await;
}

/// Runs that have another owner than the one that began them, once it has all of them. The first so many calls were
/// answered, and their runs are left out.
async fn taken_over(world: &World, calls: usize) -> Vec<(String, Timestamp)> {
    let sql = connect(&world.database).await;
    let left = "select from walclock.runs as r join walclock.shards as s using (shard)
                where r.answered_at is null and r.epoch < s.epoch";
    let under_way = "select id, claimed_at, epoch from walclock.runs where answered_at is null and adoptions > 0";
    let all = async || {
        let runs = sql.query(under_way, &[]).await.unwrap();
        let calls = world.sink.calls().into_iter().take(calls);
        let answered: BTreeSet<_> = calls.map(|call| (call.timer, call.fence)).collect();
        let held = runs.iter().filter(|row| !answered.contains(&(row.get("id"), row.get("epoch"))));
        let held: Vec<_> = held.map(|row| (row.get("id"), row.get("claimed_at"))).collect();
        (!held.is_empty() && sql.query(left, &[]).await.unwrap().is_empty()).then_some(held)
    };
    eventually(PATIENCE, "what was under way is taken over", all).await
}

/// How many of these runs are said to have succeeded.
async fn succeeded(world: &World, runs: &[(String, Timestamp)]) -> i64 {
    let sql = connect(&world.database).await;
    let (ids, moments): (Vec<&str>, Vec<Timestamp>) = runs.iter().map(|(id, at)| (id.as_str(), *at)).unzip();
    let query = "select count(*) from walclock.runs
                 join unnest($1::text[], $2::timestamptz[]) as wanted (id, claimed_at) using (id, claimed_at)
                 where state = 'succeeded'";
    sql.query_one(query, &[&ids, &moments]).await.unwrap().get(0)
}
