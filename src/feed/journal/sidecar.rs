//! The index of a sealed segment, on disk: a file beside it that can be rebuilt from it at any time.
//!
//! First a header, then the arrays: the filter's words, the directory (key, first posting, count; by key), the postings
//! (offsets), the marks. Only header and filter are kept in memory; the rest is read block by block where it is needed.

use std::fs::File;
use std::path::Path;

use super::blocks::{self, Cursor, Extent, Image};
use super::error::Fault;
use super::filter::Filter;
use super::index::{Mark, MemoryIndex, Summary};
use super::medium::Medium;
use super::segment::HEADER_BYTES;
use crate::clock::Timestamp;
use crate::domain::sequence::{Lsn, Sequence};

const MAGIC: u64 = u64::from_le_bytes(*b"WALCIDX1");
/// The header: so many numbers of 64 bits.
const HEADER_NUMBERS: u32 = 23;

/// An open sidecar.
#[derive(Debug)]
pub(super) struct Sidecar {
    file: File,
    summary: Summary,
    filter: Filter,
    directory: Extent,
    postings: Extent,
    marks: Extent,
}

impl Sidecar {
    /// Writes the sidecar of segment `id` to `path`, whole or not at all, and opens it.
    pub fn write(path: &Path, id: u32, index: &MemoryIndex, medium: &dyn Medium) -> Result<Self, Fault> {
        let aside = path.with_extension("new");
        let file = File::create(&aside)?;
        medium.write_at(&file, image(id, index).bytes(), 0)?;
        medium.sync(&file)?;
        std::fs::rename(&aside, path)?;
        Self::open(path, id)
    }

    /// Opens the sidecar of segment `id`.
    pub fn open(path: &Path, id: u32) -> Result<Self, Fault> {
        let file = File::open(path)?;
        let mut cursor = Cursor::new(&file);
        let header = Extent { block: 0, count: HEADER_NUMBERS };
        let mut at = 0;
        let mut next = || {
            let number = cursor.record(header, at).map(u64::from_le_bytes);
            at += 1;
            number
        };
        if next()? != MAGIC || next()? != u64::from(id) {
            return Err(Fault::Sidecar);
        }
        let summary = Summary {
            first: Sequence::new(half(next()?)?, Lsn(next()?), half(next()?)?),
            last: Sequence::new(half(next()?)?, Lsn(next()?), half(next()?)?),
            changes: next()?,
            oldest_at: Timestamp::from_micros(next()?.cast_signed()),
            newest_at: Timestamp::from_micros(next()?.cast_signed()),
            txid_max: next()?,
            end: half(next()?)?,
            whole_end: half(next()?)?,
            end_lsn: Lsn(next()?),
        };
        let mut extent = || Ok::<_, Fault>(Extent { block: half(next()?)?, count: half(next()?)? });
        let (words, directory, postings, marks) = (extent()?, extent()?, extent()?, extent()?);
        let words = (0..words.count).map(|n| cursor.record(words, n).map(u64::from_le_bytes));
        let filter = Filter::from_words(words.collect::<Result<_, _>>()?);
        Ok(Self { file, summary, filter, directory, postings, marks })
    }

    /// What is known of the segment as a whole.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// See [`MemoryIndex::offset_behind`].
    pub fn offset_behind(&self, since: Sequence) -> Result<Option<u32>, Fault> {
        let mut cursor = Cursor::new(&self.file);
        let mut mark = |n| cursor.record(self.marks, n).map(|record: [u8; 20]| read_mark(&record));
        let behind = partition_point(self.marks.count, self.marks.count / 2, |n| Ok(mark(n)?.sequence <= since))?;
        behind.checked_sub(1).map(|n| Ok(mark(n)?.offset)).transpose()
    }

    /// The offsets of a key from `from` on; none where there are none at all.
    pub fn offsets(&self, key: u64, from: u32) -> Result<Option<Offsets<'_>>, Fault> {
        if !self.filter.may_have(key) {
            return Ok(None);
        }
        let mut cursor = Cursor::new(&self.file);
        let Some((start, count)) = self.look_up(&mut cursor, key)? else {
            return Ok(None);
        };
        let mut offset = |n: u32| cursor.record(self.postings, start + n).map(u32::from_le_bytes);
        // A scope's changes are spread over the segment, more or less evenly.
        let share = u64::from(count) * u64::from(from) / u64::from(self.summary.end).max(1);
        let guess = if from > HEADER_BYTES { u32::try_from(share).unwrap_or(count) } else { 0 };
        let skip = partition_point(count, guess, |n| Ok(offset(n)? < from))?;
        Ok(Some(Offsets { cursor, array: self.postings, next: start + skip, end: start + count }))
    }

    /// The first posting of a key and how many there are.
    fn look_up(&self, cursor: &mut Cursor<'_>, key: u64) -> Result<Option<(u32, u32)>, Fault> {
        const PER_BLOCK: u32 = blocks::per_block::<16>();
        let mut entry = |n| cursor.record(self.directory, n).map(|record: [u8; 16]| read_entry(&record));
        let blocks = self.directory.blocks(PER_BLOCK);
        let (mut low, mut high) = (0, blocks);
        // Keys are hashes, so the key's block is near its share of the way; the search widens from there.
        let share = (u128::from(key) * u128::from(blocks)) >> 64;
        let (mut probe, mut step) = (u32::try_from(share).unwrap_or(0), 1_u32);
        while low < high {
            let start = probe * PER_BLOCK;
            let end = (start + PER_BLOCK).min(self.directory.count);
            if key < entry(start)?.0 {
                high = probe;
                probe = high.saturating_sub(step).max(low);
            } else if key > entry(end - 1)?.0 {
                low = probe + 1;
                probe = low.saturating_add(step - 1).min(high.saturating_sub(1));
            } else {
                let found = start + partition_point(end - start, (end - start) / 2, |n| Ok(entry(start + n)?.0 < key))?;
                let (at, posting, count) = entry(found)?;
                let fits = posting.checked_add(count).is_some_and(|end| end <= self.postings.count);
                return if fits { Ok((at == key).then_some((posting, count))) } else { Err(Fault::Sidecar) };
            }
            step = step.saturating_mul(2);
        }
        Ok(None)
    }
}

