//! What is kept of an answer's body. Whoever is called may answer at any length, on as many connections as there may be: so
//! little is kept of each unless more is needed, and what is needed of all together has a bound.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::limits::REPLY_SMALL_BYTES_MAX;

/// How much of a body is read at most, and how much of that is kept. What is between the two is thrown away as it comes, so
/// that the connection can be used again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub(super) read_max: usize,
    pub(super) kept_max: usize,
}

/// The places for bodies of which more is kept than `limits::REPLY_SMALL_BYTES_MAX`.
pub(super) struct Room(Arc<Semaphore>);

impl Room {
    /// Room for so many of them at once.
    pub(super) fn new(large_max: usize) -> Self {
        Self(Arc::new(Semaphore::new(large_max.min(Semaphore::MAX_PERMITS))))
    }

    async fn place(&self) -> OwnedSemaphorePermit {
        self.0.clone().acquire_owned().await.expect("the semaphore is never closed")
    }
}

/// What has come of a body.
#[derive(Default)]
pub(super) struct Body {
    kept: Vec<u8>,
    read: usize,
    is_cut: bool,
    /// Its place in the room, once it is large.
    place: Option<OwnedSemaphorePermit>,
}

impl Body {
    /// What is kept of it.
    pub(super) fn kept(&self) -> &[u8] {
        &self.kept
    }

    /// Whether there was more of it than was to be read.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Takes the next part in, and says whether more is to be read. One that becomes large waits until it has a place.
    pub(super) async fn take(&mut self, data: &[u8], extent: Extent, room: &Room) -> bool {
        let wanted = extent.kept_max.min(extent.read_max).saturating_sub(self.kept.len());
        let wanted = data.get(..wanted).unwrap_or(data);
        if self.place.is_none() && self.kept.len() + wanted.len() > REPLY_SMALL_BYTES_MAX {
            self.place = Some(room.place().await);
        }
        self.kept.extend_from_slice(wanted);
        let left = extent.read_max.saturating_sub(self.read);
        self.is_cut = data.len() > left;
        self.read += data.len().min(left);
        !self.is_cut
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const SMALL: usize = REPLY_SMALL_BYTES_MAX;

    fn take(body: &mut Body, length: usize, extent: Extent, room: &Room) -> Option<bool> {
        body.take(&vec![b'x'; length], extent, room).now_or_never()
    }

    #[test]
    fn what_is_not_kept_is_read_all_the_same() {
        let (room, extent) = (Room::new(0), Extent { read_max: 100_000, kept_max: 10 });
        let mut body = Body::default();
        for _ in 0..100 {
            assert_eq!(take(&mut body, 1_000, extent, &room), Some(true));
            assert_eq!((body.kept().len(), body.is_cut()), (10, false));
        }
        assert_eq!(take(&mut body, 1, extent, &room), Some(false));
        assert_eq!((body.kept().len(), body.is_cut()), (10, true));
        assert!(body.kept.capacity() < 100, "what is thrown away takes no memory");
    }

    #[test]
    fn a_body_is_kept_up_to_its_bound() {
        let room = Room::new(1);
        for (parts, kept, cut) in [
            (&[][..], 0, false),
            (&[3, 4][..], 7, false),
            (&[10][..], 10, false),
            (&[9, 5][..], 10, true),
            (&[11][..], 10, true),
        ] {
            let mut body = Body::default();
            for part in parts {
                take(&mut body, *part, Extent { read_max: 10, kept_max: 20 }, &room);
            }
            assert_eq!((body.kept().len(), body.is_cut()), (kept, cut), "{parts:?}");
        }
    }

    #[test]
    fn of_large_bodies_no_more_are_kept_at_once_than_there_is_room_for() {
        let (room, extent) = (Room::new(2), Extent { read_max: 16 * SMALL, kept_max: 16 * SMALL });
        let mut bodies: Vec<Body> = (0..10).map(|_| Body::default()).collect();
        let kept = |bodies: &[Body]| bodies.iter().map(|body| body.kept().len()).sum::<usize>();
        assert!(bodies.iter_mut().all(|body| take(body, SMALL, extent, &room) == Some(true)));
        for _ in 0..20 {
            for body in &mut bodies {
                take(body, SMALL, extent, &room);
            }
        }
        assert_eq!(kept(&bodies), 2 * extent.kept_max + 8 * SMALL);
        // Whoever waits is next once one is over.
        bodies.remove(0);
        assert_eq!(take(&mut bodies[5], 1, extent, &room), Some(true));
        assert_eq!(take(&mut bodies[6], 1, extent, &room), None);
    }
}
