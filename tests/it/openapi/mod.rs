//! The description of the API, and whether the server keeps to it.

mod calls;
mod client;
mod document;
mod schema;
