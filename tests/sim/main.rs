//! Simulation: the pure machines against a model of the store, under a virtual clock and a seed. A thousand seeds run in
//! the normal test; `SEED=n` replays one and tells what happened, `SEEDS=n` runs so many.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first thing that is wrong")]

mod backlog;
#[path = "../contract/mod.rs"]
mod contract;
mod ledger;
mod model;
mod plan;
mod process;
mod schedules;
mod steady;
mod store;
mod storm;
mod watch;
mod world;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use plan::Plan;
use process::Planted;
use world::{Outcome, World};

/// Seeds of the normal test.
const SEEDS: u64 = 1_000;
/// Seeds of the tests of one matter each.
const FEW_SEEDS: u64 = 250;
/// Seeds within which each planted fault must be found.
const SEEDS_TO_FIND: u64 = 2_000;

/// Seeds that once failed, or that reach something rare.
const KEPT: &str = include_str!("seeds.txt");

#[expect(clippy::disallowed_methods, reason = "a seed is given on the command line of a test")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Runs the worlds of these seeds on all processors; stops at the first one that is broken. A world gives what it came to,
/// and what went wrong in it.
fn run<T: Send>(seeds: &[u64], world: impl Fn(u64) -> (T, Vec<String>) + Sync) -> (Vec<T>, Option<(u64, Vec<String>)>) {
    let next = AtomicU64::new(0);
    let failed = parking_lot::Mutex::new(None);
    let outcomes = parking_lot::Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failed.lock().is_none() {
                    let index = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap();
                    let Some(seed) = seeds.get(index).copied() else { return };
                    let world = std::panic::AssertUnwindSafe(|| world(seed));
                    match std::panic::catch_unwind(world) {
                        Ok((outcome, broken)) if broken.is_empty() => outcomes.lock().push(outcome),
                        Ok((_, broken)) => *failed.lock() = Some((seed, broken)),
                        Err(panic) => {
                            let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                            *failed.lock() = Some((seed, vec![format!("panic: {text}")]));
                        }
                    }
                }
            });
        }
    });
    (outcomes.into_inner(), failed.into_inner())
}

/// Runs so many worlds, and those of the seeds that are kept. One that is broken is told and noted.
fn check<T: Send>(seeds: u64, world: impl Fn(u64) -> (T, Vec<String>) + Sync) -> Vec<T> {
    let seeds: Vec<u64> = match number("SEED") {
        Some(seed) => vec![seed],
        None => {
            let kept = KEPT.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok());
            kept.chain(0..number("SEEDS").unwrap_or(seeds)).collect()
        }
    };
    let (outcomes, failed) = run(&seeds, world);
    if let Some((seed, broken)) = failed {
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        let noted = note(&test, seed, &broken);
        panic!(
            "SEED={seed} breaks an invariant:\n  {}\nnoted in {}; again: SEED={seed} cargo test --test sim {test}",
            broken.join("\n  "),
            noted.display(),
        );
    }
    outcomes
}

/// Writes down a seed that failed, so that it outlives what was printed: a line with the test, the seed and what it showed.
fn note(test: &str, seed: u64, broken: &[String]) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let path = target.join("sim-failed-seeds.txt");
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&path).unwrap();
    let what = broken.first().map(|what| what.replace('\n', " ")).unwrap_or_default();
    file.write_all(format!("{test} SEED={seed} {what}\n").as_bytes()).unwrap();
    path
}

/// The worlds of a plan of timers.
fn check_plan(seeds: u64, plan: fn(&mut fastrand::Rng) -> Plan) -> Vec<Outcome> {
    check(seeds, |seed| judged(World::run(seed, plan, Planted::Nothing)))
}

fn judged(mut outcome: Outcome) -> (Outcome, Vec<String>) {
    let broken = std::mem::take(&mut outcome.broken);
    (outcome, broken)
}

