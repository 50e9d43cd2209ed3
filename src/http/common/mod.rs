//! What the faces share.

pub mod body;
pub mod fields;
pub mod parameters;
