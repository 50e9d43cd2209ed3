//! Tests of the journal as a whole.

mod model;
mod support;
