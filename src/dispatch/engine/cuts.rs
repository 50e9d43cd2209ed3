//! Where namespaces are cut off that have too much in memory: what stands behind a cut is not kept, and read again once a part
//! of what was left has gone. A cut only says what may be missing; some of it may well be in memory.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::queue::Queue;
use crate::clock::Timestamp;
use crate::dispatch::ports::Entry;
use crate::domain::timer::TimerKey;

/// A namespace is read on when so many hundredths of what was left have gone.
const GONE_MIN: usize = 10;
/// With the first one, those are that have come half as far: what is read for one passes by what is for the others.
const GONE_BESIDE_MIN: usize = 5;

/// Where one namespace was cut off.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    /// What stands behind this entry may not be in memory; none where that is so from the first one on.
    pub(super) after: Option<Entry>,
    /// As far as it is due by this moment.
    pub(super) until: Timestamp,
    /// How many hints were left, where it had the most of all.
    pub(super) left: usize,
    /// How many of `Queue::backlog_of` it had, where these were the most; none otherwise.
    pub(super) backlog: usize,
}

impl Cut {
    /// Whether so many hundredths have gone of what was left.
    fn has_gone(&self, namespace: &Arc<str>, queue: &Queue, percent: usize) -> bool {
        let has = |now: usize, left: usize| now <= left.saturating_sub(left * percent / 100 + 1);
        has(queue.len_of(namespace), self.left) || self.backlog > 0 && has(queue.backlog_of(namespace), self.backlog)
    }
}

/// What was cut off, and is to be read now.
#[derive(Debug)]
pub(super) struct Lack {
    /// The namespaces.
    pub(super) namespaces: BTreeSet<Arc<str>>,
    /// It stands behind this entry.
    pub(super) after: Option<Entry>,
    /// It is due by this moment.
    pub(super) until: Timestamp,
}

/// The cuts, one of each namespace that has one.
#[derive(Debug, Default)]
pub(super) struct Cuts {
    cuts: HashMap<Arc<str>, Cut>,
}

impl Cuts {
    pub(super) fn is_empty(&self) -> bool {
        self.cuts.is_empty()
    }

    /// Cuts a namespace off, besides where it is cut off already.
    pub(super) fn add(&mut self, namespace: Arc<str>, after: Option<Entry>, until: Timestamp) -> &mut Cut {
        let new = Cut { after: after.clone(), until, left: 0, backlog: 0 };
        let cut = self.cuts.entry(namespace).or_insert(new);
        cut.after = after.min(cut.after.take());
        cut.until = until.max(cut.until);
        cut
    }

    /// Whether a timer that is due then may be left out of memory.
    pub(super) fn is_cut(&self, due_at: Timestamp, key: &TimerKey) -> bool {
        let is_behind = |after: &Entry| (after.due_at, &after.key) < (due_at, key);
        let cut = self.cuts.get(&key.namespace);
        cut.is_some_and(|cut| due_at <= cut.until && cut.after.as_ref().is_none_or(is_behind))
    }

    /// Whether all of this namespace behind `after` may be left out, up to that moment.
    pub(super) fn covers(&self, namespace: &Arc<str>, after: Option<&Entry>, until: Timestamp) -> bool {
        self.cuts.get(namespace).is_some_and(|cut| cut.after.as_ref() <= after && cut.until >= until)
    }

    /// Whether anything may be missing that was overdue.
    pub(super) fn are_behind(&self) -> bool {
        let lacks = |cut: &Cut| cut.after.as_ref().is_none_or(|after| after.due_at <= cut.until);
        self.cuts.values().any(|cut| cut.backlog > 0 && lacks(cut))
    }

    /// How much of `Queue::backlog_len` was there when its namespaces were cut off for it.
    pub(super) fn backlog_left(&self, queue: &Queue) -> usize {
        self.cuts.iter().map(|(namespace, cut)| queue.backlog_of(namespace).min(cut.backlog)).sum()
    }

    /// How much of the backlog of this namespace that is.
    pub(super) fn backlog_of(&self, namespace: &Arc<str>) -> usize {
        self.cuts.get(namespace).map_or(0, |cut| cut.backlog)
    }

    /// Takes the cuts of namespaces that are to be read on, if there are any.
    pub(super) fn take_lack(&mut self, queue: &Queue) -> Option<Lack> {
        if !self.cuts.iter().any(|(namespace, cut)| cut.has_gone(namespace, queue, GONE_MIN)) {
            return None;
        }
        let beside = |namespace: &Arc<str>, cut: &mut Cut| cut.has_gone(namespace, queue, GONE_BESIDE_MIN);
        let taken: HashMap<Arc<str>, Cut> = self.cuts.extract_if(beside).collect();
        let after = taken.values().map(|cut| cut.after.clone()).min()?;
        let until = taken.values().map(|cut| cut.until).max()?;
        Some(Lack { namespaces: taken.into_keys().collect(), after, until })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(due_at: i64) -> Entry {
        Entry { due_at: Timestamp::from_micros(due_at), key: TimerKey::new("n", "a") }
    }

    /// What is cut off up to a moment says nothing of what is due later, and two cuts are one that has both.
    #[test]
    fn a_cut_has_two_ends() {
        let (namespace, moment) = (Arc::from("n"), Timestamp::from_micros);
        let mut cuts = Cuts::default();
        cuts.add(Arc::clone(&namespace), Some(entry(10)), moment(20));
        let cut = |cuts: &Cuts| [5, 10, 11, 20, 21, 31].map(|at| cuts.is_cut(moment(at), &entry(at).key));
        assert_eq!(cut(&cuts), [false, false, true, true, false, false]);
        let covered = |cuts: &Cuts, after, until| cuts.covers(&namespace, Some(&entry(after)), moment(until));
        for (after, until, covers) in [(10, 20, true), (15, 20, true), (9, 20, false), (10, 21, false)] {
            assert_eq!(covered(&cuts, after, until), covers, "{after} to {until}");
        }
        cuts.add(Arc::clone(&namespace), Some(entry(15)), moment(30));
        assert_eq!(cut(&cuts), [false, false, true, true, true, false]);
        cuts.add(Arc::clone(&namespace), None, moment(20));
        assert_eq!(cut(&cuts), [true, true, true, true, true, false]);
        assert!(covered(&cuts, 0, 30) && !covered(&cuts, 0, 31));
    }
}
