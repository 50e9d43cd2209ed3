//! What readers see at a moment: the segments, how far they are visible, and how far back the journal reaches.

use std::collections::VecDeque;
use std::sync::Arc;

use super::address::Address;
use super::meta::Bounds;
use super::segment::{HEADER_BYTES, Segment};
use crate::domain::sequence::Sequence;
use crate::domain::snapshot::Snapshot;

/// The visible state. Whoever holds its lock does nothing slow.
#[derive(Debug)]
pub(super) struct State {
    entries: VecDeque<Entry>,
    visible_end: Address,
    last: Sequence,
    bounds: Bounds,
    /// The newest snapshot of the server that is known.
    snapshot: Option<Arc<Snapshot>>,
}

#[derive(Debug)]
struct Entry {
    segment: Arc<Segment>,
    /// Its first visible change.
    first: Option<Sequence>,
    /// The first snapshot of the server that came to be known once it was full.
    snapshot: Option<Arc<Snapshot>>,
}

impl Entry {
    fn new(segment: Arc<Segment>) -> Self {
        Self { segment, first: None, snapshot: None }
    }
}

/// What a reader may read, fixed at one moment.
#[derive(Debug)]
pub(super) struct View {
    /// The oldest sequence still there.
    pub first: Sequence,
    /// The newest sequence.
    pub last: Sequence,
    /// What the reader asked to continue from, or the floor where that is higher.
    pub from: Sequence,
    /// Where what is visible ends.
    pub end: Address,
    /// The segments with changes behind `from`, oldest first; perhaps one too many in front.
    pub segments: Vec<Arc<Segment>>,
}

/// The journal cannot continue from there without a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooOld;

impl State {
    /// The state over these segments, the last of which grows, where everything in them is visible.
    pub fn new(segments: Vec<Arc<Segment>>, visible_end: Address, last: Sequence, bounds: Bounds) -> Self {
        let entries = segments.into_iter().map(Entry::new).collect();
        let mut state = Self { entries, visible_end, last, bounds, snapshot: None };
        state.publish(visible_end, last);
        state
    }

    /// Makes everything before `end` visible; `last` is the newest change there.
    pub fn publish(&mut self, end: Address, last: Sequence) {
        self.visible_end = end;
        self.last = last;
        // Only the newest segments can have become visible; older ones know their first change.
        for entry in self.entries.iter_mut().rev() {
            if entry.first.is_some() {
                break;
            }
            let summary = entry.segment.summary();
            entry.first = (summary.changes > 0 && summary.first <= last).then_some(summary.first);
        }
    }

    /// Adds a segment, which is empty, at the end.
    pub fn push(&mut self, segment: Arc<Segment>) {
        self.entries.push_back(Entry::new(segment));
    }

    /// Remembers a snapshot of the server that was just taken, for the segments that have become full since the last.
    pub fn note(&mut self, snapshot: Snapshot) {
        let snapshot = Arc::new(snapshot);
        for entry in self.entries.iter_mut().rev().skip(1).take_while(|entry| entry.snapshot.is_none()) {
            entry.snapshot = Some(snapshot.clone());
        }
        self.snapshot = Some(snapshot);
    }

    /// Whether any snapshot of the server is known.
    pub fn has_snapshot(&self) -> bool {
        self.snapshot.is_some()
    }

    /// Snapshots that perhaps show all of segment `id` and of those before it, the oldest first.
    pub fn snapshots_behind(&self, id: u32) -> impl Iterator<Item = Arc<Snapshot>> {
        let entry = self.entries.iter().find(|entry| entry.segment.id == id);
        let first = entry.and_then(|entry| entry.snapshot.clone());
        first.into_iter().chain(self.snapshot.clone())
    }

