//! Claiming: what is nearly due is taken in batches, and the row decides. A claim that is never answered may have
//! happened all the same. Its runs would then stand under our own epoch, where nobody looks for them. So the leases it
//! was made under are given up for a new epoch of the same shards, and the adoption that follows finds them. No other owner
//! comes between, and what is under way goes on: its outcome is written under the new epoch.
//!
//! To look for the runs under the same epoch would be cheaper, but is never over: whoever does not answer may still be at
//! it, or begin only when what it was sent gets through, and could take a timer that a client inserts afterwards. In a new
//! epoch it changes nothing, whenever it comes.
//!
//! Namespaces take turns, and each has its share of the room for runs and of the memory for what they bring along
//! (`queue::Share`).
//!
//! A timer is not claimed while an older run of the same id is being put back, nor put back while a newer one is being
//! claimed: the two statements would not see each other, and the old timer could come back behind the new one.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::queue::{Hint, Reach, Room, Share, Source};
use super::{Effect, Engine};
use crate::clock::Timestamp;
use crate::dispatch::ports::{Claimed, Unavailable};
use crate::domain::lease::{Epoch, Lease};
use crate::domain::limits::{RUNS_BYTES_MAX, TIMER_BYTES_MAX};
use crate::domain::timer::TimerKey;

/// The first pause of a timer whose row is held by another transaction, or not yet visible; it doubles.
const MISS_PAUSE_FIRST: Duration = Duration::from_millis(5);
/// Its longest pause.
const MISS_PAUSE_MAX: Duration = Duration::from_secs(1);
/// For how long the feed may be ahead of what a query sees. What is not there later is gone.
const UNSEEN_MAX: Duration = Duration::from_secs(2);
/// The pause after a claim that failed.
const CLAIM_RETRY: Duration = Duration::from_millis(100);
/// How often it is looked for crowds, while timers are near.
const CROWD_LOOK_EVERY: Duration = Duration::from_millis(50);

/// The timers that are due at about the same moment, where they are very many.
#[derive(Debug)]
pub(super) struct Crowd {
    /// How much earlier than usual they are claimed.
    lead: Duration,
    look_again_at: Timestamp,
}

impl Default for Crowd {
    fn default() -> Self {
        Self { lead: Duration::ZERO, look_again_at: Timestamp::MIN }
    }
}

impl Crowd {
    pub(super) fn set_back(&mut self, now: Timestamp) {
        self.look_again_at = self.look_again_at.min(now);
    }
}

/// The timers of a claim that is under way, each with the epoch that it is claimed in.
pub(super) type Claim = Vec<(Hint, Epoch)>;

/// The moment at which a timer that is due at `due_at` is to be claimed: the lead before it, rounded down to a quarter of the
/// lead, so that timers of about the same moment share a claim.
pub(super) fn claim_at(due_at: Timestamp, lead: Duration) -> Timestamp {
    let at = due_at.before(lead);
    let grain = i64::try_from(grain(lead).as_micros()).unwrap_or(i64::MAX);
    let into_grain = if grain > 0 { at.micros().rem_euclid(grain) } else { 0 };
    Timestamp::from_micros(at.micros().saturating_sub(into_grain))
}

fn grain(lead: Duration) -> Duration {
    lead / 4
}

impl Engine {
    /// The moment at which a timer that is due at `due_at` is to be claimed.
    pub(super) fn claim_at(&self, due_at: Timestamp) -> Timestamp {
        claim_at(due_at, self.config.lead)
    }

    fn grain(&self) -> Duration {
        grain(self.config.lead)
    }

    /// Whether another claim may start.
    fn may_claim(&self) -> bool {
        self.claims.len() < self.config.claims_max && self.room() > 0 && self.queue.bytes() < RUNS_BYTES_MAX
    }

    /// What a namespace may take while a claim has so many timers already.
    fn share(&self, claimed: usize) -> Share {
        let light = self.config.batch_max.min(self.config.inflight_max / 9) / 8;
        let bytes_free = RUNS_BYTES_MAX.saturating_sub(self.queue.bytes());
        Share {
            runs: Room { free: self.room().saturating_sub(claimed), light },
            bytes: Room { free: bytes_free, light: light * TIMER_BYTES_MAX },
            turn: (self.config.batch_max / 8).max(1),
        }
    }

