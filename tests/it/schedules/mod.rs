//! Schedules: from a row to its callbacks, on a real PostgreSQL.

mod command;
mod contract;
mod crowds;
mod policies;
mod processes;
mod rows;
mod served;
