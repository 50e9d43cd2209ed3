//! The binary: see `walclock --help`.

use std::process::ExitCode;

/// Costs less CPU than the system's where threads free what others allocated, and gives memory back. `.cargo/config.toml` says when.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    walclock::cli::main()
}
