//! The ring of shards that dispatchers lease. A timer's shard follows from its namespace and id alone.

use std::fmt;

use super::hash::hash_text;

/// One of the 256 parts of the timers. ("Slot" always means a replication slot.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(pub u8);

impl Shard {
    /// How many shards there are. Part of the stored schema: it cannot change.
    pub const COUNT: usize = 256;

    /// Every shard, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).map(Self)
    }

    /// The shard of a timer, equal to the generated column
    /// `(hashtextextended(namespace || '/' || id, 0) & 255)` of `walclock.timers`.
    pub fn of(namespace: &str, id: &str) -> Self {
        let mut key = String::with_capacity(namespace.len() + 1 + id.len());
        key.push_str(namespace);
        key.push('/');
        key.push_str(id);
        Self(hash_text(key.as_bytes(), 0).to_le_bytes()[0])
    }

    /// The scope under which the feed shows the timers of this shard, `walclock.timers/17`.
    pub fn scope(self) -> String {
        format!("walclock.timers/{}", self.0)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected values were printed by PostgreSQL 15:
    /// `select hashtextextended(namespace || '/' || id, 0) & 255`.
    #[test]
    fn agrees_with_postgresql() {
        for (namespace, id, shard) in SHARDS_BY_POSTGRESQL {
            assert_eq!(Shard::of(namespace, id), Shard(*shard), "{namespace}/{id}");
        }
    }

    const SHARDS_BY_POSTGRESQL: &[(&str, &str, u8)] = &[
        ("default", "a", 245),
        ("default", "user-notification-123", 7),
        ("example-namespace", "payment-retry-456", 7),
        ("n", "ümlaut 字", 83),
        ("a/b", "c", 89),
        ("a", "b/c", 89),
    ];
}
