//! The journal: append-only segment files in commit order, indexed by scope.
//!
//! One [`Writer`] takes transactions from the stream; any number of [`Journal`] handles read. A transaction is visible
//! when all of it has been written, and durable, that is, may be acknowledged, when it has been synced. The journal
//! never serves a byte that is not what was written, and never leaves a hole without saying so.
//!
//! What a page of changes costs depends on what it returns, not on what is stored: the index of the newest segment and
//! the newest changes are in memory, the older segments' indexes are read block by block.

mod address;
mod appender;
mod blocks;
mod buffers;
mod error;
mod fetch;
mod filter;
mod frame;
mod index;
mod medium;
mod mend;
mod merge;
mod meta;
mod read;
mod recover;
mod retention;
mod segment;
mod sidecar;
mod state;
mod syncer;
mod tail;
#[cfg(test)]
mod tests;
mod wall;
mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tracing::error;

use crate::domain::history::History;
use crate::domain::sequence::{Lsn, Sequence};
use crate::domain::snapshot::Snapshot;
use crate::feed::hub::Hub;
use crate::lockfile::Lock;

use appender::Appender;
use buffers::Buffers;
use medium::{Disk, Medium};
use meta::Meta;
use state::State;
use syncer::Syncer;
use tail::Tail;

pub use error::{Error, Failure};
pub(in crate::feed) use index::key;
pub use meta::Identity;
pub use writer::Writer;

/// How the journal is kept.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder, which is made where it does not exist. Nothing else may be in it.
    pub folder: PathBuf,
    /// Size at which a segment is full: 64 KiB to 1 GiB. It is at most a quarter of `max_bytes`, and where that is large
    /// a 512th at least: each segment keeps two files open.
    pub segment_bytes: u64,
    /// Changes that committed longer ago are purged.
    pub max_age: Duration,
    /// The oldest changes are purged when all of them together take more, in bytes of the segments; at least 256 KiB.
    pub max_bytes: u64,
    /// How much of the newest changes is also kept in memory, in bytes.
    pub memory_bytes: usize,
    /// So much is written at once, in bytes: 1 KiB to 16 MiB.
    pub buffer_bytes: usize,
    /// So many changes are synced without waiting for more, at least 1.
    pub sync_changes: u64,
    /// What has been written is synced at the latest so long afterwards.
    pub sync_after: Duration,
}

impl Config {
    /// The defaults, in this folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            segment_bytes: 64 << 20,
            max_age: Duration::from_secs(7 * 86_400),
            max_bytes: 10 << 30,
            memory_bytes: 32 << 20,
            buffer_bytes: 64 << 10,
            sync_changes: 5_000,
            sync_after: Duration::from_millis(20),
        }
    }

    /// How many files it may have open: two for each segment, those that are being begun and purged too.
    pub fn files_max(&self) -> usize {
        let segments = self.max_bytes / recover::segment_bytes(self).max(1);
        usize::try_from(segments.saturating_add(4).saturating_mul(2)).unwrap_or(usize::MAX)
    }

    /// Checks the bounds.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] names what is out of bounds.
    pub fn validate(&self) -> Result<(), Error> {
        let rules = [
            ((64 << 10..=1 << 30).contains(&self.segment_bytes), "a segment has 64 KiB to 1 GiB"),
            (self.max_bytes >= 256 << 10, "its size must be allowed to reach 256 KiB"),
            ((1 << 10..=16 << 20).contains(&self.buffer_bytes), "the write buffer has 1 KiB to 16 MiB"),
            (self.sync_changes > 0, "at least one change must make a group to sync"),
            (!self.max_age.is_zero(), "the age at which changes are purged must be above zero"),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(Error::Setting(rule)),
            None => Ok(()),
        }
    }
}

/// Opens the journal of a folder, or makes one, and repairs what a crash has left: what follows the last whole
/// transaction is cut off. This reads the newest segment, so it blocks for a moment.
///
/// # Errors
///
/// [`Error::Setting`], [`Error::Locked`] where another process has it open, [`Error::Unusable`] and [`Error::Io`].
pub fn open(config: Config) -> Result<(Writer, Journal), Error> {
    recover::open(config, Arc::new(Disk))
}

/// A handle for reading, and for what is said about the journal as a whole. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Journal(Arc<Shared>);

/// The oldest and the newest change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The oldest sequence that is still there; the newest ever where nothing is.
    pub first: Sequence,
    /// The newest sequence, also after its change has been purged; [`Sequence::ZERO`] where there never was one.
    pub last: Sequence,
}

impl Journal {
    /// How far the stream is durable: up to here it may be acknowledged.
    pub fn durable(&self) -> Lsn {
        *self.0.durable.borrow()
    }

