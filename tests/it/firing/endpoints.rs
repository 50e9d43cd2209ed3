//! Receivers that misbehave, alone or all together, and a herd of timers that is due at one moment.

use std::time::Duration;

use walclock::clock::wall;

use super::ledger::{Deed, Failure, Outcome, Script, Want};
use super::sink::Mood;
use super::world::{PATIENCE, World};
use crate::chaos::soak;
use crate::support::{connect, eventually, http, migrated};

const INSERT_MANY: &str = "insert into walclock.timers
    (namespace, id, execute_at, callback_url, callback_timeout_seconds, payload,
     retry_attempts_max, retry_interval_first, retry_interval_max)
    select 'default', id, execute_at, url, 60, payload::json, $5, interval '100 ms', interval '400 ms'
    from unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[]) as t (id, execute_at, url, payload)";

/// Inserts these timers in one statement, each at its URL.
async fn insert_many(world: &World, name: &str, wants: &[(Want, String)], attempts: Option<i32>) {
    let timers: Vec<String> = wants.iter().map(|(want, _)| format!("{name}-{}", want.number)).collect();
    let due: Vec<_> = wants.iter().map(|(want, _)| want.due).collect();
    let urls: Vec<&str> = wants.iter().map(|(_, url)| url.as_str()).collect();
    let payloads: Vec<String> = wants.iter().map(|(want, _)| super::clients::Desk::payload(*want)).collect();
    let sql = connect(&world.database).await;
    sql.execute(INSERT_MANY, &[&timers, &due, &urls, &payloads, &attempts]).await.unwrap();
    for (timer, (want, _)) in timers.iter().zip(wants) {
        world.desk.note(timer, Deed::Insert(*want), Outcome::Done);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_herd_at_one_second_fires_beside_a_steady_load() {
    let herd_size: usize = if soak() > 1 { 20_000 } else { 4_000 };
    let mut world = World::start_well(&migrated().await, 2).await;
    world.load();
    world.progress(30).await;
    let memory: Vec<u64> = world.nodes.iter().map(|node| node.server().memory_peak()).collect();
    // A machine that is too busy for a while may lose leases; then calls that are under way are made again.
    world.broken("a herd");
    for _ in 0..soak() {
        let due = wall().after(Duration::from_secs(3));
        let herd: Vec<_> = (0..herd_size)
            .map(|n| {
                (
                    world.desk.want(due, Script::Takes),
                    world.sink.url_on(u8::try_from(n % 50).unwrap() + 1, Script::Takes),
                )
            })
            .collect();
        insert_many(&world, "herd", &herd, None).await;
        world.progress(1_000).await;
        for node in &world.nodes {
            assert_eq!(http::get(&node.server().management_url(), "/health", &[]).await.status, 200);
        }
        world.progress(herd_size - 2_000).await;
    }
    world.finish().await;
    for (node, before) in world.nodes.iter().zip(memory) {
        let grown = node.server().memory_peak().saturating_sub(before);
        assert!(grown < 200 << 20, "{grown} bytes more for a herd");
    }
}

/// What never answers, answers for ever, or cannot be reached holds up nobody else, and comes to its end.
#[tokio::test(flavor = "multi_thread")]
async fn poison_beside_healthy_endpoints_harms_only_itself() {
    const OF_EACH: usize = 8;
    let mut world = World::start_well(&migrated().await, 2).await;
    world.sink.set(Mood::Stuck);
    let poison = [
        Script::Fails(Failure::Hang, 1),
        Script::Fails(Failure::Huge, 2),
        Script::Fails(Failure::Redirect, 4),
        Script::Fails(Failure::Reset, 2),
        Script::Fails(Failure::Headers, 4),
        Script::Fails(Failure::Error, 4),
        Script::Fails(Failure::NotDone, 4),
        Script::Fails(Failure::Drip, 1),
    ];
    let timers = |script: Script| (world.desk.want(wall(), script), world.sink.url(script));
    let poisoned: Vec<_> = poison.into_iter().flat_map(|script| [script; OF_EACH]).map(timers).collect();
    insert_many(&world, "poison", &poisoned, Some(4)).await;
    let sql = connect(&world.database).await;
    let unreachable = [
        "http://nowhere.invalid/",
        "https://127.0.8.1:1/",
        "http://10.1.2.3/",
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]:1/",
        "http://999.1.1.1/",
    ];
    let insert = "insert into walclock.timers (namespace, id, execute_at, callback_url, retry_attempts_max, retry_interval_first)
        select 'default', 'unreachable-' || url, now(), url, 2, interval '100 ms' from unnest($1::text[]) url";
    sql.execute(insert, &[&unreachable.as_slice()]).await.unwrap();

    // While those that hang still hang, all the healthy ones are called and written.
    let healthy = |n: u64| {
        (world.desk.want(wall().after(Duration::from_millis(n * 5)), Script::Takes), world.sink.url(Script::Takes))
    };
    let healthy: Vec<_> = (0..300).map(healthy).collect();
    insert_many(&world, "healthy", &healthy, Some(1)).await;
    let count = async |state: &str, name: &str| -> i64 {
        let query = "select count(*) from walclock.runs where state = $1 and id like $2 || '-%'";
        sql.query_one(query, &[&state, &name]).await.unwrap().get(0)
    };
    let all = async || (count("succeeded", "healthy").await == 300).then_some(());
    eventually(PATIENCE, "the healthy ones are called", all).await;
    assert!(count("running", "poison").await > 0, "nothing hung meanwhile");
    let gone = i64::try_from(unreachable.len()).unwrap();
    let failed = async || (count("failed", "unreachable").await == gone).then_some(());
    eventually(PATIENCE, "what cannot be reached has failed", failed).await;
    world.sink.set(Mood::Well);
    world.finish().await;
    let few = async || (world.sink.open() < 64).then_some(());
    eventually(PATIENCE, "connections are given back", few).await;
}

/// Nobody answers well for a while: each timer is tried as its policy says and no more, and all are taken afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_all_endpoints_is_no_storm_and_loses_nothing() {
    const TIMERS: usize = 300;
    let mut world = World::start_well(&migrated().await, 2).await;
    world.sink.set(Mood::Down);
    let down_at = wall();
    let timer = |n: usize| {
        (
            world.desk.want(wall(), Script::Outlasts),
            world.sink.url_on(u8::try_from(n % 10).unwrap() + 1, Script::Outlasts),
        )
    };
    let timers: Vec<_> = (0..TIMERS).map(timer).collect();
    insert_many(&world, "outage", &timers, None).await;
    let all = async || {
        let called: std::collections::BTreeSet<String> =
            world.sink.calls().into_iter().map(|call| call.timer).collect();
        (called.len() >= TIMERS / 10 && world.sink.count() >= TIMERS).then_some(())
    };
    eventually(PATIENCE, "they are tried", all).await;
    // Hosts that do nothing but fail are spared: what is due for them goes back without a call.
    let deferred = async || {
        for node in &world.nodes {
            let deferred = node.metric("walclock_callbacks_deferred_total").await.unwrap_or_default();
            if deferred > 0.0 {
                return Some(());
            }
        }
        None
    };
    eventually(PATIENCE, "hosts are spared", deferred).await;
    let (during, down) = (world.sink.count(), wall().since(down_at));
    world.sink.set(Mood::Well);
    // The first attempts, and then one in each of the shortest waits: 80, 160 and then 320 ms.
    let tries = 3 + usize::try_from(down.as_millis() / 320).unwrap();
    assert!(during <= TIMERS * tries, "{during} calls of {TIMERS} timers in {down:?}");
    let evidence = world.finish().await;
    let up_at = down_at.after(down);
    let after = evidence.calls.iter().filter(|call| call.at > up_at).count();
    // A call that was answered 503 may have arrived before and been counted behind.
    assert!(after <= 2 * TIMERS, "{after} calls to take {TIMERS} timers");
}
