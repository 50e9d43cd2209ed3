//! Tests of the journal as a whole.

mod bounds;
mod faults;
mod mend;
mod model;
mod power;
mod purge;
mod snapshots;
mod support;
