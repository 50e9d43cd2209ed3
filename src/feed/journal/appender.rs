//! The end of the journal: where bytes are written, segments are rolled and transactions become visible.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;

use super::Shared;
use super::address::Address;
use super::error::Failure;
use super::index::{EVERYONE, Summary};
use super::segment::{HEADER_BYTES, Segment};
use super::syncer::Reach;
use crate::domain::limits::JOURNAL_ROOM_BYTES_MIN;
use crate::domain::sequence::{Lsn, Sequence};

/// Most scopes that are remembered of an open transaction; beyond it everybody is woken by its commit.
const TOUCHED_MAX: usize = 10_000;

/// So much is written without a look at how much room there is: small against what is left free.
const LOOK_EVERY_BYTES: u32 = 1 << 20;

/// The segment that grows.
#[derive(Debug)]
pub(super) struct Appender {
    active: Arc<Segment>,
    end: u32,
    open: Option<Open>,
    touched: Touched,
    /// How much has been written since the disk was last found to have room, in bytes.
    unlooked: u32,
}

/// The start of the transaction that has been written in part.
#[derive(Debug)]
struct Open {
    segment: u32,
    /// The segment's summary without it.
    before: Summary,
}

/// Whole frames, ready to be written.
#[derive(Debug)]
pub(super) struct Batch {
    /// The frames.
    pub bytes: Bytes,
    /// The sequence of the last of them.
    pub last: Sequence,
    /// What is whole with this batch, if anything is.
    pub whole: Option<Whole>,
}

/// The whole transactions at the start of a batch, of which the first may have begun earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Whole {
    /// Where the last of them ends in the batch.
    pub bytes: usize,
    /// The sequence of the last change.
    pub last: Sequence,
    /// How far the stream has been received.
    pub end_lsn: Lsn,
    /// How many transactions have become whole.
    pub commits: u64,
    /// How many changes they have.
    pub changes: u64,
}

impl Whole {
    /// Where the last of them ends, in a batch that stands at `start`.
    fn end(&self, start: Address) -> Address {
        Address { offset: start.offset.saturating_add(u32::try_from(self.bytes).unwrap_or(u32::MAX)), ..start }
    }
}

impl Appender {
    /// Goes on at the end of `active`, where everything is whole.
    pub fn new(active: Arc<Segment>) -> Self {
        let end = active.summary().end;
        Self { active, end, open: None, touched: Touched::default(), unlooked: LOOK_EVERY_BYTES }
    }

    /// The number of the segment that grows.
    pub fn active(&self) -> u32 {
        self.active.id
    }

    /// The segment in which a transaction stands that is not whole yet.
    pub fn open_segment(&self) -> Option<u32> {
        self.open.as_ref().map(|open| open.segment)
    }

    /// Whether the segment that grows has anything in it.
    pub fn is_empty(&self) -> bool {
        self.end == HEADER_BYTES
    }

    /// Writes a batch, makes visible what is whole, and wakes those who wait for it.
    pub fn append(&mut self, shared: &Shared, batch: Batch) -> Result<(), Failure> {
        let length = u32::try_from(batch.bytes.len()).expect("a batch is one frame more than the buffer");
        let end = u64::from(self.end) + u64::from(length);
        if end > shared.segment_bytes && !self.is_empty() {
            self.roll(shared)?;
        }
        let start = Address { segment: self.active.id, offset: self.end };
        let written = self.look_for_room(shared, length);
        let write = || shared.medium.write_at(&self.active.file, &batch.bytes, u64::from(start.offset));
        written.and_then(|()| write()).map_err(|source| shared.stop("writing a segment", source))?;
        shared.tail.write().push(start, batch.bytes.clone(), batch.last);
        let (whole, rest) = batch.bytes.split_at(batch.whole.map_or(0, |whole| whole.bytes));
        self.end = start.offset.saturating_add(length);
        self.active.add(whole, |key| self.touched.add(key));
        if let Some(whole) = batch.whole {
            self.open = None;
            self.publish(shared, &whole, whole.end(start));
        }
        if !rest.is_empty() {
            let before = || Open { segment: start.segment, before: self.active.summary() };
            self.open.get_or_insert_with(before);
            self.active.add(rest, |key| self.touched.add(key));
        }
        let reach = batch.whole.map(|whole| (Reach { end: whole.end(start), end_lsn: whole.end_lsn }, whole.changes));
        shared.syncer.written(&self.active, reach);
        Ok(())
    }

