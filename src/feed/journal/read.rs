//! The way out: a page of changes.

use std::sync::Arc;

use tracing::warn;

use super::address::Address;
use super::error::{Error, Fault};
use super::fetch;
use super::frame::Frame;
use super::index::{EVERYONE, key};
use super::segment::{HEADER_BYTES, Segment};
use super::state::{TooOld, View};
use super::{Journal, Shared};
use crate::domain::scope::Scope;
use crate::domain::sequence::Sequence;
use crate::domain::snapshot::Snapshot;
use crate::feed::query::{self, Change, Page};
use crate::feed::room::Taken;

/// Frames of one step: bounds what a step holds beside the page, and how much is decoded in vain.
const STEP_FRAMES: std::ops::RangeInclusive<usize> = 16..=4096;

impl Journal {
    /// The changes of these scopes (sorted) behind `since` that `snapshot` does not show, at most `limit` of them and no
    /// more than `bytes_max` together, but one at least; see [`Page`] for the sequences that come with them.
    ///
    /// `snapshot` is checked against what has been purged only where `since` is zero: a reader who follows a cursor has
    /// had, or been spared, all that is behind it.
    ///
    /// It reads files where the changes are not in memory; [`Journal::is_in_memory`] tells beforehand.
    ///
    /// # Errors
    ///
    /// [`query::Error::TooOld`] and [`query::Error::Journal`].
    pub fn read(
        &self,
        bytes_max: usize,
        scopes: &[Scope],
        since: Sequence,
        limit: usize,
        snapshot: Option<&Snapshot>,
    ) -> Result<Page, query::Error> {
        let page = self.read_while(bytes_max, scopes, since, limit, snapshot, &|_| true)?;
        Ok(page.expect("nobody gives it up"))
    }

    /// The same for as long as `goes_on`, which is asked before each step with the number of frames that were looked at in
    /// vain so far; none where it does not.
    ///
    /// # Errors
    ///
    /// Those of [`Journal::read`].
    pub fn read_while(
        &self,
        bytes_max: usize,
        scopes: &[Scope],
        since: Sequence,
        limit: usize,
        snapshot: Option<&Snapshot>,
        goes_on: &dyn Fn(usize) -> bool,
    ) -> Result<Option<Page>, query::Error> {
        let wanted = Wanted::new(scopes, snapshot, goes_on);
        let most = Most { changes: limit, bytes: bytes_max };
        loop {
            let view = self.0.state.read().view(since, snapshot).map_err(|TooOld| query::Error::TooOld)?;
            let (first, last, from) = (view.first, view.last.max(since), view.from);
            let page = |last, is_full, changes| Page { first, last, from, is_full, changes, taken: Taken::default() };
            if limit == 0 {
                return Ok(Some(page(since, true, Vec::new())));
            }
            match self.0.collect(&wanted, &view, most) {
                Ok(found) if found.is_given_up => return Ok(None),
                Ok(found) => {
                    return Ok(Some(page(found.full.unwrap_or(last), found.full.is_some(), found.changes)));
                }
                Err((_, Fault::Io(source))) => return Err(query::Error::Journal(source)),
                Err((segment, fault)) => self.0.repair(&segment, fault).map_err(query::Error::Journal)?,
            }
        }
    }

    /// Whether a read from `since` on would touch no file but those of indexes.
    pub fn is_in_memory(&self, since: Sequence) -> bool {
        let floor = self.0.state.read().bounds().floor;
        self.0.tail.read().reaches(since.max(floor))
    }
}

/// What a reader wants.
struct Wanted<'a> {
    scopes: Vec<&'a [u8]>,
    keys: Vec<u64>,
    snapshot: Option<&'a Snapshot>,
    /// Whether it is still wanted after so many frames in vain.
    goes_on: &'a dyn Fn(usize) -> bool,
}

impl<'a> Wanted<'a> {
    fn new(scopes: &'a [Scope], snapshot: Option<&'a Snapshot>, goes_on: &'a dyn Fn(usize) -> bool) -> Self {
        let mut scopes: Vec<&[u8]> = scopes.iter().map(|scope| scope.as_str().as_bytes()).collect();
        scopes.sort_unstable();
        scopes.dedup();
        let keys = scopes.iter().map(|scope| key(scope)).chain([EVERYONE]).collect();
        Self { scopes, keys, snapshot, goes_on }
    }

    fn hides(&self, txid: u64) -> bool {
        self.snapshot.is_some_and(|snapshot| snapshot.shows(txid))
    }
}

/// Where a page ends.
#[derive(Clone, Copy)]
struct Most {
    changes: usize,
    /// No more than so many together, but one change at least.
    bytes: usize,
}

