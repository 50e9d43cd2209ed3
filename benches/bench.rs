//! Benches: each prints a ratio against something measured in the same run. `cargo bench -- NAME` runs one of them.
#![expect(clippy::print_stdout, reason = "figures for people")]

mod delivery;
mod feed_drain;
mod feed_latency;
mod plain_client;
mod receiver;
mod support;
mod timers_fired;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let runs = |name: &str| wanted.is_empty() || wanted.iter().any(|argument| argument == name);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if runs("feed_drain") {
        runtime.block_on(feed_drain::run());
    }
    if runs("feed_latency") {
        runtime.block_on(feed_latency::run());
    }
    if runs("timers_fired") {
        runtime.block_on(timers_fired::run());
    }
    if runs("delivery") {
        runtime.block_on(delivery::run());
    }
}
