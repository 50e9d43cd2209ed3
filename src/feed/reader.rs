//! Answers one call for changes, waiting for some where asked to.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Semaphore;
use tokio::time::timeout_at;

use super::hub::Seat;
use super::journal::{self, Journal, Range};
use super::query::{Error, Page, Query};
use super::room::{Place, Room};
use crate::domain::limits::{CHANGES_READS_MAX, CHANGES_ROOM_BYTES, CHANGES_SMALL_BYTES};
use crate::domain::scope::Scope;
use crate::domain::sequence::Sequence;

/// Pages of at most so many changes are made without leaving the task, where they touch no file: some 100 µs.
const INLINE_CHANGES_MAX: usize = 1_000;

/// As soon as so many frames were looked at in vain, as a snapshot shows their changes, the rest is not looked at on a thread that
/// others need.
const INLINE_VAIN_MAX: usize = 4_096;

/// Hands out changes. Cheap to clone, and clones share the memory for answers; a call that waits is no task of its own.
#[derive(Clone, Debug)]
pub struct Reader(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    journal: Journal,
    room: Room,
    /// Of those who read files.
    places: Arc<Semaphore>,
}

impl Reader {
    /// A reader of this journal.
    pub fn new(journal: Journal) -> Self {
        Self::within(CHANGES_ROOM_BYTES, journal)
    }

    /// The same with another bound on what all answers hold.
    fn within(bytes: usize, journal: Journal) -> Self {
        let places = Arc::new(Semaphore::new(CHANGES_READS_MAX));
        Self(Arc::new(Inner { journal, room: Room::new(bytes), places }))
    }

    /// Where to follow on for who knows all that has committed so far; zero before the feed has begun.
    pub fn position(&self) -> Sequence {
        self.0.journal.position()
    }

    /// The oldest and the newest change that are visible.
    pub fn range(&self) -> Range {
        self.0.journal.range()
    }

    /// How many calls are waiting.
    pub fn waiters(&self) -> usize {
        self.0.journal.hub().waiters()
    }

    /// Lets every call that waits answer at once, and none wait from now on.
    pub fn release_all(&self) {
        self.0.journal.hub().release_all();
    }

