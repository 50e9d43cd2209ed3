//! The due-queue: hints of timers in the near future, one per timer, in a lane for each namespace. Within a lane they come
//! in the order in which they are to be claimed; lanes with due hints take turns, so that one with very many holds up no
//! other. It decides nothing; the row does.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::domain::limits::TIMER_BYTES_MAX;
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
    /// It was overdue when a load brought it.
    pub(super) backlog: bool,
}

impl Hint {
    /// A hint that a query gave.
    pub(super) fn stored(key: TimerKey, due_at: Timestamp) -> Self {
        let (shard, source) = (key.shard(), Source::Store);
        Self { key, shard, due_at, source, told_at: Timestamp::MIN, misses: 0, swept: false, backlog: false }
    }
}

/// How much of the room for runs one namespace may take, and how its turns go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    /// The places for runs.
    pub(super) runs: Room,
    /// The bytes of what they bring along.
    pub(super) bytes: Room,
    /// Hints of one turn.
    pub(super) turn: usize,
}

impl Share {
    fn may_take(self, lane: &Lane) -> bool {
        self.runs.may_take(lane.inflight) && self.bytes.may_take(lane.bytes)
    }

    fn may_begin(self, lane: &Lane) -> bool {
        self.runs.may_begin(lane.inflight) && self.bytes.may_begin(lane.bytes)
    }
}

/// Something that namespaces share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// How much may be taken at the moment.
    pub(super) free: usize,
    /// Beyond so much, a namespace waits until it may take as much at once, so that claims stay batches.
    pub(super) light: usize,
}

impl Room {
    /// A namespace may have so much for each place that is free: one alone 8 of 9 places, two 8 of 17 each. What is
    /// left is for newcomers (the dynamic thresholds of Choudhury and Hahne, 1998).
    const ALPHA: usize = 8;

    fn may_take(self, taken: usize) -> bool {
        taken < self.free.saturating_mul(Self::ALPHA)
    }

    fn may_begin(self, taken: usize) -> bool {
        // What is taken more raises what it has, and lowers what that is measured by.
        let after = taken.saturating_add(self.light.saturating_mul(Self::ALPHA + 1));
        taken <= self.light || after <= self.free.saturating_mul(Self::ALPHA)
    }
}

/// Up to which moment hints are taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    /// Those that are to be claimed by now.
    pub(super) now: Timestamp,
    /// And those up to here that have not been claimed in vain.
    pub(super) ahead: Timestamp,
}

impl Reach {
    fn has(self, (at, _): &Place, hint: &Hint) -> bool {
        *at <= self.now || (*at <= self.ahead && hint.misses == 0)
    }
}

/// Where a hint stands in its lane: when it is to be claimed, then first in first out.
type Place = (Timestamp, u64);

/// Whether it is a lane's turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Turn {
    /// It has no hints.
    #[default]
    None,
    /// Its first hint is due at this moment.
    At(Timestamp),
    /// It stands in line.
    Now,
}

/// What is known of a namespace.
#[derive(Debug, Default)]
struct Lane {
    hints: BTreeMap<Place, Hint>,
    /// How many of them were overdue when a load brought them.
    backlog: usize,
    /// Its runs that are claimed or being claimed, and not finished.
    inflight: usize,
    /// What these bring along; what is being claimed counts as much as it may be.
    bytes: usize,
    turn: Turn,
}

impl Lane {
    fn first_at(&self) -> Option<Timestamp> {
        self.hints.first_key_value().map(|((at, _), _)| *at)
    }
}

/// Hints by namespace and the moment of their claim, and by timer.
#[derive(Debug, Default)]
pub(super) struct Queue {
    lanes: HashMap<Arc<str>, Lane>,
    places: HashMap<TimerKey, Place>,
    /// Lanes that are not in line, by the moment of their first hint.
    waiting: BTreeSet<(Timestamp, Arc<str>)>,
    /// Lanes in line; the first one's turn lasts for so many hints more.
    line: VecDeque<Arc<str>>,
    turn_left: usize,
    backlog: usize,
    /// What all that is under way brings along.
    bytes: usize,
    count: u64,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// How many hints were overdue when a load brought them.
    pub(super) fn backlog_len(&self) -> usize {
        self.backlog
    }

    /// How many of a namespace's were.
    pub(super) fn backlog_of(&self, namespace: &Arc<str>) -> usize {
        self.lanes.get(namespace).map_or(0, |lane| lane.backlog)
    }

    /// The namespaces with more of them than that, and how many each has.
    pub(super) fn backlogs_above(&self, count: usize) -> impl Iterator<Item = (&Arc<str>, usize)> {
        let backlogs = self.lanes.iter().map(|(namespace, lane)| (namespace, lane.backlog));
        backlogs.filter(move |(_, backlog)| *backlog > count)
    }

    /// The bytes of all that is under way; what is being claimed counts as much as it may be.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the next hint is to be claimed, those aside whose lanes stand in line.
    pub(super) fn first_at(&self) -> Option<Timestamp> {
        self.waiting.first().map(|(at, _)| *at)
    }

