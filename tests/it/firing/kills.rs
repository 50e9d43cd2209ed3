//! Processes that die, stop and join under load.

use super::world::World;
use crate::chaos::soak;
use crate::support::migrated;

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_is_killed_again_and_again() {
    let mut world = World::start(&migrated().await, 2).await;
    world.load();
    for at in 0..3 * soak() {
        world.progress(30).await;
        tokio::time::sleep(world.span(0..300)).await;
        world.kill(at % 2);
        // The other one alone takes over what is left.
        world.progress(60).await;
        world.restart(at % 2);
        world.recovered().await;
    }
    world.finish().await;
}

/// Several processes of one host, all with the same flags, come and go at random.
#[tokio::test(flavor = "multi_thread")]
async fn processes_come_and_go_at_random() {
    const NODES: usize = 4;
    let mut world = World::start(&migrated().await, NODES).await;
    world.load();
    for _ in 0..10 * soak() {
        let pause = world.span(50..500);
        tokio::time::sleep(pause).await;
        let at = world.rng.usize(0..NODES);
        let alive = world.nodes.iter().filter(|node| node.server.is_some()).count();
        match world.nodes[at].server.is_some() {
            false => world.restart(at),
            // Somebody has to be there.
            true if alive == 1 => {}
            true if world.rng.bool() => world.kill(at),
            true => world.stop(at).await,
        }
    }
    for at in 0..NODES {
        world.restart(at);
    }
    let evidence = world.finish().await;
    let owners: std::collections::BTreeSet<_> =
        evidence.leases.iter().filter_map(|lease| lease.owner.as_ref()).collect();
    assert!(owners.len() > NODES, "each start is an owner of its own");
}
