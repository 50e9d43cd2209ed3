//! When a failed attempt is followed by another.

use std::time::Duration;

/// How often and how fast a callback is tried again.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all, the first included; none means no bound. At least 1.
    pub attempts_max: Option<u32>,
    /// No attempt begins later than this after the first one.
    pub attempts_duration: Duration,
    /// The wait before the second attempt.
    pub interval_first: Duration,
    /// By how much each wait is longer than the one before it, 1.0 to 100.
    pub multiplier: f64,
    /// No wait is longer.
    pub interval_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts_max: None,
            attempts_duration: Duration::from_secs(24 * 3600),
            interval_first: Duration::from_secs(1),
            multiplier: 2.0,
            interval_max: Duration::from_secs(300),
        }
    }
}