    /// How many hints a namespace has.
    pub(super) fn len_of(&self, namespace: &Arc<str>) -> usize {
        self.lanes.get(namespace).map_or(0, |lane| lane.hints.len())
    }

    /// The namespace that has the most.
    pub(super) fn largest(&self) -> Option<Arc<str>> {
        self.lanes.iter().max_by_key(|(_, lane)| lane.hints.len()).map(|(namespace, _)| namespace.clone())
    }

    pub(super) fn get(&self, key: &TimerKey) -> Option<&Hint> {
        let place = self.places.get(key)?;
        self.lanes.get(&key.namespace)?.hints.get(place)
    }

    /// Notes that the feed has told of the timer, so that the sweep is no longer the only one that did.
    pub(super) fn told(&mut self, key: &TimerKey, at: Timestamp) {
        let Some(place) = self.places.get(key) else { return };
        if let Some(hint) = self.lanes.get_mut(&key.namespace).and_then(|lane| lane.hints.get_mut(place)) {
            hint.told_at = hint.told_at.max(at);
            // What a query found has no such moment.
            hint.swept &= at == Timestamp::MIN;
        }
    }

    /// Puts the hint in, to be claimed at `at`, in the place of the one that stood there for this timer.
    pub(super) fn put(&mut self, at: Timestamp, mut hint: Hint) {
        self.count = self.count.wrapping_add(1);
        let place = (at, self.count);
        let namespace = hint.key.namespace.clone();
        let lane = self.lanes.entry(namespace.clone()).or_default();
        let old = self.places.insert(hint.key.clone(), place).and_then(|old| lane.hints.remove(&old));
        if let Some(old) = old {
            hint.told_at = hint.told_at.max(old.told_at);
            lane.backlog -= usize::from(old.backlog);
            self.backlog -= usize::from(old.backlog);
        }
        lane.backlog += usize::from(hint.backlog);
        self.backlog += usize::from(hint.backlog);
        lane.hints.insert(place, hint);
        self.rest(&namespace);
    }

    /// How many hints are to be claimed up to `until`; at most `each_max` are counted of each namespace, and `all_max` in all.
    /// Looks at no namespace without such hints but those that stand in line.
    pub(super) fn count_until(&self, until: Timestamp, each_max: usize, all_max: usize) -> usize {
        let waiting = self.waiting.iter().take_while(|(at, _)| *at <= until).map(|(_, namespace)| namespace);
        let lanes = self.line.iter().chain(waiting).filter_map(|namespace| self.lanes.get(namespace));
        lanes.flat_map(|lane| lane.hints.keys().take(each_max).take_while(|(at, _)| *at <= until)).take(all_max).count()
    }

    /// Whether a hint is to be claimed at `now`.
    pub(super) fn has_due(&self, now: Timestamp) -> bool {
        let is_due = |lane: &Lane| lane.first_at().is_some_and(|at| at <= now);
        self.first_at().is_some_and(|at| at <= now)
            || self.line.iter().any(|namespace| self.lanes.get(namespace).is_some_and(is_due))
    }

    /// Takes the next hint that is within reach, of the namespace whose turn it is, and counts it as under way, with as many
    /// bytes as a timer may have.
    pub(super) fn pop_due(&mut self, reach: Reach, share: Share) -> Option<Hint> {
        self.wake(reach.now.max(reach.ahead));
        let mut passed_over = 0;
        while passed_over < self.line.len() {
            let namespace = self.line.front()?.clone();
            let lane = self.lanes.get_mut(&namespace).expect("a lane in line is not forgotten");
            let may_take = share.may_take(lane) && (self.turn_left > 0 || share.may_begin(lane));
            let Some(first) = lane.hints.first_entry().filter(|first| reach.has(first.key(), first.get())) else {
                lane.turn = Turn::None;
                self.line.pop_front();
                self.turn_left = 0;
                self.rest(&namespace);
                continue;
            };
            if !may_take {
                self.line.rotate_left(1);
                self.turn_left = 0;
                passed_over += 1;
                continue;
            }
            let hint = first.remove();
            lane.inflight += 1;
            lane.bytes += TIMER_BYTES_MAX;
            self.bytes += TIMER_BYTES_MAX;
            self.places.remove(&hint.key);
            lane.backlog -= usize::from(hint.backlog);
            self.backlog -= usize::from(hint.backlog);
            self.turn_left = if self.turn_left > 0 { self.turn_left } else { share.turn } - 1;
            if self.turn_left == 0 {
                self.line.rotate_left(1);
            }
            return Some(hint);
        }
        None
    }

    /// A run of this namespace is under way, which brings so many bytes along.
    pub(super) fn began(&mut self, namespace: &Arc<str>, bytes: usize) {
        self.bytes += bytes;
        match self.lanes.get_mut(namespace) {
            Some(lane) => (lane.inflight, lane.bytes) = (lane.inflight + 1, lane.bytes + bytes),
            None => drop(self.lanes.insert(namespace.clone(), Lane { inflight: 1, bytes, ..Lane::default() })),
        }
    }

