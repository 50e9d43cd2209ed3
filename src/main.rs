//! The binary: see `walclock --help`.

use std::process::ExitCode;

/// Gives back what a crowd of readers has left, and keeps blocks of a size together: of the system's allocator tens of
/// thousands of short-lived buffers leave holes all over.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    walclock::cli::main()
}
