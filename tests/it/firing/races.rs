//! Creating, moving and cancelling about the moment at which a timer is due, over several dispatchers.

use std::time::Duration;

use super::world::World;
use crate::chaos::soak;
use crate::support::migrated;

/// Deeds of the short run. `make soak` does a hundred thousand.
const DEEDS: usize = 4_000;

#[tokio::test(flavor = "multi_thread")]
async fn timers_are_moved_and_cancelled_about_their_moment() {
    let mut world = World::start_well(&migrated().await, 3).await;
    world.load_of(12, Duration::from_millis(8));
    world.done(DEEDS * soak()).await;
    let evidence = world.finish().await;
    let called = |n: i64| evidence.calls.iter().any(|call| call.number == n);
    let wants = || evidence.acts.iter().filter_map(|act| act.deed.want());
    let (fired, spared) =
        (wants().filter(|want| called(want.number)).count(), wants().filter(|want| !called(want.number)).count());
    assert!(fired > DEEDS / 20 && spared > DEEDS / 20, "{fired} were called and {spared} were not: there was no race");
}
