//! What goes: by age, by size, because it is damaged, or because the stream has a gap. Segments go whole, and what is
//! known of them afterwards is on disk before their files are gone.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::MutexGuard;
use tracing::{info, warn};

use super::address::Address;
use super::error::Doing;
use super::meta::{Bounds, Meta};
use super::segment::{HEADER_BYTES, Segment};
use super::syncer::Reach;
use super::{Error, Journal, Shared};
use crate::clock::Timestamp;
use crate::domain::sequence::Sequence;
use crate::domain::snapshot::Snapshot;

/// So much longer old changes are kept at most where no snapshot of the server is known that shows all of them.
const SNAPSHOT_WAIT_MAX: Duration = Duration::from_secs(60);
/// So many segments are looked through at most for what a snapshot does not show, so that a purge stays cheap.
const LOOKED_THROUGH_MAX: usize = 16;

impl Journal {
    /// Purges what is older or more than the settings allow, and returns how many segments went. It is cheap, and
    /// stalls neither the writer nor readers; call it every few seconds.
    ///
    /// `now` is what the database's clock says, which stamps the commits: a clock that ran ahead of it would drop what is
    /// young. Where that is not known it is [`Timestamp::MIN`], by which nothing is too old.
    ///
    /// The segment that is being written is ended when its oldest change is too old, and goes when its newest is.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`], or [`Error::Io`] when a file could not be changed; what is left over goes next time.
    pub fn purge(&self, now: Timestamp) -> Result<usize, Error> {
        let shared = &*self.0;
        shared.gauge_bytes();
        let meta = shared.meta.lock();
        let victims = shared.expired(now)?;
        let count = victims.len();
        let Some(newest) = victims.last() else {
            return Ok(0);
        };
        let purged = shared.shown_by(&meta.bounds, &victims);
        if purged.is_none() && shared.may_wait(newest, now) {
            return Ok(0);
        }
        info!(segments = count, "purging the oldest changes");
        shared.drop_through(meta, newest.id, None, |bounds| bounds.purged = purged)?;
        Ok(count)
    }
}

impl Shared {
    /// The segments that are too old or too many, oldest first.
    fn expired(&self, now: Timestamp) -> Result<Vec<Arc<Segment>>, Error> {
        let oldest_at = now.before(self.config.max_age);
        let mut appender = self.appender.lock();
        let segments: Vec<_> = self.state.read().segments().cloned().collect();
        let growing = segments.last().map(|segment| segment.summary());
        let aged = growing.is_some_and(|summary| summary.changes > 0 && summary.oldest_at < oldest_at);
        if aged && appender.open_segment().is_none() && self.failure().is_none() {
            appender.roll(self)?;
        }
        let kept = appender.open_segment().unwrap_or(appender.active());
        drop(appender);
        let mut bytes: u64 = segments.iter().map(|segment| u64::from(segment.summary().end)).sum();
        let mut expired = Vec::new();
        for segment in segments.into_iter().take_while(|segment| segment.id < kept) {
            let summary = segment.summary();
            if summary.newest_at >= oldest_at && bytes <= self.config.max_bytes {
                break;
            }
            bytes -= u64::from(summary.end);
            expired.push(segment);
        }
        Ok(expired)
    }

    /// The oldest snapshot that is known to show all of these segments, and all that has been purged before.
    fn shown_by(&self, bounds: &Bounds, segments: &[Arc<Segment>]) -> Option<Snapshot> {
        let newest = segments.last()?;
        let snapshots: Vec<_> = self.state.read().snapshots_behind(newest.id).collect();
        let shows_before = |snapshot: &Snapshot| {
            bounds.purged_txid < snapshot.xmin || bounds.purged.as_ref().is_some_and(|purged| snapshot.covers(purged))
        };
        let shows = |snapshot: &Snapshot| {
            // Those that have no transaction of the time of the oldest one in progress are not looked through.
            let unsure = segments.iter().filter(|segment| segment.summary().txid_max >= snapshot.xmin).count();
            // One that cannot be read has not been shown to be.
            let mut all = segments.iter().map(|segment| segment.is_shown_by(snapshot).unwrap_or(false));
            shows_before(snapshot) && unsure <= LOOKED_THROUGH_MAX && all.all(|shown| shown)
        };
        snapshots.into_iter().find(|snapshot| shows(snapshot)).map(|snapshot| (*snapshot).clone())
    }

