//! Tests of the journal as a whole.

mod bounds;
mod faults;
mod model;
mod support;
