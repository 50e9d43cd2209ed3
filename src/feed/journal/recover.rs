//! Opening: takes the folder, repairs what a crash or a failing disk has left, and starts the thread.
//!
//! What was never durable may be cut off, since PostgreSQL sends it again. Should something durable be missing behind
//! the cut, the source notices that the slot has been acknowledged further than the journal reaches, and begins anew.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tracing::warn;

use super::address::Address;
use super::appender::Appender;
use super::buffers::Buffers;
use super::error::{Doing, Error, Fault};
use super::fetch;
use super::medium::Medium;
use super::meta::Meta;
use super::segment::{self, HEADER_BYTES, Segment};
use super::state::State;
use super::syncer::{Reach, Syncer};
use super::tail::Tail;
use super::{Config, Journal, Shared, Writer};
use crate::domain::sequence::{Lsn, Sequence};
use crate::feed::hub::Hub;
use crate::lockfile::Lock;

/// A journal of its full size has about so many segments where they may grow so far: each keeps two files open.
const SEGMENTS_WANTED: u64 = 512;
/// The largest segment, in bytes: offsets in it have 32 bits.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// The pieces in which the newest changes are read, in bytes.
const REFILL_BYTES: u32 = 64 << 10;

/// See [`super::open`].
pub(super) fn open(config: Config, medium: Arc<dyn Medium>) -> Result<(Writer, Journal), Error> {
    config.validate()?;
    std::fs::create_dir_all(&config.folder).doing("making the folder")?;
    let lock = Lock::take(&config.folder).doing("locking the folder")?;
    let lock = lock.ok_or_else(|| Error::Locked(config.folder.clone()))?;
    let mut meta = match Meta::load(&config.folder)? {
        Some(meta) => meta,
        None => Meta::create(&config.folder, &*medium)?,
    };
    let segments = load(&config.folder, &mut meta, &*medium)?;
    let active = segments.last().expect("there is always a segment that grows").clone();
    let (last, end_lsn) = positions(&meta, &segments);
    let full: Vec<_> = segments.iter().rev().skip(1).rev().cloned().collect();
    let visible_end = Address { segment: active.id, offset: active.summary().end };
    let mut tail = Tail::new(config.memory_bytes, last);
    refill(&mut tail, &active, config.memory_bytes).doing("reading the newest changes")?;
    let state = State::new(segments, visible_end, last, meta.bounds.clone());
    let shared = Arc::new(Shared {
        segment_bytes: segment_bytes(&config),
        tail: RwLock::new(tail),
        syncer: Syncer::new(config.sync_changes, Reach { end: visible_end, end_lsn }),
        config,
        medium,
        meta: Mutex::new(meta),
        appender: Mutex::new(Appender::new(active)),
        state: RwLock::new(state),
        hub: Arc::new(Hub::new()),
        buffers: Arc::new(Buffers::new(fetch::WINDOW_BYTES_MAX)),
        durable: watch::Sender::new(end_lsn),
        failure: watch::Sender::new(None),
        _lock: lock,
    });
    // Those that have a sidecar already cost nothing.
    full.into_iter().for_each(|segment| shared.syncer.rolled(segment));
    shared.gauge_bytes();
    let thread = Syncer::start(&shared)?;
    Ok((Writer::new(shared.clone(), thread, last, end_lsn), Journal(shared)))
}

/// Size at which a segment is full. A large journal has larger ones, since each keeps two files open.
pub(super) fn segment_bytes(config: &Config) -> u64 {
    let few = (config.max_bytes / SEGMENTS_WANTED).min(SEGMENT_BYTES_MAX);
    config.segment_bytes.max(few).min(config.max_bytes / 4)
}

/// Brings the newest bytes of a segment, of which all is whole, back into memory, so that those who were at the end before
/// a restart, and come back now, touch no file.
pub(super) fn refill(tail: &mut Tail, segment: &Segment, bytes_max: usize) -> io::Result<()> {
    let summary = segment.summary();
    let from = summary.end.saturating_sub(u32::try_from(bytes_max).unwrap_or(u32::MAX));
    let marks = segment.marks_from(from);
    let Some(first) = marks.first() else {
        return Ok(());
    };
    tail.clear(before(first.sequence));
    let mut start = first.offset;
    let ends = marks.iter().map(|mark| (mark.offset, before(mark.sequence)));
    for (end, last) in ends.chain([(summary.end, summary.last)]) {
        // In pieces of the size that one write has, so that they go one by one as new ones come.
        if end - start >= REFILL_BYTES || (end == summary.end && end > start) {
            let mut bytes = BytesMut::zeroed(usize::try_from(end - start).unwrap_or(0));
            segment.file.read_exact_at(&mut bytes, u64::from(start))?;
            tail.push(Address { segment: segment.id, offset: start }, bytes.freeze(), last);
            start = end;
        }
    }
    Ok(())
}