#[test]
fn the_invariants_hold_under_every_fault() {
    let outcomes = check_plan(SEEDS, Plan::faulty);
    let sends: usize = outcomes.iter().map(|outcome| outcome.sends).sum();
    let stale: u64 = outcomes.iter().map(|outcome| outcome.stale).sum();
    let left: u64 = outcomes.iter().map(|outcome| outcome.left).sum();
    // A simulation in which nothing happens proves nothing.
    if outcomes.len() > 100 {
        assert!(sends > 10 * outcomes.len(), "{sends} callbacks in {} worlds", outcomes.len());
        assert!(stale > 0, "no owner was ever too late");
        assert!(left > 0, "no process was ever stopped");
        // Those that failed together must not come back together: a wait of 100 ms is from 80 to 120.
        let (short, long) = (Duration::from_millis(85), Duration::from_millis(115));
        let waits = || outcomes.iter().flat_map(|outcome| &outcome.waits);
        assert!(waits().any(|wait| *wait < short) && waits().any(|wait| *wait > long), "waits are not spread");
    }
}

#[test]
fn nothing_is_late_where_all_is_well() {
    check_plan(FEW_SEEDS, Plan::punctual);
}

#[test]
fn nothing_is_late_for_longer_than_its_faults_last() {
    check_plan(FEW_SEEDS, Plan::roomy);
}

#[test]
fn the_sweep_finds_nothing_while_the_feed_is_good() {
    check_plan(FEW_SEEDS, Plan::with_a_good_feed);
}

#[test]
fn a_crowded_namespace_holds_up_no_other() {
    let outcomes = check_plan(FEW_SEEDS, Plan::crowded);
    if outcomes.len() > 100 {
        let light: usize = outcomes.iter().map(|outcome| outcome.light).sum();
        assert!(light > 10 * outcomes.len(), "{light} callbacks of the others in {} worlds", outcomes.len());
    }
}

#[test]
fn a_receiver_that_fails_behind_a_gateway_puts_off_no_other() {
    let outcomes = check_plan(FEW_SEEDS, Plan::with_a_failing_receiver);
    if outcomes.len() > 100 {
        let deferred: u64 = outcomes.iter().map(|outcome| outcome.deferred).sum();
        assert!(deferred > u64::try_from(outcomes.len()).unwrap(), "{deferred} deferrals");
    }
}

#[test]
fn namespaces_take_turns_at_a_gateway() {
    let outcomes = check_plan(FEW_SEEDS, Plan::with_a_crowded_gateway);
    if outcomes.len() > 100 {
        let light: usize = outcomes.iter().map(|outcome| outcome.light).sum();
        assert!(light > 10 * outcomes.len(), "{light} callbacks of the others in {} worlds", outcomes.len());
    }
}

#[test]
fn a_receiver_that_hangs_behind_a_gateway_holds_up_no_other() {
    let outcomes = check_plan(FEW_SEEDS, Plan::with_a_hanging_receiver);
    if outcomes.len() > 100 {
        let light: usize = outcomes.iter().map(|outcome| outcome.light).sum();
        assert!(light > 10 * outcomes.len(), "{light} callbacks of the others in {} worlds", outcomes.len());
    }
}

#[test]
fn a_host_that_is_down_is_spared() {
    let outcomes = check_plan(FEW_SEEDS, Plan::with_hosts_down);
    if outcomes.len() > 100 {
        let deferred: u64 = outcomes.iter().map(|outcome| outcome.deferred).sum();
        assert!(deferred > 10 * u64::try_from(outcomes.len()).unwrap(), "{deferred} deferrals");
    }
}

#[test]
fn the_invariants_hold_while_every_answer_may_be_lost() {
    check_plan(FEW_SEEDS, Plan::with_lost_answers);
}

#[test]
fn the_sweep_comes_though_the_horizon_moves_whenever_it_is_due() {
    check_plan(FEW_SEEDS, Plan::in_step);
}

