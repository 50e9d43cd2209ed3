//! The binary: see `walclock --help`.

fn main() {}
