//! Owners that stand still for longer than their leases last, and go on as if nothing had happened.

use super::ledger::Script;
use super::sink::Mood;
use super::world::{LEASE, Node, PATIENCE, World};
use crate::chaos::proxy::{Proxy, Weather};
use crate::chaos::soak;
use crate::support::{connect, eventually, migrated};

/// Timers whose callbacks are under way when the owner stops.
const UNDER_WAY: usize = 60;

/// Waits until a process holds nothing any more, by the lease table.
async fn others_hold_all(world: &World, dispatchers: i64) {
    let sql = connect(&world.database).await;
    let query = "select count(*) = 256 and count(distinct owner) = $1 from walclock.shards where expires_at > now()";
    let taken = async || sql.query_one(query, &[&dispatchers]).await.unwrap().get::<_, bool>(0).then_some(());
    eventually(PATIENCE, "others hold all shards", taken).await;
}

/// Timers that are due at once, so that many calls wait for their answers together.
async fn call_many(world: &World) {
    let sql = connect(&world.database).await;
    for timer in 0..UNDER_WAY {
        let want = world.desk.want(walclock::clock::wall(), Script::Takes);
        let timer = format!("held-{}-{timer}", want.number);
        assert!(world.desk.by_sql(&sql, &timer, super::ledger::Deed::Insert(want)).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_owner_writes_nothing_when_it_thaws() {
    let mut world = World::start(&migrated().await, 2).await;
    world.load();
    for at in 0..soak() {
        let (frozen, before) = (at % 2, world.stale().await);
        world.progress(30).await;
        world.sink.set(Mood::Held);
        let calls = world.sink.count();
        call_many(&world).await;
        let under_way = async || (world.sink.count() >= calls + UNDER_WAY).then_some(());
        eventually(PATIENCE, "many calls are under way", under_way).await;
        world.freeze(frozen);
        // The receivers answer, and nobody is there to hear it.
        world.sink.set(Mood::Well);
        others_hold_all(&world, 1).await;
        tokio::time::sleep(LEASE).await;
        world.progress(30).await;
        world.thaw(frozen);
        let refused = async || (world.stale().await > before).then_some(());
        eventually(PATIENCE, "writes of the frozen one are refused", refused).await;
        world.settled(&connect(&world.database).await).await;
        world.mended();
    }
    world.progress(30).await;
    let evidence = world.finish().await;
    let fences = |id: &str| evidence.calls.iter().filter(|call| call.webhook_id == id).map(|call| call.fence).max();
    let doubles = evidence.calls.iter().filter(|call| fences(&call.webhook_id) > Some(call.fence)).count();
    assert!(doubles > 0, "nothing that was under way was taken over");
}

/// The statements of one owner stay in the network until another has taken over, and only then come to the database.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_comes_when_another_has_taken_over_changes_nothing() {
    let database = migrated().await;
    let port = database.rsplit_once('/').unwrap().0.rsplit_once(':').unwrap().1.parse().unwrap();
    let proxy = Proxy::start(port).await;
    let nodes = vec![Node::new(&proxy.url(&database), &[]), Node::new(&database, &[])];
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
        // The answers come, and are written into the void.
        world.sink.set(Mood::Well);
        others_hold_all(&world, 1).await;
        world.progress(30).await;
        proxy.set(Weather::default());
        world.settled(&connect(&world.database).await).await;
        world.mended();
    }
    world.progress(30).await;
    world.finish().await;
    assert!(world.stale().await > 0.0, "no write was refused: nothing was tested");
}
