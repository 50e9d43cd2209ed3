//! The ring is shared evenly after every change, and stays so.

use rustix::process::{Signal, kill_process};

use super::{PATIENCE, Ring};
use crate::support::eventually;

/// Those of a real server: a busy machine does not lose them, and nothing moves for that.
const LEASE: &str = "10s";

#[tokio::test(flavor = "multi_thread")]
async fn who_joins_gets_a_share_and_then_nothing_moves_any_more() {
    let ring = Ring::new().await;
    let first = ring.dispatcher(LEASE);
    let before = ring.until_shared_by(1).await;
    let (second, third) = (ring.dispatcher(LEASE), ring.dispatcher(LEASE));
    let after = ring.until_shared_by(3).await;
    let owner = ring.owner_of(&first).await;
    assert!(after[&owner].is_subset(&before[&owner]), "the first one has only given away");
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
    }

    let victim = ring.owner_of(&second).await;
    second.kill();
    let after = ring.until_shared_by(1).await;
    assert!(!after.contains_key(&victim));
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
