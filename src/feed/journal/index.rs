//! The index of one segment in memory: which frames belong to which scope, and where a sequence begins.
//!
//! A scope stands here as a hash of its text. That two scopes share one costs a look in vain and nothing else: the frame
//! itself says whose it is.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::frame::Frame;
use crate::clock::Timestamp;
use crate::domain::hash::hash_text;
use crate::domain::sequence::{Lsn, Sequence};

/// The key of the changes that go to every scope.
pub(super) const EVERYONE: u64 = u64::MAX;
/// A mark of the sequence is kept for every so many bytes: as much is decoded in vain when a read begins.
const MARK_EVERY_BYTES: u32 = 4096;

/// The key of a scope. It is stored in sidecars, so it cannot change.
pub(in crate::feed) fn key(scope: &[u8]) -> u64 {
    hash_text(scope, 0).min(EVERYONE - 1)
}

/// What is known of a segment as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    /// Sequence of the first change; meaningless without changes.
    pub first: Sequence,
    /// Sequence of the newest change; meaningless without changes.
    pub last: Sequence,
    /// How many changes there are.
    pub changes: u64,
    /// The earliest commit.
    pub oldest_at: Timestamp,
    /// The latest commit.
    pub newest_at: Timestamp,
    /// The greatest transaction id.
    pub txid_max: u64,
    /// Where the next frame goes.
    pub end: u32,
    /// Where the last whole transaction ends; rows of an open one may follow.
    pub whole_end: u32,
    /// How far the stream had been received there; zero where no transaction ended in this segment.
    pub end_lsn: Lsn,
}

impl Summary {
    /// That of a segment whose first frame will stand at `start`.
    pub fn empty(start: u32) -> Self {
        Self {
            first: Sequence::ZERO,
            last: Sequence::ZERO,
            changes: 0,
            oldest_at: Timestamp::MAX,
            newest_at: Timestamp::MIN,
            txid_max: 0,
            end: start,
            whole_end: start,
            end_lsn: Lsn(0),
        }
    }

    fn add(&mut self, frame: &Frame<'_>) {
        self.end = self.end.saturating_add(u32::try_from(frame.length).unwrap_or(u32::MAX));
        if frame.is_last() {
            self.whole_end = self.end;
            self.end_lsn = frame.end_lsn();
        }
        if frame.is_mark() {
            return;
        }
        if self.changes == 0 {
            self.first = frame.sequence;
        }
        self.changes += 1;
        self.last = frame.sequence;
        self.oldest_at = self.oldest_at.min(frame.committed_at);
        self.newest_at = self.newest_at.max(frame.committed_at);
        self.txid_max = self.txid_max.max(frame.txid);
    }
}

/// Where a frame of a certain sequence stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// The frame's sequence.
    pub sequence: Sequence,
    /// The frame's offset.
    pub offset: u32,
}

/// Keys to offsets, in ascending order each.
pub(super) type Postings = HashMap<u64, Vec<u32>, BuildHasherDefault<Keep>>;

/// The index of a segment that is being written, or is not sealed yet.
#[derive(Debug)]
pub(super) struct MemoryIndex {
    summary: Summary,
    postings: Postings,
    marks: Vec<Mark>,
}

impl MemoryIndex {
    /// The index of a segment whose first frame will stand at `start`.
    pub fn new(start: u32) -> Self {
        Self { summary: Summary::empty(start), postings: Postings::default(), marks: Vec::new() }
    }

    /// Adds the frame that was written at the end, and tells the keys that it belongs to.
    pub fn add(&mut self, frame: &Frame<'_>, mut touched: impl FnMut(u64)) {
        let offset = self.summary.end;
        self.summary.add(frame);
        if frame.is_mark() {
            return;
        }
        if self.marks.last().is_none_or(|mark| offset - mark.offset >= MARK_EVERY_BYTES) {
            self.marks.push(Mark { sequence: frame.sequence, offset });
        }
        let everyone = frame.to_everyone().then_some(EVERYONE);
        for key in frame.scopes().map(|(_, scope)| key(scope)).chain(everyone) {
            let offsets = self.postings.entry(key).or_default();
            // A row may name a scope twice.
            if offsets.last() != Some(&offset) {
                offsets.push(offset);
                touched(key);
            }
        }
    }

    /// Forgets the frames from the end of `before` on; `before` is the summary as it was then.
    pub fn cut(&mut self, before: Summary) {
        self.postings.retain(|_, offsets| {
            offsets.truncate(offsets.partition_point(|offset| *offset < before.end));
            !offsets.is_empty()
        });
        self.marks.truncate(self.marks.partition_point(|mark| mark.offset < before.end));
        self.summary = before;
    }

    /// What is known of the segment as a whole.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// An offset with every change behind `since` at or behind it, and few others; none where the segment begins behind
    /// `since` anyway.
    pub fn offset_behind(&self, since: Sequence) -> Option<u32> {
        let behind = self.marks.partition_point(|mark| mark.sequence <= since);
        self.marks.get(behind.checked_sub(1)?).map(|mark| mark.offset)
    }

    /// The offsets of a key from `from` on, in ascending order.
    pub fn offsets(&self, key: u64, from: u32) -> &[u32] {
        let offsets = self.postings.get(&key).map(Vec::as_slice).unwrap_or_default();
        match offsets.last() {
            Some(last) if *last >= from => offsets.split_at(offsets.partition_point(|offset| *offset < from)).1,
            Some(_) | None => &[],
        }
    }

    /// All postings, for storing them.
    pub fn postings(&self) -> &Postings {
        &self.postings
    }

    /// The marks at `offset` or behind it.
    pub fn marks_from(&self, offset: u32) -> &[Mark] {
        self.marks.split_at(self.marks.partition_point(|mark| mark.offset < offset)).1
    }

    /// All marks, for storing them.
    pub fn marks(&self) -> &[Mark] {
        &self.marks
    }
}

/// Hashes a key to itself: it is a hash already.
#[derive(Debug, Default)]
pub(super) struct Keep(u64);

impl Hasher for Keep {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}
