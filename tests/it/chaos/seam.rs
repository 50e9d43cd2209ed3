//! The seam between a snapshot of the tables and the feed behind it.

use super::world::{World, assert_no_gap, soak};
use crate::support::database;

/// Readers that take the tables over while others commit.
const SEAMS: usize = 25;

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_and_the_feed_behind_it_fit_together() {
    let mut world = World::start_under_load(&database().await, 8).await;
    let mut amid = 0;
    for _ in 0..SEAMS * soak() {
        amid += usize::from(world.join().await);
        tokio::time::sleep(world.span(0..80)).await;
    }
    world.progress(10).await;
    assert!(amid >= SEAMS / 4, "transactions were open at {amid} seams only: the seam was not tested");
    assert_no_gap(&world.finish().await);
}
