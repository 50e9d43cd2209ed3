//! Tables that are told under their root's name, while each partition decides what the log has of its own old rows.
//!
//! PostgreSQL marks an old row as whole where the root's replica identity is full. Where the partition's is not, all but
//! its key looks null. Rows do not say which partition they come from; the descriptions before the first row of each do:
//! the root's, and right behind it the partition's own.
//!
//! So what is known of partitions differs from one connection to the next, and decides as little as can be: only where an
//! old row could be the bare key of such a partition do its nulls say nothing. All others are told alike by everybody.

use std::collections::{BTreeSet, HashMap};

/// The names of the columns of a key, as a [`super::relation::Field`] has them.
pub(super) type Key = Vec<Vec<u8>>;

/// What has been seen of partitions.
#[derive(Debug, Default)]
pub(super) struct Partitions {
    /// The last two descriptions, while no row came behind them.
    described: (Option<u32>, Option<u32>),
    /// The partitions without full replica identity, each with the table that it is told as, and what the log has of its
    /// old rows.
    partial: HashMap<u32, (u32, Key)>,
}

impl Partitions {
    /// A table is described.
    pub(super) fn describe(&mut self, id: u32) {
        self.described = (self.described.1, Some(id));
    }

    /// A row comes, or what else ends the descriptions. Returns the partition that was described for it, if there is one.
    pub(super) fn of_row(&mut self, table: u32) -> Option<u32> {
        match std::mem::take(&mut self.described) {
            (Some(root), Some(partition)) if root == table && partition != table => Some(partition),
            _ => None,
        }
    }

    /// A partition is told as this table; `key` is all that the log has of its old rows, none where it has them whole.
    pub(super) fn attach(&mut self, partition: u32, table: u32, key: Option<Key>) {
        match key {
            None => self.partial.remove(&partition),
            Some(key) => self.partial.insert(partition, (table, key)),
        };
    }

    /// What the log may have of old rows of this table in place of all, each key once.
    pub(super) fn partial_keys(&self, table: u32) -> BTreeSet<&Key> {
        self.partial.values().filter(|(root, _)| *root == table).map(|(_, key)| key).collect()
    }
}
