//! When to read: an eager reader makes the walsender pay the way through the kernel and a wake-up for every message; one
//! that waits a moment when many come lets the kernel join them. It doubles the drain and takes half of the primary's CPU.

use std::time::{Duration, Instant};

/// So many messages within the window are a flood.
const MESSAGES: u32 = 64;
const WINDOW: Duration = Duration::from_millis(4);
/// Messages are joined once the kernel's buffer is full: a pause has to be some times as long as it takes to fill, and
/// ends before the walsender has filled its own. With 2 ms small transactions were joined in some runs only.
const PAUSE: Duration = Duration::from_millis(3);

/// Counts messages and says when to pause.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    since: Instant,
    messages: u32,
}

impl Pace {
    pub fn new(now: Instant) -> Self {
        Self { since: now, messages: 0 }
    }

    /// Another message was handled.
    pub fn count(&mut self) {
        self.messages = self.messages.saturating_add(1);
    }

    /// How long to wait before the next read; at a low rate not at all.
    pub fn pause(&self, now: Instant) -> Option<Duration> {
        self.is_flood(now).then_some(PAUSE)
    }

    /// The pause is over, if there was one. It does not count towards the next window: what is handled slowly
    /// leaves the walsender time enough.
    pub fn resume(&mut self, now: Instant) {
        if self.messages >= MESSAGES || !self.is_inside(now) {
            *self = Self::new(now);
        }
    }

    fn is_flood(&self, now: Instant) -> bool {
        self.messages >= MESSAGES && self.is_inside(now)
    }

    fn is_inside(&self, now: Instant) -> bool {
        now.duration_since(self.since) < WINDOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_flood_makes_it_pause() {
        let start = Instant::now();
        let ms = |ms| start + Duration::from_millis(ms);
        // How many messages came, by when, and whether that calls for a pause.
        for (messages, at, pauses) in [(63, 1, false), (64, 1, true), (64, 4, false), (1_000, 3, true), (0, 0, false)] {
            let mut pace = Pace::new(start);
            (0..messages).for_each(|_| pace.count());
            assert_eq!(pace.pause(ms(at)).is_some(), pauses, "{messages} within {at} ms");
        }
    }

    #[test]
    fn a_few_messages_per_read_add_up_within_the_window() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let mut paused = false;
        for read in 0..32 {
            let now = start + Duration::from_micros(read * 50);
            (0..3).for_each(|_| pace.count());
            paused |= pace.pause(now).is_some();
            pace.resume(now);
        }
        assert!(paused);
    }

    #[test]
    fn a_pause_is_no_part_of_the_next_window() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        (0..MESSAGES).for_each(|_| pace.count());
        let resumed = start + Duration::from_millis(3);
        pace.resume(resumed);
        assert_eq!(pace.pause(resumed), None);
        (0..MESSAGES).for_each(|_| pace.count());
        assert!(pace.pause(resumed + Duration::from_millis(2)).is_some());
    }
}
