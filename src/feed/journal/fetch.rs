//! Gets frames by their offsets: from memory where they are there, else by reading those that stand near each other at
//! once. A frame from a file is handed out only with the right checksum.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;

use super::Shared;
use super::address::Address;
use super::buffers::Buffers;
use super::error::Fault;
use super::frame;
use super::segment::Segment;

/// Frames with a smaller gap between them are read at once: a call costs about as much as copying so much.
const GAP_BYTES_MAX: u32 = 8 << 10;
/// Most that is read at once.
const READ_BYTES_MAX: u32 = 256 << 10;
/// How much is read behind the start of the last frame of a read, whose length is not known.
const FRAME_BYTES_GUESS: u32 = 4 << 10;

/// Longest window but for one that a single long frame needs.
pub(super) const WINDOW_BYTES_MAX: usize = (READ_BYTES_MAX + FRAME_BYTES_GUESS) as usize;

/// Bytes read from files at which a fetch ends, so that it never holds much more than a page.
const FETCH_BYTES_MAX: usize = 4 << 20;

/// The frames at these offsets, which are ascending and below `end`, in order: at least the first, and all of them but
/// where they are large and not in memory, or more than `bytes_max` in all.
pub(super) fn frames(
    shared: &Shared,
    segment: &Arc<Segment>,
    offsets: &[u32],
    end: u32,
    bytes_max: usize,
) -> Result<Vec<Bytes>, Fault> {
    // The tail is the newest part, so what is in memory follows what is not.
    let in_memory: Vec<Bytes> = {
        let tail = shared.tail.read();
        let found = offsets.iter().rev().map_while(|offset| {
            let bytes = tail.get(Address { segment: segment.id, offset: *offset })?;
            frame::length(&bytes).filter(|length| *length <= bytes.len()).map(|length| bytes.slice(..length))
        });
        found.collect()
    };
    let (on_disk, _) = offsets.split_at(offsets.len().saturating_sub(in_memory.len()));
    let mut frames = Vec::with_capacity(offsets.len());
    let mut window = Window { start: 0, bytes: Bytes::new(), kept: 0 };
    let mut used = Vec::new();
    let mut bytes = 0_usize;
    for (number, offset) in on_disk.iter().enumerate() {
        if bytes > bytes_max.min(FETCH_BYTES_MAX) {
            window.hand_out(&mut used, &mut frames);
            return Ok(frames);
        }
        let frame = match window.frame(*offset) {
            Some(frame) => frame,
            None => {
                window.hand_out(&mut used, &mut frames);
                window = Window::read(&shared.buffers, segment, on_disk.get(number..).unwrap_or_default(), end)?;
                window.frame(*offset).ok_or(Fault::Segment)?
            }
        };
        if !frame::intact(&frame) {
            return Err(Fault::Segment);
        }
        bytes = bytes.saturating_add(frame.len());
        used.push(frame);
    }
    window.hand_out(&mut used, &mut frames);
    frames.extend(in_memory.into_iter().rev());
    Ok(frames)
}

/// A part of a segment's file.
struct Window {
    start: u32,
    bytes: Bytes,
    /// How much memory they keep.
    kept: usize,
}

impl Window {
    /// Reads the frame at the first of the offsets, and those that stand near it.
    fn read(buffers: &Arc<Buffers>, segment: &Segment, offsets: &[u32], end: u32) -> Result<Self, Fault> {
        let start = *offsets.first().ok_or(Fault::Segment)?;
        let mut last = start;
        for offset in offsets {
            if offset.saturating_sub(last) > GAP_BYTES_MAX || offset - start > READ_BYTES_MAX {
                break;
            }
            last = *offset;
        }
        let stop = last.saturating_add(FRAME_BYTES_GUESS).min(end);
        let window =
            Self::read_range(buffers, segment, start, usize::try_from(stop.saturating_sub(start)).unwrap_or(0))?;
        // The first frame must be there whole, however long it is.
        match frame::length(&window.bytes) {
            Some(length) if length <= window.bytes.len() => Ok(window),
            Some(length) if length as u64 <= u64::from(end - start) => {
                Self::read_range(buffers, segment, start, length)
            }
            Some(_) | None => Err(Fault::Segment),
        }
    }

    fn read_range(buffers: &Arc<Buffers>, segment: &Segment, start: u32, length: usize) -> Result<Self, Fault> {
        let read = buffers.filled(length, |bytes| segment.file.read_exact_at(bytes, u64::from(start)));
        match read {
            Ok(bytes) => Ok(Self { start, bytes, kept: buffers.kept(length) }),
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Err(Fault::Segment),
            Err(e) => Err(Fault::Io(e)),
        }
    }

    /// Moves frames of it from `used` to `frames`. Few of them must not keep all that was read around them, so they are
    /// copied; where they are most of it, as those of a busy scope are, they share it.
    fn hand_out(&self, used: &mut Vec<Bytes>, frames: &mut Vec<Bytes>) {
        let bytes: usize = used.iter().map(Bytes::len).sum();
        let is_most = bytes >= self.kept / 2;
        frames.extend(used.drain(..).map(|frame| if is_most { frame } else { Bytes::copy_from_slice(&frame) }));
    }

    /// The frame at `offset`, if it is in the window as a whole.
    fn frame(&self, offset: u32) -> Option<Bytes> {
        let at = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        let length = frame::length(self.bytes.get(at..)?)?;
        let end = at.checked_add(length)?;
        (end <= self.bytes.len()).then(|| self.bytes.slice(at..end))
    }
}
