//! The near future, and what a claim makes of it.

use super::*;

pub async fn entries_come_in_their_order_over_all_shards(world: &impl World) {
    let start = ago(world, Duration::from_secs(60)).await;
    let names = ["Z", "a", "_", "ä", "a/b", "A", "10", "9", "é", "字", "a b"];
    for (count, name) in names.iter().enumerate() {
        for namespace in ["b", "B", "ä"] {
            // Several due at the same moment, so that the names decide.
            let at = start.after(Duration::from_secs(u64::try_from(count % 3).unwrap()));
            world.put(&definition(&TimerKey::new(namespace, name), at)).await;
        }
    }
    let entries = load(world, Shard::all().collect(), Timestamp::MAX).await;
    assert_eq!(entries.len(), 3 * names.len());
    assert!(entries.is_sorted(), "{entries:#?}");
}

pub async fn entries_are_paged_without_gap_or_repetition(world: &impl World) {
    let start = ago(world, Duration::from_secs(60)).await;
    for count in 0..20 {
        world.put(&definition(&key(&format!("id-{count}")), start.after(Duration::from_micros(count / 7)))).await;
    }
    let whole = load(world, Shard::all().collect(), Timestamp::MAX).await;
    let mut paged: Vec<Entry> = Vec::new();
    loop {
        let request = LoadRequest {
            shards: Shard::all().collect(),
            after: paged.last().cloned(),
            until: Timestamp::MAX,
            limit: 3,
        };
        let page = world.store().load(request).await.unwrap();
        assert!(page.len() <= 3);
        if page.is_empty() {
            break;
        }
        paged.extend(page);
    }
    assert_eq!(paged, whole);
    assert_eq!(paged.len(), 20);
}

pub async fn entries_are_of_the_shards_and_the_time_asked_for(world: &impl World) {
    let start = ago(world, Duration::from_secs(60)).await;
    let keys: Vec<TimerKey> = (0..30).map(|count| key(&format!("id-{count}"))).collect();
    for (seconds, key) in (0..).zip(&keys) {
        world.put(&definition(key, start.after(Duration::from_secs(seconds)))).await;
    }
    let until = start.after(Duration::from_secs(15));
    // The fourth one's shard, and one that may have none.
    let shards = vec![keys[3].shard(), Shard(0)];
    let wanted: Vec<Entry> = (0..)
        .zip(&keys)
        .map(|(seconds, key)| Entry { due_at: start.after(Duration::from_secs(seconds)), key: key.clone() })
        .filter(|entry| entry.due_at <= until && shards.contains(&entry.key.shard()))
        .collect();
    assert_eq!(load(world, shards, until).await, wanted);
    assert_eq!(load(world, Shard::all().collect(), until).await.len(), 16);
    assert_eq!(load(world, Vec::new(), until).await, []);
}

pub async fn a_claim_returns_the_whole_timer(world: &impl World) {
    let (a, first) = (owner("a"), key("first"));
    world.set_secrets("space", &["whsec_c2VjcmV0LW9uZQ==", "whsec_c2VjcmV0LXR3bw=="]).await;
    let grant = lease(world, &a, Shard::COUNT).await;
    let definition = put_due(world, &first).await;
    let before = world.timer(&first).await.unwrap();
    let claimed = claim(world, &a, &grant, &[&first]).await;
    assert_eq!(claimed.left, []);
    let [run] = claimed.runs.as_slice() else { panic!("one run: {:?}", claimed.runs) };
    assert_eq!(run.key.timer, first);
    assert_eq!(run.epoch, epoch(&grant, first.shard()));
    assert_eq!(shown(&run.timer.definition), shown(&definition));
    assert_eq!(run.timer.definition.payload.as_ref().unwrap().get(), definition.payload.as_ref().unwrap().get());
    assert_eq!((run.timer.attempts, run.timer.retry_at, &run.timer.last_error), (1, None, &None));
    assert_eq!(run.timer.first_attempt_at, Some(run.key.claimed_at));
    assert_eq!((run.timer.created_at, run.timer.updated_at), (before.created_at, before.updated_at));
    let secrets = ["whsec_c2VjcmV0LW9uZQ==", "whsec_c2VjcmV0LXR3bw=="].map(|text| text.parse().unwrap());
    assert_eq!(*run.secrets, secrets);
    assert!(world.timer(&first).await.is_none());
    let rows = world.runs(&first).await;
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].state, rows[0].attempts, rows[0].epoch), (State::Running, 1, run.epoch));
    assert_eq!((rows[0].claimed_at, rows[0].answered_at), (run.key.claimed_at, None));
}

