//! The change feed: from a replication slot to its readers.
//!
//! `source` receives the stream, `pgoutput` decodes it, `assemble` turns it into rendered transactions, `journal` keeps
//! them, `hub` and `reader` hand them out, within a `room`; `ingest` drives the way in. `snapshots` reads what a reader begins with.
//! Nothing here knows of HTTP or of due times.

pub mod assemble;
pub mod hub;
pub mod ingest;
pub mod journal;
pub mod pgoutput;
pub mod query;
pub mod reader;
pub mod room;
pub mod sink;
pub mod snapshots;
pub mod source;