    /// Answers a query as the contract says. Where the first look finds nothing and `block` is above zero, it waits for
    /// a change of the query's scopes that its snapshot does not hide. Dropping the future gives the place back.
    ///
    /// The page ends early where the memory that all answers share is short, but has one change at least where there is
    /// any; a change that is large by itself waits for its room, for [`CHANGES_ROOM_WAIT_MAX`] at most.
    ///
    /// [`CHANGES_ROOM_WAIT_MAX`]: crate::domain::limits::CHANGES_ROOM_WAIT_MAX
    ///
    /// # Errors
    ///
    /// [`Error::NotBegun`], [`Error::TooOld`], also while waiting, [`Error::Busy`] and [`Error::Journal`].
    #[expect(
        clippy::manual_async_fn,
        reason = "an async fn keeps its parameters twice: 100 bytes of each reader that waits"
    )]
    pub fn changes(&self, query: Query) -> impl Future<Output = Result<Page, Error>> + Send {
        async move {
            if !self.0.journal.has_begun() {
                return Err(Error::NotBegun);
            }
            let page = self.look(&query, query.since).await?;
            if !page.changes.is_empty() || query.limit == 0 || query.block.is_zero() {
                return Ok(page);
            }
            let since = page.position();
            drop(page);
            let seat = self.seat(&query.scopes);
            self.wait(&query, since, &seat).await
        }
    }

    /// A seat for who asks for the same scopes again and again: to take one and to give it back costs as much as there are scopes.
    pub fn seat(&self, scopes: &[Scope]) -> Seat {
        self.0.journal.hub().register(scopes.iter().map(|scope| journal::key(scope.as_str().as_bytes())).collect())
    }

    /// As [`Self::changes`], for who has a seat for the scopes of the query. One caller at a time.
    ///
    /// # Errors
    ///
    /// The same.
    pub async fn changes_at(&self, seat: &Seat, query: Query) -> Result<Page, Error> {
        if !self.0.journal.has_begun() {
            return Err(Error::NotBegun);
        }
        self.wait(&query, query.since, seat).await
    }

    /// Looks, and waits for something to see, within the query's time.
    async fn wait(&self, query: &Query, mut since: Sequence, seat: &Seat) -> Result<Page, Error> {
        let deadline = Instant::now().checked_add(query.block).map(tokio::time::Instant::from_std);
        loop {
            // What is behind `since` has been looked at; with our seat taken, nothing can be missed any more.
            let page = self.look(query, since).await?;
            if !page.changes.is_empty() || self.0.journal.hub().is_released() {
                return Ok(told(page, query));
            }
            since = page.position();
            let woken = match deadline {
                Some(deadline) => timeout_at(deadline, seat.woken()).await.is_ok(),
                None => {
                    seat.woken().await;
                    true
                }
            };
            if !woken {
                return self.look(query, since).await.map(|page| told(page, query));
            }
        }
    }

    /// One look. What is in memory is had at once, and takes no room where it is small.
    async fn look(&self, query: &Query, since: Sequence) -> Result<Page, Error> {
        if query.limit <= INLINE_CHANGES_MAX
            && self.0.journal.is_in_memory(since)
            && let Some(page) = self.look_inline(query, since)?
        {
            return Ok(page);
        }
        // Boxed, so that who waits for a change keeps no room for it.
        Box::pin(self.look_apart(query, since)).await
    }

    /// One look without leaving the task; none where that is not the place for it.
    fn look_inline(&self, query: &Query, since: Sequence) -> Result<Option<Page>, Error> {
        let is_short = |in_vain| in_vain < INLINE_VAIN_MAX;
        let Some(page) = self.0.read_within(CHANGES_SMALL_BYTES, query, since, &is_short)? else { return Ok(None) };
        let is_cut_short = page.is_full && page.changes.len() < query.limit;
        if !is_cut_short && page.bytes() <= CHANGES_SMALL_BYTES {
            return Ok(Some(page));
        }
        let place = self.0.room.share();
        let page = self.0.read_within(place.bytes(), query, since, &is_short)?;
        let fits = page.filter(|page| page.bytes() <= place.bytes());
        Ok(fits.map(|mut page| {
            page.taken = place.taken(page.bytes());
            page
        }))
    }

    /// One look on a thread that may block, for a page that has a place in the room.
    async fn look_apart(&self, query: &Query, since: Sequence) -> Result<Page, Error> {
        let mut place = self.0.room.share();
        loop {
            let (mut page, given) = self.read_apart(place, query, since).await?;
            let bytes = page.bytes();
            if bytes <= given.bytes() {
                page.taken = given.taken(bytes);
                return Ok(page);
            }
            // A single change. It is read again: what waits for room must not take any.
            drop((page, given));
            place = self.0.room.wait_for(bytes).await.ok_or(Error::Busy)?;
        }
    }

    /// Reads a page that fits into its place, or is a single change.
    async fn read_apart(&self, place: Place, query: &Query, since: Sequence) -> Result<(Page, Place), Error> {
        let reading = Arc::clone(&self.0.places).acquire_owned().await.expect("the semaphore is never closed");
        let (inner, query) = (self.0.clone(), query.clone());
        let here = Arc::new(());
        let reader = Arc::downgrade(&here);
        // The places go along: what is being read takes memory also where its reader has gone, until that is noticed.
        let read = tokio::task::spawn_blocking(move || {
            let page = inner.read_within(place.bytes(), &query, since, &|_| reader.strong_count() > 0);
            drop(reading);
            Ok((page?.ok_or(Error::Busy)?, place))
        });
        let page = read.await.unwrap_or_else(|e| Err(Error::Journal(std::io::Error::other(e))));
        drop(here);
        page
    }
}

/// The page as an answer to `query`, wherever the wait looked from: while nothing was ever stored, its last is `since`.
fn told(page: Page, query: &Query) -> Page {
    let last = if page.first == Sequence::ZERO { query.since } else { page.last };
    Page { last, ..page }
}