    pub(super) fn next_claim(&self) -> Option<Timestamp> {
        let first_at = self.queue.first_at().filter(|_| self.may_claim())?;
        let look_at = first_at.before(self.config.crowd_lead_max).max(self.crowd.look_again_at);
        Some(first_at.min(look_at))
    }

    /// Looks now and then whether very many timers are near, which must be claimed earlier to be in memory when they are due.
    fn look_for_crowd(&mut self, now: Timestamp) {
        if now < self.crowd.look_again_at {
            return;
        }
        let (longest, count_min) = (self.config.crowd_lead_max, self.config.crowd_min);
        // More make no difference.
        let count_max = count_min.saturating_mul(10).max(1);
        let count = self.queue.count_until(now.after(longest), self.config.inflight_max, count_max);
        let percent = if count < count_min { 0 } else { count.saturating_mul(100) / count_max };
        let percent = u32::try_from(percent.min(100)).unwrap_or(100);
        self.crowd.lead = longest * percent / 100;
        self.crowd.look_again_at = now.after(CROWD_LOOK_EVERY);
    }

    /// How long before it is due a timer may be claimed at the moment.
    fn lead_max(&self) -> Duration {
        self.config.lead + self.grain() + self.crowd.lead
    }

    /// Claims what is nearly due.
    pub(super) fn claim(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.look_for_crowd(now);
        while self.may_claim() {
            let batch = self.take_batch(now);
            if batch.is_empty() {
                return;
            }
            let timers = batch.iter().map(|(hint, epoch)| (hint.key.clone(), *epoch)).collect();
            self.sweeping.extend(batch.iter().filter(|(hint, _)| hint.swept).map(|(hint, _)| hint.key.clone()));
            self.claims_count += 1;
            self.claiming += batch.len();
            self.claims.insert(self.claims_count, batch);
            let until = now.after(self.lead_max());
            effects.push(Effect::Claim { id: self.claims_count, timers, until });
        }
    }

    /// Takes due hints out of the queue, those of shards that are unsure or leaving aside.
    fn take_batch(&mut self, now: Timestamp) -> Claim {
        let mut batch = Vec::new();
        // A crowd that is claimed ahead leaves room for what is due before it.
        let room_min = self.config.inflight_max / 4;
        while batch.len() < self.config.batch_max {
            let share = self.share(batch.len());
            let lead = if share.runs.free > room_min { self.crowd.lead } else { Duration::ZERO };
            let Some(hint) = self.queue.pop_due(Reach { now, ahead: now.after(lead) }, share) else { break };
            if let Some(epoch) = self.holds.open(hint.shard)
                && !self.is_put_back(&hint.key)
            {
                batch.push((hint, epoch));
                continue;
            }
            self.queue.ended(&hint.key.namespace, TIMER_BYTES_MAX);
            if self.holds.open(hint.shard).is_some() {
                self.miss(now, hint);
            } else if self.is_kept(hint.shard) {
                self.parked.push(hint);
            }
        }
        batch
    }

    /// Whether an older run of this id is being put back.
    fn is_put_back(&self, key: &TimerKey) -> bool {
        !self.putting_back.is_empty() && self.putting_back.contains_key(key)
    }

    /// Whether a claim of this timer is under way.
    pub(super) fn is_claimed(&self, key: &TimerKey) -> bool {
        let shard = key.shard();
        self.claims.values().flatten().any(|(hint, _)| hint.shard == shard && hint.key == *key)
    }

    /// Takes in the answer to a claim.
    pub(super) fn claimed(
        &mut self,
        now: Timestamp,
        id: u64,
        answer: Result<Claimed, Unavailable>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(mut claim) = self.claims.remove(&id) else { return };
        for (hint, _) in &mut claim {
            // The feed may have told of it meanwhile.
            hint.swept = hint.swept && self.sweeping.remove(&hint.key);
        }
        self.claiming -= claim.len();
        claim.iter().for_each(|(hint, _)| self.queue.ended(&hint.key.namespace, TIMER_BYTES_MAX));
        self.settlements.extend(self.held_back.drain(..));
        match answer {
            Ok(claimed) => self.sort_out(now, claim, claimed, effects),
            Err(_) => {
                let lease = |(hint, epoch): &(Hint, Epoch)| Lease { shard: hint.shard, epoch: *epoch };
                self.give_up(claim.iter().map(lease).collect(), effects);
                for (hint, _) in claim {
                    self.try_again(now.after(CLAIM_RETRY), hint);
                }
            }
        }
    }

