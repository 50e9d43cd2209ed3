//! The days of history come and go.

use std::time::Duration;

use walclock::store::partitions;
use walclock::store::{Config, Store};

use super::world::Postgres;
use crate::contract;
use crate::support;

const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// A day long past, with its two partitions.
async fn add_old_day(world: &Postgres) {
    let add = "create table walclock.runs_20200101 partition of walclock.runs
                   for values from ('2020-01-01 00:00+00') to ('2020-01-02 00:00+00');
               create table walclock.attempts_20200101 partition of walclock.attempts
                   for values from ('2020-01-01 00:00+00') to ('2020-01-02 00:00+00');";
    world.client.batch_execute(add).await.unwrap();
}

async fn old_partitions(world: &Postgres) -> i64 {
    let count = "select count(*) from pg_class where relname in ('runs_20200101', 'attempts_20200101')";
    world.client.query_one(count, &[]).await.unwrap().get(0)
}

async fn partitions_ahead(world: &Postgres) -> i64 {
    let count = "select count(*) from pg_inherits i join pg_class c on c.oid = i.inhrelid
                 where c.relkind = 'r' and c.relname > 'runs_' || to_char(now() at time zone 'UTC', 'YYYYMMDD')";
    world.client.query_one(count, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_week_ahead_is_made_and_made_once() {
    let world = Postgres::new().await;
    let made = "select walclock.make_partitions(9)";
    assert_eq!(world.client.query_one(made, &[]).await.unwrap().get::<_, i32>(0), 4);
    assert_eq!(world.client.query_one(made, &[]).await.unwrap().get::<_, i32>(0), 0);
    assert_eq!(partitions_ahead(&world).await, 9);
    let (a, b) = tokio::join!(partitions::tick(&world.store, WEEK), partitions::tick(&world.store, WEEK));
    a.and(b).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_retention_has_passed_is_dropped() {
    let world = Postgres::new().await;
    add_old_day(&world).await;
    partitions::tick(&world.store, Duration::from_secs(100 * 366 * 86_400)).await.unwrap();
    assert_eq!(old_partitions(&world).await, 2);
    partitions::tick(&world.store, WEEK).await.unwrap();
    assert_eq!(old_partitions(&world).await, 0);
    assert_eq!(partitions_ahead(&world).await, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_of_somebody_elses_is_left_alone() {
    let world = Postgres::new().await;
    add_old_day(&world).await;
    let attach = "create table walclock.runs_archive partition of walclock.runs
                      for values from ('2019-01-01 00:00+00') to ('2020-01-01 00:00+00')";
    world.client.batch_execute(attach).await.unwrap();
    partitions::tick(&world.store, WEEK).await.unwrap();
    assert_eq!(old_partitions(&world).await, 0);
    world.client.batch_execute("table walclock.runs_archive").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_with_a_run_under_way_is_kept() {
    let world = Postgres::new().await;
    add_old_day(&world).await;
    let a = contract::owner("a");
    let grant = contract::lease(&world, &a, 256).await;
    contract::run(&world, &a, &grant, &contract::key("first")).await;
    let age = "update walclock.runs set claimed_at = '2020-01-01 12:00+00';
               update walclock.claims set claimed_at = '2020-01-01 12:00+00'";
    world.client.batch_execute(age).await.unwrap();
    partitions::tick(&world.store, WEEK).await.unwrap();
    assert_eq!(old_partitions(&world).await, 2);
    // Its claim is still there, and says nothing by itself.
    let end = "update walclock.runs set state = 'succeeded', answered_at = now()";
    world.client.batch_execute(end).await.unwrap();
    partitions::tick(&world.store, WEEK).await.unwrap();
    assert_eq!(old_partitions(&world).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_an_old_day_stops_neither_the_tick_nor_the_claims() {
    let world = Postgres::new().await;
    add_old_day(&world).await;
    let reader = support::connect(&world.url).await;
    reader.batch_execute("begin; select count(*) from walclock.runs").await.unwrap();
    partitions::tick(&world.store, WEEK).await.unwrap();
    assert_eq!(old_partitions(&world).await, 2);
    let a = contract::owner("a");
    let grant = contract::lease(&world, &a, 256).await;
    contract::run(&world, &a, &grant, &contract::key("first")).await;
    reader.batch_execute("commit").await.unwrap();
    partitions::tick(&world.store, WEEK).await.unwrap();
    assert_eq!(old_partitions(&world).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_owns_nothing_can_do_all_of_it() {
    let world = Postgres::new().await;
    add_old_day(&world).await;
    let drop_tomorrow = "do $$ begin execute 'drop table walclock.runs_' ||
                             to_char(now() at time zone 'UTC' + interval '1 day', 'YYYYMMDD'); end $$";
    let grants = "create role clerk login;
                  grant usage on schema walclock to clerk;
                  grant select, insert, update, delete on all tables in schema walclock to clerk;
                  grant execute on function walclock.make_partitions, walclock.drop_partitions to clerk";
    world.client.batch_execute(drop_tomorrow).await.unwrap();
    world.client.batch_execute(grants).await.unwrap();
    let settings = walclock::pg::Settings::parse(&world.url.replace("postgres@", "clerk@")).unwrap();
    let clerk = Postgres { store: Store::new(Config::new(settings)).unwrap(), ..Postgres::new_on(&world.url).await };
    partitions::tick(&clerk.store, WEEK).await.unwrap();
    assert_eq!((partitions_ahead(&clerk).await, old_partitions(&clerk).await), (7, 0));
    let a = contract::owner("a");
    let grant = contract::lease(&clerk, &a, 256).await;
    let run = contract::run(&clerk, &a, &grant, &contract::key("first")).await;
    assert_eq!(contract::settle(&clerk, &a, &[contract::retry_at(&run, run.key.claimed_at)]).await, [true]);
}
