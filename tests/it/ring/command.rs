//! `walclock shards` and `walclock timers history`, run as an operator runs them.

use std::process::{Command, Output};

use serde_json::{Value, json};
use walclock::domain::shard::Shard;

use super::Ring;
use crate::contract;
use crate::store::world::Postgres;

async fn walclock(database: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walclock"));
    command.args(["--log", "off"]).args(arguments).args(["--database-url", database]);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shards_are_shown_with_who_holds_them() {
    let ring = Ring::new().await;
    let servers = [(); 2].map(|()| ring.dispatcher("30s"));
    let shares = ring.until_shared_by(2).await;
    let output = walclock(&ring.database, &["shards", "--json"]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&shown["total"], &shown["held"], &shown["free"]), (&json!(256), &json!(256), &json!(0)));
    for server in &servers {
        let owner = ring.owner_of(server).await;
        let dispatchers = shown["dispatchers"].as_array().unwrap();
        let one = dispatchers.iter().find(|one| one["owner"] == owner.as_str()).unwrap();
        assert_eq!((&one["pid"], &one["isAlive"]), (&json!(server.pid().as_raw_nonzero().get()), &json!(true)));
        assert_eq!(one["shards"], shares[&owner].len());
        let held = shown["shards"].as_array().unwrap().iter().filter(|shard| shard["owner"] == owner.as_str());
        let held: Vec<u64> = held.map(|shard| shard["shard"].as_u64().unwrap()).collect();
        assert_eq!(held, shares[&owner].iter().map(|shard| u64::from(*shard)).collect::<Vec<_>>());
    }
    let output = walclock(&ring.database, &["shards"]).await;
    let lines: Vec<&str> = text(&output.stdout).lines().collect();
    assert!(lines[0].starts_with("256 shards at ") && lines[0].ends_with(": 256 held, 0 expired, 0 free"), "{lines:?}");
    assert_eq!((lines[1], lines.len()), ("2 dispatchers alive", 6));

    let output = walclock("postgres://nobody@127.0.0.1:1/none", &["shards"]).await;
    assert_eq!((output.status.code(), text(&output.stderr).lines().count()), (Some(1), 1));
    drop(servers);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ran_out_and_what_is_free_is_named() {
    let world = Postgres::new().await;
    contract::lease(&world, &contract::owner("a"), 10).await;
    world.client.batch_execute("update walclock.shards set expires_at = now() where shard in (3, 4)").await.unwrap();
    let output = walclock(&world.url, &["shards"]).await;
    let shown = text(&output.stdout);
    assert!(shown.contains(": 8 held, 2 expired, 246 free\n"), "{shown}");
    assert!(shown.contains("\nexpired, last held by a: 3-4\n") && shown.ends_with("\nfree: 10-255\n"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_attempts_of_a_timer_are_shown() {
    let world = Postgres::new().await;
    let (a, key) = (contract::owner("a"), contract::key("tea"));
    let grant = contract::lease(&world, &a, Shard::COUNT).await;
    let history = ["timers", "history", "--namespace", "space", "--id", "tea"];
    let output = walclock(&world.url, &history).await;
    assert_eq!(text(&output.stderr), "walclock: there is no timer space/tea\n");

    let run = contract::run(&world, &a, &grant, &key).await;
    let output = walclock(&world.url, &[&history[..], &["--json"]].concat()).await;
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&shown["attempt"], &shown["outcome"], &shown["sentAt"]), (&json!(1), &json!("running"), &Value::Null));

    contract::settle(&world, &a, &[contract::retry_at(&run, run.key.claimed_at)]).await;
    let again = contract::claim(&world, &a, &grant, &[&key]).await.runs.remove(0);
    contract::settle(&world, &a, &[contract::succeeded(&again)]).await;
    let output = walclock(&world.url, &history).await;
    let lines: Vec<&str> = text(&output.stdout).lines().collect();
    assert_eq!(lines.len(), 5, "{lines:?}");
    let words = |line: usize| lines[line].split_whitespace().collect::<Vec<_>>();
    assert_eq!(words(0), ["ATTEMPT", "OUTCOME", "DUE", "LATE", "TOOK", "STATUS", "ERROR"]);
    assert_eq!((&words(1)[..2], &words(1)[4..]), (&["1", "retried"][..], &["2.00ms", "503", "status", "503"][..]));
    assert_eq!(words(2), ["the", "answer"]);
    // What kept the first attempt from succeeding is no error of the second.
    assert_eq!((&words(3)[..2], &words(3)[4..]), (&["2", "succeeded"][..], &["2.00ms", "200"][..]));
    let last = [&history[..], &["--limit", "1", "--json"]].concat();
    let output = walclock(&world.url, &last).await;
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["attempt"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_without_an_attempt_has_an_empty_history() {
    let world = Postgres::new().await;
    let later = contract::definition(&contract::key("tea"), contract::ago(&world, std::time::Duration::ZERO).await);
    contract::World::put(&world, &later).await;
    let output = walclock(&world.url, &["timers", "history", "--namespace", "space", "--id", "tea", "--json"]).await;
    assert_eq!((output.status.success(), text(&output.stdout)), (true, ""));
}