impl Inner {
    fn read_within(
        &self,
        bytes_max: usize,
        query: &Query,
        since: Sequence,
        goes_on: &dyn Fn(usize) -> bool,
    ) -> Result<Option<Page>, Error> {
        self.journal.read_while(bytes_max, &query.scopes, since, query.limit, query.snapshot.as_ref(), goes_on)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::journal::{Config, Writer, open};
    use super::super::sink::{Accept, Head, Row, Side, Sink};
    use super::*;
    use crate::clock::Timestamp;
    use crate::domain::history::History;
    use crate::domain::scope::Scope;
    use crate::domain::sequence::Lsn;

    const ROOM: usize = 2 << 20;

    /// Writes a transaction of one row.
    fn write(writer: &mut Writer, lsn: u64, scope: &str, bytes: usize) {
        let committed_at = Timestamp::from_micros(1_000_000);
        let head = Head { timeline: 1, commit_lsn: Lsn(lsn), txid: lsn, committed_at };
        assert_eq!(writer.begin(&head).unwrap(), Accept::Take);
        let (scopes, body) = ([(Side::Stays, scope)], vec![b'x'; bytes]);
        let row = Row { index: 0, scopes: &scopes, to_everyone: false, body: &body, left_body: b"", entered_body: b"" };
        writer.push(&row).unwrap();
        writer.commit(Lsn(lsn + 1)).unwrap();
        writer.flush().unwrap();
    }

    fn query(scope: &str, since: u64) -> Query {
        let since = if since == 0 { Sequence::ZERO } else { Sequence::new(1, Lsn(since), 0) };
        let scopes = vec![Scope::parse(scope).unwrap()];
        Query { scopes, since, limit: 100, block: Duration::ZERO, snapshot: None }
    }

    /// 100 changes of the scope `a` that are not in memory, one of `huge`, and a small one that is in memory.
    fn filled(folder: &std::path::Path) -> Reader {
        let (mut writer, journal) = open(Config { memory_bytes: 1 << 10, ..Config::new(folder) }).unwrap();
        (1..=100).for_each(|lsn| write(&mut writer, lsn * 10, "a", 20_000));
        write(&mut writer, 2_000, "huge", ROOM * 3 / 4);
        write(&mut writer, 3_000, "small", 10);
        assert!(!journal.is_in_memory(Sequence::ZERO) && journal.is_in_memory(Sequence::new(1, Lsn(2_000), 0)));
        Reader::within(ROOM, journal)
    }

    #[tokio::test]
    async fn what_all_answers_hold_is_bounded_and_each_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let reader = filled(folder.path());
        let mut held = Vec::new();
        for _ in 0..100 {
            held.push(reader.changes(query("a", 0)).await.unwrap());
        }
        let bytes: Vec<usize> = held.iter().map(Page::bytes).collect();
        assert!(bytes[0] > 3 * CHANGES_SMALL_BYTES / 2 && bytes.is_sorted_by(|a, b| a >= b), "{bytes:?}");
        assert!(
            bytes.iter().all(|bytes| *bytes >= 20_000) && *bytes.last().unwrap() <= CHANGES_SMALL_BYTES,
            "{bytes:?}"
        );
        let counted: usize = bytes.iter().filter(|bytes| **bytes > CHANGES_SMALL_BYTES).sum();
        assert!(counted <= ROOM && reader.0.room.free() == ROOM - counted, "{counted}");
        // A short page says where to follow on, and nothing is missed.
        let (mut since, mut told) = (Sequence::ZERO, 0);
        while told < 100 {
            let page = reader.changes(Query { since, ..query("a", 0) }).await.unwrap();
            assert!(page.bytes() <= CHANGES_SMALL_BYTES && !page.changes.is_empty());
            told += page.changes.len();
            assert_eq!(page.is_full, told < 100);
            since = page.last;
        }
        drop(held);
        assert_eq!(reader.0.room.free(), ROOM);
    }

    #[tokio::test]
    async fn a_change_that_is_large_by_itself_waits_for_room_and_nobody_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        let reader = filled(folder.path());
        let first = reader.changes(query("huge", 0)).await.unwrap();
        assert_eq!((first.changes.len(), reader.0.room.free()), (1, ROOM / 4));
        let beside = reader.changes(query("huge", 0)).await.unwrap();
        assert_eq!((beside.changes.len(), reader.0.room.free()), (1, ROOM / 4), "it takes the lane");
        let third = tokio::spawn({
            let reader = reader.clone();
            async move { reader.changes(query("huge", 0)).await.unwrap() }
        });
        // It takes what there is while it waits for the rest.
        while reader.0.room.free() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(reader.changes(query("small", 2_000)).await.unwrap().changes.len(), 1, "from memory");
        assert!(!reader.changes(query("a", 0)).await.unwrap().changes.is_empty(), "from files");
        assert!(!third.is_finished());
        drop(first);
        assert_eq!(third.await.unwrap().bytes(), ROOM * 3 / 4);
        assert_eq!(reader.0.room.free(), ROOM);
    }

    #[tokio::test]
    async fn what_is_small_and_in_memory_needs_no_place_and_what_is_large_there_has_one() {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, journal) = open(Config::new(folder.path())).unwrap();
        (1..=100).for_each(|lsn| write(&mut writer, lsn * 10, "a", 2_000));
        let reader = Reader::within(ROOM, journal);
        let few = reader.changes(Query { limit: 10, ..query("a", 0) }).await.unwrap();
        assert_eq!((few.changes.len(), reader.0.room.free()), (10, ROOM));
        let many = reader.changes(query("a", 0)).await.unwrap();
        assert_eq!((many.bytes(), reader.0.room.free()), (98 * 2_000, ROOM - 98 * 2_000));
        assert!(many.is_full);
    }

    /// What it waits for would never come.
    #[tokio::test]
    async fn who_waits_with_a_cursor_that_a_promotion_cuts_off_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, journal) = open(Config::new(folder.path())).unwrap();
        write(&mut writer, 10, "a", 10);
        let reader = Reader::new(journal);
        let waiting = reader.changes(Query { block: Duration::from_secs(3_600), ..query("a", 20) });
        let mut waiting = std::pin::pin!(waiting);
        tokio::select! {
            biased;
            page = &mut waiting => panic!("{page:?}"),
            () = std::future::ready(()) => {}
        }
        let history = History::new(2, vec![(1, Lsn(15))]);
        writer.set_history(&history, Sequence::new(1, Lsn(10), 0)).unwrap();
        let told = tokio::time::timeout(Duration::from_secs(60), waiting).await;
        assert!(matches!(told, Ok(Err(Error::TooOld))), "{told:?}");
    }
}
