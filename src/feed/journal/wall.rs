//! A transaction that was larger than the room on the disk. What it had written is cut off again, so the disk looks empty
//! enough: taken again at once it would fill it again, and again.

use std::fmt;

use crate::domain::limits::JOURNAL_ROOM_BYTES_MIN;
use crate::domain::sequence::Lsn;
use crate::feed::sink::Head;

/// So much more than it has filled must be free before such a transaction is taken again: a part of what it filled.
const MORE_DIVISOR: u64 = 4;

/// The transaction that was being taken when the disk was full, and what it is known to need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wall {
    commit_lsn: Lsn,
    txid: u64,
    /// The most that it has filled in any attempt before the last, in bytes.
    before: u64,
    /// What was given back behind the last attempt, in bytes.
    filled: u64,
}

impl Wall {
    /// The disk was full while this transaction was taken, perhaps not for the first time.
    pub fn met(head: &Head, known: Option<Self>) -> Self {
        let same = known.filter(|wall| wall.commit_lsn == head.commit_lsn);
        let before = same.map_or(0, |wall| wall.bytes());
        Self { commit_lsn: head.commit_lsn, txid: head.txid, before, filled: 0 }
    }

    /// Cutting it off has given so much back.
    pub fn gave_back(&mut self, bytes: u64) {
        self.filled = self.filled.saturating_add(bytes);
    }

    /// Whether what ends at `lsn` has it in it.
    pub fn is_behind(&self, lsn: Lsn) -> bool {
        self.commit_lsn <= lsn
    }

    /// What must be free before it is taken again, in bytes: clearly more than there was, so that an attempt in vain, for
    /// which PostgreSQL decodes all of it, is rare.
    pub fn room(&self) -> u64 {
        let filled = self.bytes();
        filled.saturating_add(filled / MORE_DIVISOR).saturating_add(2 * JOURNAL_ROOM_BYTES_MIN)
    }

    fn bytes(&self) -> u64 {
        self.before.max(self.filled)
    }
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { commit_lsn, txid, .. } = self;
        write!(f, "transaction {txid}, committed at {commit_lsn}, filled {} bytes and was not whole", self.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn head(commit_lsn: u64) -> Head {
        Head { timeline: 1, commit_lsn: Lsn(commit_lsn), txid: 7, committed_at: Timestamp::from_micros(0) }
    }

    #[test]
    fn it_remembers_the_most_that_it_has_filled() {
        let mut wall = Wall::met(&head(100), None);
        assert_eq!(wall.room(), 2 * JOURNAL_ROOM_BYTES_MIN);
        wall.gave_back(300);
        wall.gave_back(100);
        assert_eq!(wall.room(), 2 * JOURNAL_ROOM_BYTES_MIN + 500);
        assert_eq!(wall.to_string(), "transaction 7, committed at 0/64, filled 400 bytes and was not whole");
        // Somebody else filled the disk meanwhile.
        let mut again = Wall::met(&head(100), Some(wall));
        again.gave_back(10);
        assert_eq!(again.room(), wall.room());
        again.gave_back(790);
        assert_eq!(again.room(), 2 * JOURNAL_ROOM_BYTES_MIN + 1000);
        assert_eq!(Wall::met(&head(101), Some(again)).room(), 2 * JOURNAL_ROOM_BYTES_MIN, "another one");
        assert!(again.is_behind(Lsn(100)) && !again.is_behind(Lsn(99)));
    }
}
