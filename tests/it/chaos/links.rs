//! The connection between walclock and PostgreSQL suffers.

use std::time::Duration;

use walclock::feed::source::Connection;
use walclock::pg::Settings;

use super::proxy::{End, Proxy, Weather};
use super::world::{PATIENCE, World, assert_no_gap, slot, soak};
use crate::support::{connect, database, eventually, new_cluster};

/// A database that gives a silent walclock up after this, and a proxy in front of it.
pub async fn behind_proxy(walsender_timeout: Duration) -> (String, Proxy) {
    let database = database().await;
    let (server, name) = database.rsplit_once('/').unwrap();
    let port = server.rsplit_once(':').unwrap().1.parse().unwrap();
    let sql = connect(&database).await;
    let timeout = format!("alter database {name} set wal_sender_timeout = {}", walsender_timeout.as_millis());
    sql.batch_execute(&timeout).await.unwrap();
    (database, Proxy::start(port).await)
}

async fn world(walsender_timeout: Duration) -> (World, Proxy) {
    let (database, proxy) = behind_proxy(walsender_timeout).await;
    let world = World::start(&database, &proxy.url(&database)).await;
    (world, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_cut_reset_and_closed_by_half_all_the_time() {
    let (mut world, proxy) = world(Duration::from_secs(3)).await;
    for at in 0..20 * soak() {
        tokio::time::sleep(world.span(100..400)).await;
        proxy.end([End::Reset, End::Cut, End::Reset, End::HalfClose][at % 4]);
    }
    assert!(proxy.accepted() >= 6, "it came back after each end: {}", proxy.accepted());
    world.progress(20).await;
    assert_no_gap(&world.finish().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_in_tiny_late_pieces_is_the_same_stream() {
    let (mut world, proxy) = world(Duration::from_secs(10)).await;
    proxy.set(Weather { piece_bytes_max: 7, ..Weather::default() });
    world.progress(30 * soak()).await;
    proxy.set(Weather { piece_bytes_max: 7, delay: Duration::from_micros(200), ..Weather::default() });
    world.progress(3).await;
    proxy.set(Weather::default());
    assert_no_gap(&world.finish().await);
}

/// The peer is gone and nobody says so: neither a FIN nor a RST comes, and what was sent stays unanswered.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_other_end_vanished_is_given_up() {
    // With PostgreSQL's own patience, which is a minute.
    let (mut world, proxy) = world(Duration::from_secs(60)).await;
    world.progress(10).await;
    proxy.end(End::Forget);
    world.progress(20).await;
    assert_no_gap(&world.finish().await);
}

/// Both ways, then each alone, for longer than either side waits; what was under way arrives when it is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_stall_of_either_way_is_survived() {
    let (mut world, proxy) = world(Duration::from_secs(1)).await;
    let sql = connect(&world.database).await;
    for (up_stalls, down_stalls) in [(true, true), (true, false), (false, true)] {
        world.progress(10).await;
        // What was on its way comes before the connection does.
        let streams = async || slot(&sql, world.slot()).await?.1;
        let before = eventually(PATIENCE, "it streams", streams).await;
        proxy.set(Weather { up_stalls, down_stalls, ..Weather::default() });
        let given_up = async || (slot(&sql, world.slot()).await?.1 != Some(before)).then_some(());
        eventually(PATIENCE, "one of them gives the other up", given_up).await;
        proxy.set(Weather::default());
        world.progress(20).await;
    }
    assert_no_gap(&world.finish().await);
}

/// Others have taken all that there are, before walclock could come back.
#[tokio::test(flavor = "multi_thread")]
async fn a_walsender_that_is_not_free_is_waited_for() {
    let cluster = tokio::task::spawn_blocking(|| new_cluster(&[("max_wal_senders", "1")])).await.unwrap();
    let database = cluster.url("postgres");
    let settings = Settings::parse(&database).unwrap();
    let mut world = World::start(&database, &database).await;
    for _ in 0..2 * soak() {
        world.progress(20).await;
        world.kill().await;
        let free = async || Connection::open(&settings).await.ok();
        let only = eventually(PATIENCE, "the walsender that it had is free", free).await;
        world.restart();
        let named = async || {
            let (status, why) = world.server().ready().await?;
            (status == 503 && String::from_utf8_lossy(&why).contains("raise max_wal_senders")).then_some(())
        };
        world.commits(20, named).await;
        drop(only);
    }
    world.progress(20).await;
    assert_no_gap(&world.finish().await);
}
