//! Faults under load: writers note in a ledger what they do, readers what they are told, and checkers compare the two.
//!
//! `SEED=n` repeats a load and the moments of its faults, as far as the machine allows; `SOAK=n` makes each test
//! n times longer.

mod amid;
mod checks;
mod crowd;
mod disk;
mod frozen;
mod gaps;
mod kills;
mod ledger;
mod links;
mod mixed;
mod planted;
mod promotion;
pub mod proxy;
mod readers;
mod rude;
mod seam;
mod torn;
pub mod world;
mod writers;

pub use world::soak;
