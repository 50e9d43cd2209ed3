//! The memory that the answers of all readers take together, while they are read and until they have been sent.
//!
//! A small answer takes no room, so nobody who is at the end of the feed ever waits for who is behind. Large ones share the
//! room: the less is left, the shorter they are. Only an answer of a single large change, which cannot be shorter, waits;
//! for such ones there is a lane beside the room, so that one at a time goes however slow the readers of all else are.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::limits::{CHANGES_BYTES_MAX, CHANGES_ROOM_WAIT_MAX, CHANGES_SMALL_BYTES};

/// One page takes at most this part of what is left: so many large ones find room, and there is some left always.
const SHARE: usize = 8;
/// This part of the room is for changes that are large by themselves.
const KEPT_BACK: usize = 4;
/// The lane is as large as this part of the room.
const LANE: usize = 16;

/// The room.
#[derive(Debug)]
pub(super) struct Room {
    free: Arc<Semaphore>,
    bytes: usize,
    /// For changes that are large by themselves alone, beside the room.
    lane: Arc<Semaphore>,
    /// How long such a one waits for either.
    wait_max: Duration,
}

impl Room {
    /// One of so many bytes, at most 4 GiB.
    pub(super) fn new(bytes: usize) -> Self {
        let (free, lane) = (Arc::new(Semaphore::new(bytes)), Arc::new(Semaphore::new(bytes / LANE)));
        Self { free, bytes, lane, wait_max: CHANGES_ROOM_WAIT_MAX }
    }

    /// A place for a page that may be shorter: as large as there is room, and without any for a small page.
    pub(super) fn share(&self) -> Place {
        let share = self.free().saturating_sub(self.bytes / KEPT_BACK) / SHARE;
        let share = share.min(CHANGES_BYTES_MAX);
        let taken = match u32::try_from(share) {
            Ok(permits) if share > CHANGES_SMALL_BYTES => Arc::clone(&self.free).try_acquire_many_owned(permits).ok(),
            _ => None,
        };
        match taken {
            Some(permit) => Place { bytes: share, permit: Some(permit) },
            None => Place { bytes: CHANGES_SMALL_BYTES, permit: None },
        }
    }

    /// A place for a change of so many bytes, in the room or in the lane, once there is one; none where there is none for too
    /// long. What is larger than either has all of it to itself.
    pub(super) async fn wait_for(&self, bytes: usize) -> Option<Place> {
        let permit = tokio::select! {
            biased;
            permit = acquire(&self.free, bytes.min(self.bytes)) => permit,
            permit = acquire(&self.lane, bytes.min(self.bytes / LANE)) => permit,
            () = tokio::time::sleep(self.wait_max) => return None,
        };
        Some(Place { bytes, permit: Some(permit) })
    }

    /// How much of it is free, in bytes.
    pub(super) fn free(&self) -> usize {
        self.free.available_permits()
    }
}

async fn acquire(of: &Arc<Semaphore>, bytes: usize) -> OwnedSemaphorePermit {
    let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
    Arc::clone(of).acquire_many_owned(permits).await.expect("neither room nor lane is ever closed")
}

/// Room for one page. It is given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    /// How large the page may be.
    bytes: usize,
    permit: Option<OwnedSemaphorePermit>,
}

impl Place {
    /// How large the page may be, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives back what a page of so many bytes does not need; all of it where the page is small.
    pub(super) fn taken(self, bytes: usize) -> Taken {
        let Some(mut permit) = self.permit.filter(|_| bytes > CHANGES_SMALL_BYTES) else { return Taken::default() };
        drop(permit.split(permit.num_permits().saturating_sub(bytes)));
        Taken(Some(Arc::new(permit)))
    }
}

/// What a page takes of the room, for as long as there is a clone of it; nothing by default.
#[derive(Clone, Default)]
pub struct Taken(Option<Arc<OwnedSemaphorePermit>>);

impl Taken {
    /// Some room, and whether anything of it is still taken.
    #[cfg(test)]
    pub fn watched() -> (Self, impl Fn() -> bool) {
        let room = Room::new(1 << 20);
        let permit = Arc::clone(&room.free).try_acquire_many_owned(1).expect("it is free");
        (Self(Some(Arc::new(permit))), move || room.free() < room.bytes)
    }

    /// The same bytes. They are a part of the page, and may be kept for longer than the page is.
    pub fn around(&self, bytes: Bytes) -> Bytes {
        match &self.0 {
            Some(_) => Bytes::from_owner(Part { bytes, _taken: self.clone() }),
            None => bytes,
        }
    }
}

impl fmt::Debug for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Taken({})", self.0.as_ref().map_or(0, |permit| permit.num_permits()))
    }
}

