//! The newest bytes of the journal in memory, so that readers at the tail touch no file.

use std::collections::VecDeque;

use bytes::Bytes;

use super::address::Address;
use crate::domain::sequence::Sequence;

/// A contiguous run of frames that ends where the journal ends, the open transaction's rows included.
#[derive(Debug)]
pub(super) struct Tail {
    chunks: VecDeque<Chunk>,
    bytes: usize,
    bytes_max: usize,
    /// The newest sequence that is not in the tail: every change behind it is.
    before: Sequence,
}

/// What one flush wrote.
#[derive(Debug)]
struct Chunk {
    start: Address,
    bytes: Bytes,
    last: Sequence,
}

impl Tail {
    /// An empty tail behind `before`, of at most `bytes_max` bytes but always the newest chunk.
    pub fn new(bytes_max: usize, before: Sequence) -> Self {
        Self { chunks: VecDeque::new(), bytes: 0, bytes_max, before }
    }

    /// Adds what was just written at `start`; `last` is the sequence of its last frame.
    pub fn push(&mut self, start: Address, bytes: Bytes, last: Sequence) {
        self.bytes += bytes.len();
        self.chunks.push_back(Chunk { start, bytes, last });
        while self.bytes > self.bytes_max && self.chunks.len() > 1 {
            if let Some(oldest) = self.chunks.pop_front() {
                self.bytes -= oldest.bytes.len();
                self.before = oldest.last;
            }
        }
    }

    /// Forgets what was written at `end` and behind it; `last` is the newest change before it.
    pub fn truncate(&mut self, end: Address, last: Sequence) {
        while let Some(chunk) = self.chunks.back_mut() {
            let keep = if chunk.start.segment == end.segment {
                end.offset.saturating_sub(chunk.start.offset)
            } else if chunk.start < end {
                u32::MAX
            } else {
                0
            };
            let keep = usize::try_from(keep).unwrap_or(usize::MAX).min(chunk.bytes.len());
            self.bytes -= chunk.bytes.len() - keep;
            if keep > 0 {
                chunk.bytes.truncate(keep);
                chunk.last = chunk.last.min(last);
                return;
            }
            self.chunks.pop_back();
        }
        self.before = self.before.min(last);
    }

    /// Forgets everything; every change from now on is behind `before`.
    pub fn clear(&mut self, before: Sequence) {
        *self = Self::new(self.bytes_max, before);
    }

    /// Whether every change behind `since` is here.
    pub fn reaches(&self, since: Sequence) -> bool {
        since >= self.before
    }

    /// The bytes from the frame at `at` on, if they are here.
    pub fn get(&self, at: Address) -> Option<Bytes> {
        let behind = self.chunks.partition_point(|chunk| chunk.start <= at);
        let chunk = self.chunks.get(behind.checked_sub(1)?)?;
        let offset = usize::try_from(at.offset.checked_sub(chunk.start.offset)?).ok()?;
        (chunk.start.segment == at.segment && offset < chunk.bytes.len()).then(|| chunk.bytes.slice(offset..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::sequence::Lsn;

    fn sequence(lsn: u64) -> Sequence {
        Sequence::new(1, Lsn(lsn), 0)
    }

    fn at(segment: u32, offset: u32) -> Address {
        Address { segment, offset }
    }

    fn tail() -> Tail {
        let mut tail = Tail::new(10, Sequence::ZERO);
        tail.push(at(1, 16), Bytes::from_static(b"abcd"), sequence(1));
        tail.push(at(1, 20), Bytes::from_static(b"efgh"), sequence(3));
        tail.push(at(2, 16), Bytes::from_static(b"ij"), sequence(4));
        tail
    }

    #[test]
    fn it_keeps_the_newest_within_its_bound() {
        let mut tail = tail();
        assert!(tail.reaches(Sequence::ZERO));
        assert_eq!(tail.get(at(1, 22)).as_deref(), Some(&b"gh"[..]));
        assert_eq!(tail.get(at(1, 24)), None);
        tail.push(at(2, 18), Bytes::from_static(b"k"), sequence(5));
        assert!(!tail.reaches(Sequence::ZERO) && tail.reaches(sequence(1)));
        assert_eq!(tail.get(at(1, 16)), None);
        assert_eq!(tail.get(at(2, 16)).as_deref(), Some(&b"ij"[..]));
    }

    #[test]
    fn what_is_cut_off_is_gone() {
        let mut tail = tail();
        tail.truncate(at(1, 22), sequence(2));
        assert_eq!(tail.get(at(2, 16)), None);
        assert_eq!(tail.get(at(1, 20)).as_deref(), Some(&b"ef"[..]));
        assert_eq!(tail.get(at(1, 22)), None);
        tail.push(at(1, 22), Bytes::from_static(b"0123456789"), sequence(9));
        assert!(tail.reaches(sequence(2)) && !tail.reaches(sequence(1)));
    }
}
