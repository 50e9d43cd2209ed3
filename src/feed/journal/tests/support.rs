//! What the tests of the journal share: small journals, rows as data, and a disk that fails when told to.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::super::medium::{Disk, Medium};
use super::super::{Config, Error, Journal, Writer, recover};
use crate::clock::Timestamp;
use crate::domain::limits::CHANGES_BYTES_MAX;
use crate::domain::scope::Scope;
use crate::domain::sequence::{Lsn, Sequence};
use crate::domain::snapshot::Snapshot;
use crate::feed::query::{self, Page};
use crate::feed::sink::{Accept, Head, Row, Side, Sink};

/// The smallest journal that rolls, evicts from memory and writes in pieces.
pub fn small(folder: &Path) -> Config {
    Config {
        segment_bytes: 64 << 10,
        memory_bytes: 8 << 10,
        buffer_bytes: 1 << 10,
        max_bytes: 32 << 20,
        max_age: Duration::from_secs(100),
        sync_after: Duration::ZERO,
        ..Config::new(folder)
    }
}

pub fn sequence(lsn: u64, index: u32) -> Sequence {
    Sequence::new(1, Lsn(lsn), index)
}

/// The head of the transaction that commits at `lsn`, with the txid `lsn` too, `lsn` seconds after 1970.
pub fn head(lsn: u64) -> Head {
    let committed_at = Timestamp::from_micros(0).after(Duration::from_secs(lsn));
    Head { timeline: 1, commit_lsn: Lsn(lsn), txid: lsn, committed_at }
}

pub fn push(writer: &mut Writer, index: u32, scopes: &[(Side, &str)], body: &str) {
    let (left, entered) = (format!("left {body}"), format!("entered {body}"));
    let row = Row {
        index,
        scopes,
        to_everyone: false,
        body: body.as_bytes(),
        left_body: left.as_bytes(),
        entered_body: entered.as_bytes(),
    };
    writer.push(&row).unwrap();
}

/// Commits, without a flush, a transaction at `lsn` with a row of each of these scopes. Its body is `lsn.index`.
pub fn write(writer: &mut Writer, lsn: u64, scopes: &[&str]) -> Accept {
    let accept = writer.begin(&head(lsn)).unwrap();
    if accept == Accept::Take {
        for (index, scope) in (0..).zip(scopes) {
            push(writer, index, &[(Side::Stays, scope)], &format!("{lsn}.{index}"));
        }
        writer.commit(Lsn(lsn + 1)).unwrap();
    }
    accept
}

pub fn scopes(names: &[&str]) -> Vec<Scope> {
    names.iter().map(|name| if name.is_empty() { Scope::empty() } else { Scope::parse(name).unwrap() }).collect()
}

pub fn bodies(page: &Page) -> Vec<String> {
    page.changes.iter().map(|change| String::from_utf8(change.body.to_vec()).unwrap()).collect()
}

/// A page as large as any.
pub fn page(
    journal: &Journal,
    scopes: &[Scope],
    since: Sequence,
    limit: usize,
    snapshot: Option<&Snapshot>,
) -> Result<Page, query::Error> {
    journal.read(CHANGES_BYTES_MAX, scopes, since, limit, snapshot)
}

/// The bodies of a scope behind `since`.
pub fn read(journal: &Journal, scope: &str, since: Sequence) -> Vec<String> {
    bodies(&page(journal, &scopes(&[scope]), since, 100_000, None).unwrap())
}

/// Waits until what was written up to `lsn` is durable.
pub fn durable(journal: &Journal, lsn: u64) {
    let start = Instant::now();
    while journal.durable() < Lsn(lsn) {
        assert!(start.elapsed() < Duration::from_secs(20), "not durable: {lsn}");
        std::thread::yield_now();
    }
}

/// A disk whose writes or syncs fail from a moment on.
#[derive(Debug, Default)]
pub struct Failing {
    pub writes: AtomicBool,
    /// While this file is there, the disk is full.
    pub full_with: Mutex<Option<PathBuf>>,
    /// How much of its room is taken by others.
    pub taken: AtomicU64,
    /// How large it is, in bytes; without bound where it is zero.
    pub size: AtomicU64,
    /// Syncs of files fail; those of folders do not.
    pub syncs: AtomicBool,
}

impl Medium for Failing {
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let full = self.full_with.lock().as_ref().is_some_and(|path| path.exists());
        if full || self.writes.load(Ordering::SeqCst) {
            // Like a full disk, it takes a part.
            Disk.write_at(file, &bytes[..bytes.len() / 2], offset)?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        Disk.write_at(file, bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        if self.syncs.load(Ordering::SeqCst) && file.metadata()?.is_file() {
            return Err(io::Error::other("the disk is gone"));
        }
        // No test cuts the power, so that they need not wait for the disk.
        Ok(())
    }

    fn room(&self, folder: &Path) -> u64 {
        let size = match self.size.load(Ordering::SeqCst) {
            0 => return u64::MAX - self.taken.load(Ordering::SeqCst),
            size => size,
        };
        // A file may be renamed meanwhile: a sidecar gets its name when it is whole.
        let files = std::fs::read_dir(folder).unwrap().filter_map(|file| file.unwrap().metadata().ok());
        size.saturating_sub(files.map(|file| file.len()).sum())
    }
}

pub fn open_failing(config: Config) -> (Writer, Journal, Arc<Failing>) {
    let failing = Arc::new(Failing::default());
    let (writer, journal) = recover::open(config, failing.clone()).unwrap();
    (writer, journal, failing)
}

pub fn open(config: &Config) -> Result<(Writer, Journal), Error> {
    recover::open(config.clone(), Arc::new(Failing::default()))
}
