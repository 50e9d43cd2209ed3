//! Benches: each prints a ratio against something measured in the same run. `cargo bench -- NAME` runs one of them.
#![expect(clippy::print_stdout, reason = "figures for people")]

mod delivery;
mod plain_client;
mod receiver;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let runs = |name: &str| wanted.is_empty() || wanted.iter().any(|argument| argument == name);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if runs("delivery") {
        runtime.block_on(delivery::run());
    }
}
