//! When to read: an eager reader makes the walsender pay a system call and a wake-up for every message; one that waits
//! a moment when many come lets the kernel join them. It doubles the drain and takes a third of the primary's CPU.

use std::time::{Duration, Instant};

/// So many messages within the window are a flood.
const MESSAGES: u32 = 64;
const WINDOW: Duration = Duration::from_millis(4);
/// Long enough for the kernel to join messages, too short to be noticed. Longer pauses were measured to be no better.
const PAUSE: Duration = Duration::from_millis(1);

/// Counts messages and says when to pause.
#[derive(Debug)]
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
    pub fn pause(&mut self, now: Instant) -> Option<Duration> {
        let inside = now.duration_since(self.since) < WINDOW;
        let flood = inside && self.messages >= MESSAGES;
        if flood || !inside {
            *self = Self::new(now);
        }
        flood.then_some(PAUSE)
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
            (0..3).for_each(|_| pace.count());
            paused |= pace.pause(start + Duration::from_micros(read * 50)).is_some();
        }
        assert!(paused);
    }
}
