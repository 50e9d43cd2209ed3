//! Benches: each prints a ratio against something measured in the same run. `cargo bench -- NAME` runs one of them. It exits
//! with 1 where a target was missed, unless it is only to be printed: `VERDICT=print`.
#![expect(clippy::print_stdout, reason = "figures for people")]

mod arrivals;
mod beside_peers;
mod burst;
mod catch_up;
mod counting;
mod create;
mod crowd;
mod delivery;
mod fan_out;
mod far_future;
mod feed_drain;
mod feed_latency;
mod filled;
mod insert_to_callback;
mod journal_purge;
mod journal_reads;
mod lateness;
mod plain_client;
mod receiver;
mod support;
mod tail_scopes;
mod timers_fired;
mod verdict;
mod writers;

use std::process::ExitCode;

use verdict::Verdict;

fn main() -> ExitCode {
    // A wrong one is told before an hour of benches.
    let is_printed_alone = verdict::is_printed_alone();
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let runs = |name: &str| wanted.is_empty() || wanted.iter().any(|argument| argument == name);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut verdicts: Vec<Verdict> = Vec::new();
    if runs("feed_drain") {
        verdicts.extend(runtime.block_on(feed_drain::run()));
    }
    if runs("feed_latency") {
        verdicts.extend(runtime.block_on(feed_latency::run()));
    }
    if runs("fan_out") {
        verdicts.extend(runtime.block_on(fan_out::run()));
    }
    if runs("catch_up") {
        verdicts.extend(runtime.block_on(catch_up::run()));
    }
    if runs("tail_scopes") {
        verdicts.extend(runtime.block_on(tail_scopes::run()));
    }
    if runs("journal_reads") {
        verdicts.extend(journal_reads::run());
    }
    if runs("journal_purge") {
        verdicts.extend(journal_purge::run());
    }
    if runs("writers") {
        verdicts.extend(runtime.block_on(writers::run()));
    }
    if runs("create") {
        verdicts.extend(runtime.block_on(create::run()));
    }
    if runs("timers_fired") {
        verdicts.extend(runtime.block_on(timers_fired::run()));
    }
    if runs("lateness") {
        verdicts.extend(runtime.block_on(lateness::run()));
    }
    if runs("insert_to_callback") {
        verdicts.extend(runtime.block_on(insert_to_callback::run()));
    }
    if runs("burst") {
        verdicts.extend(runtime.block_on(burst::run()));
    }
    if runs("far_future") {
        verdicts.extend(runtime.block_on(far_future::run()));
    }
    if runs("delivery") {
        runtime.block_on(delivery::run());
    }
    // It needs a program that is not built with walclock, so it is never run with the others.
    if wanted.iter().any(|argument| argument == "peers") {
        verdicts.extend(runtime.block_on(beside_peers::run()));
    }
    match verdict::print_table(&verdicts) || is_printed_alone {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
