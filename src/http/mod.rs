//! The HTTP faces, a folder each. A handler parses, makes one service call, renders.

pub mod changes;
pub mod common;
pub mod dev;
pub mod manage;
pub mod openapi;
pub mod server;
pub mod snapshots;
pub mod timers;