/// The offsets of one key, read block by block.
#[derive(Debug)]
pub(super) struct Offsets<'a> {
    cursor: Cursor<'a>,
    array: Extent,
    next: u32,
    end: u32,
}

impl Offsets<'_> {
    /// The next offset in ascending order.
    pub fn advance(&mut self) -> Result<Option<u32>, Fault> {
        if self.next >= self.end {
            return Ok(None);
        }
        let offset = self.cursor.record(self.array, self.next).map(u32::from_le_bytes)?;
        self.next += 1;
        Ok(Some(offset))
    }
}

/// The bytes of a sidecar.
fn image(id: u32, index: &MemoryIndex) -> Image {
    let mut keys: Vec<(u64, &[u32])> = index.postings().iter().map(|(key, list)| (*key, list.as_slice())).collect();
    keys.sort_unstable_by_key(|(key, _)| *key);
    // The header is one block, which is known last; an empty one keeps its place.
    let mut body = Image::default();
    body.array(std::iter::once([0_u8; 8]));
    let filter = Filter::of(keys.iter().map(|(key, _)| *key));
    let words = body.array(filter.words().iter().map(|word| word.to_le_bytes()));
    let mut posting = 0_u32;
    let directory = body.array(keys.iter().map(|(key, offsets)| {
        let count = u32::try_from(offsets.len()).expect("a segment has fewer than 2^32 frames");
        let entry = entry_bytes(*key, posting, count);
        posting = posting.checked_add(count).expect("the postings of a segment are fewer than 2^32");
        entry
    }));
    let postings = body.array(keys.iter().flat_map(|(_, offsets)| *offsets).map(|offset| offset.to_le_bytes()));
    let marks = body.array(index.marks().iter().map(mark_bytes));
    let summary = index.summary();
    let sequence = |of: Sequence| [u64::from(of.timeline), of.lsn.0, u64::from(of.index)];
    let extent = |of: Extent| [u64::from(of.block), u64::from(of.count)];
    let numbers = [
        &[MAGIC, u64::from(id)][..],
        &sequence(summary.first),
        &sequence(summary.last),
        &[
            summary.changes,
            summary.oldest_at.micros().cast_unsigned(),
            summary.newest_at.micros().cast_unsigned(),
            summary.txid_max,
            u64::from(summary.end),
            u64::from(summary.whole_end),
            summary.end_lsn.0,
        ],
        &extent(words),
        &extent(directory),
        &extent(postings),
        &extent(marks),
    ]
    .concat();
    let mut header = Image::default();
    header.array(numbers.into_iter().map(u64::to_le_bytes));
    body.begin_with(&header);
    body
}

/// The first of `count` numbers from 0 for which `before` does not hold; it must hold for all below that one. The search
/// widens from `guess`, so that a good guess keeps it within one block.
fn partition_point(count: u32, guess: u32, mut before: impl FnMut(u32) -> Result<bool, Fault>) -> Result<u32, Fault> {
    let (mut low, mut high) = (0, count);
    let (mut probe, mut step) = (guess, 64_u32);
    while low < high {
        let at = probe.clamp(low, high - 1);
        probe = match before(at)? {
            true => {
                low = at + 1;
                at.saturating_add(step)
            }
            false => {
                high = at;
                at.saturating_sub(step)
            }
        };
        step = step.saturating_mul(2);
        if low > 0 && high < count {
            probe = low + (high - low) / 2;
        }
    }
    Ok(low)
}

fn entry_bytes(key: u64, posting: u32, count: u32) -> [u8; 16] {
    (u128::from(key) << 64 | u128::from(posting) << 32 | u128::from(count)).to_le_bytes()
}

fn read_entry(record: &[u8; 16]) -> (u64, u32, u32) {
    let [count, posting, key_low, key_high] = words(record);
    (u64::from(key_high) << 32 | u64::from(key_low), posting, count)
}

fn mark_bytes(mark: &Mark) -> [u8; 20] {
    let lsn = mark.sequence.lsn.0;
    let mut bytes = [0; 20];
    let (start, rest) = bytes.split_at_mut(8);
    start.copy_from_slice(&lsn.to_le_bytes());
    for (field, number) in rest.chunks_exact_mut(4).zip([mark.sequence.timeline, mark.sequence.index, mark.offset]) {
        field.copy_from_slice(&number.to_le_bytes());
    }
    bytes
}

fn read_mark(record: &[u8; 20]) -> Mark {
    let [lsn_low, lsn_high, timeline, index, offset] = words(record);
    Mark { sequence: Sequence::new(timeline, Lsn(u64::from(lsn_high) << 32 | u64::from(lsn_low)), index), offset }
}

/// The record as little-endian words, of which there must be as many as fit.
fn words<const N: usize>(record: &[u8]) -> [u32; N] {
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(record.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    words
}

fn half(number: u64) -> Result<u32, Fault> {
    u32::try_from(number).map_err(|_| Fault::Sidecar)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_search_ends_where_it_should_whatever_was_guessed(
            count in 0_u32..5000, point in 0_u32..5000, guess: u32,
        ) {
            let found = partition_point(count, guess, |n| Ok(n < point)).expect("no fault");
            prop_assert_eq!(found, point.min(count));
        }
    }
}
