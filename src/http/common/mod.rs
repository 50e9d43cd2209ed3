//! What the faces share.

pub mod accept;
pub mod body;
pub mod compression;
pub mod describe;
pub mod fields;
pub mod held;
pub mod indent;
pub mod later;
pub mod operations;
pub mod parameters;
pub mod protobuf;
pub mod refusal;
pub mod scopes;