#[derive(Default)]
struct Found {
    changes: Vec<Change>,
    /// How much they are together.
    bytes: usize,
    /// The sequence of the last one, where there are as many as the page may have.
    full: Option<Sequence>,
    /// Frames that were looked at and are not for this reader, as the snapshot shows their changes.
    in_vain: usize,
    is_given_up: bool,
}

impl Found {
    /// Adds a change where there is room for it, and notes whether the page is full.
    fn push(&mut self, change: Change, most: Most) {
        let bytes = self.bytes.saturating_add(change.body.len());
        if let Some(last) = self.changes.last().filter(|_| bytes > most.bytes) {
            self.full = Some(last.sequence);
            return;
        }
        self.bytes = bytes;
        if self.changes.len() + 1 == most.changes {
            self.full = Some(change.sequence);
        }
        self.changes.push(change);
    }
}

impl Shared {
    /// Collects a page; a fault comes with the segment that has it.
    fn collect(&self, wanted: &Wanted<'_>, view: &View, most: Most) -> Result<Found, (Arc<Segment>, Fault)> {
        let mut found = Found::default();
        for segment in &view.segments {
            let end = match segment.id.cmp(&view.end.segment) {
                std::cmp::Ordering::Less => segment.summary().end,
                std::cmp::Ordering::Equal => view.end.offset,
                std::cmp::Ordering::Greater => break,
            };
            let end = Address { segment: segment.id, offset: end };
            self.collect_from(segment, end, wanted, view, most, &mut found)
                .map_err(|fault| (segment.clone(), fault))?;
            if found.full.is_some() || found.is_given_up {
                break;
            }
        }
        Ok(found)
    }

    fn collect_from(
        &self,
        segment: &Arc<Segment>,
        end: Address,
        wanted: &Wanted<'_>,
        view: &View,
        most: Most,
        found: &mut Found,
    ) -> Result<(), Fault> {
        // Where the snapshot shows every transaction of the segment, nothing in it needs to be looked at.
        let txid_max = segment.summary().txid_max;
        if wanted.snapshot.is_some_and(|snapshot| txid_max < snapshot.xmin) {
            return Ok(());
        }
        let mut from = segment.offset_behind(view.from)?;
        loop {
            found.is_given_up = !(wanted.goes_on)(found.in_vain);
            if found.is_given_up {
                return Ok(());
            }
            // Where much is in vain, more at once: to begin a step costs as much as there are scopes.
            let step = (most.changes - found.changes.len()).max(found.in_vain);
            let step = step.clamp(*STEP_FRAMES.start(), *STEP_FRAMES.end());
            let offsets = segment.candidates(&wanted.keys, from, end.offset, step)?;
            // Large frames come in several goes.
            let left = most.bytes.saturating_sub(found.bytes);
            let frames = fetch::frames(self, segment, &offsets, end.offset, left)?;
            let offsets_fetched = offsets.get(..frames.len()).unwrap_or_default();
            for bytes in frames {
                let frame = Frame::decode(&bytes).ok_or(Fault::Segment)?;
                if frame.sequence <= view.from || wanted.hides(frame.txid) {
                    found.in_vain += 1;
                    continue;
                }
                if let Some(body) = frame.body_for(&wanted.scopes) {
                    found.push(Change { sequence: frame.sequence, body: bytes.slice(body) }, most);
                    if found.full.is_some() {
                        return Ok(());
                    }
                }
            }
            let more = offsets.len() == step || offsets_fetched.len() < offsets.len();
            match offsets_fetched.last() {
                Some(last) if more => from = last.saturating_add(1).max(HEADER_BYTES),
                Some(_) | None => return Ok(()),
            }
        }
    }

    /// Makes the journal readable again after damage was found: a sidecar is rebuilt, a segment is dropped.
    fn repair(&self, segment: &Arc<Segment>, fault: Fault) -> std::io::Result<()> {
        // Another look finds what has come in its place.
        if !self.state.read().segments().any(|known| Arc::ptr_eq(known, segment)) {
            return Ok(());
        }
        let fault = match fault {
            Fault::Sidecar => {
                warn!(segment.id = segment.id, "a sidecar is damaged: it is rebuilt");
                match segment.rebuild() {
                    Ok(()) => {
                        self.syncer.rolled(segment.clone());
                        return Ok(());
                    }
                    Err(fault) => fault,
                }
            }
            other => other,
        };
        match fault {
            Fault::Io(source) => Err(source),
            Fault::Segment | Fault::Sidecar if self.is_unsettled(segment) => Err(fault.into()),
            Fault::Segment | Fault::Sidecar => match self.drop_damaged(segment.id) {
                Ok(true) => Ok(()),
                Ok(false) => Err(fault.into()),
                Err(Error::Io { source, .. }) => Err(source),
                Err(other) => Err(std::io::Error::other(other)),
            },
        }
    }
}
