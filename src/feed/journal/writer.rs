//! The way in: renders transactions into frames and hands them to the end of the journal. A transaction that has not
//! become whole is never visible, however much of it has been written.

use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::BytesMut;
use tracing::info;

use super::appender::{Batch, Whole};
use super::error::Error;
use super::meta::Bounds;
use super::syncer::Syncer;
use super::wall::Wall;
use super::{Shared, frame};
use crate::domain::history::History;
use crate::domain::sequence::{Lsn, Sequence};
use crate::feed::sink::{Accept, Head, Row, Sink};

/// The one writer of a journal. It buffers: call [`Writer::flush`] whenever no more input is at hand.
///
/// After a failure nothing more is taken before [`Writer::mend`] has gone well.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// The newest transaction that is whole, as the sequence of its last change.
    last: Sequence,
    end_lsn: Lsn,
    /// The newest change that any reader may have seen: beyond `last` where the end was cut off.
    told: Sequence,
    buffer: BytesMut,
    /// What of the buffer is whole.
    whole: Option<Whole>,
    open: Option<Open>,
    /// The transaction that was begun last since it was mended last.
    begun: Option<Head>,
    /// The one that the disk had no room for, until it is in.
    wall: Option<Wall>,
}

/// The transaction that rows are being pushed to.
#[derive(Debug)]
struct Open {
    head: Head,
    /// Where the newest row stands in the buffer, and its index; it is not closed before it is known whether it is
    /// the last one.
    row: Option<(usize, u32)>,
    changes: u64,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, thread: JoinHandle<()>, last: Sequence, end_lsn: Lsn) -> Self {
        let buffer = BytesMut::with_capacity(shared.config.buffer_bytes);
        let thread = Some(thread);
        Self { shared, thread, last, end_lsn, told: last, buffer, whole: None, open: None, begun: None, wall: None }
    }

    /// Writes what is buffered, in one write, and makes visible what is whole. It is not durable yet when this returns:
    /// see [`super::Journal::durable`].
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`] when this or an earlier write, or a sync, failed.
    pub fn flush(&mut self) -> Result<(), Error> {
        if let Some(failure) = self.shared.failure() {
            return Err(failure.into());
        }
        let open_row = self.open.as_ref().and_then(|open| open.row);
        let length = open_row.map_or(self.buffer.len(), |(start, _)| start);
        if length == 0 {
            return Ok(());
        }
        let whole = self.whole.take();
        let bytes = self.buffer.split_to(length).freeze();
        // The rows of an open transaction count as the newest one that is closed.
        let last = match &mut self.open {
            Some(Open { head, row: Some((start, index)), .. }) if whole.is_none_or(|whole| whole.bytes < length) => {
                *start = 0;
                head.sequence(index.saturating_sub(1))
            }
            Some(Open { row: Some((start, _)), .. }) => {
                *start = 0;
                self.last
            }
            Some(Open { row: None, .. }) | None => self.last,
        };
        Ok(self.shared.appender.lock().append(&self.shared, Batch { bytes, last, whole })?)
    }

    /// Makes the journal take more again after a failure, where there was one: goes back to what is durable, and begins a
    /// new segment there. What was taken behind it must come again; [`Writer::last`] says where that begins. It blocks
    /// for as long as a segment takes to read.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the disk still does not take what it must, or has too little room: for a transaction that has
    /// filled it already, clearly more than that had. Nothing is lost by that; call it again later.
    pub fn mend(&mut self) -> Result<(), Error> {
        let Some(failure) = self.shared.failure() else { return Ok(()) };
        self.wall.take_if(|wall| wall.is_behind(self.last.lsn));
        if let Some(head) = self.begun.take().filter(|_| failure.is_disk_full()) {
            self.wall = Some(Wall::met(&head, self.wall));
        }
        self.buffer.clear();
        (self.whole, self.open) = (None, None);
        // What can be synced, is: the less has to come again.
        self.end_thread();
        self.told = self.told.max(self.shared.state.read().last());
        (self.last, self.end_lsn) = self.shared.mend(self.wall.as_mut())?;
        self.thread = Some(Syncer::start(&self.shared)?);
        self.shared.failure.send_replace(None);
        info!(last = %self.last, end = %self.end_lsn, "the journal takes changes again");
        Ok(())
    }

    fn end_thread(&mut self) {
        self.shared.syncer.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    /// Notes that the stream has been received up to `lsn` and that no transaction is open, so that `lsn` may be
    /// acknowledged once it is durable. Nothing happens where that is known already.
    ///
    /// # Panics
    ///
    /// When a transaction is open.
    pub fn advance(&mut self, lsn: Lsn) {
        assert!(self.open.is_none(), "an open transaction has not been received yet");
        if lsn > self.end_lsn {
            frame::append_mark(&mut self.buffer, lsn);
            self.complete(lsn, 0, 0);
        }
    }

    /// The newest change that was taken; transactions up to its own are skipped.
    pub fn last(&self) -> Sequence {
        self.last
    }

    /// Begins anew behind a gap in the stream: everything that is here is dropped, first and last become `after`, and
    /// readers behind it are told that they are too old. An open transaction is abandoned.
    ///
    /// `after` should lie at or behind [`Writer::last`]; see [`Writer::begin_elsewhere`].
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`], or [`Error::Io`] when the meta file could not be written.
    pub fn begin_anew(&mut self, after: Sequence) -> Result<(), Error> {
        self.begin_with(after, |_| ())
    }

    /// Begins anew where the positions are those of another database, or of an earlier state of it: they may lie before
    /// those that readers know. Until the feed has come that far, a cursor of before is too old and not one to wait for.
    ///
    /// # Errors
    ///
    /// As [`Writer::begin_anew`].
    pub fn begin_elsewhere(&mut self, after: Sequence) -> Result<(), Error> {
        // Readers may wait where the feed began, before its first change.
        let left = self.last.max(self.told).max(self.shared.state.read().bounds().floor);
        self.begin_with(after, |bounds| {
            bounds.left = bounds.left.max(left);
            // Its transaction ids may be greater than those to come.
            bounds.purged_txid = 0;
        })
    }

    fn begin_with(&mut self, after: Sequence, change: impl FnOnce(&mut Bounds)) -> Result<(), Error> {
        self.abandon();
        self.flush()?;
        self.shared.syncer.settle(&self.shared);
        self.shared.begin_anew(after, change)?;
        (self.last, self.end_lsn) = (after, after.lsn);
        (self.begun, self.wall) = (None, None);
        Ok(())
    }

    /// Says which timelines the server has had: cursors that are not on them are too old from now on. Where the newest
    /// change of the journal itself is not, the journal begins anew behind `from`, where the stream goes on.
    ///
    /// # Errors
    ///
    /// As [`Writer::begin_anew`].
    pub fn set_history(&mut self, history: &History, from: Sequence) -> Result<(), Error> {
        self.abandon();
        self.flush()?;
        if self.last != Sequence::ZERO && history.timeline_of(self.last.lsn) != self.last.timeline {
            self.begin_anew(from)?;
        }
        if self.shared.state.read().bounds().history == *history {
            return Ok(());
        }
        self.shared.update(|meta| meta.bounds.history = history.clone())?;
        // Those who wait with such a cursor are told.
        self.shared.hub.wake_all();
        Ok(())
    }

    /// Counts what is in the buffer as whole.
    fn complete(&mut self, end_lsn: Lsn, commits: u64, changes: u64) {
        self.end_lsn = self.end_lsn.max(end_lsn);
        let before = self.whole.map_or((0, 0), |whole| (whole.commits, whole.changes));
        self.whole = Some(Whole {
            bytes: self.buffer.len(),
            last: self.last,
            end_lsn: self.end_lsn,
            commits: before.0 + commits,
            changes: before.1 + changes,
        });
    }
}

