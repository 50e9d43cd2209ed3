//! The clock's faults under load: clients note in a ledger what they do to timers, a receiver what it is called with,
//! triggers what is written, and checkers compare the three.
//!
//! `SEED=n` repeats a load and the moments of its faults, as far as the machine allows; `SOAK=n` makes each test
//! n times longer.

mod checks;
mod clients;
pub mod clocks;
mod database;
mod doubles;
mod endpoints;
mod feed;
mod frozen;
mod hosts;
mod kills;
mod ledger;
mod links;
mod mixed;
mod planted;
mod races;
mod sink;
mod world;
