//! A segment: one file of frames in commit order, and its index.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

use super::error::Fault;
use super::frame::{self, Frame};
use super::index::{Mark, MemoryIndex, Summary};
use super::medium::Medium;
use super::merge;
use super::sidecar::Sidecar;
use crate::domain::sequence::Sequence;
use crate::domain::snapshot::Snapshot;

const MAGIC: [u8; 4] = *b"WCJ2";
/// What stood in the place of the magic and the size before segments knew the size of the one before them.
const MAGIC_ALONE: [u8; 8] = *b"WALCLKJ1";
/// The file begins with magic, size of the segment before, number and checksum; frames follow.
pub(super) const HEADER_BYTES: u32 = 16;
/// How much is read at once when a segment is scanned.
const SCAN_BYTES: usize = 1 << 20;

/// An open segment. The last one of a journal grows, the others do not change.
#[derive(Debug)]
pub(super) struct Segment {
    /// Its number; they are consecutive.
    pub id: u32,
    /// The file of its frames.
    pub file: File,
    /// Whether its name in the folder would survive a power cut.
    pub named: AtomicBool,
    folder: PathBuf,
    index: RwLock<Index>,
}

#[derive(Debug)]
enum Index {
    Memory(MemoryIndex),
    Sealed(Sidecar),
}

impl Segment {
    /// Makes an empty one in `folder`. The one before it has `before` bytes and gets no more; zero where there is none.
    pub fn create(folder: &Path, id: u32, before: u32, medium: &dyn Medium) -> io::Result<Self> {
        let path = log_path(folder, id);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        medium.write_at(&file, &header(id, before), 0)?;
        Ok(Self::new(folder, id, file, Index::Memory(MemoryIndex::new(HEADER_BYTES)), false))
    }

    /// Opens one by its sidecar, which must fit it. Where the segment itself does not reach as far as its sidecar says,
    /// the fault is the segment's: a sidecar goes before its segment is cut.
    pub fn open_sealed(folder: &Path, id: u32) -> Result<Self, Fault> {
        let file = File::open(log_path(folder, id))?;
        let sidecar = Sidecar::open(&sidecar_path(folder, id), id)?;
        match file.metadata()?.len().cmp(&u64::from(sidecar.summary().end)) {
            std::cmp::Ordering::Less => Err(Fault::Segment),
            std::cmp::Ordering::Greater => Err(Fault::Sidecar),
            std::cmp::Ordering::Equal => Ok(Self::new(folder, id, file, Index::Sealed(sidecar), true)),
        }
    }

    /// Opens one by reading all of it. What follows the last intact frame is not in its index.
    pub fn open_scanning(folder: &Path, id: u32) -> io::Result<Self> {
        Self::open_scanning_to(folder, id, u32::MAX)
    }