impl Sink for Writer {
    type Error = Error;

    fn begin(&mut self, head: &Head) -> Result<Accept, Error> {
        assert!(self.open.is_none(), "the transaction before it was neither committed nor abandoned");
        if (head.timeline, head.commit_lsn) <= (self.last.timeline, self.last.lsn) {
            return Ok(Accept::Skip);
        }
        self.open = Some(Open { head: *head, row: None, changes: 0 });
        self.begun = Some(*head);
        Ok(Accept::Take)
    }

    fn push(&mut self, row: &Row<'_>) -> Result<(), Error> {
        let open = self.open.as_mut().expect("a row follows a begin");
        if let Some((start, _)) = open.row {
            frame::close(&mut self.buffer[start..], None);
        }
        let start = self.buffer.len();
        // Until the new row stands, the one before it is the newest; closing it twice does no harm.
        frame::append(&mut self.buffer, &open.head, row).map_err(|bytes| Error::Oversized { bytes })?;
        open.row = Some((start, row.index));
        open.changes += 1;
        match self.buffer.len() >= self.shared.config.buffer_bytes {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn commit(&mut self, end_lsn: Lsn) -> Result<(), Error> {
        let open = self.open.take().expect("a commit follows a begin");
        match open.row {
            Some((start, index)) => {
                frame::close(&mut self.buffer[start..], Some((open.head.commit_lsn, end_lsn)));
                self.last = open.head.sequence(index);
                self.complete(end_lsn, 1, open.changes);
            }
            None => self.advance(end_lsn),
        }
        match self.buffer.len() >= self.shared.config.buffer_bytes {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn abandon(&mut self) {
        if self.open.take().is_none() {
            return;
        }
        self.buffer.truncate(self.whole.map_or(0, |whole| whole.bytes));
        // With something whole in the buffer, the open transaction has only ever been there. After a failure it goes
        // with all the rest that is not durable.
        if self.whole.is_none() && self.shared.failure().is_none() {
            // A failure has been noted; the next flush returns it.
            let _ = self.shared.appender.lock().take_back(&self.shared);
        }
    }
}

impl Drop for Writer {
    /// Waits until what was flushed is durable.
    fn drop(&mut self) {
        self.end_thread();
    }
}
