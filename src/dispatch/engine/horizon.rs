//! The near future: which hints are kept, and how they are loaded. First the horizon moves, then the rows up to it are
//! read, so that the feed and the load can not both miss one.
//!
//! What always holds: every row of a kept shard that is due up to the horizon, and visible when its shard was scanned,
//! is in memory or ahead of a scan that is pending, or behind the cut of its namespace.
//!
//! Where the memory is full, the namespace that has the most is cut off at its far end, and what it lacks is read again once it
//! has room. So one whose timers wait, however many they are, keeps neither the horizon from moving nor others' out of memory.
//! Where all that is overdue in memory is as much as can be claimed soon, those with a large part of it are cut off up to now:
//! what else is overdue is read on, past theirs.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::cuts::{Cuts, Lack};
use super::queue::{Hint, Source};
use super::{Effect, Engine};
use crate::clock::Timestamp;
use crate::dispatch::ports::{Entry, LoadRequest, Unavailable};
use crate::domain::shard::Shard;
use crate::domain::timer::TimerKey;

/// The pause after a load that failed.
const LOAD_RETRY: Duration = Duration::from_millis(200);
/// A namespace with more than one of so many parts of the overdue hints gives way. To cut one off with less would not help the
/// others much, and have rows read again and again: each that is read for one stands among those of all.
const BACKLOG_PARTS: usize = 16;

/// Why rows are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Shards were acquired, or the feed began anew.
    TakeOver,
    /// The horizon moved.
    Advance,
    /// The overdue part of a move of the horizon.
    Backlog,
    /// Namespaces have room again for what was cut off.
    Refill,
    /// To find what was missed.
    Sweep,
}

/// Rows that are to be read, page by page.
#[derive(Clone, Debug)]
struct Scan {
    kind: Kind,
    shards: Vec<Shard>,
    after: Option<Entry>,
    until: Timestamp,
    /// The namespaces that it is for, where it is not for all.
    only: BTreeSet<Arc<str>>,
}

impl Scan {
    fn new(kind: Kind, shards: Vec<Shard>, after: Option<Entry>, until: Timestamp) -> Self {
        Self { kind, shards, after, until, only: BTreeSet::new() }
    }

    /// Whether it stands in the past, so that all that follows soon is overdue.
    fn is_behind(&self, now: Timestamp) -> bool {
        self.after.as_ref().is_none_or(|entry| entry.due_at <= now)
    }

    /// Whether it reads what this namespace has.
    fn is_for(&self, namespace: &Arc<str>) -> bool {
        self.only.is_empty() || self.only.contains(namespace)
    }

    fn is_over(&self, cuts: &Cuts) -> bool {
        let after = self.after.as_ref();
        self.shards.is_empty()
            || after.is_some_and(|after| after.due_at > self.until)
            || !self.only.is_empty() && self.only.iter().all(|namespace| cuts.covers(namespace, after, self.until))
    }
}

/// The horizon, and the scans up to it.
#[derive(Debug)]
pub(super) struct Loader {
    horizon: Timestamp,
    pending: VecDeque<Scan>,
    /// The scan whose page is being read.
    loading: Option<Scan>,
    /// All that is to be read waits until overdue timers in memory are claimed.
    stalled: bool,
    retry_at: Timestamp,
    sweep_at: Timestamp,
    cuts: Cuts,
}

impl Default for Loader {
    fn default() -> Self {
        Self {
            horizon: Timestamp::MIN,
            pending: VecDeque::new(),
            loading: None,
            stalled: false,
            retry_at: Timestamp::MIN,
            sweep_at: Timestamp::MIN,
            cuts: Cuts::default(),
        }
    }
}

impl Loader {
    /// Whether overdue rows are still to be read that no sweep is to find before. What a move of the horizon reads is not due
    /// yet, and keeps no sweep away: otherwise none would ever come where the two are in step.
    fn is_behind(&self, now: Timestamp) -> bool {
        let mut scans = self.loading.iter().chain(&self.pending);
        scans.any(|scan| scan.kind != Kind::Sweep && scan.is_behind(now)) || self.cuts.are_behind()
    }

