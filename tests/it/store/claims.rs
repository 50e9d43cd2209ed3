//! What is under way is found by its claims, which are forgotten when it is over.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_postgres::Client;
use walclock::dispatch::ports::Store as _;
use walclock::domain::lease::Lease;
use walclock::domain::run::{Run, RunKey};
use walclock::domain::shard::Shard;
use walclock::domain::timer::TimerKey;
use walclock::pg::Settings;
use walclock::store::migrate;
use walclock::store::time::Span;

use super::world::Postgres;
use crate::contract;
use crate::support;

const FINISH: &str = include_str!("../../../sql/queries/runs/finish.sql");
const FORGET: &str = include_str!("../../../sql/queries/runs/forget.sql");

/// The ids of the runs that each claim lists, the oldest first.
async fn claims(client: &Client) -> Vec<Vec<String>> {
    let query = "select array(select unnest(ids) order by 1) from walclock.claims order by number";
    client.query(query, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// The runs under way, in order.
async fn under_way(client: &Client) -> Vec<String> {
    let query = "select id from walclock.under_way order by id";
    client.query(query, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// The same, from the runs themselves.
async fn without_an_answer(client: &Client) -> Vec<String> {
    let query = "select id from walclock.runs where answered_at is null order by id";
    client.query(query, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// A world in which `a` holds all shards and has claimed these timers at once; the runs come in the order of the ids.
async fn claimed(ids: &[&str]) -> (Postgres, Vec<Run>) {
    let (world, a) = (Postgres::new().await, contract::owner("a"));
    let grant = contract::lease(&world, &a, Shard::COUNT).await;
    let keys: Vec<TimerKey> = ids.iter().map(|id| contract::key(id)).collect();
    for key in &keys {
        contract::put_due(&world, key).await;
    }
    let mut runs = contract::claim(&world, &a, &grant, &keys.iter().collect::<Vec<_>>()).await.runs;
    runs.sort_by(|one, other| one.key.cmp(&other.key));
    (world, runs)
}

/// The two statements of a claim end alike, each in its own file.
#[tokio::test(flavor = "multi_thread")]
async fn a_timer_becomes_the_same_run_alone_and_among_others() {
    let world = Postgres::new().await;
    let insert = r#"insert into walclock.namespaces (name, secrets) values ('space', '{whsec_AAAA}');
        insert into walclock.timers (
            namespace, id, execute_at, retry_at, callback_url, callback_method, callback_headers, callback_timeout_seconds,
            payload, retry_attempts_max, retry_duration, retry_interval_first, retry_multiplier, retry_interval_max,
            attempts, first_attempt_at, last_error, created_at, updated_at
        )
        select 'space', id, '2020-01-01', '2020-01-02', 'http://localhost/', 'PUT', '{"a": "b"}', 7, '[1]', 2147483647, '1 day',
            '2 s', 3, '4 s', 2147483647, '2020-01-03', 'it failed', '2020-01-04', '2020-01-05'
        from unnest(array['alone', 'one', 'other']) as id"#;
    world.client.batch_execute(insert).await.unwrap();
    let a = contract::owner("a");
    let grant = contract::lease(&world, &a, Shard::COUNT).await;
    let mut runs = Vec::new();
    for ids in [&["alone"][..], &["one", "other"]] {
        let keys: Vec<TimerKey> = ids.iter().map(|id| contract::key(id)).collect();
        runs.extend(contract::claim(&world, &a, &grant, &keys.iter().collect::<Vec<_>>()).await.runs);
    }
    assert_eq!(runs.len(), 3);
    let rows = "select count(distinct to_jsonb(runs) - '{id,claimed_at,shard}'::text[]) from walclock.runs";
    assert_eq!(world.client.query_one(rows, &[]).await.unwrap().get::<_, i64>(0), 1);
    let first = runs[0].key.clone();
    for run in &mut runs {
        run.timer.definition.key = first.timer.clone();
        run.key = first.clone();
    }
    let shown: BTreeSet<String> = runs.iter().map(|run| format!("{run:?}")).collect();
    assert_eq!(shown.len(), 1, "{shown:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_lists_its_runs_until_the_last_one_is_settled() {
    let (world, runs) = claimed(&["1", "2", "3", "4"]).await;
    let a = contract::owner("a");
    assert_eq!(claims(&world.client).await, [["1", "2", "3", "4"]]);
    let settlements = [
        contract::succeeded(&runs[0]),
        contract::retry_at(&runs[1], runs[1].key.claimed_at.after(Duration::from_secs(600))),
        contract::failed(&runs[2]),
    ];
    assert_eq!(contract::settle(&world, &a, &settlements).await, [true; 3]);
    assert_eq!(under_way(&world.client).await, ["4"]);
    assert_eq!(claims(&world.client).await.len(), 1);
    assert_eq!(contract::settle(&world, &a, &[contract::succeeded(&runs[3])]).await, [true]);
    assert_eq!(under_way(&world.client).await, [""; 0]);
    assert_eq!(claims(&world.client).await, [[""; 0]; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_forgotten_with_a_run_that_is_put_back() {
    let (world, runs) = claimed(&["1", "2"]).await;
    let (a, later) = (contract::owner("a"), runs[0].key.claimed_at.after(Duration::from_secs(600)));
    for (run, left) in runs.iter().zip([1, 0]) {
        assert_eq!(contract::settle(&world, &a, &[contract::retry_at(run, later)]).await, [true]);
        assert_eq!(claims(&world.client).await.len(), left);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_of_which_another_one_has_taken_a_run_over_is_kept() {
    let (world, runs) = claimed(&["1", "2"]).await;
    let (a, b) = (contract::owner("a"), contract::owner("b"));
    let shard = runs[0].key.timer.shard();
    assert_ne!(runs[1].key.timer.shard(), shard);
    contract::World::expire(&world, shard).await;
    let other = Postgres::new_on(&world.url).await;
    let grant = contract::lease(&other, &b, Shard::COUNT).await;
    assert_eq!(other.store.adopt(&b, &grant.held, 10).await.unwrap().len(), 1);
    // It settles both, and may not: so it knows nothing of the first one.
    let settlements: Vec<_> = runs.iter().map(contract::succeeded).collect();
    assert_eq!(contract::settle(&world, &a, &settlements).await, [false, true]);
    assert_eq!(under_way(&world.client).await, ["1"]);
    assert_eq!(claims(&world.client).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_one_adopts_and_ends_is_looked_for() {
    let (world, runs) = claimed(&["1", "2", "3", "4"]).await;
    let (a, b) = (contract::owner("a"), contract::owner("b"));
    assert_eq!(contract::settle(&world, &a, &[contract::succeeded(&runs[0])]).await, [true]);
    for shard in Shard::all() {
        contract::World::expire(&world, shard).await;
    }
    let other = Postgres::new_on(&world.url).await;
    let grant = contract::lease(&other, &b, Shard::COUNT).await;
    let adopted = other.store.adopt(&b, &grant.held, 10).await.unwrap();
    assert_eq!(adopted.len(), 3);
    // All that it knows of is listed: it was adopted, too, and the claim is a minute old at the least when somebody looks.
    let (leave, rest) = adopted.split_first().unwrap();
    let settlements: Vec<_> = rest.iter().map(contract::succeeded).collect();
    assert_eq!(contract::settle(&other, &b, &settlements).await, [true; 2]);
    let look = async |age: Duration| {
        let row = world.client.query_one(FORGET, &[&0_i64, &1_000_i64, &Span(age)]).await.unwrap();
        row.get::<_, i64>(0)
    };
    assert_eq!(look(Duration::from_secs(3600)).await, 0);
    assert_eq!(claims(&world.client).await, [["1", "2", "3", "4"]]);
    assert_eq!(look(Duration::ZERO).await, 1);
    assert_eq!(claims(&world.client).await, [[&*leave.key.timer.id]], "what is over is not listed any more");
    assert_eq!(look(Duration::ZERO).await, 1);
    assert_eq!(under_way(&world.client).await, [&*leave.key.timer.id]);
    assert_eq!(contract::settle(&other, &b, &[contract::succeeded(leave)]).await, [true]);
    assert_eq!(look(Duration::ZERO).await, 1);
    assert_eq!(claims(&world.client).await, [[""; 0]; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adoption_forgets_what_has_been_over_for_a_while() {
    let world = Postgres::new().await;
    // More than one look takes in, and one that is too young.
    let add = "insert into walclock.claims (claimed_at, namespaces, ids)
               select now() - case n when 1500 then interval '1 second' else interval '2 minutes' end, '{space}', array[n::text]
               from generate_series(1, 1500) n";
    world.client.batch_execute(add).await.unwrap();
    let a = contract::owner("a");
    let grant = contract::lease(&world, &a, Shard::COUNT).await;
    assert!(world.store.adopt(&a, &grant.held, 10).await.unwrap().is_empty());
    assert_eq!(claims(&world.client).await, [["1500"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adoption_goes_on_where_the_last_one_was_full() {
    let (world, a, b) = (Postgres::new().await, contract::owner("a"), contract::owner("b"));
    let grant = contract::lease(&world, &a, Shard::COUNT).await;
    for pair in [["1", "2"], ["3", "4"]] {
        let keys = pair.map(contract::key);
        for key in &keys {
            contract::put_due(&world, key).await;
        }
        assert_eq!(contract::claim(&world, &a, &grant, &keys.iter().collect::<Vec<_>>()).await.runs.len(), 2);
    }
    for shard in Shard::all() {
        contract::World::expire(&world, shard).await;
    }
    let other = Postgres::new_on(&world.url).await;
    let held = contract::lease(&other, &b, Shard::COUNT).await.held;
    let adopt = async |leases: &[Lease], limit| {
        let runs = other.store.adopt(&b, leases, limit).await.unwrap();
        let mut ids: Vec<String> = runs.iter().map(|run| run.key.timer.id.to_string()).collect();
        ids.sort_unstable();
        ids
    };
    let leave_again = "update walclock.runs set epoch = 0 where id in ('1', '3')";
    assert_eq!(adopt(&held, 3).await.len(), 3);
    world.client.batch_execute(leave_again).await.unwrap();
    // The rest, without another look at the first claim.
    assert_eq!(adopt(&held, 3).await, ["3", "4"]);
    assert_eq!(adopt(&held, 3).await, ["1"], "the next one begins anew");
    assert_eq!(adopt(&held, 3).await, [""; 0]);
    // So does one for other leases.
    world.client.batch_execute(leave_again).await.unwrap();
    assert_eq!(adopt(&held, 2).await, ["1", "3"]);
    world.client.batch_execute(leave_again).await.unwrap();
    let most: Vec<Lease> = held.iter().filter(|lease| lease.shard != contract::key("4").shard()).copied().collect();
    assert_eq!(adopt(&most, 3).await, ["1", "3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_promotion_has_undone_is_still_listed() {
    let (world, runs) = claimed(&["1", "2"]).await;
    let a = contract::owner("a");
    assert_eq!(contract::settle(&world, &a, &[contract::succeeded(&runs[0])]).await, [true]);
    // As on a standby that had the claim when it was promoted, but not this settle.
    let undo = "update walclock.runs set state = 'running', answered_at = null, sent_at = null where id = '1'";
    world.client.batch_execute(undo).await.unwrap();
    let end = "select pg_terminate_backend(pid, 100000) from pg_stat_activity
               where datname = current_database() and pid <> pg_backend_pid()";
    world.client.execute(end, &[]).await.unwrap();
    let last = [contract::succeeded(&runs[1])];
    support::eventually(support::PATIENCE, "the last one is settled", async || {
        let written = world.store.settle(&a, &last).await.ok()?;
        matches!(*written, [Ok(true)]).then_some(())
    })
    .await;
    assert_eq!(under_way(&world.client).await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_somebody_looks_at_holds_up_no_settle_and_no_look() {
    let (world, runs) = claimed(&["1", "2"]).await;
    let a = contract::owner("a");
    let looking = support::connect(&world.url).await;
    looking.batch_execute("begin; select from walclock.claims for update").await.unwrap();
    assert_eq!(contract::settle(&world, &a, &[contract::succeeded(&runs[0])]).await, [true]);
    assert_eq!(contract::settle(&world, &a, &[contract::succeeded(&runs[1])]).await, [true]);
    world.client.batch_execute("set lock_timeout = '1s'").await.unwrap();
    let row = world.client.query_one(FORGET, &[&0_i64, &1_000_i64, &Span(Duration::ZERO)]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 0);
    looking.batch_execute("commit").await.unwrap();
    world.client.query_one(FORGET, &[&0_i64, &1_000_i64, &Span(Duration::ZERO)]).await.unwrap();
    assert_eq!(claims(&world.client).await, [[""; 0]; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settle_moves_no_index_entry() {
    let ids: Vec<String> = (100..300).map(|id| id.to_string()).collect();
    let (mut world, runs) = claimed(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let column = |pick: fn(&RunKey) -> String| runs.iter().map(|run| pick(&run.key)).collect::<Vec<String>>();
    let (namespaces, names) = (column(|key| key.timer.namespace.to_string()), column(|key| key.timer.id.to_string()));
    let claimed_at: Vec<_> = runs.iter().map(|run| run.key.claimed_at).collect();
    let shards: Vec<i16> = runs.iter().map(|run| i16::from(run.key.timer.shard().0)).collect();
    let epochs: Vec<i64> = runs.iter().map(|run| run.epoch.0).collect();
    let (status, reply) = (vec![Some(200_i16); runs.len()], vec!["ok"; runs.len()]);
    let (errors, states) = (vec![None::<&str>; runs.len()], vec!["succeeded"; runs.len()]);
    let over: Vec<i64> = Vec::new();
    let transaction = world.client.transaction().await.unwrap();
    let settled = transaction
        .query(
            FINISH,
            &[
                &"a",
                &shards,
                &epochs,
                &namespaces,
                &names,
                &claimed_at,
                &shards,
                &epochs,
                &claimed_at,
                &claimed_at,
                &status,
                &reply,
                &errors,
                &states,
                &over,
            ],
        )
        .await
        .unwrap();
    assert_eq!(settled.len(), runs.len());
    let hot = "select sum(pg_stat_get_xact_tuples_hot_updated(inhrelid))::bigint
               from pg_inherits where inhparent = 'walclock.runs'::regclass";
    let hot: i64 = transaction.query_one(hot, &[]).await.unwrap().get(0);
    // A new row stands in the page of the old one. Some find no room, as they are a little larger and none is out of use yet.
    assert!(usize::try_from(hot).unwrap() >= runs.len() * 4 / 5, "{hot} of {}", runs.len());
}

/// A run as the claims of a walclock of before make it.
const ADD_RUN: &str = "insert into walclock.runs (namespace, id, claimed_at, shard, epoch, state, execute_at, due_at,
        callback_url, callback_method, callback_headers, callback_timeout_seconds, retry_duration, retry_interval_first,
        retry_multiplier, retry_interval_max, attempts, created_at, updated_at, answered_at)
    select 'space', n::text, now() - n % 2 * interval '1 s', (hashtextextended('space/' || n, 0) & 255)::smallint, 0,
        case when n <= 5 then 'running' else 'succeeded' end, now(), now(), 'http://localhost/', 'POST', '{}', 30, '1 day',
        '1 s', 2, '5 min', 1, now(), now(), case when n > 5 then now() end
    from generate_series(1, 8) n";

#[tokio::test(flavor = "multi_thread")]
async fn what_a_walclock_of_before_claims_is_found() {
    let world = Postgres::new().await;
    world.client.batch_execute(ADD_RUN).await.unwrap();
    assert_eq!(under_way(&world.client).await, ["1", "2", "3", "4", "5"]);
    let a = contract::owner("a");
    let grant = contract::lease(&world, &a, Shard::COUNT).await;
    assert_eq!(world.store.adopt(&a, &grant.held, 10).await.unwrap().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_while_the_schema_is_migrated_is_found() {
    let world = Postgres::new().await;
    let undo = "delete from walclock.walclock_migrations where version >= 11;
                drop table walclock.claims cascade;
                drop function walclock.note_run, walclock.is_fit cascade;
                alter table walclock.runs drop column noted;
                create index runs_running_by_shard on walclock.runs (shard) where state = 'running'";
    world.client.batch_execute(undo).await.unwrap();
    world.client.batch_execute(ADD_RUN).await.unwrap();
    migrate::run(&Settings::parse(&world.url).unwrap()).await.unwrap();
    assert_eq!(claims(&world.client).await.concat().len(), 5);
    assert_eq!(under_way(&world.client).await, without_an_answer(&world.client).await);
    let a = contract::owner("a");
    let grant = contract::lease(&world, &a, Shard::COUNT).await;
    assert_eq!(world.store.adopt(&a, &grant.held, 10).await.unwrap().len(), 5);
}
