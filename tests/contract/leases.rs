//! Who holds which shards.

use super::*;

pub async fn free_shards_are_granted_up_to_the_number_wanted(world: &impl World) {
    let a = owner("a");
    let before = world.store().now().await.unwrap();
    let grant = lease(world, &a, 10).await;
    assert_eq!(grant.held.len(), 10);
    assert_eq!(grant.owners_alive, 1);
    assert!(grant.now >= before && grant.now <= world.store().now().await.unwrap());
    assert_eq!(lease(world, &a, Shard::COUNT).await.held.len(), Shard::COUNT);
}

pub async fn a_renewal_keeps_the_epochs(world: &impl World) {
    let a = owner("a");
    let first = lease(world, &a, 7).await;
    let again = lease(world, &a, 7).await;
    assert_eq!(sorted(&first), sorted(&again));
}

pub async fn two_owners_share_the_ring(world: &impl World) {
    let (a, b) = (owner("a"), owner("b"));
    let first = lease(world, &a, 100).await;
    let second = lease(world, &b, Shard::COUNT).await;
    assert_eq!(second.held.len(), Shard::COUNT - 100);
    assert_eq!((second.owners_alive, second.rank), (2, 1));
    assert!(first.held.iter().all(|held| second.held.iter().all(|other| other.shard != held.shard)));
    assert_eq!(lease(world, &a, Shard::COUNT).await.held.len(), 100);
}

pub async fn what_is_held_is_renewed_though_fewer_are_wanted(world: &impl World) {
    let a = owner("a");
    let first = lease(world, &a, 100).await;
    let again = lease(world, &a, 40).await;
    assert_eq!(sorted(&again), sorted(&first));
}

pub async fn what_is_released_is_free_at_once_and_grows_its_epoch(world: &impl World) {
    let (a, b) = (owner("a"), owner("b"));
    let first = lease(world, &a, Shard::COUNT).await;
    let release: Vec<Lease> = first.held.iter().copied().take(3).collect();
    // What is given up in a request is not taken back in the same one.
    let request = LeaseRequest { owner: a, ttl: TTL, release: release.clone(), shards_max: Shard::COUNT };
    let rest = world.store().lease(request).await.unwrap();
    assert_eq!(rest.held.len(), Shard::COUNT - 3);
    let taken = lease(world, &b, Shard::COUNT).await;
    assert_eq!(taken.held.len(), 3);
    for lease in release {
        assert!(epoch(&taken, lease.shard) > lease.epoch);
    }
}

pub async fn a_release_under_an_old_epoch_changes_nothing(world: &impl World) {
    let a = owner("a");
    let first = lease(world, &a, 1).await;
    let stale = Lease { epoch: Epoch(first.held[0].epoch.0 - 1), ..first.held[0] };
    let request = LeaseRequest { owner: a, ttl: TTL, release: vec![stale], shards_max: 1 };
    assert_eq!(world.store().lease(request).await.unwrap().held, first.held);
}

pub async fn an_expired_lease_goes_to_another_owner_under_a_new_epoch(world: &impl World) {
    let (a, b) = (owner("a"), owner("b"));
    let first = lease(world, &a, Shard::COUNT).await;
    assert_eq!(lease(world, &b, Shard::COUNT).await.held, []);
    world.expire(Shard(9)).await;
    let taken = lease(world, &b, Shard::COUNT).await;
    assert_eq!(taken.held, [Lease { shard: Shard(9), epoch: Epoch(epoch(&first, Shard(9)).0 + 1) }]);
    assert_eq!(lease(world, &a, Shard::COUNT).await.held.len(), Shard::COUNT - 1);
}

pub async fn ones_own_expired_lease_comes_back_under_a_new_epoch(world: &impl World) {
    let a = owner("a");
    let first = lease(world, &a, Shard::COUNT).await;
    world.expire(Shard(200)).await;
    let again = lease(world, &a, Shard::COUNT).await;
    assert_eq!(again.held.len(), Shard::COUNT);
    for Lease { shard, epoch: before } in &first.held {
        let grown = if *shard == Shard(200) { 1 } else { 0 };
        assert_eq!(epoch(&again, *shard).0, before.0 + grown, "shard {shard}");
    }
}

pub async fn who_wants_no_shards_keeps_its_own_and_does_not_count(world: &impl World) {
    let (a, b) = (owner("a"), owner("b"));
    let first = lease(world, &a, 100).await;
    assert_eq!(lease(world, &b, 10).await.owners_alive, 2);
    let leaving = lease(world, &a, 0).await;
    assert_eq!((sorted(&leaving), leaving.owners_alive), (sorted(&first), 2));
    assert_eq!(lease(world, &b, 10).await.owners_alive, 1);
}

pub async fn who_leaves_holds_nothing_and_is_not_alive(world: &impl World) {
    let (a, b) = (owner("a"), owner("b"));
    lease(world, &a, 200).await;
    assert_eq!(lease(world, &b, Shard::COUNT).await.owners_alive, 2);
    world.store().leave(&a).await.unwrap();
    let all = lease(world, &b, Shard::COUNT).await;
    assert_eq!((all.held.len(), all.owners_alive), (Shard::COUNT, 1));
    world.store().leave(&owner("never seen")).await.unwrap();
}

fn sorted(grant: &LeaseGrant) -> Vec<Lease> {
    let mut held = grant.held.clone();
    held.sort();
    held
}