    /// Whether the segment may stay until a newer snapshot of the server shows all of it: soon, where there is a server.
    fn may_wait(&self, segment: &Segment, now: Timestamp) -> bool {
        let old = now.before(self.config.max_age.saturating_add(SNAPSHOT_WAIT_MAX));
        let has_room = self.bytes() <= self.config.max_bytes;
        has_room && segment.summary().newest_at >= old && self.state.read().has_snapshot()
    }

    /// Drops everything up to segment `id`; where that is all there is, and the feed begins anew, it does so behind
    /// `begins_behind`, which `change` may say more of.
    fn drop_through(
        &self,
        mut meta: MutexGuard<'_, Meta>,
        id: u32,
        begins_behind: Option<Sequence>,
        change: impl FnOnce(&mut Bounds),
    ) -> Result<(), Error> {
        let mut next = meta.clone();
        next.segment_first = next.segment_first.max(id.saturating_add(1));
        let dropped: Vec<_> = self.state.read().segments().take_while(|segment| segment.id <= id).cloned().collect();
        for summary in dropped.iter().map(|segment| segment.summary()) {
            next.end_lsn = next.end_lsn.max(summary.end_lsn);
            if summary.changes > 0 {
                next.last = next.last.max(summary.last);
                next.bounds.purge(summary.last, summary.txid_max);
            }
        }
        if let Some(after) = begins_behind {
            (next.last, next.end_lsn, next.bounds.floor) = (after, after.lsn, after);
        }
        change(&mut next.bounds);
        let remove = || dropped.iter().try_for_each(|segment| segment.remove()).doing("removing a segment");
        // The meta file comes first: what it says is gone is removed when the journal is opened, should the files
        // survive this. On a full disk it needs the room that they take; opening copes with their absence, too.
        match next.store(&self.config.folder, &*self.medium) {
            Err(e) if e.is_disk_full() => {
                remove()?;
                next.store(&self.config.folder, &*self.medium)?;
            }
            other => other?,
        }
        self.state.write().drop_through(id, next.bounds.clone(), begins_behind);
        *meta = next;
        self.gauge_bytes();
        remove()
    }

    /// Drops everything; see [`super::Writer::begin_anew`].
    pub(super) fn begin_anew(&self, after: Sequence, change: impl FnOnce(&mut Bounds)) -> Result<(), Error> {
        let meta = self.meta.lock();
        let mut appender = self.appender.lock();
        warn!(%after, "the feed begins anew: what was before is dropped");
        if !appender.is_empty() {
            appender.roll(self)?;
        }
        let last_old = appender.active().saturating_sub(1);
        self.drop_through(meta, last_old, Some(after), change)?;
        self.state.write().begin_anew(appender.active());
        self.tail.write().clear(after);
        let end = Address { segment: appender.active(), offset: HEADER_BYTES };
        self.syncer.set_reach(Reach { end, end_lsn: after.lsn });
        self.durable.send_replace(after.lsn);
        drop(appender);
        // Those who wait behind the gap are told that they are too old.
        self.hub.wake_all();
        Ok(())
    }

    /// Drops the segment, because what it holds is not what was written, and with it all that is before it: readers
    /// behind it are too old. Returns whether that could be done; where a transaction is open in it, it cannot yet.
    pub(super) fn drop_damaged(&self, id: u32) -> Result<bool, Error> {
        let meta = self.meta.lock();
        let mut appender = self.appender.lock();
        if appender.open_segment().is_some_and(|open| open <= id) {
            return Ok(false);
        }
        if id >= appender.active() {
            appender.roll(self)?;
        }
        drop(appender);
        warn!(segment.id = id, "a segment is damaged: it is dropped, with what is before it");
        self.drop_through(meta, id, None, |_| ()).map(|()| true)
    }
}

impl Bounds {
    /// Notes that everything up to `last` is gone, transactions up to `txid` among it.
    pub(super) fn purge(&mut self, last: Sequence, txid: u64) {
        self.floor = self.floor.max(last);
        self.purged_txid = self.purged_txid.max(txid);
        self.purged = None;
    }
}
