//! What keeps two owners apart when their statements overlap: transactions held open in the middle of the store's own
//! statements.

use tokio_postgres::Client;
use tokio_postgres::types::ToSql;
use walclock::dispatch::ports::{ClaimRequest, Store as _};
use walclock::domain::lease::{Epoch, Lease, Owner};
use walclock::domain::limits;
use walclock::domain::run::{Settlement, State};
use walclock::domain::shard::Shard;
use walclock::domain::timer::TimerKey;

use super::world::Postgres;
use crate::contract::{self, World};
use crate::support;

/// The store's two statements of a claim.
#[derive(Clone, Copy)]
enum Statement {
    One,
    Many,
}

/// Claims a timer by the store's own statement, in a transaction that stays open.
async fn claim_and_stay(world: &Postgres, owner: &Owner, key: &TimerKey, epoch: Epoch, statement: Statement) -> Client {
    let client = support::connect(&world.url).await;
    client.batch_execute("begin; set local lock_timeout = '1s'").await.unwrap();
    let until = world.store.now().await.unwrap();
    let (namespace, id, shard) = (&*key.namespace, &*key.id, i16::from(key.shard().0));
    let claimed = match statement {
        Statement::One => {
            let sql = include_str!("../../../sql/queries/timers/claim_one.sql");
            client.query(sql, &[&owner.0, &shard, &epoch.0, &namespace, &id, &until]).await
        }
        Statement::Many => {
            let sql = include_str!("../../../sql/queries/timers/claim.sql");
            let (namespaces, ids, shards, epochs) = (vec![namespace], vec![id], vec![shard], vec![epoch.0]);
            let parameters: [&(dyn ToSql + Sync); 9] =
                [&owner.0, &shards, &epochs, &namespaces, &ids, &shards, &epochs, &until, &namespace];
            client.query(sql, &parameters).await
        }
    };
    assert_eq!(claimed.unwrap().len(), 1);
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_is_not_taken_over_while_a_claim_is_under_way() {
    for statement in [Statement::One, Statement::Many] {
        let world = Postgres::new().await;
        let (a, b, key) = (contract::owner("a"), contract::owner("b"), contract::key("first"));
        contract::put_due(&world, &key).await;
        let grant = contract::lease(&world, &a, Shard::COUNT).await;
        let claim = claim_and_stay(&world, &a, &key, contract::epoch(&grant, key.shard()), statement).await;
        world.expire(key.shard()).await;
        // Were it taken now, the adoption would miss the run, and nobody would fire it again.
        assert_eq!(contract::lease(&world, &b, Shard::COUNT).await.held, []);
        claim.batch_execute("commit").await.unwrap();
        let taken = contract::lease(&world, &b, Shard::COUNT).await;
        assert_eq!(taken.held.len(), 1);
        assert_eq!(world.store.adopt(&b, &taken.held, 10).await.unwrap().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_does_not_wait_for_a_claim_nor_a_claim_for_a_renewal() {
    for statement in [Statement::One, Statement::Many] {
        let world = Postgres::new().await;
        let (a, key, other) = (contract::owner("a"), contract::key("first"), contract::key("other"));
        contract::put_due(&world, &key).await;
        contract::put_due(&world, &other).await;
        let grant = contract::lease(&world, &a, Shard::COUNT).await;
        let claim = claim_and_stay(&world, &a, &key, contract::epoch(&grant, key.shard()), statement).await;
        // A statement that waited would fail by its lock_timeout, for the claim never ends by itself.
        assert_eq!(contract::lease(&world, &a, Shard::COUNT).await.held.len(), Shard::COUNT);
        claim.batch_execute("commit").await.unwrap();
        let renewal = support::connect(&world.url).await;
        let renew = "begin; update walclock.shards set expires_at = clock_timestamp() + interval '1 hour'";
        renewal.batch_execute(renew).await.unwrap();
        let claim = claim_and_stay(&world, &a, &other, contract::epoch(&grant, other.shard()), statement).await;
        claim.batch_execute("commit").await.unwrap();
        renewal.batch_execute("commit").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_waited_for_a_takeover_finds_itself_fenced() {
    for keys in [&["first"][..], &["first", "second"]] {
        let world = Postgres::new().await;
        let a = contract::owner("a");
        let keys: Vec<TimerKey> = keys.iter().map(|id| contract::key(id)).collect();
        for key in &keys {
            contract::put_due(&world, key).await;
        }
        let grant = contract::lease(&world, &a, Shard::COUNT).await;
        let takeover = support::connect(&world.url).await;
        takeover.batch_execute("begin; select from walclock.shards for update").await.unwrap();
        let take = "update walclock.shards set owner = 'b', epoch = epoch + 1";
        takeover.batch_execute(take).await.unwrap();
        let timers = keys.iter().map(|key| (key.clone(), contract::epoch(&grant, key.shard()))).collect();
        let request = ClaimRequest { owner: a, timers, until: grant.now };
        let store = world.store.clone();
        let claim = tokio::spawn(async move { store.claim(request).await });
        // The claim's snapshot is from before the commit, and shows the old owner.
        let waiting = "select count(*) from pg_stat_activity
                       where datname = current_database() and wait_event_type = 'Lock'";
        let is_waiting =
            async || (world.client.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) > 0).then_some(());
        support::eventually(support::PATIENCE, "the claim waits for the takeover", is_waiting).await;
        takeover.batch_execute("commit").await.unwrap();
        let claimed = claim.await.unwrap().unwrap();
        assert!(claimed.runs.is_empty() && claimed.left.is_empty(), "{claimed:?}");
        for key in &keys {
            assert!(world.timer(key).await.is_some());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_inserts_and_does_not_commit_holds_up_its_own_timers_only() {
    let world = Postgres::new().await;
    let a = contract::owner("a");
    let grant = contract::lease(&world, &a, Shard::COUNT).await;
    let keys: Vec<TimerKey> = (1..=100).map(|number| contract::key(&number.to_string())).collect();
    for key in &keys {
        contract::put_due(&world, key).await;
    }
    let claimed = contract::claim(&world, &a, &grant, &keys.iter().collect::<Vec<_>>()).await;
    let mut settlements: Vec<_> = claimed.runs.iter().map(|run| contract::retry_at(run, run.key.claimed_at)).collect();
    // Those that are held come first.
    let number = |settlement: &Settlement| settlement.run.key.timer.id.parse::<usize>().unwrap();
    settlements.sort_by_key(number);
    let client = support::connect(&world.url).await;
    let insert = "begin; insert into walclock.timers (namespace, id, execute_at, callback_url)
                  select 'space', n, now(), 'http://localhost/' from generate_series(1, 20) n";
    client.batch_execute(insert).await.unwrap();
    let settled = world.store.settle(&a, &settlements).await.unwrap();
    for (settlement, written) in settlements.iter().zip(&settled) {
        let is_held = number(settlement) <= 20;
        assert_eq!(written.as_ref().ok(), (!is_held).then_some(&true), "{:?}", settlement.run.key);
        assert_eq!(world.timer(&settlement.run.key.timer).await.is_some(), !is_held, "{:?}", settlement.run.key);
    }
    client.batch_execute("commit").await.unwrap();
    assert_eq!(contract::settle(&world, &a, &settlements[..20]).await, [true; 20]);
    assert_eq!(world.runs(&contract::key("2")).await[0].state, State::Failed);
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_alone_do_not_wait_for_the_disk() {
    let world = Postgres::new().await;
    let database = world.url.rsplit('/').next().unwrap();
    let client = world.store.client().await.unwrap();
    // The careless default of somebody else's making.
    client.batch_execute(&format!("alter database {database} set synchronous_commit = off")).await.unwrap();
    let (a, key) = (contract::owner("a"), contract::key("first"));
    let grant = contract::lease(&world, &a, Shard::COUNT).await;
    // What a trigger sees of the session that writes.
    let spy = "create table seen (what text, synchronous_commit text);
               create function spy() returns trigger language plpgsql as $$ begin
                   insert into public.seen values (tg_op, current_setting('synchronous_commit'));
                   return null;
               end $$;
               create trigger spy after insert or update on walclock.runs for each row execute function spy()";
    world.client.batch_execute(spy).await.unwrap();
    let run = contract::run(&world, &a, &grant, &key).await;
    assert_eq!(contract::settle(&world, &a, &[contract::succeeded(&run)]).await, [true]);
    let seen = world.client.query("select what, synchronous_commit from seen order by what", &[]).await.unwrap();
    let seen: Vec<(String, String)> = seen.iter().map(|row| (row.get(0), row.get(1))).collect();
    let wanted = [("INSERT", "off"), ("UPDATE", "on")].map(|(what, setting)| (what.to_owned(), setting.to_owned()));
    assert_eq!(seen, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_that_postgresql_does_not_take_are_settled_all_the_same() {
    let world = Postgres::new().await;
    let a = contract::owner("a");
    let grant = contract::lease(&world, &a, Shard::COUNT).await;
    let run = contract::run(&world, &a, &grant, &contract::key("first")).await;
    let mut settlement = contract::succeeded(&run);
    settlement.attempt.reply_head = format!("a\0b{}", "ü".repeat(limits::REPLY_HEAD_BYTES_MAX));
    assert_eq!(contract::settle(&world, &a, &[settlement]).await, [true]);
    let reply = world.runs(&run.key.timer).await.remove(0).reply.unwrap();
    assert!(reply.starts_with("a\u{fffd}bü"));
    assert!(reply.len() <= limits::REPLY_HEAD_BYTES_MAX && reply.len() + 2 > limits::REPLY_HEAD_BYTES_MAX);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_without_a_partition_gets_one_from_the_first_claim() {
    let world = Postgres::new().await;
    let a = contract::owner("a");
    let grant = contract::lease(&world, &a, Shard::COUNT).await;
    let drop_all = "do $$ declare t text; begin
                        for t in select inhrelid::regclass::text from pg_inherits
                                 where inhparent in ('walclock.runs'::regclass, 'walclock.attempts'::regclass)
                                   and inhrelid in (select oid from pg_class where relkind = 'r') loop
                            execute 'drop table ' || t;
                        end loop;
                    end $$";
    world.client.batch_execute(drop_all).await.unwrap();
    let run = contract::run(&world, &a, &grant, &contract::key("first")).await;
    assert_eq!(contract::settle(&world, &a, &[contract::retry_at(&run, run.key.claimed_at)]).await, [true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_dispatchers_that_start_at_once_share_the_ring() {
    let world = Postgres::new().await;
    let lease = |count: u32| {
        let store = world.store.clone();
        tokio::spawn(async move {
            let owner = Owner(format!("dispatcher-{count}"));
            let request = walclock::dispatch::ports::LeaseRequest {
                owner,
                ttl: contract::TTL,
                release: Vec::new(),
                anew: Vec::new(),
                shards_max: 64,
            };
            store.lease(request).await.unwrap().held
        })
    };
    let mut held: Vec<Lease> = Vec::new();
    for task in (0..8).map(lease).collect::<Vec<_>>() {
        held.extend(task.await.unwrap());
    }
    let mut shards: Vec<Shard> = held.iter().map(|lease| lease.shard).collect();
    shards.sort();
    shards.dedup();
    assert_eq!(shards.len(), held.len(), "a shard has two owners");
}
