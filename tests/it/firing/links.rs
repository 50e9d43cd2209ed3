//! The connections between dispatchers and PostgreSQL suffer.

use std::time::Duration;

use super::world::{Node, World};
use crate::chaos::proxy::{End, Proxy, Weather};
use crate::chaos::soak;
use crate::support::migrated;

/// Two dispatchers with these flags that reach the database through a proxy each.
async fn behind_proxies(flags: &[&str]) -> (World, [Proxy; 2]) {
    let database = migrated().await;
    let proxies = [Proxy::before(&database).await, Proxy::before(&database).await];
    let nodes = proxies.iter().map(|proxy| Node::new(&proxy.url(&database), flags)).collect();
    (World::start_with(&database, nodes).await, proxies)
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_cut_reset_and_closed_by_half_all_the_time() {
    let (mut world, proxies) = behind_proxies(&[]).await;
    world.load();
    world.broken("connections end");
    for at in 0..24 * soak() {
        tokio::time::sleep(world.span(20..300)).await;
        proxies[at % 2].end([End::Reset, End::Cut, End::HalfClose][at % 3]);
    }
    world.recovered().await;
    assert!(proxies[0].accepted() > 10, "it came back after each end: {}", proxies[0].accepted());
    world.finish().await;
}

/// Neither a FIN nor a RST comes, and what was sent stays unanswered.
#[tokio::test(flavor = "multi_thread")]
async fn connections_whose_other_end_vanished_are_given_up() {
    let (mut world, proxies) = behind_proxies(&[]).await;
    world.load();
    for at in 0..2 * soak() {
        world.progress(30).await;
        world.broken("connections are forgotten");
        proxies[at % 2].end(End::Forget);
        world.progress(20).await;
        world.recovered().await;
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_network_in_tiny_pieces_makes_nothing_early_and_nothing_double() {
    // A busy machine, too, holds them for long enough to get something done.
    let (mut world, proxies) = behind_proxies(&["--lease-ttl", "6s"]).await;
    world.load();
    world.progress(30).await;
    for (piece_bytes_max, delay) in [(40, Duration::ZERO), (0, Duration::from_millis(30))] {
        // One that is too slow for its leases loses them: what follows is no double without a reason.
        world.broken("the network is slow");
        proxies.iter().for_each(|proxy| proxy.set(Weather { piece_bytes_max, delay, ..Weather::default() }));
        world.progress(60 * soak()).await;
    }
    proxies.iter().for_each(|proxy| proxy.set(Weather::default()));
    world.recovered().await;
    world.finish().await;
}

/// Statements and answers stay on their way for longer than anybody waits, and arrive afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn stalls_of_either_way_are_survived() {
    let (mut world, proxies) = behind_proxies(&[]).await;
    world.load();
    for at in 0..4 * soak() {
        world.progress(30).await;
        world.broken("the network stalls");
        let (up_stalls, down_stalls) = [(true, false), (false, true)][at / 2 % 2];
        proxies[at % 2].set(Weather { up_stalls, down_stalls, ..Weather::default() });
        tokio::time::sleep(world.span(500..3_500)).await;
        proxies[at % 2].set(Weather::default());
        world.recovered().await;
    }
    world.finish().await;
}