    /// Whether a scan is still to read this row in any case. A sweep that began before that scan may be there first, and has
    /// found nothing that was missed.
    fn will_read(&self, shard: Shard, entry: &Entry) -> bool {
        let is_ahead = |scan: &Scan| {
            scan.kind != Kind::Sweep
                && scan.shards.contains(&shard)
                && scan.after.as_ref().is_none_or(|after| after < entry)
                && entry.due_at <= scan.until
                && scan.is_for(&entry.key.namespace)
        };
        self.pending.iter().any(is_ahead)
    }

    /// The clock was set back to `now`.
    pub(super) fn set_back(&mut self, now: Timestamp, sweep_every: Duration) {
        self.retry_at = self.retry_at.min(now);
        self.sweep_at = self.sweep_at.min(now.after(sweep_every));
    }

    /// Plans a scan; one without shards has nothing to read.
    fn plan(&mut self, scan: Scan) {
        if !scan.shards.is_empty() {
            self.pending.push_back(scan);
        }
    }

    /// Splits what is to be read at `now`: what falls due from now on need not wait for all that is overdue. Either all, or only
    /// what has not begun yet.
    fn split(&mut self, now: Timestamp, all: bool) {
        for index in 0..self.pending.len() {
            let splits = |scan: &&mut Scan| scan.is_behind(now) && scan.until > now && (all || scan.after.is_none());
            let Some(scan) = self.pending.get_mut(index).filter(splits) else { continue };
            let rest = Scan { after: Some(behind(now)), ..scan.clone() };
            scan.until = now;
            if scan.kind == Kind::Advance {
                scan.kind = Kind::Backlog;
            }
            self.plan(rest);
        }
    }

    /// Cuts a namespace off for so much that is overdue, where scans that were split are to go on.
    fn cut_backlog(&mut self, now: Timestamp, namespace: &Arc<str>, backlog: usize) {
        // What a sweep finds is not promised to anybody.
        let is_kept = |scan: &&Scan| scan.kind != Kind::Sweep && scan.is_behind(now) && scan.is_for(namespace);
        let scans = || self.pending.iter().filter(is_kept);
        // Where nothing is to be read, nothing is missing.
        let after = scans().map(|scan| scan.after.clone()).min().unwrap_or_else(|| Some(behind(now)));
        let until = scans().map(|scan| scan.until).max().unwrap_or(now);
        self.cuts.add(namespace.clone(), after, until).backlog = backlog;
    }

    fn has(&self, kind: Kind) -> bool {
        self.loading.iter().chain(&self.pending).any(|scan| scan.kind == kind)
    }
}

/// Behind every entry of this moment and before every later one, because no namespace is empty.
fn behind(at: Timestamp) -> Entry {
    Entry { due_at: at.after(Duration::from_micros(1)), key: TimerKey::new("", "") }
}

impl Engine {
    /// Plans to read all rows of shards newly acquired.
    pub(super) fn take_over(&mut self, shards: Vec<Shard>) {
        let until = self.loader.horizon;
        // Before its first move, which reads everything anyway, there is no horizon.
        if until != Timestamp::MIN {
            self.loader.plan(Scan::new(Kind::TakeOver, shards, None, until));
        }
    }

    /// Reads everything anew.
    pub(super) fn reload(&mut self) {
        self.loader.pending.clear();
        self.take_over(self.holds.kept());
    }

    /// Takes in news of the feed, in its order: the last word about a timer counts.
    pub(super) fn note(&mut self, now: Timestamp, entries: Vec<Entry>) {
        if self.draining {
            return;
        }
        let near = self.loader_near();
        for Entry { due_at, key } in entries {
            let shard = key.shard();
            if !self.sweeping.is_empty() {
                self.sweeping.remove(&key);
            }
            if due_at <= near && self.is_kept(shard) {
                self.offer(Hint {
                    key,
                    shard,
                    due_at,
                    source: Source::Feed,
                    told_at: now,
                    misses: 0,
                    swept: false,
                    backlog: false,
                });
            }
        }
    }