#[test]
fn the_invariants_hold_however_long_a_run_waits_for_its_server() {
    check_plan(FEW_SEEDS, Plan::with_lines);
}

#[test]
fn nothing_is_repeated_by_a_process_that_only_loses_answers() {
    check_plan(FEW_SEEDS, Plan::alone);
}

#[test]
fn nothing_is_repeated_where_processes_only_come_and_go() {
    let outcomes = check_plan(FEW_SEEDS, Plan::orderly);
    let left: u64 = outcomes.iter().map(|outcome| outcome.left).sum();
    assert!(outcomes.len() < 100 || left > 0, "no process was ever stopped");
}

/// Each defence is left out in turn, and the simulation must see it by these words.
fn finds(planted: Planted, plan: fn(&mut fastrand::Rng) -> Plan, words: &str) {
    let seeds: Vec<u64> = (0..SEEDS_TO_FIND).collect();
    let (_, failed) = run(&seeds, |seed| judged(World::run(seed, plan, planted)));
    let (seed, broken) = failed.unwrap_or_else(|| panic!("{planted:?} is not found within {SEEDS_TO_FIND} seeds"));
    assert!(!broken.iter().any(|what| what.starts_with("panic")), "SEED={seed} stops at {broken:?}");
    assert!(broken.iter().any(|what| what.contains(words)), "SEED={seed} finds of {planted:?}: {broken:?}");
}

macro_rules! finds {
    ($($name:ident: $planted:ident in $plan:ident $(by $words:literal)?;)*) => {
        $(#[test]
        fn $name() {
            finds(Planted::$planted, Plan::$plan, concat!($($words)?));
        })*
    };
}

finds! {
    finds_a_store_that_ignores_epochs: StoreIgnoresEpochs in faulty;
    finds_a_store_that_ignores_cancels: StoreIgnoresCancels in faulty;
    finds_a_clock_that_is_ahead: ClockAhead in faulty;
    finds_that_left_timers_are_forgotten: ForgetsLeft in with_a_good_feed;
    finds_that_gaps_are_ignored: IgnoresGaps in with_a_good_feed;
    finds_that_runs_are_not_adopted: NoAdoption in faulty;
    finds_that_leases_are_trusted_for_ever: TrustsLeases in faulty;
    finds_that_lines_do_not_look_at_leases: LinesTrustLeases in with_lines;
    finds_that_doubted_leases_are_released: ReleasesDoubted in alone;
    finds_that_busy_shards_are_handed_over: HandsOverBusy in orderly;
    finds_that_leases_are_counted_by_a_clock_that_sleeps: SleepingClock in faulty;
    finds_that_lost_claims_are_forgotten: ForgetsLostClaims in faulty;
    finds_that_lost_adoptions_are_forgotten: ForgetsLostAdoptions in with_lost_answers;
    finds_that_lost_settles_are_forgotten: ForgetsLostSettles in faulty;
    finds_that_rows_are_not_loaded: NoLoads in faulty;
    finds_that_namespaces_do_not_take_turns: OneNamespace in crowded;
    finds_that_receivers_are_spared_together: OneNamespace in with_a_failing_receiver by "another's failures";
    finds_that_a_host_has_one_line: OneNamespace in with_a_crowded_gateway by "passed over";
    finds_that_places_have_no_shares: OneNamespace in with_a_hanging_receiver by "late by";
    finds_that_hosts_have_no_bound: NoHostBound in faulty;
    finds_that_hosts_have_no_rate: NoHostRate in faulty;
    finds_that_hosts_are_not_spared: NoBreaker in with_hosts_down;
    finds_that_deferrals_are_forgotten: ForgetsDeferrals in with_hosts_down;
    finds_that_news_are_not_heard: DeafToNews in punctual by "late by";
    finds_that_the_leases_of_the_dead_go_on: LeasesOutlast in roomy by "late by";
}
