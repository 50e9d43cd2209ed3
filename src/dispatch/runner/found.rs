//! Timers that a sweep found before the feed had told of them. Of a statement over very many rows it tells only when it has read all of
//! them: what it tells of in time was late, and not missed. What it never tells of was.

use std::collections::{HashMap, VecDeque};

use tokio::time::Instant;

use crate::dispatch::ports::Entry;
use crate::domain::limits::{SWEEP_FOUND_MAX, SWEEP_TOLD_MAX};
use crate::domain::timer::TimerKey;

/// What was found, until it is known whether it was missed.
#[derive(Debug, Default)]
pub(super) struct Found {
    waiting: HashMap<TimerKey, Instant>,
    /// In the order in which they were found; those of which the feed has told are still among them.
    order: VecDeque<(Instant, TimerKey)>,
    /// The feed does not answer: it tells of nothing.
    is_feed_away: bool,
}

impl Found {
    /// Whether the feed answers.
    pub(super) fn feed_answers(&mut self, answers: bool) {
        self.is_feed_away = !answers;
    }

    /// A sweep found this timer.
    pub(super) fn found(&mut self, at: Instant, key: TimerKey) {
        // More are not judged: as many of the others are, if it was the feed that failed.
        if self.order.len() < SWEEP_FOUND_MAX {
            self.waiting.insert(key.clone(), at);
            self.order.push_back((at, key));
        }
    }

    /// The feed tells of these.
    pub(super) fn told(&mut self, entries: &[Entry]) {
        for entry in entries {
            if self.waiting.is_empty() {
                return;
            }
            self.waiting.remove(&entry.key);
        }
    }

    /// Takes those out that the feed has not told of in time, or cannot.
    pub(super) fn missed(&mut self, now: Instant) -> Vec<TimerKey> {
        let mut missed = Vec::new();
        while let Some((at, key)) = self.order.pop_front() {
            if now < at + SWEEP_TOLD_MAX && !self.is_feed_away {
                self.order.push_front((at, key));
                break;
            }
            if self.waiting.get(&key) == Some(&at) {
                self.waiting.remove(&key);
                missed.push(key);
            }
        }
        missed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn key(id: &str) -> TimerKey {
        TimerKey::new("n", id)
    }

    fn told(id: &str) -> [Entry; 1] {
        [Entry { due_at: Timestamp::MIN, key: key(id) }]
    }

    #[test]
    fn only_what_the_feed_never_tells_of_was_missed() {
        let (mut found, start) = (Found::default(), Instant::now());
        found.found(start, key("a"));
        found.found(start + SWEEP_TOLD_MAX / 2, key("b"));
        found.found(start + SWEEP_TOLD_MAX / 2, key("c"));
        found.found(start + SWEEP_TOLD_MAX / 2, key("d"));
        found.told(&told("b"));
        found.told(&told("d"));
        assert_eq!(found.missed(start + SWEEP_TOLD_MAX / 2), []);
        assert_eq!(found.missed(start + SWEEP_TOLD_MAX), [key("a")]);
        // Told too late, and found once more.
        found.told(&told("a"));
        found.found(start + SWEEP_TOLD_MAX, key("b"));
        assert_eq!(found.missed(start + SWEEP_TOLD_MAX * 3 / 2), [key("c")]);
        assert_eq!(found.missed(start + SWEEP_TOLD_MAX * 2), [key("b")]);
        assert!(found.waiting.is_empty() && found.order.is_empty());
    }

    #[test]
    fn while_the_feed_is_away_nothing_waits_for_it() {
        let (mut found, start) = (Found::default(), Instant::now());
        found.found(start, key("a"));
        found.feed_answers(false);
        found.found(start, key("b"));
        assert_eq!(found.missed(start), [key("a"), key("b")]);
        found.feed_answers(true);
        found.found(start, key("c"));
        assert_eq!(found.missed(start), []);
    }

    #[test]
    fn no_more_than_the_limit_wait() {
        let (mut found, start) = (Found::default(), Instant::now());
        (0..=SWEEP_FOUND_MAX).for_each(|number| found.found(start, key(&number.to_string())));
        assert_eq!(found.missed(start + SWEEP_TOLD_MAX).len(), SWEEP_FOUND_MAX);
    }
}
