//! The change feed leaves the dispatchers alone. It only makes them fast.

use walclock::clock::wall;

use super::ledger::{Deed, Script};
use super::world::{Node, PATIENCE, World};
use crate::chaos::proxy::Proxy;
use crate::support::server::Server;
use crate::support::{connect, eventually, migrated};

/// A changeserver, and two dispatchers that follow it over HTTP.
async fn followed() -> (World, Proxy) {
    let database = migrated().await;
    // Nobody listens there yet.
    let proxy = Proxy::start(1).await;
    let url = format!("http://127.0.0.1:{}", proxy.port());
    // Who loses a lease loads what is due anew; those of a real server are not lost by a busy machine.
    let dispatcher = ["--roles", "dispatcher,api", "--changes-url", &url, "--lease-ttl", "10s"];
    let nodes = vec![
        Node::new(&database, &["--roles", "changeserver"]),
        Node::new(&database, &dispatcher),
        Node::new(&database, &dispatcher),
    ];
    let world = World::start_behind(&database, nodes, |server| proxy.aim(port(server))).await;
    (world, proxy)
}

fn port(server: &Server) -> u16 {
    server.url().rsplit_once(':').unwrap().1.parse().unwrap()
}

/// The sum of a metric over the dispatchers.
async fn count(world: &World, metric: &str) -> f64 {
    let mut sum = 0.0;
    for node in &world.nodes[1..] {
        sum += node.metric(metric).await.unwrap_or_default();
    }
    sum
}

#[tokio::test(flavor = "multi_thread")]
async fn timers_fire_without_the_feed_and_by_it_when_it_is_back() {
    let (mut world, proxy) = followed().await;
    world.load();
    world.progress(30).await;
    world.kill(0);
    let before = count(&world, "walclock_sweep_found_total").await;
    // Those of the clients may be changed before they are late enough for a sweep.
    let (sql, calls) = (connect(&world.database).await, world.sink.count());
    for n in 0..20 {
        let want = world.desk.want(wall(), Script::Takes);
        assert!(world.desk.by_sql(&sql, &format!("unheard-{n}"), Deed::Insert(want)).await);
    }
    let found = async || (count(&world, "walclock_sweep_found_total").await >= before + 5.0).then_some(());
    eventually(PATIENCE, "the sweep finds timers", found).await;
    let called = async || (world.sink.count() >= calls + 20).then_some(());
    eventually(PATIENCE, "those are called", called).await;
    world.restart(0);
    proxy.aim(port(world.nodes[0].server()));
    world.nodes[0].server().until_ready().await;
    world.finish().await;
}

/// The slot is dropped while the changeserver is away: of what is committed meanwhile the feed never tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_gap_of_the_feed_is_made_good_by_loading_anew() {
    let (mut world, proxy) = followed().await;
    world.load();
    world.progress(30).await;
    world.kill(0);
    let sql = connect(&world.database).await;
    let slot = world.nodes[0].slot().to_owned();
    let dropped = async || sql.execute("select pg_drop_replication_slot($1)", &[&slot]).await.ok();
    eventually(PATIENCE, "the slot is dropped", dropped).await;
    for n in 0..200 {
        let ahead = world.span(500..2_000);
        let want = world.desk.want(wall().after(ahead), Script::Takes);
        assert!(world.desk.by_sql(&sql, &format!("untold-{n}"), Deed::Insert(want)).await);
    }
    world.restart(0);
    proxy.aim(port(world.nodes[0].server()));
    let reloaded = async || (count(&world, "walclock_feed_reloads_total").await >= 2.0).then_some(());
    eventually(PATIENCE, "both dispatchers are told of the gap", reloaded).await;
    world.finish().await;
}