    fn publish(&mut self, shared: &Shared, whole: &Whole, end: Address) {
        shared.state.write().publish(end, whole.last);
        std::mem::take(&mut self.touched).wake(shared);
        metrics::counter!("walclock_journal_changes_total").increment(whole.changes);
        metrics::counter!("walclock_journal_commits_total").increment(whole.commits);
    }

    fn look_for_room(&mut self, shared: &Shared, length: u32) -> std::io::Result<()> {
        self.unlooked = self.unlooked.saturating_add(length);
        if self.unlooked < LOOK_EVERY_BYTES {
            return Ok(());
        }
        shared.check_room(JOURNAL_ROOM_BYTES_MIN)?;
        self.unlooked = 0;
        Ok(())
    }

    /// Begins the next segment, also in the middle of a transaction.
    pub fn roll(&mut self, shared: &Shared) -> Result<(), Failure> {
        let id = self.active.id.checked_add(1).expect("2^32 segments are never written");
        let next = Segment::create(&shared.config.folder, id, self.end, &*shared.medium);
        let next = Arc::new(next.map_err(|source| shared.stop("beginning a segment", source))?);
        shared.state.write().push(next.clone());
        let full = std::mem::replace(&mut self.active, next);
        self.end = HEADER_BYTES;
        shared.syncer.rolled(full);
        shared.gauge_bytes();
        Ok(())
    }

    /// Takes back the rows of the open transaction that have been written.
    pub fn take_back(&mut self, shared: &Shared) -> Result<(), Failure> {
        self.touched = Touched::default();
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        let stop = |source| shared.stop("taking back a transaction", source);
        let end = Address { segment: open.segment, offset: open.before.end };
        if open.segment == self.active.id {
            self.active.cut(open.before).map_err(stop)?;
        } else {
            self.reopen(shared, open.segment).map_err(stop)?;
        }
        self.end = end.offset;
        let last = shared.state.read().last();
        shared.tail.write().truncate(end, last);
        Ok(())
    }

    /// Goes back to an earlier segment: what is behind its last whole transaction belongs to the open one.
    fn reopen(&mut self, shared: &Shared, id: u32) -> std::io::Result<()> {
        shared.syncer.forget_from(id, || {
            for segment in shared.state.write().drop_behind(id) {
                segment.remove()?;
            }
            let segment = Arc::new(Segment::open_scanning(&shared.config.folder, id)?);
            segment.cut_to_whole(&*shared.medium)?;
            shared.state.write().replace_last(segment.clone());
            self.active = segment;
            Ok(())
        })
    }
}

/// The scopes that written rows belong to.
#[derive(Debug, Default)]
struct Touched {
    keys: HashSet<u64>,
    everyone: bool,
    newest: Option<u64>,
}

impl Touched {
    fn add(&mut self, key: u64) {
        // Rows of one scope often follow each other.
        if self.everyone || self.newest == Some(key) {
            return;
        }
        self.newest = Some(key);
        self.keys.insert(key);
        if key == EVERYONE || self.keys.len() > TOUCHED_MAX {
            *self = Self { everyone: true, ..Self::default() };
        }
    }

    fn wake(self, shared: &Shared) {
        match self.everyone {
            true => shared.hub.wake_all(),
            false => shared.hub.wake(self.keys),
        }
    }
}