    /// One is not any more.
    pub(super) fn ended(&mut self, namespace: &Arc<str>, bytes: usize) {
        if let Some(lane) = self.lanes.get_mut(namespace) {
            self.bytes -= bytes;
            lane.bytes -= bytes;
            lane.inflight -= 1;
            if lane.inflight == 0 && lane.turn == Turn::None {
                self.lanes.remove(namespace);
            }
        }
    }

    /// The clock was set back to `now`: takes the hints that wait for a later moment than they would have by their due one,
    /// since they were claimed in vain.
    pub(super) fn set_back(&mut self, now: Timestamp, claim_at: impl Fn(Timestamp) -> Timestamp) -> Vec<Hint> {
        let mut late = Vec::new();
        for lane in self.lanes.values_mut() {
            for (place, hint) in &mut lane.hints {
                hint.told_at = hint.told_at.min(now);
                if place.0 > claim_at(hint.due_at) {
                    late.push((*place, hint.key.clone()));
                }
            }
        }
        late.sort_unstable();
        let mut taken = Vec::with_capacity(late.len());
        for (place, key) in late {
            let Some(lane) = self.lanes.get_mut(&key.namespace) else { continue };
            if let Some(hint) = lane.hints.remove(&place) {
                self.places.remove(&key);
                lane.backlog -= usize::from(hint.backlog);
                self.backlog -= usize::from(hint.backlog);
                self.rest(&key.namespace);
                taken.push(hint);
            }
        }
        taken
    }

    /// Takes up to `count` hints of a namespace, those that are to be claimed last.
    pub(super) fn pop_last(&mut self, namespace: &Arc<str>, count: usize) -> Vec<Hint> {
        let mut popped = Vec::with_capacity(count);
        if let Some(lane) = self.lanes.get_mut(namespace) {
            popped.extend(std::iter::from_fn(|| lane.hints.pop_last()).take(count).map(|(_, hint)| hint));
            lane.backlog -= popped.iter().filter(|hint| hint.backlog).count();
        }
        for hint in &popped {
            self.places.remove(&hint.key);
            self.backlog -= usize::from(hint.backlog);
        }
        self.rest(namespace);
        popped
    }

    /// Drops the hints of shards that are not to be kept.
    pub(super) fn retain(&mut self, keep: impl Fn(Shard) -> bool) {
        let Self { lanes, places, backlog, .. } = self;
        for lane in lanes.values_mut() {
            let Lane { hints, backlog: of_lane, .. } = lane;
            hints.retain(|_, hint| {
                let kept = keep(hint.shard);
                if !kept {
                    places.remove(&hint.key);
                    *of_lane -= usize::from(hint.backlog);
                    *backlog -= usize::from(hint.backlog);
                }
                kept
            });
        }
        for namespace in self.lanes.keys().cloned().collect::<Vec<_>>() {
            self.rest(&namespace);
        }
    }

    /// Forgets all hints, but not what is under way.
    pub(super) fn clear(&mut self) {
        self.retain(|_| false);
    }

    /// Puts lanes whose first hint is due at `now` in line.
    fn wake(&mut self, now: Timestamp) {
        while self.waiting.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, namespace)) = self.waiting.pop_first()
        {
            if let Some(lane) = self.lanes.get_mut(&namespace) {
                lane.turn = Turn::Now;
            }
            self.line.push_back(namespace);
        }
    }

    /// Brings a lane that does not stand in line to where its first hint says, or forgets it.
    fn rest(&mut self, namespace: &Arc<str>) {
        let Some(lane) = self.lanes.get_mut(namespace).filter(|lane| lane.turn != Turn::Now) else { return };
        let turn = lane.first_at().map_or(Turn::None, Turn::At);
        let old = std::mem::replace(&mut lane.turn, turn);
        if turn == Turn::None && lane.inflight == 0 {
            self.lanes.remove(namespace);
        }
        if turn == old {
            return;
        }
        if let Turn::At(at) = old {
            self.waiting.remove(&(at, namespace.clone()));
        }
        if let Turn::At(at) = turn {
            self.waiting.insert((at, namespace.clone()));
        }
    }

    /// Whether all views tell the same, as far as it can be seen at a glance, and `inflight` runs with so many
    /// bytes are under way.
    pub(super) fn is_consistent(&self, inflight: usize, bytes: usize) -> bool {
        let lanes = || self.lanes.values();
        let count = |turn: fn(Turn) -> bool| lanes().filter(|lane| turn(lane.turn)).count();
        lanes().map(|lane| lane.hints.len()).sum::<usize>() == self.places.len()
            && lanes().map(|lane| lane.inflight).sum::<usize>() == inflight
            && lanes().map(|lane| lane.bytes).sum::<usize>() == bytes
            && self.bytes == bytes
            && lanes().map(|lane| lane.backlog).sum::<usize>() == self.backlog
            && lanes().all(|lane| lane.hints.values().filter(|hint| hint.backlog).count() == lane.backlog)
            && count(|turn| turn == Turn::Now) == self.line.len()
            && count(|turn| matches!(turn, Turn::At(_))) == self.waiting.len()
            && lanes().all(|lane| lane.inflight > 0 || lane.turn != Turn::None)
    }
}