    /// Hints due up to this moment are kept; a later load brings the others.
    pub(super) fn loader_near(&self) -> Timestamp {
        self.loader.horizon.after(self.config.horizon_step)
    }

    /// Puts a hint into the queue, unless a better one is there. Among hints of the feed the later one counts, because
    /// they come in commit order. Otherwise it is unknown which is newer, and the earlier moment counts: a claim that
    /// comes too early is told the true one.
    pub(super) fn offer(&mut self, hint: Hint) {
        if let Some(old) = self.queue.get(&hint.key) {
            let is_news = hint.source == Source::Feed;
            let replaces = match hint.due_at.cmp(&old.due_at) {
                Ordering::Less => true,
                // The transaction that kept the row from being claimed may just have ended.
                Ordering::Equal => is_news && old.misses > 0,
                Ordering::Greater => is_news && old.source == Source::Feed,
            };
            if !replaces {
                return self.queue.told(&hint.key, hint.told_at);
            }
        } else if self.loader.cuts.is_cut(hint.due_at, &hint.key) {
            return;
        }
        let at = self.claim_at(hint.due_at);
        self.enqueue(at, hint);
    }

    /// Puts a hint into the queue, to be claimed at `at`. Where there is no room, the namespace that has the most is cut off.
    pub(super) fn enqueue(&mut self, at: Timestamp, hint: Hint) {
        // Its namespace may have to be cut off now.
        self.loader.stalled &= !hint.backlog;
        self.queue.put(at, hint);
        while self.queue_len() > self.config.queue_max
            && let Some(namespace) = self.queue.largest()
        {
            // Some at once, because to find the namespace takes a look at all of them.
            let dropped = self.queue.pop_last(&namespace, (self.config.queue_max / 1000).max(1));
            let Some(first) = dropped.iter().map(|hint| hint.due_at).min() else { return };
            // Before every entry of its moment, because no namespace is empty.
            let after = Entry { due_at: first, key: TimerKey::new("", "") };
            let left = self.queue.len_of(&namespace);
            self.loader.cuts.add(namespace, Some(after), Timestamp::MAX).left = left;
        }
    }

    /// Takes in a page.
    pub(super) fn loaded(&mut self, now: Timestamp, page: Result<Vec<Entry>, Unavailable>) {
        let Some(mut scan) = self.loader.loading.take() else { return };
        let Ok(entries) = page else {
            self.loader.retry_at = now.after(LOAD_RETRY);
            self.loader.pending.push_front(scan);
            return;
        };
        let more = entries.len() >= self.config.batch_max;
        scan.after = entries.last().cloned().or(scan.after);
        let sweeps = scan.kind == Kind::Sweep;
        let known = if sweeps && !entries.is_empty() { self.keys_under_way() } else { HashSet::new() };
        for entry in entries {
            let shard = entry.key.shard();
            let swept = sweeps && !known.contains(&entry.key) && !self.loader.will_read(shard, &entry);
            let hint = Hint { swept, backlog: entry.due_at <= now, ..Hint::stored(entry.key, entry.due_at) };
            if self.is_kept(hint.shard) {
                self.offer(hint);
            }
        }
        if more {
            self.loader.pending.push_back(scan);
        }
    }

    /// Timers that are not in the queue because something is being done with them.
    fn keys_under_way(&self) -> HashSet<TimerKey> {
        let claiming = self.claims.values().flatten().map(|(hint, _)| &hint.key);
        let parked = self.parked.iter().map(|hint| &hint.key);
        let runs = self.records.keys().map(|run| &run.timer);
        claiming.chain(parked).chain(runs).cloned().collect()
    }

    /// Moves the horizon, plans the sweep, and asks for the next page.
    pub(super) fn load(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.plan_refill();
        let (holds, cuts) = (&self.holds, &self.loader.cuts);
        self.loader.pending.retain_mut(|scan| {
            scan.shards.retain(|shard| holds.is_kept(*shard));
            !scan.is_over(cuts)
        });
        self.advance(now);
        self.plan_sweep(now);
        if self.loader.loading.is_some() || now < self.loader.retry_at {
            return;
        }
        self.cut_backlogs(now);
        let full = self.is_full();
        let next = self.loader.pending.iter().position(|scan| !(full && scan.is_behind(now)));
        self.loader.stalled = next.is_none();
        if let Some(scan) = next.and_then(|index| self.loader.pending.remove(index)) {
            effects.push(Effect::Load(LoadRequest {
                shards: scan.shards.clone(),
                after: scan.after.clone(),
                until: scan.until,
                limit: self.config.batch_max,
            }));
            self.loader.loading = Some(scan);
        }
    }

