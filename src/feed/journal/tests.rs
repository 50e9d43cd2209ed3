//! Tests of the journal as a whole.

mod bounds;
mod faults;
mod mend;
mod model;
mod purge;
mod snapshots;
mod support;
