//! What the server can do, without HTTP and without SQL.

pub mod health;