    /// Whether overdue timers in memory are as many as can be claimed soon, but for those of namespaces cut off for theirs.
    fn is_full(&self) -> bool {
        let backlog = self.queue.backlog_len() + self.parked.len();
        let backlog_max = self.config.backlog_max;
        backlog >= backlog_max && backlog - self.loader.cuts.backlog_left(&self.queue) >= backlog_max
    }

    /// Where overdue timers in memory are too many, cuts namespaces off that have a large part of them.
    fn cut_backlogs(&mut self, now: Timestamp) {
        let is_full = self.is_full();
        if is_full || !self.loader.cuts.is_empty() {
            self.loader.split(now, is_full);
        }
        // As long as nothing was read since, nobody has more.
        if is_full && !self.loader.stalled {
            let Self { loader, queue, config, .. } = self;
            for (namespace, backlog) in queue.backlogs_above(config.backlog_max / BACKLOG_PARTS) {
                if backlog > loader.cuts.backlog_of(namespace) {
                    loader.cut_backlog(now, namespace, backlog);
                }
            }
        }
    }

    fn advance(&mut self, now: Timestamp) {
        let target = now.after(self.config.horizon);
        if self.loader.horizon > target || !self.may_advance() {
            return;
        }
        let until = target.after(self.config.horizon_step);
        let old = std::mem::replace(&mut self.loader.horizon, until);
        let after = (old != Timestamp::MIN).then(|| behind(old));
        self.loader.plan(Scan::new(Kind::Advance, self.holds.kept(), after, until));
    }

    /// Whether the last move is over.
    fn may_advance(&self) -> bool {
        !self.loader.has(Kind::Advance)
    }

    /// Plans to read what was cut off of namespaces of which a tenth of what was left has gone, where there is room again.
    fn plan_refill(&mut self) {
        if self.loader.cuts.is_empty() || self.queue_len() >= self.config.queue_max || self.is_full() {
            return;
        }
        let Self { loader, queue, .. } = self;
        let Some(Lack { mut namespaces, mut after, mut until }) = loader.cuts.take_lack(queue) else { return };
        // One that is pending goes on in this one, or there would be more and more of them.
        loader.pending.retain_mut(|scan| {
            if scan.kind == Kind::Refill {
                namespaces.append(&mut scan.only);
                after = scan.after.take().min(after.take());
                until = scan.until.max(until);
            }
            scan.kind != Kind::Refill
        });
        let scan = Scan::new(Kind::Refill, self.holds.kept(), after, until.min(self.loader.horizon));
        self.loader.plan(Scan { only: namespaces, ..scan });
    }

    /// Plans to look for overdue rows, unless some are being read anyway.
    fn plan_sweep(&mut self, now: Timestamp) {
        if now < self.loader.sweep_at {
            return;
        }
        self.loader.sweep_at = now.after(self.config.sweep_every);
        if !self.loader.is_behind(now) && !self.loader.has(Kind::Sweep) {
            let until = self.loader.horizon.min(now.before(self.config.sweep_grace));
            self.loader.plan(Scan::new(Kind::Sweep, self.holds.kept(), None, until));
        }
    }

    /// When there is something to load, without anything happening until then.
    pub(super) fn next_load(&self) -> Option<Timestamp> {
        let page_at =
            (self.loader.loading.is_none() && !self.loader.pending.is_empty()).then_some(self.loader.retry_at);
        let page_at = page_at.filter(|_| !self.loader.stalled);
        let advance_at = self.may_advance().then_some(self.loader.horizon.before(self.config.horizon));
        page_at.into_iter().chain(advance_at).chain([self.loader.sweep_at]).min()
    }
}
