//! What the log says of an outage: each cause once, and again from time to time while it lasts. Pure.

use std::time::{Duration, Instant};

/// A cause that lasts is said again after so long. A second changeserver that waits for a slot may do so for weeks, and
/// the feed tries again every second or two.
const SAID_AGAIN: Duration = Duration::from_secs(300);

/// What was said last, and when.
#[derive(Debug, Default)]
pub(super) struct Outage(Option<(String, Instant)>);

impl Outage {
    /// Whether `cause` is to be logged at `now`: it is another one than before, or was said long ago.
    pub fn is_news(&mut self, cause: &str, now: Instant) -> bool {
        let known = |(said, at): &(String, Instant)| said == cause && now.duration_since(*at) < SAID_AGAIN;
        if self.0.as_ref().is_some_and(known) {
            return false;
        }
        self.0 = Some((cause.to_owned(), now));
        true
    }

    /// The feed is back: whatever comes next is news.
    pub fn over(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_once_and_again_after_a_while() {
        let (mut outage, start) = (Outage::default(), Instant::now());
        let second = Duration::from_secs(1);
        for (after, cause, news) in [
            (0, "refused", true),
            (1, "refused", false),
            (2, "starting up", true),
            (3, "refused", true),
            (302, "refused", false),
            (303, "refused", true),
            (304, "refused", false),
        ] {
            assert_eq!(outage.is_news(cause, start + after * second), news, "after {after} s: {cause}");
        }
        outage.over();
        assert!(outage.is_news("refused", start + 305 * second), "the next outage is another one");
    }
}
