//! The ring is shared evenly after every change, and stays so.

use rustix::process::{Signal, kill_process};

use super::{PATIENCE, Ring};
use crate::support::eventually;

/// Those of a real server: a busy machine does not lose them, and nothing moves for that.
const LEASE: &str = "10s";

/// The rounds with the lease table that a dispatcher needs to take what another one left. It is told in its next one, a third
/// of a lease's life later at most, and acts in those that follow at once: so all is where it belongs within one life. They
/// are counted, since a busy machine takes its time for each. One may have begun before, and one come between.
const ROUNDS_TO_TAKE: i64 = 4;
/// Those in which it gives two thirds of the ring away: a quarter of it in each, and one more.
const ROUNDS_TO_GIVE: i64 = 4;

#[tokio::test(flavor = "multi_thread")]
async fn who_joins_gets_a_share_and_then_nothing_moves_any_more() {
    let ring = Ring::new().await;
    let first = ring.dispatcher(LEASE);
    let before = ring.until_shared_by(1).await;
    let (second, third) = (ring.dispatcher(LEASE), ring.dispatcher(LEASE));
    let after = ring.until_shared_by(3).await;
    let owner = ring.owner_of(&first).await;
    assert!(after[&owner].is_subset(&before[&owner]), "the first one has only given away");
    let joined = [ring.joined(&ring.owner_of(&second).await).await, ring.joined(&ring.owner_of(&third).await).await];
    let rounds = ring.moves(&owner, joined[0].min(joined[1])).await;
    assert!((1..=ROUNDS_TO_GIVE).contains(&rounds), "{rounds} rounds to give two thirds away");
    let rounds = ring.rounds(&owner, joined[0].max(joined[1])).await;
    assert!((1..=ROUNDS_TO_TAKE + ROUNDS_TO_GIVE - 1).contains(&rounds), "{rounds} rounds after the last one joined");
    let mut sizes: Vec<usize> = after.values().map(std::collections::BTreeSet::len).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [85, 85, 86]);

    let epochs = ring.epochs().await;
    ring.until_renewed(4).await;
    assert_eq!((ring.epochs().await, ring.shares().await), (epochs, after), "nothing moves without a cause");
    drop((first, second, third));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_or_dies_leaves_its_shards_to_the_others() {
    let ring = Ring::new().await;
    let [first, second, third] = [(); 3].map(|()| ring.dispatcher(LEASE));
    let shares = ring.until_shared_by(3).await;
    let leaver = ring.owner_of(&first).await;
    assert_eq!(first.terminate().await, 0);
    assert!(!ring.shares().await.contains_key(&leaver), "a clean stop gives everything up before it is over");
    let after = ring.until_shared_by(2).await;
    for (owner, kept) in &after {
        assert!(shares[owner].is_subset(kept), "who stays keeps what it has");
        let rounds = ring.rounds(owner, ring.moved(&leaver).await).await;
        assert!((1..=ROUNDS_TO_TAKE).contains(&rounds), "{rounds} rounds to take what is free");
    }

    let victim = ring.owner_of(&second).await;
    second.kill();
    // What it held is free after one lease's life all the same, and not after the hour.
    ring.set_clock_back().await;
    let after = ring.until_shared_by(1).await;
    assert!(!after.contains_key(&victim));
    let rounds = ring.rounds(after.keys().next().unwrap(), ring.ran_out(&victim).await).await;
    assert!((1..=ROUNDS_TO_TAKE).contains(&rounds), "{rounds} rounds to take over what is left");
    let told = async || third.log().contains("\"held\":256").then_some(());
    eventually(PATIENCE, "the log of who took over says so", told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stands_still_is_replaced_and_comes_back_as_who_it_is() {
    let ring = Ring::new().await;
    let [first, second] = [(); 2].map(|()| ring.dispatcher(LEASE));
    ring.until_shared_by(2).await;
    let (frozen, awake) = (ring.owner_of(&first).await, ring.owner_of(&second).await);
    let epochs = ring.epochs().await;
    kill_process(first.pid(), Signal::STOP).unwrap();
    let alone = ring.until_shared_by(1).await;
    assert!(alone.contains_key(&awake));

    kill_process(first.pid(), Signal::CONT).unwrap();
    let shares = ring.until_shared_by(2).await;
    assert!(shares.contains_key(&frozen) && shares.contains_key(&awake));
    let later = ring.epochs().await;
    for shard in &shares[&frozen] {
        let shard = usize::from(*shard);
        assert!(later[shard] > epochs[shard], "what comes back comes back in a new epoch");
    }
    drop(second);
}
