//! The clock: from pending timers to callbacks.
//!
//! `engine`, `shards` and `schedules` are pure machines; `runner` turns their effects into calls on the `ports`. Nothing here knows
//! SQL, HTTP or how the feed works.

pub mod engine;
pub mod ports;
pub mod runner;
pub mod schedules;
pub mod shards;