/// The newest change of a journal that has these segments, and how far the stream had been received.
pub(super) fn positions(meta: &Meta, segments: &[Arc<Segment>]) -> (Sequence, Lsn) {
    let (mut last, mut end_lsn) = (meta.last, meta.end_lsn);
    for summary in segments.iter().map(|segment| segment.summary()) {
        last = if summary.changes > 0 { summary.last } else { last };
        end_lsn = if summary.end_lsn > Lsn(0) { summary.end_lsn } else { end_lsn };
    }
    (last, end_lsn)
}

impl Meta {
    /// Begins a journal. A folder with segments in it and no meta file is none of ours to begin in.
    fn create(folder: &Path, medium: &dyn Medium) -> Result<Self, Error> {
        if !segment::list(folder).doing("listing the segments")?.is_empty() {
            let what = "it has segments, but no meta file".to_owned();
            return Err(Error::Unusable { folder: folder.to_owned(), what });
        }
        let meta = Self { segment_first: 1, ..Self::default() };
        meta.store(folder, medium)?;
        Ok(meta)
    }
}

/// Opens the segments. The last one returned is the one that grows; everything in all of them is whole.
fn load(folder: &Path, meta: &mut Meta, medium: &dyn Medium) -> Result<Vec<Arc<Segment>>, Error> {
    let ids = segment::list(folder).doing("listing the segments")?;
    let (ids, left_over): (Vec<u32>, Vec<u32>) = ids.into_iter().partition(|id| *id >= meta.segment_first);
    for id in left_over {
        segment::remove_files(folder, id).doing("removing a segment that was purged")?;
    }
    let mut found: Vec<Segment> = Vec::new();
    let mut next = meta.segment_first;
    let mut lost = None;
    for (number, id) in ids.iter().copied().enumerate() {
        if id != next {
            warn!(segment.id = next, "a segment is missing: what is before it is dropped");
            lose(&mut found, &mut lost);
        }
        next = id.saturating_add(1);
        match load_one(folder, id, ids.get(number + 1).copied(), medium).doing("reading a segment")? {
            Loaded::Whole(segment) => found.push(segment),
            Loaded::Damaged(segment) => {
                warn!(segment.id = id, "a segment is damaged: it is dropped, with what is before it");
                found.push(segment);
                lose(&mut found, &mut lost);
            }
            Loaded::Torn(segment) => {
                found.push(segment);
                for behind in ids.iter().skip(number + 1) {
                    warn!(segment.id = behind, "a segment stands behind one that was never synced: it is removed");
                    segment::remove_files(folder, *behind).doing("removing a segment")?;
                }
                break;
            }
        }
    }
    let segments = end_whole(folder, found, next, medium).doing("cutting at the last whole transaction")?;
    if let Some(lost) = lost {
        note_loss(folder, meta, lost, &segments, medium)?;
    }
    Ok(segments.into_iter().map(Arc::new).collect())
}

enum Loaded {
    /// Every byte is accounted for, as far as is known; or it is the last one.
    Whole(Segment),
    /// It has ends or bytes that are not what was written, though it had been synced.
    Damaged(Segment),
    /// Its end is not what was written, and may never have been synced.
    Torn(Segment),
}

