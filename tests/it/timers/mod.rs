//! Integration: the timer service's face, over real sockets, on a real PostgreSQL.

mod bad_input;
mod batch;
mod command;
mod face;
mod moments;
mod outcomes;
mod plans;
mod races;
mod spec;
mod together;
