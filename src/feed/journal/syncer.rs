//! What happens behind the writer's back, on a thread of its own: syncing in groups, which makes commits durable, and
//! sealing the segments that are full.

use std::fs::File;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use tracing::warn;

use super::Shared;
use super::address::Address;
use super::error::{Doing, Error, Failure};
use super::segment::Segment;
use crate::domain::sequence::Lsn;

/// The work that waits for the thread.
#[derive(Debug)]
pub(super) struct Syncer {
    /// So many changes are worth a sync at once.
    group: u64,
    pending: Mutex<Pending>,
    changed: Condvar,
    /// Held while a segment is sealed.
    sealing: Mutex<()>,
    /// Up to where everything survives a power cut.
    reach: Mutex<Reach>,
}

/// A point at which the journal is whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    /// Where the last whole transaction ends.
    pub end: Address,
    /// How far the stream had been received there.
    pub end_lsn: Lsn,
}

#[derive(Debug, Default)]
struct Pending {
    /// Written to since they were last synced, oldest first.
    dirty: Vec<Arc<Segment>>,
    full: Vec<Arc<Segment>>,
    reach: Option<Reach>,
    changes: u64,
    /// When the oldest of what is not synced yet was written.
    since: Option<Instant>,
    busy: bool,
    stop: bool,
}

impl Syncer {
    /// One that has nothing to do, and syncs at once when `group` changes have come together.
    pub fn new(group: u64, reach: Reach) -> Self {
        let (pending, changed, sealing) = (Mutex::default(), Condvar::new(), Mutex::new(()));
        Self { group, pending, changed, sealing, reach: Mutex::new(reach) }
    }

    /// Up to where everything survives a power cut.
    pub fn reach(&self) -> Reach {
        *self.reach.lock()
    }

    /// Says that everything up to `reach` survives a power cut, and that nothing is to be done for it.
    pub fn set_reach(&self, reach: Reach) {
        *self.reach.lock() = reach;
    }

    /// Forgets all that was to be done, when the thread has ended.
    pub fn clear(&self) {
        *self.pending.lock() = Pending::default();
    }

    /// Says that something was written to `segment`: so many changes up to `reach`, where anything is whole with it.
    pub fn written(&self, segment: &Arc<Segment>, whole: Option<(Reach, u64)>) {
        let mut pending = self.pending.lock();
        if pending.dirty.last().is_none_or(|last| last.id != segment.id) {
            pending.dirty.push(segment.clone());
        }
        if let Some((reach, changes)) = whole {
            pending.reach = Some(reach);
            pending.changes += changes;
        }
        // The thread sleeps through the rest of a group.
        if pending.since.is_none() || pending.changes >= self.group {
            pending.since.get_or_insert_with(Instant::now);
            self.changed.notify_all();
        }
    }

    /// Says that `segment` is full.
    pub fn rolled(&self, segment: Arc<Segment>) {
        self.pending.lock().full.push(segment);
        self.changed.notify_all();
    }

    /// Runs `change` while no segment from number `id` on is being sealed, nor will be as it was before.
    pub fn forget_from<T>(&self, id: u32, change: impl FnOnce() -> T) -> T {
        let _sealing = self.sealing.lock();
        let mut pending = self.pending.lock();
        pending.dirty.retain(|segment| segment.id <= id);
        pending.full.retain(|segment| segment.id < id);
        drop(pending);
        change()
    }

    /// Waits until everything that was written is synced, or never will be.
    pub fn settle(&self, shared: &Shared) {
        let mut pending = self.pending.lock();
        while (pending.busy || pending.since.is_some()) && !pending.stop && shared.failure().is_none() {
            self.changed.wait(&mut pending);
        }
    }

    /// Starts the thread.
    pub fn start(shared: &Arc<Shared>) -> Result<JoinHandle<()>, Error> {
        let thread = std::thread::Builder::new().name("journal".to_owned());
        let shared = shared.clone();
        thread.spawn(move || shared.syncer.run(&shared)).doing("starting the thread")
    }

    /// Lets the thread end once it has nothing left to do.
    pub fn stop(&self) {
        self.pending.lock().stop = true;
        self.changed.notify_all();
    }

    /// The thread: works until it is stopped, or a sync fails.
    fn run(&self, shared: &Shared) {
        while let Some(work) = self.take(shared) {
            let synced = sync(shared, &work);
            if synced.is_ok() {
                for segment in &work.full {
                    self.seal(shared, segment);
                }
            }
            self.pending.lock().busy = false;
            self.changed.notify_all();
            if synced.is_err() {
                return;
            }
        }
    }

    /// Waits for a group that is worth a sync.
    fn take(&self, shared: &Shared) -> Option<Pending> {
        let mut pending = self.pending.lock();
        loop {
            let deadline = pending.since.map(|since| since + shared.config.sync_after);
            let ripe = pending.stop || pending.changes >= self.group;
            match deadline {
                Some(deadline) if ripe || Instant::now() >= deadline => break,
                Some(deadline) => drop(self.changed.wait_until(&mut pending, deadline)),
                None if !pending.full.is_empty() => break,
                None if pending.stop => return None,
                None => self.changed.wait(&mut pending),
            }
        }
        let stop = pending.stop;
        let work = std::mem::take(&mut *pending);
        *pending = Pending { busy: true, stop, ..Pending::default() };
        Some(work)
    }

    fn seal(&self, shared: &Shared, segment: &Segment) {
        let _sealing = self.sealing.lock();
        if !shared.state.read().segments().any(|known| std::ptr::eq(known.as_ref(), segment)) {
            return;
        }
        if let Err(fault) = segment.seal(&*shared.medium) {
            // Its index stays in memory, and is built anew when the journal is opened.
            let error = std::io::Error::from(fault);
            warn!(segment.id = segment.id, error = &error as &dyn std::error::Error, "a segment was not sealed");
        }
    }
}

/// Syncs all that is in `work`, and then says that it is durable. The order is what makes an acknowledgement safe.
fn sync(shared: &Shared, work: &Pending) -> Result<(), Failure> {
    let start = Instant::now();
    for segment in &work.dirty {
        let synced = shared.medium.sync(&segment.file).and_then(|()| match segment.set_named() {
            true => Ok(()),
            false => shared.medium.sync(&File::open(&shared.config.folder)?),
        });
        synced.map_err(|source| shared.stop("syncing a segment", source))?;
    }
    if !work.dirty.is_empty() {
        metrics::histogram!("walclock_journal_sync_seconds").record(start.elapsed().as_secs_f64());
    }
    if let Some(reach) = work.reach {
        *shared.syncer.reach.lock() = reach;
        shared.durable.send_if_modified(|durable| {
            let ahead = reach.end_lsn > *durable;
            *durable = reach.end_lsn.max(*durable);
            ahead
        });
    }
    Ok(())
}
