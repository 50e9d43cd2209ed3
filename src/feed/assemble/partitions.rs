//! Tables that are told under their root's name, while each partition decides what the log has of its own old rows.
//!
//! PostgreSQL marks an old row as whole where the root's replica identity is full. Where the partition's is not, all but
//! its key looks null. Rows do not say which partition they come from; the descriptions before the first row of each do:
//! the root's, and right behind it the partition's own.

use std::collections::HashMap;

/// What has been seen of partitions.
#[derive(Debug, Default)]
pub(super) struct Partitions {
    /// The last two descriptions, while no row came behind them.
    described: (Option<u32>, Option<u32>),
    /// The partitions without full replica identity, each with the table that it is told as.
    partial: HashMap<u32, u32>,
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

    /// A partition is told as this table.
    pub(super) fn attach(&mut self, partition: u32, table: u32, is_full: bool) {
        match is_full {
            true => self.partial.remove(&partition),
            false => self.partial.insert(partition, table),
        };
    }

    /// Whether rows of this table may come from a partition without full replica identity.
    pub(super) fn are_partial(&self, table: u32) -> bool {
        self.partial.values().any(|root| *root == table)
    }
}
