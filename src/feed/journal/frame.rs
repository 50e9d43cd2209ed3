//! The frame: one change as it stands in a segment. Pure; what it decodes may be damaged, and nothing in it is trusted
//! before its checksum has been compared.
//!
//! All numbers are little-endian:
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 4 | length of the whole frame |
//! | 4 | 4 | CRC-32C of everything else in it |
//! | 8 | 8 | commit LSN |
//! | 16 | 8 | transaction id |
//! | 24 | 8 | commit time, microseconds since 1970 |
//! | 32 | 4 | timeline |
//! | 36 | 4 | index within the transaction |
//! | 40 | 4 | end LSN minus commit LSN, in the last frame of a transaction |
//! | 44 | 4 | length of the body for readers of left scopes |
//! | 48 | 4 | length of the body for readers of entered scopes |
//! | 52 | 4 | length of the scopes |
//! | 56 | 1 | flags |
//! | 57 | | scopes (side, length, text each), left body, entered body, body |

use std::ops::Range;

use bytes::{BufMut, BytesMut};

use crate::clock::Timestamp;
use crate::domain::limits;
use crate::domain::sequence::{Lsn, Sequence};
use crate::feed::sink::{Head, Row, Side};

/// Bytes ahead of the scopes.
pub(super) const HEADER_BYTES: usize = 57;
/// Largest frame: with it a segment's offsets still fit into 32 bits.
pub(super) const FRAME_BYTES_MAX: usize = 1 << 31;

const LAST: u8 = 1;
const EVERYONE: u8 = 2;
const MARK: u8 = 4;

/// Where in a frame its flags and the distance to the end LSN are, for closing it.
const END_AT: Range<usize> = 40..44;
const FLAGS_AT: usize = 56;

/// A frame's decoded fields. The bodies are ranges of the frame's own bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// Length of the whole frame in bytes.
    pub length: usize,
    /// The change's sequence.
    pub sequence: Sequence,
    /// The 64-bit id of its transaction.
    pub txid: u64,
    /// When it committed.
    pub committed_at: Timestamp,
    flags: u8,
    end_delta: u32,
    scopes: &'a [u8],
    left: Range<usize>,
    entered: Range<usize>,
    body: Range<usize>,
}

impl<'a> Frame<'a> {
    /// Decodes the frame at the start of `bytes`; none where it is not one, or not complete. The checksum is not
    /// looked at: see [`intact`].
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let length = length(bytes)?;
        let frame = bytes.get(..length)?;
        let (_, rest) = frame.split_first_chunk::<8>()?;
        let (lsn, rest) = rest.split_first_chunk::<8>()?;
        let (txid, rest) = rest.split_first_chunk::<8>()?;
        let (committed_at, rest) = rest.split_first_chunk::<8>()?;
        let (timeline, rest) = rest.split_first_chunk::<4>()?;
        let (index, rest) = rest.split_first_chunk::<4>()?;
        let (end_delta, rest) = rest.split_first_chunk::<4>()?;
        let (left, rest) = rest.split_first_chunk::<4>()?;
        let (entered, rest) = rest.split_first_chunk::<4>()?;
        let (scopes, rest) = rest.split_first_chunk::<4>()?;
        let (flags, rest) = rest.split_first()?;
        let scopes = size(*scopes);
        let left_start = HEADER_BYTES.checked_add(scopes)?;
        let entered_start = left_start.checked_add(size(*left))?;
        let body_start = entered_start.checked_add(size(*entered))?;
        if body_start > length {
            return None;
        }
        let lsn = Lsn(u64::from_le_bytes(*lsn));
        Some(Self {
            length,
            sequence: Sequence::new(u32::from_le_bytes(*timeline), lsn, u32::from_le_bytes(*index)),
            txid: u64::from_le_bytes(*txid),
            committed_at: Timestamp::from_micros(i64::from_le_bytes(*committed_at)),
            flags: *flags,
            end_delta: u32::from_le_bytes(*end_delta),
            scopes: rest.get(..scopes)?,
            left: left_start..entered_start,
            entered: entered_start..body_start,
            body: body_start..length,
        })
    }

    /// Whether the transaction is whole with it.
    pub fn is_last(&self) -> bool {
        self.flags & LAST != 0
    }

    /// Whether it is no change at all, but says only how far the stream had been received.
    pub fn is_mark(&self) -> bool {
        self.flags & MARK != 0
    }

    /// Whether the readers of every scope are told.
    pub fn to_everyone(&self) -> bool {
        self.flags & EVERYONE != 0
    }

    /// The position behind the transaction; meant only for the last frame.
    pub fn end_lsn(&self) -> Lsn {
        Lsn(self.sequence.lsn.0.saturating_add(u64::from(self.end_delta)))
    }

    /// The scopes that the change belongs to, with how it does.
    pub fn scopes(&self) -> impl Iterator<Item = (Side, &'a [u8])> + use<'a> {
        let mut rest = self.scopes;
        std::iter::from_fn(move || {
            let ([side, length], text) = rest.split_first_chunk::<2>()?;
            let (text, behind) = text.split_at_checked(usize::from(*length))?;
            rest = behind;
            Some((side_of(*side)?, text))
        })
    }

    /// Which part of the frame a reader of these scopes (sorted) is sent; none where the change is not the reader's.
    pub fn body_for(&self, wanted: &[&[u8]]) -> Option<Range<usize>> {
        if self.to_everyone() {
            return Some(self.body.clone());
        }
        let (mut left, mut entered) = (false, false);
        for (side, scope) in self.scopes() {
            if wanted.binary_search(&scope).is_ok() {
                match side {
                    Side::Stays => return Some(self.body.clone()),
                    Side::Left => left = true,
                    Side::Entered => entered = true,
                }
            }
        }
        match (left, entered) {
            (true, true) => Some(self.body.clone()),
            (true, false) => Some(self.left.clone()),
            (false, true) => Some(self.entered.clone()),
            (false, false) => None,
        }
    }
}

