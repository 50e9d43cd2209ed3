//! Buffers for what is read from files, which come back when nobody has a part of them any more. New ones would cost a
//! reader that catches up more than the reading: the system clears each page of them first.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::domain::limits::READ_BUFFERS_MAX;

/// The buffers that nobody has, all of one size.
#[derive(Debug)]
pub(super) struct Buffers {
    size: usize,
    free: Mutex<Vec<Vec<u8>>>,
}

impl Buffers {
    /// None yet; each will have so many bytes.
    pub fn new(size: usize) -> Self {
        Self { size, free: Mutex::default() }
    }

    /// How much memory bytes of this length keep.
    pub fn kept(&self, length: usize) -> usize {
        if self.lends(length) { self.size } else { length }
    }

    fn lends(&self, length: usize) -> bool {
        (self.size / 2..=self.size).contains(&length)
    }

    /// Bytes of this length that `fill` has filled. Less than half a buffer gets memory of its own, so that it does not keep
    /// a whole one, and so does what is more than one.
    pub fn filled<E>(
        self: &Arc<Self>,
        length: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Bytes, E> {
        if !self.lends(length) {
            let mut bytes = vec![0; length];
            fill(&mut bytes)?;
            return Ok(bytes.into());
        }
        // Not in one: a new one is cleared, and others need not wait for that.
        let free = self.free.lock().pop();
        let bytes = free.unwrap_or_else(|| vec![0; self.size]);
        let mut lent = Lent { bytes, length, home: Arc::clone(self) };
        fill(&mut lent.bytes[..length])?;
        Ok(Bytes::from_owner(lent))
    }

    fn take_back(&self, bytes: Vec<u8>) {
        let mut free = self.free.lock();
        if free.len() < READ_BUFFERS_MAX {
            free.push(bytes);
        }
    }
}

/// A buffer that somebody has.
struct Lent {
    bytes: Vec<u8>,
    length: usize,
    home: Arc<Buffers>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.take_back(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn filled(buffers: &Arc<Buffers>, length: usize, with: u8) -> Bytes {
        let fill = |bytes: &mut [u8]| {
            bytes.fill(with);
            Ok::<(), Infallible>(())
        };
        let Ok(bytes) = buffers.filled(length, fill);
        assert_eq!(bytes, vec![with; length]);
        bytes
    }

    fn free(buffers: &Buffers) -> usize {
        buffers.free.lock().len()
    }

    #[test]
    fn a_buffer_comes_back_once_nobody_has_a_part_of_it() {
        let buffers = Arc::new(Buffers::new(1000));
        let first = filled(&buffers, 1000, 1);
        let (part, place) = (first.slice(7..9), first.as_ptr());
        drop(first);
        let second = filled(&buffers, 600, 2);
        assert_ne!(second.as_ptr(), place);
        assert_eq!((&part[..], free(&buffers)), (&[1, 1][..], 0));
        drop(part);
        assert_eq!(free(&buffers), 1);
        assert_eq!(filled(&buffers, 500, 3).as_ptr(), place);
        assert_eq!(buffers.kept(500), 1000);
    }

    #[test]
    fn little_keeps_no_buffer_and_much_has_no_room_in_one() {
        let buffers = Arc::new(Buffers::new(1000));
        for length in [0, 1, 499, 1001] {
            assert_eq!(buffers.kept(length), length);
            drop(filled(&buffers, length, 4));
            assert_eq!(free(&buffers), 0, "{length}");
        }
    }

    #[test]
    fn a_buffer_that_could_not_be_filled_comes_back_too() {
        let buffers = Arc::new(Buffers::new(1000));
        assert!(buffers.filled(800, |_| Err(())).is_err());
        assert_eq!(free(&buffers), 1);
    }

    #[test]
    fn so_many_are_kept_and_no_more() {
        let buffers = Arc::new(Buffers::new(2));
        let all: Vec<_> = (0..READ_BUFFERS_MAX + 5).map(|_| filled(&buffers, 2, 5)).collect();
        drop(all);
        assert_eq!(free(&buffers), READ_BUFFERS_MAX);
    }
}
