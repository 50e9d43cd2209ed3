//! The wall clock of the machine is set while timers are due: it moves none of them. Where it says something quite
//! different from the database's from the start, nothing is fired until they agree.
//!
//! A library that is loaded before the others shifts what a walclock process reads; PostgreSQL's clock is the real one, as
//! is that of the receivers.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use walclock::clock::wall;

use super::ledger::{Deed, Outcome, Script};
use super::world::{Node, PATIENCE, World};
use crate::chaos::soak;
use crate::support::server::folder;
use crate::support::{connect, eventually, http, migrated, preload, say_skipped};

const SECOND: i64 = 1_000_000;
pub const HOUR: i64 = 3600 * SECOND;

/// The wall clock of some process.
pub struct WallClock {
    library: PathBuf,
    path: PathBuf,
    offset: File,
}

impl WallClock {
    /// One that is right. None where nothing can be preloaded.
    pub fn new() -> Option<Self> {
        let (library, folder) = (preload::library("firing/clock.c")?, folder());
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("offset");
        let clock = Self { library, offset: File::create(&path).unwrap(), path };
        clock.set(0);
        Some(clock)
    }

    /// Sets it to so many microseconds ahead of the real one.
    pub fn set(&self, micros: i64) {
        self.offset.write_all_at(&micros.to_ne_bytes(), 0).unwrap();
    }

    /// A process that goes by it.
    fn node(&self, database: &str, flags: &[&str]) -> Node {
        Node::new(database, flags).among(self.variables())
    }

    /// The environment of a process that goes by it.
    pub fn variables(&self) -> Vec<(String, PathBuf)> {
        preload::variables(&self.library, "CLOCK_OFFSET_FILE", &self.path)
    }
}

/// Waits until a process says that its wall clock is so far ahead of the database's, within a minute.
async fn tells(node: &Node, micros: i64) {
    #[expect(clippy::cast_precision_loss, reason = "some hours")]
    let seconds = micros as f64 / 1e6;
    let told = async || {
        let offset = node.metric("walclock_clock_offset_seconds").await?;
        ((offset - seconds).abs() < 60.0).then_some(())
    };
    eventually(PATIENCE, &format!("it tells that it is {seconds} s ahead"), told).await;
}