/// `behind` is the number of the segment that follows.
fn load_one(folder: &Path, id: u32, behind: Option<u32>, medium: &dyn Medium) -> io::Result<Loaded> {
    let Some(behind) = behind else {
        return open_unsealed(folder, id, medium).map(Loaded::Torn);
    };
    let (synced, short) = match Segment::open_sealed(folder, id) {
        Ok(segment) => return Ok(Loaded::Whole(segment)),
        Err(Fault::Io(e)) if e.kind() == io::ErrorKind::NotFound => (false, false),
        Err(Fault::Io(e)) => return Err(e),
        Err(Fault::Sidecar) => (true, false),
        Err(Fault::Segment) => (true, true),
    };
    let segment = open_unsealed(folder, id, medium)?;
    let end = segment.summary().end;
    // What is left of it may end with a whole transaction: after a power cut a file has often just what one write or
    // another had brought by then, and the next one may be there all the same.
    let told = if id.checked_add(1) == Some(behind) { segment::size_before(folder, behind)? } else { None };
    let complete = !short && told.is_none_or(|told| told == end) && u64::from(end) == segment.file.metadata()?.len();
    Ok(match (complete, synced) {
        (true, _) => Loaded::Whole(segment),
        (false, true) => Loaded::Damaged(segment),
        (false, false) => Loaded::Torn(segment),
    })
}

/// Opens a segment that may never have been synced: what a process left in the page cache when it was killed counts as
/// durable from now on, so it is made so first.
fn open_unsealed(folder: &Path, id: u32, medium: &dyn Medium) -> io::Result<Segment> {
    let segment = Segment::open_scanning(folder, id)?;
    medium.sync(&segment.file)?;
    Ok(segment)
}

/// What is known of segments that were lost.
#[derive(Clone, Copy, Debug, Default)]
struct Lost {
    last: Sequence,
    txid_max: u64,
}

fn lose(found: &mut Vec<Segment>, lost: &mut Option<Lost>) {
    let lost = lost.get_or_insert_default();
    for summary in found.drain(..).map(|segment| segment.summary()).filter(|summary| summary.changes > 0) {
        lost.last = lost.last.max(summary.last);
        lost.txid_max = lost.txid_max.max(summary.txid_max);
    }
}

/// Cuts the newest segments so that they end with a whole transaction, and sees to it that there is one to write to.
fn end_whole(folder: &Path, mut found: Vec<Segment>, next: u32, medium: &dyn Medium) -> io::Result<Vec<Segment>> {
    while let [.., before, last] = found.as_slice() {
        let (before, summary) = (before.summary(), last.summary());
        // A transaction that began in an earlier segment and never ended fills this one.
        if summary.whole_end > HEADER_BYTES || before.whole_end == before.end {
            break;
        }
        last.remove()?;
        found.pop();
    }
    match found.pop() {
        Some(last) => {
            let last = if last.can_grow() { last } else { Segment::open_scanning(folder, last.id)? };
            last.unseal(medium)?;
            let (whole_end, size) = (last.summary().whole_end, last.file.metadata()?.len());
            if whole_end == HEADER_BYTES || u64::from(whole_end) != size {
                let bytes = size.saturating_sub(u64::from(whole_end));
                if bytes > 0 {
                    warn!(segment.id = last.id, bytes, "cutting off an unfinished end");
                }
                last.cut_to_whole(medium)?;
            }
            found.push(last);
        }
        None => found.push(Segment::create(folder, next, 0, medium)?),
    }
    medium.sync(&File::open(folder)?)?;
    Ok(found)
}

/// Notes how far back the journal still reaches.
fn note_loss(
    folder: &Path,
    meta: &mut Meta,
    mut lost: Lost,
    segments: &[Segment],
    medium: &dyn Medium,
) -> Result<(), Error> {
    let summaries: Vec<_> = segments.iter().map(Segment::summary).filter(|summary| summary.changes > 0).collect();
    if let Some(first) = summaries.first() {
        lost.last = lost.last.max(before(first.first));
    }
    // Which transactions were lost is not known: those that are left came later, most of them.
    lost.txid_max = summaries.iter().map(|summary| summary.txid_max).fold(lost.txid_max, u64::max);
    meta.bounds.purge(lost.last, lost.txid_max);
    meta.last = meta.last.max(lost.last);
    if let Some(first) = segments.first() {
        meta.segment_first = first.id;
    }
    meta.store(folder, medium)
}

/// The greatest sequence below this one.
fn before(sequence: Sequence) -> Sequence {
    match sequence.index.checked_sub(1) {
        Some(index) => Sequence { index, ..sequence },
        None => Sequence::new(sequence.timeline, Lsn(sequence.lsn.0.saturating_sub(1)), u32::MAX),
    }
}