    /// The segments, oldest first.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &Arc<Segment>> {
        self.entries.iter().map(|entry| &entry.segment)
    }

    /// Removes the segments up to number `id`, and sets the bounds that follow from it.
    pub fn drop_through(&mut self, id: u32, bounds: Bounds, begins_behind: Option<Sequence>) {
        let count = self.entries.iter().take_while(|entry| entry.segment.id <= id).count();
        self.bounds = bounds;
        // At once with the bounds: a reader who began between the two would be sent behind them, and refused once more.
        self.last = begins_behind.unwrap_or(self.last);
        self.entries.drain(..count);
    }

    /// Removes the segments behind number `id`.
    pub fn drop_behind(&mut self, id: u32) -> Vec<Arc<Segment>> {
        let keep = self.entries.iter().take_while(|entry| entry.segment.id <= id).count();
        self.entries.drain(keep..).map(|entry| entry.segment).collect()
    }

    /// Puts another object in the place of the last segment, which has the same number and the same visible changes.
    pub fn replace_last(&mut self, segment: Arc<Segment>) {
        if let Some(entry) = self.entries.back_mut() {
            entry.segment = segment;
        }
    }

    /// Goes on with segment `id`, which is empty like all the others that are left.
    pub fn begin_anew(&mut self, id: u32) {
        self.visible_end = Address { segment: id, offset: HEADER_BYTES };
    }

    /// How far back the journal reaches.
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// Where what is visible ends.
    pub fn visible_end(&self) -> Address {
        self.visible_end
    }

    /// Changes how far back the journal reaches.
    pub fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// The oldest sequence still there; the newest ever where nothing is.
    pub fn first(&self) -> Sequence {
        self.entries.iter().find_map(|entry| entry.first).unwrap_or(self.last)
    }

    /// The newest sequence, kept when its change has been purged.
    pub fn last(&self) -> Sequence {
        self.last
    }

    /// What a reader who continues from `since` may read.
    pub fn view(&self, since: Sequence, snapshot: Option<&Snapshot>) -> Result<View, TooOld> {
        if self.too_old(since, snapshot) {
            return Err(TooOld);
        }
        let from = since.max(self.bounds.floor);
        let start = self.entries.iter().rposition(|entry| entry.first.is_some_and(|first| first <= from));
        let segments = match from < self.last {
            true => self.entries.range(start.unwrap_or(0)..).map(|entry| entry.segment.clone()).collect(),
            false => Vec::new(),
        };
        Ok(View { first: self.first(), last: self.last, from, end: self.visible_end, segments })
    }

    fn too_old(&self, since: Sequence, snapshot: Option<&Snapshot>) -> bool {
        let bounds = &self.bounds;
        if since == Sequence::ZERO {
            return snapshot.is_some_and(|snapshot| !completes(snapshot, bounds));
        }
        // A timeline above the current one may be news that has not come here yet.
        let lost =
            since.timeline <= bounds.history.current() && bounds.history.timeline_of(since.lsn) != since.timeline;
        if lost || (since > self.last && since <= bounds.left) {
            return true;
        }
        match bounds.floor {
            // Nobody has said where the feed began, so nothing is known of what was before the first change.
            Sequence::ZERO => since < self.first(),
            floor => since < floor,
        }
    }
}

/// Whether what `snapshot` shows and what the journal holds leave nothing out between them: it must show every
/// transaction that was purged, or that committed before the feed began.
///
/// Which ones were purged is not kept. It suffices that it shows all up to the greatest of them, or all that another
/// snapshot shows which is known to show them all. That other one is as old as it can be (see [`State::note`]), and
/// whatever is taken after it shows all that it shows. So nothing incomplete passes, and what is refused although it is
/// complete was taken within a moment of the newest change that was purged, or before a restart. Only a purge while no
/// snapshot of the server is known, as right after a start, leaves no more than the greatest id.
fn completes(snapshot: &Snapshot, bounds: &Bounds) -> bool {
    let purged = |txid: &u64| *txid <= bounds.purged_txid;
    let shows_all = !purged(&snapshot.xmax) && !snapshot.in_progress().iter().any(purged);
    let shows_purged = || bounds.purged.as_ref().is_some_and(|purged| snapshot.covers(purged));
    (bounds.purged_txid == 0 || shows_all || shows_purged())
        && bounds.snapshot.as_ref().is_none_or(|start| snapshot.covers(start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn snapshots() -> impl Strategy<Value = Snapshot> {
        (1_u64..12, 0_u64..12, proptest::collection::btree_set(0_u64..12, 0..6)).prop_map(|(xmin, span, xip)| {
            let xmax = xmin + span;
            let inside = xip.into_iter().map(|n| xmin + n).filter(|txid| *txid < xmax);
            let list: Vec<String> = inside.map(|txid| txid.to_string()).collect();
            format!("{xmin}:{xmax}:{}", list.join(",")).parse().expect("a snapshot")
        })
    }

    proptest! {
        #[test]
        fn a_snapshot_that_hides_a_purged_transaction_is_refused(
            snapshot in snapshots(), purged in 1_u64..30, known in proptest::option::of(snapshots()),
        ) {
            let known = known.filter(|known| known.shows(purged));
            let bounds = Bounds { purged_txid: purged, purged: known, ..Bounds::default() };
            prop_assert!(snapshot.shows(purged) || !completes(&snapshot, &bounds));
            prop_assert!(completes(&snapshot, &Bounds::default()));
        }
    }
}
