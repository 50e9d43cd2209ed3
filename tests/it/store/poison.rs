//! Rows that nobody foresaw: each may fail by itself, and none may hold up those beside it.

use walclock::dispatch::ports::Store as _;
use walclock::domain::shard::Shard;

use super::world::Postgres;
use crate::contract::{self, World};

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_with_the_most_attempts_is_claimed_like_the_others() {
    let world = Postgres::new().await;
    let (a, first, second) = (contract::owner("a"), contract::key("first"), contract::key("second"));
    for key in [&first, &second] {
        contract::put_due(&world, key).await;
    }
    let set = "update walclock.timers set attempts = 2147483647 where id = 'first'";
    world.client.batch_execute(set).await.unwrap();
    let grant = contract::lease(&world, &a, Shard::COUNT).await;
    let claimed = contract::claim(&world, &a, &grant, &[&first, &second]).await;
    let mut attempts: Vec<u32> = claimed.runs.iter().map(|run| run.timer.attempts).collect();
    attempts.sort_unstable();
    assert_eq!(attempts, [1, 2_147_483_647]);
    let again = claimed.runs.iter().map(|run| contract::retry_at(run, run.key.claimed_at)).collect::<Vec<_>>();
    assert_eq!(contract::settle(&world, &a, &again).await, [true, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_that_cannot_be_read_is_claimed_with_nothing_to_call() {
    let world = Postgres::new().await;
    let a = contract::owner("a");
    let keys = ["first", "second", "third"].map(contract::key);
    for key in &keys {
        contract::put_due(&world, key).await;
    }
    // What the schema forbids, as a database might hold it whose constraints somebody has dropped.
    let spoil = r#"alter table walclock.timers drop constraint timers_fit;
                   update walclock.timers set callback_headers = '{"a": 1}' where id = 'second'"#;
    world.client.batch_execute(spoil).await.unwrap();
    let grant = contract::lease(&world, &a, Shard::COUNT).await;
    let claimed = contract::claim(&world, &a, &grant, &keys.each_ref()).await;
    assert_eq!(claimed.runs.len(), 3);
    let bad = claimed.runs.iter().find(|run| &*run.key.timer.id == "second").unwrap();
    assert_eq!(bad.timer.definition.callback.url, "");
    // The next owner is not held up by it either.
    for lease in &grant.held {
        world.expire(lease.shard).await;
    }
    let b = contract::owner("b");
    let held = contract::lease(&world, &b, Shard::COUNT).await.held;
    let adopted = world.store.adopt(&b, &held, 10).await.unwrap();
    assert_eq!(adopted.len(), 3);
    let failed: Vec<_> = adopted.iter().map(contract::failed).collect();
    assert_eq!(contract::settle(&world, &b, &failed).await, [true, true, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_postgresql_takes_for_json_is_a_payload() {
    let world = Postgres::new().await;
    let a = contract::owner("a");
    let grant = contract::lease(&world, &a, Shard::COUNT).await;
    let key = contract::key("first");
    let nested = format!("{}{}", "[".repeat(2000), "]".repeat(2000));
    for payload in
        [r#""\ud800""#, r#""\u0000""#, "1e999999999", "-0.0", " \t\n[1 , 2]\r\n ", r#"{"a":1,"a":2}"#, &nested]
    {
        contract::put_due(&world, &key).await;
        world.client.execute("update walclock.timers set payload = $1::text::json", &[&payload]).await.unwrap();
        let claimed = contract::claim(&world, &a, &grant, &[&key]).await;
        let kept = claimed.runs[0].timer.definition.payload.as_ref().map(|payload| payload.get());
        assert_eq!(kept, Some(payload.trim()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_that_cannot_be_read_do_not_stop_a_claim() {
    let world = Postgres::new().await;
    let a = contract::owner("a");
    let drop = "alter table walclock.namespaces drop constraint namespaces_secrets_form,
                    drop constraint namespaces_secrets_list, drop constraint namespaces_secrets_whole";
    world.client.batch_execute(drop).await.unwrap();
    let grant = contract::lease(&world, &a, Shard::COUNT).await;
    let key = contract::key("first");
    for secrets in ["{NULL}", "{{whsec_AAAA},{whsec_BBBB}}", "{whsec_A}", "{whsec_AAAA,NULL}"] {
        contract::put_due(&world, &key).await;
        let set = format!(
            "insert into walclock.namespaces (name, secrets) values ('space', '{secrets}')
             on conflict (name) do update set secrets = excluded.secrets"
        );
        world.client.batch_execute(&set).await.unwrap();
        assert_eq!(contract::claim(&world, &a, &grant, &[&key]).await.runs.len(), 1, "{secrets}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_that_cannot_be_read_are_refused_where_they_are_written() {
    let world = Postgres::new().await;
    for secrets in
        ["{NULL}", "{{whsec_AAAA},{whsec_BBBB}}", "{whsec_A}", "{whsec_AAAA whsec_BBBB}", "{whsec_}", "{\"\"}"]
    {
        let insert = format!("insert into walclock.namespaces (name, secrets) values ('space', '{secrets}')");
        assert!(world.client.batch_execute(&insert).await.is_err(), "{secrets}");
    }
    for secrets in ["{}", "{whsec_AAAA}", "{whsec_AA==}", "{whsec_AAA,whsec_AAAAAA==}"] {
        let set = format!(
            "insert into walclock.namespaces (name, secrets) values ('space', '{secrets}')
             on conflict (name) do update set secrets = excluded.secrets"
        );
        world.client.batch_execute(&set).await.unwrap();
    }
}

/// Has PostgreSQL refuse to move the timer of this id out of the table and into it.
async fn refuse_to_move(world: &Postgres, id: &str) {
    let trigger = format!(
        "create function refuse() returns trigger language plpgsql as $$ begin raise 'damaged'; end $$;
         create trigger refuse_to_leave before delete on walclock.timers for each row
             when (old.id = '{id}') execute function refuse();
         create trigger refuse_to_enter before insert on walclock.timers for each row
             when (new.id = '{id}') execute function refuse()"
    );
    world.client.batch_execute(&trigger).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_that_cannot_be_claimed_stays_behind_alone() {
    let world = Postgres::new().await;
    let a = contract::owner("a");
    let keys = ["first", "second", "third"].map(contract::key);
    for key in &keys {
        contract::put_due(&world, key).await;
    }
    refuse_to_move(&world, "second").await;
    let grant = contract::lease(&world, &a, Shard::COUNT).await;
    let claimed = contract::claim(&world, &a, &grant, &keys.each_ref()).await;
    assert_eq!(claimed.runs.len(), 2);
    let left: Vec<_> = claimed.left.iter().map(|entry| &entry.key).collect();
    assert_eq!(left, [&keys[1]]);
    // Nor is a claim of nothing else a failed one, whose leases would be given up.
    let claimed = contract::claim(&world, &a, &grant, &[&keys[1]]).await;
    assert!(claimed.runs.is_empty());
    let left: Vec<_> = claimed.left.iter().map(|entry| &entry.key).collect();
    assert_eq!(left, [&keys[1]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_cannot_be_put_back_holds_up_no_other() {
    let world = Postgres::new().await;
    let a = contract::owner("a");
    let grant = contract::lease(&world, &a, Shard::COUNT).await;
    let mut settlements = Vec::new();
    for id in ["first", "second", "third"] {
        let run = contract::run(&world, &a, &grant, &contract::key(id)).await;
        settlements.push(contract::retry_at(&run, run.key.claimed_at));
    }
    refuse_to_move(&world, "second").await;
    let settled = world.store.settle(&a, &settlements).await.unwrap();
    assert_eq!(settled.into_iter().map(Result::ok).collect::<Vec<_>>(), [Some(true), None, Some(true)]);
    for (id, is_back) in [("first", true), ("second", false), ("third", true)] {
        assert_eq!(world.timer(&contract::key(id)).await.is_some(), is_back, "{id}");
    }
}