    /// [`Journal::durable`], to be told when it moves.
    pub fn watch_durable(&self) -> watch::Receiver<Lsn> {
        self.0.durable.subscribe()
    }

    /// Why nothing more is taken, if that is so; see [`Writer::mend`].
    pub fn failure(&self) -> Option<Failure> {
        self.0.failure()
    }

    /// [`Journal::failure`], to be told when it happens.
    pub fn watch_failure(&self) -> watch::Receiver<Option<Failure>> {
        self.0.failure.subscribe()
    }

    /// The oldest and the newest change that are visible.
    pub fn range(&self) -> Range {
        let state = self.0.state.read();
        Range { first: state.first(), last: state.last() }
    }

    /// Whether it is known where the feed begins. Before that there is perhaps no slot, and nothing is kept for anybody.
    pub fn has_begun(&self) -> bool {
        self.position() != Sequence::ZERO
    }

    /// Where to follow on for who knows all that has committed so far: the newest change that is visible, or where the
    /// feed begins while it has told none; zero before it has begun.
    pub fn position(&self) -> Sequence {
        let state = self.0.state.read();
        state.last().max(state.bounds().floor)
    }

    /// Size of all segments in bytes.
    pub fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    /// Whose positions these are; none until it has been said.
    pub fn identity(&self) -> Option<Identity> {
        self.0.meta.lock().identity.clone()
    }

    /// The timelines of the server, as they were said last: see [`Writer::set_history`].
    pub fn history(&self) -> History {
        self.0.state.read().bounds().history.clone()
    }

    /// Says whose positions these are. It is durable when this returns.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the meta file could not be written.
    pub fn set_identity(&self, identity: Identity) -> Result<(), Error> {
        self.0.update(|meta| meta.identity = Some(identity))
    }

    /// Says what had committed before the feed began: a reader's snapshot that does not show all of it is too old.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the meta file could not be written.
    pub fn set_floor(&self, snapshot: Snapshot) -> Result<(), Error> {
        self.0.update(|meta| meta.bounds.snapshot = Some(snapshot))
    }

    /// Says which transactions are over on the server at this moment, from time to time. The more often it is said, the
    /// fewer snapshots of readers are refused after a purge although they would do.
    pub fn note_snapshot(&self, snapshot: Snapshot) {
        self.0.state.write().note(snapshot);
    }

    /// Says where a new slot began, before anything was stored: a cursor below it is too old, and one at or above it is
    /// good although no change is there yet. First and last do not change.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the meta file could not be written.
    pub fn set_origin(&self, origin: Sequence) -> Result<(), Error> {
        self.0.update(|meta| meta.bounds.floor = meta.bounds.floor.max(origin))
    }

    /// Who waits for changes.
    pub(in crate::feed) fn hub(&self) -> &Arc<Hub> {
        &self.0.hub
    }
}

/// What the writer, the readers and the thread share. Locks are taken in the order of the fields.
struct Shared {
    config: Config,
    /// Size at which a segment is full, as it follows from the settings.
    segment_bytes: u64,
    medium: Arc<dyn Medium>,
    meta: Mutex<Meta>,
    appender: Mutex<Appender>,
    syncer: Syncer,
    state: RwLock<State>,
    tail: RwLock<Tail>,
    hub: Arc<Hub>,
    buffers: Arc<Buffers>,
    durable: watch::Sender<Lsn>,
    failure: watch::Sender<Option<Failure>>,
    /// Locked for as long as it is open.
    _lock: Lock,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("folder", &self.config.folder).finish_non_exhaustive()
    }
}

impl Shared {
    fn failure(&self) -> Option<Failure> {
        self.failure.borrow().clone()
    }

    /// Notes a failure, after which nothing more is taken until it is mended. The first one stays until then.
    fn stop(&self, doing: &'static str, source: io::Error) -> Failure {
        let failure = Failure { doing, source: Arc::new(source) };
        self.failure.send_if_modified(|known| {
            let first = known.is_none();
            if first {
                metrics::counter!("walclock_journal_failures_total").increment(1);
                error!(folder = %self.config.folder.display(), "{failure}; nothing more is taken");
                *known = Some(failure.clone());
            }
            first
        });
        failure
    }

    /// Changes what is true of the journal as a whole, on disk first.
    fn update(&self, change: impl FnOnce(&mut Meta)) -> Result<(), Error> {
        let mut meta = self.meta.lock();
        let mut next = meta.clone();
        change(&mut next);
        next.store(&self.config.folder, &*self.medium)?;
        self.state.write().set_bounds(next.bounds.clone());
        *meta = next;
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.state.read().segments().map(|segment| u64::from(segment.summary().end)).sum()
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    fn gauge_bytes(&self) {
        metrics::gauge!("walclock_journal_bytes").set(self.bytes() as f64);
    }
}