pub async fn a_claim_brings_each_namespace_its_own_secrets(world: &impl World) {
    let a = owner("a");
    let secrets = ["whsec_c2VjcmV0LW9uZQ==", "whsec_c2VjcmV0LXR3bw=="];
    let keys = ["one", "none", "two"].map(|namespace| TimerKey::new(namespace, "id"));
    world.set_secrets("one", &secrets[..1]).await;
    world.set_secrets("two", &secrets[1..]).await;
    let grant = lease(world, &a, Shard::COUNT).await;
    for key in &keys {
        put_due(world, key).await;
    }
    let mut runs = claim(world, &a, &grant, &keys.each_ref()).await.runs;
    runs.sort_by(|a, b| a.key.cmp(&b.key));
    let brought = runs.iter().map(|run| (&*run.key.timer.namespace, run.secrets.to_vec()));
    let [one, two] = secrets.map(|secret| vec![secret.parse().unwrap()]);
    assert_eq!(brought.collect::<Vec<_>>(), [("none", vec![]), ("one", one), ("two", two)]);
}

pub async fn a_claim_takes_only_what_is_there_and_due(world: &impl World) {
    let (a, due, later, gone) = (owner("a"), key("due"), key("later"), key("gone"));
    let grant = lease(world, &a, Shard::COUNT).await;
    put_due(world, &due).await;
    put_due(world, &gone).await;
    world.delete(&gone).await;
    let later_at = world.store().now().await.unwrap().after(Duration::from_secs(3600));
    world.put(&definition(&later, later_at)).await;
    let claimed = claim(world, &a, &grant, &[&due, &later, &gone, &key("never there")]).await;
    assert_eq!(claimed.runs.iter().map(|run| &run.key.timer).collect::<Vec<_>>(), [&due]);
    assert!(claimed.runs[0].secrets.is_empty());
    assert_eq!(claimed.left, [Entry { due_at: later_at, key: later.clone() }]);
    assert!(world.timer(&later).await.is_some());
    assert_eq!(world.runs(&gone).await, []);
    // A claim may reach into the future: the request leaves at the moment itself.
    let timers = vec![(later.clone(), epoch(&grant, later.shard()))];
    let ahead = ClaimRequest { owner: a, timers, until: later_at };
    assert_eq!(world.store().claim(ahead).await.unwrap().runs.len(), 1);
}

pub async fn a_claim_takes_the_newest_definition(world: &impl World) {
    let (a, first) = (owner("a"), key("first"));
    let grant = lease(world, &a, Shard::COUNT).await;
    let mut definition = put_due(world, &first).await;
    definition.callback.url = "http://localhost/changed".to_owned();
    world.put(&definition).await;
    let claimed = claim(world, &a, &grant, &[&first]).await;
    assert_eq!(claimed.runs[0].timer.definition.callback.url, "http://localhost/changed");
}

pub async fn a_claim_passes_by_a_held_row_and_says_so(world: &impl World) {
    let (a, free, held) = (owner("a"), key("free"), key("held"));
    let grant = lease(world, &a, Shard::COUNT).await;
    put_due(world, &free).await;
    let held_at = put_due(world, &held).await.execute_at;
    let hold = world.hold(&held).await;
    let left = [Entry { due_at: held_at, key: held.clone() }];
    let alone = claim(world, &a, &grant, &[&held]).await;
    assert!(alone.runs.is_empty() && alone.left == left, "{alone:?}");
    let claimed = claim(world, &a, &grant, &[&free, &held]).await;
    assert_eq!(claimed.runs.iter().map(|run| &run.key.timer).collect::<Vec<_>>(), [&free]);
    assert_eq!(claimed.left, left);
    world.end(hold).await;
    assert_eq!(claim(world, &a, &grant, &[&held]).await.runs.len(), 1);
}

pub async fn a_key_named_twice_is_claimed_once(world: &impl World) {
    let (a, due, later) = (owner("a"), key("due"), key("later"));
    let grant = lease(world, &a, Shard::COUNT).await;
    put_due(world, &due).await;
    let later_at = world.store().now().await.unwrap().after(Duration::from_secs(3600));
    world.put(&definition(&later, later_at)).await;
    let claimed = claim(world, &a, &grant, &[&due, &later, &due, &later]).await;
    assert_eq!((claimed.runs.len(), claimed.left.len()), (1, 1));
    assert_eq!(world.runs(&due).await.len(), 1);
}

pub async fn a_timer_claimed_before_is_gone(world: &impl World) {
    let (a, first) = (owner("a"), key("first"));
    let grant = lease(world, &a, Shard::COUNT).await;
    run(world, &a, &grant, &first).await;
    let again = claim(world, &a, &grant, &[&first]).await;
    assert!(again.runs.is_empty() && again.left.is_empty());
    assert_eq!(world.runs(&first).await.len(), 1);
}

