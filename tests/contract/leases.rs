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
    let request = asks(&a, release.clone(), Vec::new());
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
    let request = LeaseRequest { shards_max: 1, ..asks(&a, vec![stale], vec![stale]) };
    assert_eq!(world.store().lease(request).await.unwrap().held, first.held);
}

pub async fn what_is_held_on_anew_grows_its_epoch_and_is_nobody_elses_between(world: &impl World) {
    let (a, b) = (owner("a"), owner("b"));
    let first = lease(world, &a, 100).await;
    let doubted: Vec<Lease> = first.held.iter().copied().take(3).collect();
    // Also where the owner has as many as it wants, and where it wants none.
    for (shards_max, epochs) in [(10, 1), (0, 2)] {
        let anew = doubted.iter().map(|lease| Lease { epoch: Epoch(lease.epoch.0 + epochs - 1), ..*lease }).collect();
        let request = LeaseRequest { shards_max, ..asks(&a, Vec::new(), anew) };
        let grant = world.store().lease(request.clone()).await.unwrap();
        // The answer may have been lost: asked once more, nothing changes.
        assert_eq!(sorted(&world.store().lease(request).await.unwrap()), sorted(&grant));
        for held in &first.held {
            let grown = if doubted.contains(held) { epochs } else { 0 };
            assert_eq!(epoch(&grant, held.shard).0, held.epoch.0 + grown, "shard {}", held.shard);
        }
    }
    assert_eq!(lease(world, &b, Shard::COUNT).await.held.len(), Shard::COUNT - 100);
}

pub async fn what_has_run_out_is_held_on_anew_in_one_more_epoch(world: &impl World) {
    let a = owner("a");
    let first = lease(world, &a, 5).await;
    world.expire(first.held[0].shard).await;
    let request = LeaseRequest { shards_max: 5, ..asks(&a, Vec::new(), first.held[..2].to_vec()) };
    let grant = world.store().lease(request).await.unwrap();
    for (index, held) in first.held.iter().enumerate() {
        assert_eq!(epoch(&grant, held.shard).0, held.epoch.0 + i64::from(index < 2), "shard {}", held.shard);
    }
}

pub async fn a_lease_with_a_write_under_way_is_renewed_until_it_can_be_given_up(world: &impl World) {
    let (a, b) = (owner("a"), owner("b"));
    let first = lease(world, &a, Shard::COUNT).await;
    let busy = [first.held[0], first.held[1]];
    let writes = (world.write_under(busy[0].shard).await, world.write_under(busy[1].shard).await);
    let (release, anew) = (vec![busy[0], first.held[2]], vec![busy[1], first.held[3]]);
    let request = asks(&a, release, anew);
    // Nothing waits for the writes: they end when the test says so.
    let grant = world.store().lease(request.clone()).await.unwrap();
    assert_eq!(grant.held.len(), Shard::COUNT - 1);
    assert!(busy.iter().all(|lease| grant.held.contains(lease)), "still held, in their epochs");
    assert_eq!(epoch(&grant, first.held[3].shard).0, first.held[3].epoch.0 + 1);
    // Nor does anybody else get them, even when they have run out.
    world.expire(busy[0].shard).await;
    assert_eq!(shards(&lease(world, &b, Shard::COUNT).await), [first.held[2].shard]);
    world.end(writes.0).await;
    world.end(writes.1).await;
    let grant = world.store().lease(request).await.unwrap();
    assert_eq!(grant.held.len(), Shard::COUNT - 2);
    assert_eq!(epoch(&grant, busy[1].shard).0, busy[1].epoch.0 + 1);
    assert_eq!(lease(world, &b, Shard::COUNT).await.held.len(), 2);
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

pub async fn a_lease_farther_ahead_than_it_lasts_is_cut_by_another_owner(world: &impl World) {
    let (a, b) = (owner("a"), owner("b"));
    let first = lease(world, &a, 200).await;
    let before = world.expiries(Shard(0)).await;
    lease(world, &b, 10).await;
    assert_eq!(world.expiries(Shard(0)).await, before, "what lasts no longer than it can stays as it is");

    world.set_back(Duration::from_secs(3600)).await;
    let cut_after = world.store().now().await.unwrap();
    let grant = lease(world, &b, 10).await;
    let cut_before = world.store().now().await.unwrap();
    assert_eq!(grant.owners_alive, 2, "it may be alive");
    for held in &first.held {
        let (lease, owner) = world.expiries(held.shard).await.unwrap();
        for until in [lease, owner] {
            assert!(until >= cut_after.after(TTL) && until <= cut_before.after(TTL), "shard {}: {until}", held.shard);
        }
    }
    // Who is alive goes on with what it has; what it asks for itself is never more than it lasts either.
    assert_eq!(sorted(&lease(world, &a, 200).await), sorted(&first));
    // Asked for shorter lives, all ends after one of them.
    let brief = LeaseRequest { ttl: Duration::from_secs(1), shards_max: 10, ..asks(&b, Vec::new(), Vec::new()) };
    world.store().lease(brief).await.unwrap();
    let latest = world.store().now().await.unwrap().after(Duration::from_secs(1));
    assert!(world.expiries(Shard(0)).await.unwrap().0 <= latest);
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

/// Asks for the whole ring, and gives these up.
fn asks(owner: &Owner, release: Vec<Lease>, anew: Vec<Lease>) -> LeaseRequest {
    LeaseRequest { owner: owner.clone(), ttl: TTL, release, anew, shards_max: Shard::COUNT }
}

fn shards(grant: &LeaseGrant) -> Vec<Shard> {
    grant.held.iter().map(|lease| lease.shard).collect()
}

fn sorted(grant: &LeaseGrant) -> Vec<Lease> {
    let mut held = grant.held.clone();
    held.sort();
    held
}
