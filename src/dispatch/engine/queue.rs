//! The due-queue: hints of timers in the near future, in the order in which they are to be claimed, one per timer.
//! It decides nothing; the row does.

use std::collections::{BTreeMap, HashMap};

use crate::clock::Timestamp;
use crate::domain::shard::Shard;
use crate::domain::timer::TimerKey;

/// Where a hint's moment comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// From the feed, in commit order.
    Feed,
    /// From a query, or from this engine's own writing.
    Store,
}

/// "This timer may be due at that moment."
#[derive(Clone, Debug)]
pub(super) struct Hint {
    pub(super) key: TimerKey,
    pub(super) shard: Shard,
    pub(super) due_at: Timestamp,
    pub(super) source: Source,
    /// When the feed told of the timer last. The feed may be ahead of what a query sees.
    pub(super) told_at: Timestamp,
    /// How often it has been claimed in vain.
    pub(super) misses: u32,
    /// The sweep found it: nothing else knew of it.
    pub(super) swept: bool,
}

impl Hint {
    /// A hint that a query gave.
    pub(super) fn stored(key: TimerKey, due_at: Timestamp) -> Self {
        let shard = key.shard();
        Self { key, shard, due_at, source: Source::Store, told_at: Timestamp::MIN, misses: 0, swept: false }
    }
}

/// Where a hint stands: when it is to be claimed, then first in first out.
type Place = (Timestamp, u64);

/// Hints by the moment of their claim, and by timer.
#[derive(Debug, Default)]
pub(super) struct Queue {
    by_place: BTreeMap<Place, Hint>,
    places: HashMap<TimerKey, Place>,
    count: u64,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.by_place.len()
    }

    /// When the next hint is to be claimed.
    pub(super) fn first_at(&self) -> Option<Timestamp> {
        self.by_place.first_key_value().map(|((at, _), _)| *at)
    }

    pub(super) fn get(&self, key: &TimerKey) -> Option<&Hint> {
        self.places.get(key).and_then(|place| self.by_place.get(place))
    }

    /// Notes that the feed has told of the timer, so that the sweep is no longer the only one that did.
    pub(super) fn told(&mut self, key: &TimerKey, at: Timestamp) {
        if let Some(hint) = self.places.get(key).and_then(|place| self.by_place.get_mut(place)) {
            hint.told_at = hint.told_at.max(at);
            // What a query found has no such moment.
            hint.swept &= at == Timestamp::MIN;
        }
    }

    /// Puts the hint in, to be claimed at `at`, in the place of the one that stood there for this timer.
    pub(super) fn put(&mut self, at: Timestamp, mut hint: Hint) {
        self.count = self.count.wrapping_add(1);
        let place = (at, self.count);
        let old = self.places.insert(hint.key.clone(), place).and_then(|old| self.by_place.remove(&old));
        if let Some(old) = old {
            hint.told_at = hint.told_at.max(old.told_at);
        }
        self.by_place.insert(place, hint);
    }

    /// Takes the next hint whose claim is due at `now`.
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<Hint> {
        let first = self.by_place.first_entry().filter(|first| first.key().0 <= now)?;
        let hint = first.remove();
        self.places.remove(&hint.key);
        Some(hint)
    }

    /// Takes the hint that is to be claimed last.
    pub(super) fn pop_last(&mut self) -> Option<Hint> {
        let (_, hint) = self.by_place.pop_last()?;
        self.places.remove(&hint.key);
        Some(hint)
    }

    /// Drops the hints of shards that are not to be kept.
    pub(super) fn retain(&mut self, keep: impl Fn(Shard) -> bool) {
        let Self { by_place, places, .. } = self;
        by_place.retain(|_, hint| {
            let kept = keep(hint.shard);
            if !kept {
                places.remove(&hint.key);
            }
            kept
        });
    }

    /// Whether both views tell the same, as far as it can be seen at a glance.
    pub(super) fn is_consistent(&self) -> bool {
        self.by_place.len() == self.places.len()
    }
}