/// Claims in vain: neither list names the timer, and it stays where it is.
async fn is_refused(world: &impl World, owner: &Owner, key: &TimerKey, epoch: Epoch) {
    let request = ClaimRequest { owner: owner.clone(), timers: vec![(key.clone(), epoch)], until: Timestamp::MAX };
    let claimed = world.store().claim(request).await.unwrap();
    assert!(claimed.runs.is_empty() && claimed.left.is_empty(), "{claimed:?}");
    assert!(world.timer(key).await.is_some());
    assert_eq!(world.runs(key).await, []);
}

pub async fn a_claim_under_an_old_epoch_changes_nothing(world: &impl World) {
    let (a, first) = (owner("a"), key("first"));
    put_due(world, &first).await;
    let old = lease(world, &a, Shard::COUNT).await;
    world.expire(first.shard()).await;
    lease(world, &a, Shard::COUNT).await;
    is_refused(world, &a, &first, epoch(&old, first.shard())).await;
}

pub async fn a_claim_by_another_owner_changes_nothing(world: &impl World) {
    let (a, first) = (owner("a"), key("first"));
    put_due(world, &first).await;
    let grant = lease(world, &a, Shard::COUNT).await;
    is_refused(world, &owner("b"), &first, epoch(&grant, first.shard())).await;
}

pub async fn a_claim_under_an_expired_lease_changes_nothing(world: &impl World) {
    let (a, first) = (owner("a"), key("first"));
    put_due(world, &first).await;
    let grant = lease(world, &a, Shard::COUNT).await;
    world.expire(first.shard()).await;
    is_refused(world, &a, &first, epoch(&grant, first.shard())).await;
}

pub async fn a_claim_is_fenced_shard_by_shard(world: &impl World) {
    let (a, mine, lost) = (owner("a"), key("mine"), key("lost"));
    assert_ne!(mine.shard(), lost.shard());
    put_due(world, &mine).await;
    put_due(world, &lost).await;
    let grant = lease(world, &a, Shard::COUNT).await;
    world.expire(lost.shard()).await;
    let claimed = claim(world, &a, &grant, &[&mine, &lost]).await;
    assert_eq!(claimed.runs.iter().map(|run| &run.key.timer).collect::<Vec<_>>(), [&mine]);
    assert_eq!(claimed.left, []);
    assert!(world.timer(&lost).await.is_some());
}

/// The owner `from` is gone; `to` has its shards.
async fn take_over(world: &impl World, to: &Owner, shards: &[Shard]) -> LeaseGrant {
    for shard in shards {
        world.expire(*shard).await;
    }
    lease(world, to, Shard::COUNT).await
}

pub async fn runs_of_older_epochs_are_adopted_once(world: &impl World) {
    let (a, b, first) = (owner("a"), owner("b"), key("first"));
    world.set_secrets("space", &["whsec_c2VjcmV0LW9uZQ=="]).await;
    let grant = lease(world, &a, Shard::COUNT).await;
    let before = run(world, &a, &grant, &first).await;
    let taken = take_over(world, &b, &[first.shard()]).await;
    let adopted = world.store().adopt(&b, &taken.held, MANY).await.unwrap();
    let [run] = adopted.as_slice() else { panic!("one run: {adopted:?}") };
    assert_eq!(run.key, before.key);
    assert_eq!(run.epoch, epoch(&taken, first.shard()));
    assert_eq!(run.timer.attempts, 1);
    assert_eq!(run.secrets, before.secrets);
    assert_eq!((before.adoptions, run.adoptions), (0, 1));
    assert_eq!(shown(&run.timer.definition), shown(&before.timer.definition));
    assert!(world.store().adopt(&b, &taken.held, MANY).await.unwrap().is_empty());
    assert_eq!(world.runs(&first).await[0].epoch, run.epoch);
}

/// Overwritten while it was under way, by a timer that is pending, under way itself, or was deleted; and one that is not.
pub async fn what_nobody_wants_any_more_is_told_at_its_adoption(world: &impl World) {
    let (a, b) = (owner("a"), owner("b"));
    let grant = lease(world, &a, Shard::COUNT).await;
    let mut before = Vec::new();
    for id in ["wanted", "pending", "running", "deleted"] {
        before.push(run(world, &a, &grant, &key(id)).await);
    }
    let far = before[0].key.claimed_at.after(Duration::from_secs(60));
    world.put(&definition(&key("pending"), far)).await;
    let newer = run(world, &a, &grant, &key("running")).await;
    world.put(&definition(&key("deleted"), far)).await;
    world.delete(&key("deleted")).await;
    let shards: Vec<Shard> = before.iter().map(|run| run.key.timer.shard()).collect();
    let taken = take_over(world, &b, &shards).await;
    let adopted = world.store().adopt(&b, &taken.held, MANY).await.unwrap();
    let mut told: Vec<_> = adopted.iter().map(|run| (&*run.key.timer.id, run.key.claimed_at, run.unwanted)).collect();
    told.sort_unstable();
    let at = |index: usize| before[index].key.claimed_at;
    let expected = [
        ("deleted", at(3), true),
        ("pending", at(1), true),
        ("running", at(2), true),
        ("running", newer.key.claimed_at, false),
        ("wanted", at(0), false),
    ];
    assert_eq!(told, expected);
}

