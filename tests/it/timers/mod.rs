//! Integration: the timer service's face, over real sockets, on a real PostgreSQL.

mod bad_input;
mod command;
mod face;
mod outcomes;
mod plans;
mod races;
mod spec;
