//! Faults under load: writers note in a ledger what they do, readers what they are told, and checkers compare the two.
//!
//! `SEED=n` repeats a load and the moments of its faults, as far as the machine allows; `WALCLOCK_SOAK=n` makes each test
//! n times longer.

mod checks;
mod kills;
mod ledger;
mod links;
mod planted;
mod proxy;
mod readers;
mod world;
mod writers;
