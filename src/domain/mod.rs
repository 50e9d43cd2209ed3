//! The words of the server and the rules on them. Pure: no async, no clock, no randomness, no input or output.

pub mod callback;
pub mod callback_url;
pub mod causes;
pub mod change;
pub mod duration;
pub mod hash;
pub mod history;
pub mod invalid;
pub mod lease;
pub mod limits;
pub mod moment;
pub mod namespace;
pub mod recurrence;
pub mod retry;
pub mod run;
pub mod schedule;
pub mod scope;
pub mod sequence;
pub mod shard;
pub mod snapshot;
pub mod stored;
pub mod timer;
pub mod webhook;