    /// Doubts these leases and asks for new ones, because a write under them may have happened unseen.
    pub(super) fn give_up(&mut self, leases: BTreeSet<Lease>, effects: &mut Vec<Effect>) {
        let doubted: Vec<Lease> = leases.into_iter().filter(|lease| self.holds.doubt(*lease)).collect();
        if !doubted.is_empty() {
            effects.push(Effect::GiveUp(doubted));
        }
    }

    /// Runs are to be sent, what was left is tried again, and what is gone is forgotten.
    fn sort_out(&mut self, now: Timestamp, claim: Claim, claimed: Claimed, effects: &mut Vec<Effect>) {
        let complete = claimed.runs.len() == claim.len() && !claim.iter().any(|(hint, _)| hint.swept);
        let mut missing: HashMap<TimerKey, Hint> = match complete {
            true => HashMap::new(),
            false => claim.into_iter().map(|(hint, _)| (hint.key.clone(), hint)).collect(),
        };
        for run in claimed.runs {
            let hint = missing.remove(&run.key.timer);
            // Where its moment is another one, the sweep saw the row before it changed, and found nothing that was missed.
            let swept = hint.is_some_and(|hint| hint.swept && hint.due_at == run.timer.due_at());
            // One that was overdue from the start may be swept before the feed has told of it.
            if swept && run.timer.updated_at <= now.before(self.config.sweep_grace) {
                effects.push(Effect::Found(run.key.timer.clone()));
            }
            self.take_run(run);
        }
        let near = self.loader_near();
        for entry in claimed.left {
            let Some(hint) = missing.remove(&entry.key) else { continue };
            let later = entry.due_at > now.after(self.lead_max());
            let moved = hint.due_at != entry.due_at;
            // A claim for another moment than the row's came too early, and says nothing of whether the row is held.
            let misses = if moved { 0 } else { hint.misses };
            let swept = hint.swept && !moved;
            let stored = Hint { due_at: entry.due_at, source: Source::Store, misses, swept, ..hint.clone() };
            match later {
                // What the query saw may be older than what the feed has told. Where it is not, its moment counts.
                true if self.is_unseen(now, &hint) => self.miss_until(now, self.claim_at(entry.due_at), hint),
                true if entry.due_at <= near => self.offer(Hint { misses: 0, ..stored }),
                // A load brings it once the horizon is there.
                true => {}
                false => self.miss(now, stored),
            }
        }
        let mut unseen: Vec<Hint> = missing.into_values().filter(|hint| self.is_unseen(now, hint)).collect();
        unseen.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        for hint in unseen {
            self.miss(now, hint);
        }
    }

    /// Whether the feed has told of the timer so recently that queries may not see it yet.
    fn is_unseen(&self, now: Timestamp, hint: &Hint) -> bool {
        now.since(hint.told_at) < UNSEEN_MAX
    }

    /// Tries a timer again that could not be claimed, after a pause that grows.
    fn miss(&mut self, now: Timestamp, hint: Hint) {
        self.miss_until(now, Timestamp::MAX, hint);
    }

    /// The same, but not after `latest`.
    fn miss_until(&mut self, now: Timestamp, latest: Timestamp, hint: Hint) {
        let pause = MISS_PAUSE_FIRST.saturating_mul(1 << hint.misses.min(16)).min(MISS_PAUSE_MAX);
        self.try_again(now.after(pause).min(latest), hint);
    }

    /// Puts a hint back that was claimed in vain, unless something newer is known of its timer.
    fn try_again(&mut self, at: Timestamp, hint: Hint) {
        if self.is_kept(hint.shard) && self.queue.get(&hint.key).is_none() {
            let at = at.max(self.claim_at(hint.due_at));
            self.enqueue(at, Hint { misses: hint.misses.saturating_add(1), ..hint });
        }
    }
}