/// The length that the frame at the start of `bytes` claims, if it is one that a frame can have.
pub(super) fn length(bytes: &[u8]) -> Option<usize> {
    let length = size(*bytes.first_chunk::<4>()?);
    (HEADER_BYTES..=FRAME_BYTES_MAX).contains(&length).then_some(length)
}

/// Whether `frame`, cut to its length, is what was written.
pub(super) fn intact(frame: &[u8]) -> bool {
    match frame.split_first_chunk::<8>() {
        Some((_, _)) => frame.get(4..8) == Some(checksum(frame).to_le_bytes().as_slice()),
        None => false,
    }
}

/// Appends a change to `buffer`. It has no checksum and is not the last of its transaction until it is closed. Scopes
/// that no reader could ask for, because they are too long, are left out.
///
/// Returns the size that the frame would have, where that is too large.
pub(super) fn append(buffer: &mut BytesMut, head: &Head, row: &Row<'_>) -> Result<(), usize> {
    let scopes = || row.scopes.iter().filter(|(_, scope)| scope.len() <= limits::SCOPE_BYTES_MAX);
    let scope_bytes: usize = scopes().map(|(_, scope)| 2 + scope.len()).sum();
    let bytes = HEADER_BYTES + scope_bytes + row.left_body.len() + row.entered_body.len() + row.body.len();
    if bytes > FRAME_BYTES_MAX {
        return Err(bytes);
    }
    let part = |length: usize| u32::try_from(length).expect("a part of a frame is shorter than the frame");
    buffer.reserve(bytes);
    buffer.put_u32_le(part(bytes));
    buffer.put_u32_le(0);
    buffer.put_u64_le(head.commit_lsn.0);
    buffer.put_u64_le(head.txid);
    buffer.put_i64_le(head.committed_at.micros());
    buffer.put_u32_le(head.timeline);
    buffer.put_u32_le(row.index);
    buffer.put_u32_le(0);
    buffer.put_u32_le(part(row.left_body.len()));
    buffer.put_u32_le(part(row.entered_body.len()));
    buffer.put_u32_le(part(scope_bytes));
    buffer.put_u8(if row.to_everyone { EVERYONE } else { 0 });
    for (side, scope) in scopes() {
        buffer.put_u8(*side as u8);
        buffer.put_u8(u8::try_from(scope.len()).expect("longer scopes were left out"));
        buffer.put_slice(scope.as_bytes());
    }
    buffer.put_slice(row.left_body);
    buffer.put_slice(row.entered_body);
    buffer.put_slice(row.body);
    Ok(())
}