pub async fn runs_of_the_current_epoch_are_not_adopted(world: &impl World) {
    let (a, first, over) = (owner("a"), key("first"), key("over"));
    let grant = lease(world, &a, Shard::COUNT).await;
    run(world, &a, &grant, &first).await;
    let ended = run(world, &a, &grant, &over).await;
    assert_eq!(settle(world, &a, &[succeeded(&ended)]).await, [true]);
    assert!(world.store().adopt(&a, &grant.held, MANY).await.unwrap().is_empty());
    // What is over is not adopted under any epoch.
    world.expire(over.shard()).await;
    let again = lease(world, &a, Shard::COUNT).await;
    let adopted = world.store().adopt(&a, &again.held, MANY).await.unwrap();
    assert!(adopted.iter().all(|run| run.key.timer != over));
}

pub async fn an_adoption_keeps_to_its_limit_and_its_shards(world: &impl World) {
    let (a, b) = (owner("a"), owner("b"));
    let grant = lease(world, &a, Shard::COUNT).await;
    let keys: Vec<TimerKey> = (0..5).map(|count| key(&format!("id-{count}"))).collect();
    for key in &keys {
        run(world, &a, &grant, key).await;
    }
    let shards: Vec<Shard> = keys.iter().map(TimerKey::shard).collect();
    let taken = take_over(world, &b, &shards).await;
    let one: Vec<Lease> = taken.held.iter().copied().filter(|lease| lease.shard == shards[0]).collect();
    assert_eq!(world.store().adopt(&b, &one, MANY).await.unwrap().len(), 1);
    assert_eq!(world.store().adopt(&b, &taken.held, 3).await.unwrap().len(), 3);
    assert_eq!(world.store().adopt(&b, &taken.held, 3).await.unwrap().len(), 1);
}

pub async fn adoptions_are_counted_until_the_next_attempt(world: &impl World) {
    let (a, b, c, first) = (owner("a"), owner("b"), owner("c"), key("first"));
    let grant = lease(world, &a, Shard::COUNT).await;
    run(world, &a, &grant, &first).await;
    // Who takes over what it has claimed, or taken over before, is alive.
    for (by, adoptions) in [(&a, 0), (&b, 1), (&b, 1), (&c, 2), (&b, 3)] {
        let grant = take_over(world, by, &[first.shard()]).await;
        let adopted = world.store().adopt(by, &grant.held, MANY).await.unwrap();
        let run = adopted.iter().find(|run| run.key.timer == first).expect("it is adopted");
        assert_eq!(run.adoptions, adoptions);
    }
    let grant = take_over(world, &a, &[first.shard()]).await;
    let under_way = world.store().adopt(&a, &grant.held, MANY).await.unwrap().remove(0);
    assert_eq!(settle(world, &a, &[retry_at(&under_way, under_way.key.claimed_at)]).await, [true]);
    let again = claim(world, &a, &grant, &[&first]).await.runs.remove(0);
    assert_eq!((again.timer.attempts, again.adoptions), (2, 0));
    let grant = take_over(world, &a, &[first.shard()]).await;
    let adopted = world.store().adopt(&a, &grant.held, MANY).await.unwrap().remove(0);
    assert_eq!((adopted.timer.attempts, adopted.adoptions), (2, 0));
}

pub async fn an_adoption_is_fenced(world: &impl World) {
    let (a, b, first) = (owner("a"), owner("b"), key("first"));
    let grant = lease(world, &a, Shard::COUNT).await;
    let before = run(world, &a, &grant, &first).await;
    let shard = first.shard();
    let future = [Lease { shard, epoch: Epoch(before.epoch.0 + 1) }];
    assert!(world.store().adopt(&a, &future, MANY).await.unwrap().is_empty());
    let taken = take_over(world, &b, &[shard]).await;
    let held: Vec<Lease> = taken.held.iter().copied().filter(|lease| lease.shard == shard).collect();
    assert!(world.store().adopt(&a, &held, MANY).await.unwrap().is_empty());
    world.expire(shard).await;
    assert!(world.store().adopt(&b, &held, MANY).await.unwrap().is_empty());
    assert_eq!(world.runs(&first).await[0].epoch, before.epoch);
}
