//! What the faces share.

pub mod accept;
pub mod body;
pub mod compression;
pub mod fields;
pub mod parameters;
pub mod protobuf;
pub mod scopes;
