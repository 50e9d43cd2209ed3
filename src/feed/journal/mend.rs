//! Going on after a write or a sync failed, without a restart.
//!
//! After a failed sync nobody knows what of the file's end is on the disk: the pages may count as clean although they
//! never got there, so another sync would promise what is not true. So nothing is tried again. What was never durable is
//! cut off, and PostgreSQL, to which it was never acknowledged, sends it again under the same sequences. A reader who
//! has seen some of it has a cursor ahead of the journal, and waits until the journal is there again.

use std::io;
use std::sync::Arc;

use super::Shared;
use super::address::Address;
use super::appender::Appender;
use super::error::{Doing, Error};
use super::meta::Meta;
use super::recover::{positions, refill};
use super::segment::{self, HEADER_BYTES, Segment};
use super::state::State;
use super::syncer::Reach;
use super::wall::Wall;
use crate::domain::limits::JOURNAL_ROOM_BYTES_MIN;
use crate::domain::sequence::{Lsn, Sequence};

impl Shared {
    /// Goes back to what is durable, and makes the journal ready to take more in a new segment. Returns the newest
    /// change and how far the stream is known. Where it fails it can be called again; readers are served all the time.
    ///
    /// The thread must have ended, and everybody must know of the failure: nobody writes meanwhile. With a transaction that
    /// the disk had no room for, it waits until there is more.
    pub(super) fn mend(&self, mut wall: Option<&mut Wall>) -> Result<(Sequence, Lsn), Error> {
        let meta = self.meta.lock();
        let mut appender = self.appender.lock();
        let end = self.syncer.reach().end;
        let before = self.taken();
        let kept = self.cut_back(&meta, end).doing("cutting off what is not durable");
        let given_back = before.saturating_sub(self.taken());
        if let Some(wall) = &mut wall {
            wall.gave_back(given_back);
        }
        let kept = kept?;
        self.check_room_again(wall.as_deref()).doing("looking for room for the end")?;
        let behind = |id: u32| id.checked_add(1).expect("2^32 segments are never written");
        // A new file, since readers may still be looking at the old one as it was before it was cut.
        let id = kept.last().map_or_else(|| meta.segment_first.max(behind(end.segment)), |last| behind(last.id));
        let before = kept.last().map_or(0, |last| last.summary().end);
        let next = Segment::create(&self.config.folder, id, before, &*self.medium).doing("beginning a segment")?;
        let next = Arc::new(next);
        let (last, end_lsn) = positions(&meta, &kept);
        self.state.write().push(next.clone());
        *appender = Appender::new(next);
        self.syncer.clear();
        self.syncer.set_reach(Reach { end: Address { segment: id, offset: HEADER_BYTES }, end_lsn });
        kept.into_iter().for_each(|segment| self.syncer.rolled(segment));
        // It is lower than before only where something durable turned out to be damaged.
        self.durable.send_replace(end_lsn);
        Ok((last, end_lsn))
    }

    /// Takes from the readers, and then from the files, what is behind `end`. Returns the segments that are left.
    fn cut_back(&self, meta: &Meta, end: Address) -> io::Result<Vec<Arc<Segment>>> {
        let folder = &self.config.folder;
        let mut kept: Vec<_> =
            self.state.read().segments().filter(|segment| segment.id <= end.segment).cloned().collect();
        let cut = match kept.pop_if(|newest| newest.id == end.segment) {
            Some(newest) if newest.ends_at(end.offset)? => Some(newest),
            // Another object, so that a reader who stumbles over the cut sees why.
            Some(_) => Some(Arc::new(Segment::open_scanning_to(folder, end.segment, end.offset)?)),
            None => None,
        };
        kept.extend(cut.clone());
        let visible = |newest: &Arc<Segment>| Address { segment: newest.id, offset: newest.summary().whole_end };
        let visible_end = kept.last().map_or(end, visible);
        let (last, _) = positions(meta, &kept);
        let state = State::new(kept.clone(), visible_end, last, meta.bounds.clone());
        // The old index is large, so it is freed after the lock is.
        let old = std::mem::replace(&mut *self.state.write(), state);
        drop(old);
        {
            let mut tail = self.tail.write();
            tail.clear(last);
            if let Some(newest) = kept.last().filter(|newest| newest.summary().end == newest.summary().whole_end) {
                refill(&mut tail, newest, self.config.memory_bytes)?;
            }
        }
        // Downwards, so that a crash leaves no hole between those that are left.
        for id in segment::list(folder)?.into_iter().rev().take_while(|id| *id > end.segment) {
            segment::remove_files(folder, id)?;
        }
        if let Some(cut) = cut {
            match cut.ends_at(end.offset)? {
                // Also where the cut was made in vain before: only now is it certain to stay.
                true => self.medium.sync(&cut.file)?,
                false => cut.cut_to_whole(&*self.medium)?,
            }
        }
        Ok(kept)
    }

    /// What the files take, in bytes; as far as that can be seen.
    fn taken(&self) -> u64 {
        let files = std::fs::read_dir(&self.config.folder).into_iter().flatten().flatten();
        files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
    }

    /// The same as [`Shared::check_room`] for who had too little: twice what is enough to stop at, so that it does not go
    /// to and fro, or what the transaction needs that it had too little for.
    fn check_room_again(&self, wall: Option<&Wall>) -> io::Result<()> {
        let bytes = wall.map_or(2 * JOURNAL_ROOM_BYTES_MIN, Wall::room);
        self.check_room(bytes).map_err(|error| match wall {
            Some(wall) => io::Error::new(error.kind(), format!("{error}: {wall}")),
            None => error,
        })
    }

    /// Fails as a full disk does where less than `bytes` are free. So much is left alone, since a purge, and the end of
    /// a segment, need some room themselves.
    pub(super) fn check_room(&self, bytes: u64) -> io::Result<()> {
        match self.medium.room(&self.config.folder) {
            room if room >= bytes => Ok(()),
            room => {
                let what = format!("the disk is full: {room} bytes are free, and at least {bytes} must be");
                Err(io::Error::new(io::ErrorKind::StorageFull, what))
            }
        }
    }

    /// Whether a damaged byte in this segment may be one that a sync has just failed to bring to the disk, and not one
    /// that was lost for good.
    pub(super) fn is_unsettled(&self, segment: &Segment) -> bool {
        let reach = self.syncer.reach().end;
        self.failure().is_some() || (segment.id >= reach.segment && reach < self.state.read().visible_end())
    }
}
