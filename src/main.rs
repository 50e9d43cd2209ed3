//! The binary: see `walclock --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    walclock::cli::main()
}