/// Appends, closed, the note that the stream had been received up to `lsn`.
pub(super) fn append_mark(buffer: &mut BytesMut, lsn: Lsn) {
    let start = buffer.len();
    let head = Head { timeline: 0, commit_lsn: lsn, txid: 0, committed_at: Timestamp::from_micros(0) };
    let row = Row { index: 0, scopes: &[], to_everyone: false, body: &[], left_body: &[], entered_body: &[] };
    append(buffer, &head, &row).expect("a frame without a body is small");
    let frame = &mut buffer[start..];
    frame[FLAGS_AT] = MARK | LAST;
    seal(frame);
}

/// Ends a frame that [`append`] began; `commit` is given for the last of a transaction, as its commit LSN and the
/// position behind it.
pub(super) fn close(frame: &mut [u8], commit: Option<(Lsn, Lsn)>) {
    if let Some((commit_lsn, end_lsn)) = commit {
        // A commit record is far shorter than 4 GiB; an end that were not would only be acknowledged late.
        let delta = u32::try_from(end_lsn.0.saturating_sub(commit_lsn.0)).unwrap_or(u32::MAX);
        frame[END_AT].copy_from_slice(&delta.to_le_bytes());
        frame[FLAGS_AT] |= LAST;
    }
    seal(frame);
}

fn seal(frame: &mut [u8]) {
    let checksum = checksum(frame);
    frame[4..8].copy_from_slice(&checksum.to_le_bytes());
}

fn checksum(frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(frame.get(..4).unwrap_or_default()), frame.get(8..).unwrap_or_default())
}

fn size(bytes: [u8; 4]) -> usize {
    usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX)
}

fn side_of(byte: u8) -> Option<Side> {
    [Side::Stays, Side::Left, Side::Entered].into_iter().find(|side| *side as u8 == byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(scopes: &[(Side, &str)], commit: Option<(Lsn, Lsn)>) -> BytesMut {
        let head = Head { timeline: 3, commit_lsn: Lsn(700), txid: 1 << 40, committed_at: Timestamp::from_micros(-5) };
        let row =
            Row { index: 9, scopes, to_everyone: false, body: b"whole", left_body: b"gone", entered_body: b"new" };
        let mut buffer = BytesMut::new();
        append(&mut buffer, &head, &row).expect("small");
        close(&mut buffer, commit);
        buffer
    }

    #[test]
    fn a_frame_keeps_what_it_was_given() {
        let bytes = encoded(&[(Side::Stays, "a"), (Side::Left, "")], Some((Lsn(700), Lsn(750))));
        let frame = Frame::decode(&bytes).expect("own frame");
        assert!(intact(&bytes) && frame.is_last() && !frame.to_everyone() && !frame.is_mark());
        assert_eq!(frame.sequence, Sequence::new(3, Lsn(700), 9));
        assert_eq!((frame.txid, frame.committed_at.micros(), frame.end_lsn()), (1 << 40, -5, Lsn(750)));
        assert_eq!(frame.scopes().collect::<Vec<_>>(), [(Side::Stays, &b"a"[..]), (Side::Left, &b""[..])]);
        assert_eq!(frame.length, bytes.len());
    }

    #[test]
    fn the_readers_scopes_decide_the_body() {
        let bytes = encoded(&[(Side::Stays, "s"), (Side::Left, "l"), (Side::Entered, "e")], None);
        let frame = Frame::decode(&bytes).expect("own frame");
        for (wanted, body) in [
            (&["s"][..], Some("whole")),
            (&["l"], Some("gone")),
            (&["e"], Some("new")),
            (&["e", "l"], Some("whole")),
            (&["l", "s"], Some("whole")),
            (&["x", "y"], None),
        ] {
            let wanted: Vec<&[u8]> = wanted.iter().map(|scope| scope.as_bytes()).collect();
            let found = frame.body_for(&wanted).map(|range| std::str::from_utf8(&bytes[range]).expect("text"));
            assert_eq!(found, body, "{wanted:?}");
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = encoded(&[(Side::Stays, "scope")], Some((Lsn(700), Lsn(750))));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!intact(&flipped), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), length in 0_u32..200) {
            let mut bytes = bytes;
            if let Some(start) = bytes.first_chunk_mut::<4>() {
                *start = length.to_le_bytes();
            }
            if let Some(frame) = Frame::decode(&bytes) {
                let _ = (frame.scopes().count(), frame.body_for(&[b"a"]), frame.end_lsn(), intact(&bytes));
            }
        }
    }
}
