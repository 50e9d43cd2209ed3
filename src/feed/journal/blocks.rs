//! Arrays of fixed-size records in checksummed blocks of 4 KiB: what a sidecar is made of. A record is never handed out
//! of a block whose checksum is wrong.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::error::Fault;

/// Size of a block, checksum included: one page of the page cache.
pub(super) const BLOCK_BYTES: usize = 4096;
const PAYLOAD_BYTES: usize = BLOCK_BYTES - 4;

/// Appends blocks to a file's image.
#[derive(Debug, Default)]
pub(super) struct Image(Vec<u8>);

impl Image {
    /// Appends the records as an array, and returns where it stands.
    pub fn array<const N: usize>(&mut self, records: impl Iterator<Item = [u8; N]>) -> Extent {
        let block = u32::try_from(self.0.len() / BLOCK_BYTES).expect("a sidecar is shorter than 16 TiB");
        let mut count = 0_u32;
        let mut start = self.0.len();
        for record in records {
            if self.0.len() - start + N > PAYLOAD_BYTES {
                self.end_block(start);
                start = self.0.len();
            }
            self.0.extend_from_slice(&record);
            count += 1;
        }
        if self.0.len() > start {
            self.end_block(start);
        }
        Extent { block, count }
    }

    fn end_block(&mut self, start: usize) {
        self.0.resize(start + PAYLOAD_BYTES, 0);
        let checksum = crc32c::crc32c(&self.0[start..]);
        self.0.extend_from_slice(&checksum.to_le_bytes());
    }

    /// Puts the first block of another image in the place of this one's.
    pub fn begin_with(&mut self, other: &Self) {
        self.0[..BLOCK_BYTES].copy_from_slice(&other.0[..BLOCK_BYTES]);
    }

    /// The image so far.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Where an array stands in its file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extent {
    /// Its first block.
    pub block: u32,
    /// How many records it has.
    pub count: u32,
}

impl Extent {
    /// How many blocks it has, at so many records each.
    pub fn blocks(self, per_block: u32) -> u32 {
        self.count.div_ceil(per_block)
    }
}

/// How many records of `N` bytes a block holds.
pub(super) const fn per_block<const N: usize>() -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "a block has less than 4,096 records")]
    let count = (PAYLOAD_BYTES / N) as u32;
    count
}

/// One block in memory, checked. Kept between calls so that neighbouring records are read once.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    file: &'a File,
    held: Option<u32>,
    block: Vec<u8>,
}

impl<'a> Cursor<'a> {
    /// A cursor over the blocks of a file.
    pub fn new(file: &'a File) -> Self {
        Self { file, held: None, block: Vec::new() }
    }

    /// Record number `index` of an array. An index beyond the array, or a damaged block, is a fault of the sidecar.
    pub fn record<const N: usize>(&mut self, array: Extent, index: u32) -> Result<[u8; N], Fault> {
        if index >= array.count {
            return Err(Fault::Sidecar);
        }
        self.hold(array.block + index / per_block::<N>())?;
        let start = usize::try_from(index % per_block::<N>()).map_err(|_| Fault::Sidecar)? * N;
        let record = self.block.get(start..).and_then(<[u8]>::first_chunk::<N>);
        record.copied().ok_or(Fault::Sidecar)
    }

    fn hold(&mut self, block: u32) -> Result<(), Fault> {
        if self.held == Some(block) {
            return Ok(());
        }
        self.held = None;
        self.block.resize(BLOCK_BYTES, 0);
        let at = u64::from(block) * BLOCK_BYTES as u64;
        match self.file.read_exact_at(&mut self.block, at) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(Fault::Sidecar),
            other => other?,
        }
        let (payload, checksum) = self.block.split_at(PAYLOAD_BYTES);
        if crc32c::crc32c(payload).to_le_bytes() != checksum {
            return Err(Fault::Sidecar);
        }
        self.held = Some(block);
        Ok(())
    }
}