/// What a page says is the same, whatever it takes.
impl PartialEq for Taken {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Taken {}

/// A part of a page that is on its way by itself.
struct Part {
    bytes: Bytes,
    _taken: Taken,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::domain::limits::CHANGES_ROOM_BYTES;

    #[tokio::test]
    async fn pages_become_shorter_and_never_take_all() {
        let room = Room::new(CHANGES_ROOM_BYTES);
        let first = room.share();
        assert_eq!(first.bytes(), CHANGES_BYTES_MAX);
        let mut held = vec![first];
        let mut last = CHANGES_BYTES_MAX;
        loop {
            let place = room.share();
            assert!(place.bytes() <= last, "{} after {last}", place.bytes());
            last = place.bytes();
            if place.permit.is_none() {
                break;
            }
            held.push(place);
        }
        assert_eq!(last, CHANGES_SMALL_BYTES);
        assert!(
            held.len() > 16 && room.free() >= CHANGES_ROOM_BYTES / KEPT_BACK,
            "{} pages, {} bytes free",
            held.len(),
            room.free()
        );
        // A change that is large by itself has room all the same.
        let large = room.wait_for(CHANGES_ROOM_BYTES / KEPT_BACK).now_or_never().flatten();
        assert_eq!(room.lane.available_permits(), CHANGES_ROOM_BYTES / LANE);
        drop(large.expect("it has room"));
        drop(held);
        assert_eq!((room.free(), room.share().bytes()), (CHANGES_ROOM_BYTES, CHANGES_BYTES_MAX));
    }

    #[test]
    fn a_page_gives_back_what_it_does_not_need_and_the_rest_with_its_last_part() {
        let room = Room::new(CHANGES_ROOM_BYTES);
        assert_eq!(room.share().taken(CHANGES_SMALL_BYTES), Taken::default());
        assert_eq!(room.free(), CHANGES_ROOM_BYTES, "a small page takes nothing");
        let taken = room.share().taken(1_000_000);
        assert_eq!(room.free(), CHANGES_ROOM_BYTES - 1_000_000);
        let part = taken.around(Bytes::from_static(b"part"));
        drop(taken);
        let rest = part.slice(1..);
        drop(part);
        assert_eq!((&rest[..], room.free()), (&b"art"[..], CHANGES_ROOM_BYTES - 1_000_000));
        drop(rest);
        assert_eq!(room.free(), CHANGES_ROOM_BYTES);
    }

    #[tokio::test]
    async fn what_cannot_be_shorter_waits_for_room_and_nobody_waits_behind_it() {
        let room = Room::new(CHANGES_ROOM_BYTES);
        let others = room.share().taken(CHANGES_BYTES_MAX);
        let lane = room.wait_for(2 * CHANGES_ROOM_BYTES).now_or_never().flatten().expect("one goes beside the room");
        let mut huge = Box::pin(room.wait_for(2 * CHANGES_ROOM_BYTES));
        assert!(huge.as_mut().now_or_never().is_none(), "it has the room to itself");
        assert_eq!(room.share().bytes(), CHANGES_SMALL_BYTES, "a page is short meanwhile, and at once");
        drop(others);
        let place = huge.now_or_never().flatten().expect("the others have gone");
        assert_eq!((place.bytes(), room.free()), (2 * CHANGES_ROOM_BYTES, 0));
        let taken = place.taken(2 * CHANGES_ROOM_BYTES);
        assert_eq!(room.free(), 0);
        drop(taken);
        assert_eq!(room.free(), CHANGES_ROOM_BYTES);
        drop(lane);
        assert_eq!(room.lane.available_permits(), CHANGES_ROOM_BYTES / LANE);
    }

    /// Readers that take 8 KiB a second would keep it waiting for half an hour.
    #[tokio::test]
    async fn where_all_are_slow_one_at_a_time_goes_and_the_next_is_told_in_time() {
        let room = Room { wait_max: Duration::from_millis(20), ..Room::new(CHANGES_ROOM_BYTES) };
        let slow = room.wait_for(CHANGES_ROOM_BYTES).await.expect("it is empty");
        let first = room.wait_for(CHANGES_BYTES_MAX).await.expect("it goes beside the room");
        assert!(room.wait_for(CHANGES_BYTES_MAX).await.is_none(), "it would wait for one of them");
        drop(first);
        assert!(room.wait_for(CHANGES_BYTES_MAX).await.is_some(), "the next goes in turn");
        drop(slow);
        assert_eq!((room.free(), room.lane.available_permits()), (CHANGES_ROOM_BYTES, CHANGES_ROOM_BYTES / LANE));
    }
}