    /// The same, as if its file ended at `end`.
    pub fn open_scanning_to(folder: &Path, id: u32, end: u32) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(log_path(folder, id))?;
        let index = scan(&file, id, end)?;
        Ok(Self::new(folder, id, file, Index::Memory(index), true))
    }

    fn new(folder: &Path, id: u32, file: File, index: Index, named: bool) -> Self {
        Self { id, file, named: AtomicBool::new(named), folder: folder.to_owned(), index: RwLock::new(index) }
    }

    /// What is known of it as a whole, at this moment.
    pub fn summary(&self) -> Summary {
        match &*self.index.read() {
            Index::Memory(index) => index.summary().clone(),
            Index::Sealed(sidecar) => sidecar.summary().clone(),
        }
    }

    /// Where frames begin at `offset` or behind it, some of them; nothing where its index is not in memory.
    pub fn marks_from(&self, offset: u32) -> Vec<Mark> {
        match &*self.index.read() {
            Index::Memory(index) => index.marks_from(offset).to_vec(),
            Index::Sealed(_) => Vec::new(),
        }
    }

    /// Whether it can grow: its index is in memory.
    pub fn can_grow(&self) -> bool {
        matches!(&*self.index.read(), Index::Memory(_))
    }

    /// Adds to the index what was written at its end; `bytes` are whole frames of our own making.
    pub fn add(&self, mut bytes: &[u8], mut touched: impl FnMut(u64)) {
        let mut index = self.index.write();
        let Index::Memory(index) = &mut *index else { unreachable!("a sealed segment does not grow") };
        while let Some(frame) = Frame::decode(bytes) {
            index.add(&frame, &mut touched);
            bytes = &bytes[frame.length..];
        }
        assert!(bytes.is_empty(), "only whole frames are written");
    }

    /// Whether its index and its file both end at `offset`.
    pub fn ends_at(&self, offset: u32) -> io::Result<bool> {
        Ok(self.summary().end == offset && self.file.metadata()?.len() == u64::from(offset))
    }

    /// Takes back what was added since `before` was its summary.
    pub fn cut(&self, before: Summary) -> io::Result<()> {
        self.file.set_len(u64::from(before.end))?;
        match &mut *self.index.write() {
            Index::Memory(index) => index.cut(before),
            Index::Sealed(_) => unreachable!("a sealed segment does not shrink"),
        }
        Ok(())
    }

    /// Cuts off what follows the last whole transaction, in the file and in the index.
    pub fn cut_to_whole(&self, medium: &dyn Medium) -> io::Result<()> {
        self.unseal(medium)?;
        let whole_end = self.summary().whole_end;
        if whole_end == HEADER_BYTES {
            let before = read_header(&self.file, self.id)?.unwrap_or(0);
            medium.write_at(&self.file, &header(self.id, before), 0)?;
        }
        self.file.set_len(u64::from(whole_end))?;
        medium.sync(&self.file)?;
        *self.index.write() = Index::Memory(scan(&self.file, self.id, u32::MAX)?);
        Ok(())
    }

    /// Removes its sidecar, where it has one: the segment is about to change.
    pub fn unseal(&self, medium: &dyn Medium) -> io::Result<()> {
        match std::fs::remove_file(sidecar_path(&self.folder, self.id)) {
            // Else a power cut could bring it back beside a segment that is shorter.
            Ok(()) => medium.sync(&File::open(&self.folder)?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Puts the index into a sidecar and out of memory.
    pub fn seal(&self, medium: &dyn Medium) -> Result<(), Fault> {
        let sidecar = match &*self.index.read() {
            Index::Memory(index) => Sidecar::write(&sidecar_path(&self.folder, self.id), self.id, index, medium)?,
            Index::Sealed(_) => return Ok(()),
        };
        // The old index is large, so it is freed after the lock is.
        let old = std::mem::replace(&mut *self.index.write(), Index::Sealed(sidecar));
        drop(old);
        Ok(())
    }

    /// Builds the index anew from the frames, where the sidecar turned out to be damaged.
    pub fn rebuild(&self) -> Result<(), Fault> {
        let end = self.summary().end;
        let index = scan(&self.file, self.id, u32::MAX)?;
        if index.summary().end != end {
            return Err(Fault::Segment);
        }
        *self.index.write() = Index::Memory(index);
        Ok(())
    }

    /// Whether `snapshot` shows every transaction that has a change here. Reads all of it where the ids of the
    /// transactions at either end do not tell.
    pub fn is_shown_by(&self, snapshot: &Snapshot) -> io::Result<bool> {
        let summary = self.summary();
        if summary.changes == 0 || summary.txid_max < snapshot.xmin {
            return Ok(true);
        }
        if !snapshot.shows(summary.txid_max) {
            return Ok(false);
        }
        let mut shown = true;
        let end = walk(&self.file, self.id, summary.end, |frame| {
            shown &= frame.is_mark() || snapshot.shows(frame.txid);
        })?;
        Ok(shown && end == u64::from(summary.end))
    }

    /// An offset with every change behind `since` at or behind it, and few others.
    pub fn offset_behind(&self, since: Sequence) -> Result<u32, Fault> {
        let offset = match &*self.index.read() {
            Index::Memory(index) => index.offset_behind(since),
            Index::Sealed(sidecar) => sidecar.offset_behind(since)?,
        };
        Ok(offset.unwrap_or(HEADER_BYTES))
    }

    /// The offsets of the frames that belong to any of the keys, from `from` on and before `to`, in ascending order,
    /// at most `limit` of them.
    pub fn candidates(&self, keys: &[u64], from: u32, to: u32, limit: usize) -> Result<Vec<u32>, Fault> {
        match &*self.index.read() {
            Index::Memory(index) => {
                let lists = keys.iter().map(|key| index.offsets(*key, from)).filter(|list| !list.is_empty());
                merge::merge(lists.map(|list| list.iter().copied().map(Ok)), to, limit)
            }
            Index::Sealed(sidecar) => {
                let lists = keys.iter().filter_map(|key| sidecar.offsets(*key, from).transpose());
                let lists = lists.collect::<Result<Vec<_>, _>>()?;
                merge::merge(lists.into_iter(), to, limit)
            }
        }
    }

    /// Removes its files. Readers that still have it open are not disturbed.
    pub fn remove(&self) -> io::Result<()> {
        remove_files(&self.folder, self.id)
    }

    /// Notes that its name in the folder survives a power cut, and tells whether that was known.
    pub fn set_named(&self) -> bool {
        self.named.swap(true, Ordering::Relaxed)
    }
}

/// Removes the files of segment `id`, whatever they are.
pub(super) fn remove_files(folder: &Path, id: u32) -> io::Result<()> {
    for path in [sidecar_path(folder, id), log_path(folder, id)] {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// The numbers of the segments in `folder`, in ascending order.
pub(super) fn list(folder: &Path) -> io::Result<Vec<u32>> {
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".log"));
        ids.extend(number.and_then(|number| u32::from_str_radix(number, 16).ok()));
    }
    ids.sort_unstable();
    Ok(ids)
}

fn log_path(folder: &Path, id: u32) -> PathBuf {
    folder.join(format!("{id:08x}.log"))
}

fn sidecar_path(folder: &Path, id: u32) -> PathBuf {
    folder.join(format!("{id:08x}.idx"))
}

/// How many bytes the segment before `id` has, as this one was told when it was made; none where it was not, or is not there.
pub(super) fn size_before(folder: &Path, id: u32) -> io::Result<Option<u32>> {
    match File::open(log_path(folder, id)) {
        Ok(file) => Ok(read_header(&file, id)?.filter(|before| *before > 0)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn header(id: u32, before: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&MAGIC);
    header[4..8].copy_from_slice(&before.to_le_bytes());
    header[8..12].copy_from_slice(&id.to_le_bytes());
    let checksum = crc32c::crc32c(&header[..12]);
    header[12..].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// The size that the header of segment `id` names, zero where it names none. None where the file does not begin with it.
fn read_header(file: &File, id: u32) -> io::Result<Option<u32>> {
    let mut start = [0; 16];
    if read_fully(file, &mut start, 0)? < start.len() {
        return Ok(None);
    }
    let [magic, before, number, sum]: [[u8; 4]; 4] =
        std::array::from_fn(|at| *start[4 * at..].first_chunk().expect("four words of four bytes are a header"));
    let is_whole = number == id.to_le_bytes() && sum == crc32c::crc32c(&start[..12]).to_le_bytes();
    let named = match [magic, before].as_flattened() {
        alone if alone == MAGIC_ALONE => Some(0),
        _ if magic == MAGIC => Some(u32::from_le_bytes(before)),
        _ => None,
    };
    Ok(named.filter(|_| is_whole))
}

/// Indexes a file up to the first byte that is not part of an intact frame, or stands at `stop` or behind it.
fn scan(file: &File, id: u32, stop: u32) -> io::Result<MemoryIndex> {
    let mut index = MemoryIndex::new(HEADER_BYTES);
    walk(file, id, stop, |frame| index.add(frame, |_| ()))?;
    Ok(index)
}

/// Visits the frames of a file, up to the first byte that is not part of an intact one, or stands at `stop` or behind it;
/// returns where that is.
fn walk(file: &File, id: u32, stop: u32, mut visit: impl FnMut(&Frame<'_>)) -> io::Result<u64> {
    let mut end = u64::from(HEADER_BYTES);
    if read_header(file, id)?.is_none() {
        return Ok(end);
    }
    let size = file.metadata()?.len().min(u64::from(stop));
    let mut held = Vec::new();
    loop {
        // `held` is what follows the last frame that was visited.
        let filled = held.len();
        let wanted = frame::length(&held).unwrap_or(0).max(filled.saturating_add(SCAN_BYTES));
        // A damaged length must not claim memory that the file cannot fill.
        let left = usize::try_from(size.saturating_sub(end)).unwrap_or(usize::MAX);
        held.resize(wanted.min(left).max(filled), 0);
        let read = read_fully(file, &mut held[filled..], end + filled as u64)?;
        held.truncate(filled + read);
        let mut rest = held.as_slice();
        while let Some(frame) = Frame::decode(rest) {
            let (bytes, behind) = rest.split_at(frame.length);
            if !frame::intact(bytes) {
                return Ok(end);
            }
            visit(&frame);
            end += frame.length as u64;
            rest = behind;
        }
        let incomplete = frame::length(rest).is_some_and(|length| length > rest.len()) || rest.len() < 4;
        if read == 0 || !incomplete {
            return Ok(end);
        }
        let done = held.len() - rest.len();
        held.drain(..done);
    }
}

fn read_fully(file: &File, mut buffer: &mut [u8], mut at: u64) -> io::Result<usize> {
    let mut total = 0;
    while !buffer.is_empty() {
        match file.read_at(buffer, at) {
            Ok(0) => break,
            Ok(count) => {
                total += count;
                at += count as u64;
                buffer = &mut buffer[count..];
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(total)
}
