//! Leases: who may claim the timers of a shard, and since when.

use std::fmt;

use super::shard::Shard;

/// Counts the owners of a shard. It grows by one with every change of owner; a write that carries an older one changes
/// nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub i64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A dispatcher's identity: new at every start of the process, never a host name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(pub String);

/// A shard that is held, with the epoch that it is held in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lease {
    /// The shard.
    pub shard: Shard,
    /// The epoch of this holding.
    pub epoch: Epoch,
}