/// What a process has fired so far.
async fn fired(node: &Node) -> f64 {
    let told = async || node.metric(r#"walclock_callbacks_total{outcome="succeeded"}"#).await;
    eventually(PATIENCE, "it tells what it has fired", told).await
}

/// Waits until each process has fired some more, and the API has taken a timer from a client.
async fn goes_on(world: &World) {
    let mut before = Vec::new();
    for node in &world.nodes {
        before.push(fired(node).await);
    }
    for (node, before) in world.nodes.iter().zip(before) {
        let more = async || (fired(node).await >= before + 5.0).then_some(());
        eventually(PATIENCE, "each process fires", more).await;
    }
    let since = world.desk.book.lock().len();
    let created = async || {
        let book = world.desk.book.lock();
        let is_new = |act: &&super::ledger::Act| matches!(act.deed, Deed::Create(_)) && act.outcome == Outcome::Done;
        book[since..].iter().find(is_new).map(drop)
    };
    eventually(PATIENCE, "the future of a client is the future", created).await;
}

/// Goes on while clocks are set back and forth between half a second ahead and half a second behind.
async fn goes_on_by_a_saw(world: &World, clocks: &[WallClock]) {
    let saw = async {
        for direction in [1, -1].into_iter().cycle() {
            clocks.iter().for_each(|clock| clock.set(direction * SECOND / 2));
            // The teeth of the saw.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = saw => {}
        () = goes_on(world) => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wall_clock_that_is_set_moves_no_timer() {
    let (Some(one), Some(other)) = (WallClock::new(), WallClock::new()) else {
        return say_skipped("a_wall_clock_that_is_set_moves_no_timer", "nothing can be preloaded here");
    };
    let (database, clocks) = (migrated().await, [one, other]);
    // What the wall clock says later than at the start does not count, however far it is.
    let flags = ["--lease-ttl", "10s", "--clock-offset-max", "10m"];
    let nodes = clocks.iter().map(|clock| clock.node(&database, &flags)).collect();
    let mut world = World::start_with(&database, nodes).await;
    world.load();
    world.progress(30).await;
    for _ in 0..soak() {
        for set in 1..=clocks.len() {
            for offset in [2 * HOUR, -HOUR] {
                clocks[..set].iter().for_each(|clock| clock.set(offset));
                for (at, node) in world.nodes.iter().enumerate() {
                    tells(node, if at < set { offset } else { 0 }).await;
                }
                goes_on(&world).await;
            }
            goes_on_by_a_saw(&world, &clocks[..set]).await;
            clocks.iter().for_each(|clock| clock.set(0));
        }
    }
    world.finish().await;
    for node in &world.nodes {
        let log = node.server().log();
        assert!(!log.contains("clock-offset-max"), "it held timers back:\n{log}");
    }
}

/// Waits until a process says of its dispatcher what is asked for, of its state and the reason.
async fn says(node: &Node, what: &str, is_so: impl Fn(&str, &str) -> bool) {
    let told = async || {
        let (url, headers) = (node.server().management_url(), [("accept", "application/json")]);
        let answer = http::get(&url, "/ready?verbose", &headers).await;
        assert_eq!(answer.status, 200, "its answers are correct all the while");
        let parts: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        let part = parts["checks"].as_array().unwrap().iter().find(|check| check["name"] == "dispatcher")?;
        is_so(part["status"].as_str().unwrap(), part["detail"].as_str().unwrap()).then_some(())
    };
    eventually(PATIENCE, what, told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wall_clock_that_was_never_near_the_databases_holds_timers_back_until_it_is() {
    const DUE: usize = 30;
    let Some(clock) = WallClock::new() else {
        let test = "a_wall_clock_that_was_never_near_the_databases_holds_timers_back_until_it_is";
        return say_skipped(test, "nothing can be preloaded here");
    };
    let database = migrated().await;
    // No other doubt, however busy the machine is.
    let flags = ["--lease-ttl", "10s", "--clock-offset-max", "1h", "--clock-error-max", "1m", "--clock-age-max", "1h"];
    clock.set(2 * HOUR);
    let mut world = World::start_with(&database, vec![clock.node(&database, &flags)]).await;
    let sql = connect(&database).await;
    let held = async |node: &Node, is_held: f64| {
        let told = async || node.metric("walclock_firing_held_back").await.filter(|held| *held == is_held).map(drop);
        eventually(PATIENCE, &format!("it holds timers back: {is_held}"), told).await;
    };
    for offset in [2 * HOUR, -3 * HOUR] {
        clock.set(offset);
        let node = &world.nodes[0];
        held(node, 1.0).await;
        tells(node, offset).await;
        // The nearer of what it says and of what it said at the start.
        let is_so = |status: &str, detail: &str| {
            let figure = |word: &str| word.parse().is_ok_and(|seconds: i64| (seconds - 7200).abs() < 60);
            let is_clear = detail.starts_with("no timer is fired for now: ") && detail.contains("clock-offset-max");
            status == "degraded" && is_clear && detail.split(' ').any(figure)
        };
        says(node, "it tells why", is_so).await;
        let before = world.sink.count();
        for timer in 0..DUE {
            let want = world.desk.want(wall(), Script::Takes);
            assert!(world.desk.by_sql(&sql, &format!("{offset}-{timer}"), Deed::Insert(want)).await);
        }
        #[expect(clippy::cast_precision_loss, reason = "a few")]
        let known =
            async || (node.metric("walclock_due_queue_entries").await.unwrap_or(0.0) >= DUE as f64).then_some(());
        eventually(PATIENCE, "the timers are known", known).await;
        assert_eq!(world.sink.count(), before);

        let back_at = wall();
        clock.set(0);
        let all = async || (world.sink.count() >= before + DUE).then_some(());
        eventually(PATIENCE, "they are called", all).await;
        let early = world.sink.calls().into_iter().skip(before).find(|call| call.at < back_at);
        assert!(early.is_none(), "it was called while timers were held back: {early:?}");
        held(&world.nodes[0], 0.0).await;
        says(&world.nodes[0], "it is well again", |status, detail| status == "ready" && detail.is_empty()).await;
    }
    world.finish().await;
}
