//! When a failed attempt is followed by another.

use std::time::Duration;

use super::invalid::{Field, Invalid};
use super::{duration, limits};
use crate::clock::Timestamp;

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
    /// No wait is longer, jitter aside.
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

/// What is to be different about a policy. What is none stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Update {
    /// Another bound on the attempts; `Some(None)` takes it away.
    pub attempts_max: Option<Option<u32>>,
    /// Another span for all attempts.
    pub attempts_duration: Option<Duration>,
    /// Another first wait.
    pub interval_first: Option<Duration>,
    /// Another growth of the waits.
    pub multiplier: Option<f64>,
    /// Another longest wait.
    pub interval_max: Option<Duration>,
}

impl Update {
    /// The policy that this makes of another.
    pub fn of(&self, policy: RetryPolicy) -> RetryPolicy {
        RetryPolicy {
            attempts_max: self.attempts_max.unwrap_or(policy.attempts_max),
            attempts_duration: self.attempts_duration.unwrap_or(policy.attempts_duration),
            interval_first: self.interval_first.unwrap_or(policy.interval_first),
            multiplier: self.multiplier.unwrap_or(policy.multiplier),
            interval_max: self.interval_max.unwrap_or(policy.interval_max),
        }
    }

    /// Checks that every figure that is given is within its bounds.
    pub fn check(&self) -> Result<(), Invalid> {
        self.of(RetryPolicy::default()).check()
    }
}

/// The policy in place of the one there is, whole.
impl From<RetryPolicy> for Update {
    fn from(policy: RetryPolicy) -> Self {
        Self {
            attempts_max: Some(policy.attempts_max),
            attempts_duration: Some(policy.attempts_duration),
            interval_first: Some(policy.interval_first),
            multiplier: Some(policy.multiplier),
            interval_max: Some(policy.interval_max),
        }
    }
}

/// What becomes of a run after an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterFailure {
    /// Another attempt at this moment.
    RetryAt(Timestamp),
    /// No attempt is left.
    GiveUp,
    /// One would be left, but the receiver wants none before the last moment for it.
    AskedTooLate,
}

impl RetryPolicy {
    /// Checks that every figure is within its bounds.
    pub fn check(&self) -> Result<(), Invalid> {
        if let Some(max) = self.attempts_max.filter(|max| !(1..=limits::RETRY_ATTEMPTS_MAX).contains(max)) {
            let allowed = format!("a whole number from 1 to {}", limits::RETRY_ATTEMPTS_MAX);
            return Err(Invalid::new(Field::RetryAttemptsMax, max, allowed));
        }
        let (least, most) = (limits::RETRY_MULTIPLIER.start(), limits::RETRY_MULTIPLIER.end());
        if !limits::RETRY_MULTIPLIER.contains(&self.multiplier) {
            let allowed = format!("a number from {least:.1} to {most}");
            return Err(Invalid::new(Field::RetryMultiplier, self.multiplier, allowed));
        }
        check_span(Field::RetryDuration, self.attempts_duration, Duration::ZERO)?;
        check_span(Field::RetryIntervalFirst, self.interval_first, limits::RETRY_INTERVAL_MIN)?;
        check_span(Field::RetryIntervalMax, self.interval_max, limits::RETRY_INTERVAL_MIN)
    }

    /// Decides what follows the failure of attempt number `attempt`, counted from 1, where the first one began at
    /// `first_attempt_at`.
    ///
    /// The receiver may have asked for no attempt before `not_before`. `jitter`, from 0 to 1, spreads the wait over
    /// 80 to 120 percent, so that timers which failed together do not come back together.
    pub fn after_failure(
        &self,
        attempt: u32,
        first_attempt_at: Timestamp,
        failed_at: Timestamp,
        not_before: Option<Timestamp>,
        jitter: f64,
    ) -> AfterFailure {
        assert!(attempt >= 1, "attempts are counted from 1");
        if self.attempts_max.is_some_and(|max| attempt >= max) {
            return AfterFailure::GiveUp;
        }
        let by_policy = failed_at.after(self.wait_after(attempt, jitter));
        let last_at = self.last_at(first_attempt_at);
        match not_before {
            _ if by_policy > last_at => AfterFailure::GiveUp,
            Some(not_before) if not_before > last_at => AfterFailure::AskedTooLate,
            not_before => AfterFailure::RetryAt(by_policy.max(not_before.unwrap_or(by_policy))),
        }
    }

    /// The last moment for an attempt, where the first one began at `first_attempt_at`.
    pub fn last_at(&self, first_attempt_at: Timestamp) -> Timestamp {
        first_attempt_at.after(self.attempts_duration)
    }

    /// The wait between attempt number `attempt` and the next one.
    fn wait_after(&self, attempt: u32, jitter: f64) -> Duration {
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        // Finite, so that its product with a wait of zero is zero and not NaN.
        let factor = self.multiplier.powi(exponent).min(f64::MAX);
        let wait = (self.interval_first.as_secs_f64() * factor).min(self.interval_max.as_secs_f64());
        let spread = 0.8 + 0.4 * jitter.clamp(0.0, 1.0);
        Duration::try_from_secs_f64(wait * spread).unwrap_or(Duration::MAX)
    }
}

fn check_span(field: Field, span: Duration, least: Duration) -> Result<(), Invalid> {
    let most = limits::RETRY_SPAN_MAX;
    match (least..=most).contains(&span) {
        true => Ok(()),
        false => {
            let allowed = format!("a duration from {} to {}", duration::format(least), duration::format(most));
            Err(Invalid::new(field, duration::format(span), allowed))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

    /// The wait that follows each attempt in turn, in milliseconds, up to the attempt after which there is none.
    fn waits(policy: &RetryPolicy, jitter: f64) -> Vec<u128> {
        let mut now = START;
        let mut waits = Vec::new();
        for attempt in 1..=20 {
            match policy.after_failure(attempt, START, now, None, jitter) {
                AfterFailure::RetryAt(at) => waits.push(at.since(now).as_millis()),
                AfterFailure::GiveUp | AfterFailure::AskedTooLate => return waits,
            }
            now = now.after(Duration::from_millis(u64::try_from(waits[waits.len() - 1]).unwrap()));
        }
        waits
    }

    fn policy(attempts_max: Option<u32>, attempts_duration: u64, multiplier: f64) -> RetryPolicy {
        RetryPolicy {
            attempts_max,
            attempts_duration: Duration::from_secs(attempts_duration),
            interval_first: Duration::from_secs(1),
            multiplier,
            interval_max: Duration::from_secs(10),
        }
    }

    #[test]
    fn waits_grow_to_the_longest_and_end_with_the_policy() {
        assert_eq!(waits(&policy(Some(7), 3600, 2.0), 0.5), [1000, 2000, 4000, 8000, 10_000, 10_000]);
        assert_eq!(waits(&policy(Some(4), 3600, 1.0), 0.5), [1000, 1000, 1000]);
        assert_eq!(waits(&policy(Some(4), 3600, 2.0), 0.0), [800, 1600, 3200]);
        assert_eq!(waits(&policy(Some(4), 3600, 2.0), 1.0), [1200, 2400, 4800]);
        assert_eq!(waits(&policy(Some(1), 3600, 2.0), 0.5), []);
        // 1 + 2 + 4 = 7 seconds; the next attempt would be at 15.
        assert_eq!(waits(&policy(None, 7, 2.0), 0.5), [1000, 2000, 4000]);
        assert_eq!(waits(&policy(None, 0, 2.0), 0.5), []);
    }

    #[test]
    fn the_receivers_wish_is_a_lower_bound() {
        let policy = policy(None, 60, 2.0);
        let after = |seconds| START.after(Duration::from_secs(seconds));
        for (not_before, expected) in [
            (START, AfterFailure::RetryAt(after(1))),
            (after(30), AfterFailure::RetryAt(after(30))),
            (after(60), AfterFailure::RetryAt(after(60))),
            (after(61), AfterFailure::AskedTooLate),
            (Timestamp::MAX, AfterFailure::AskedTooLate),
        ] {
            assert_eq!(policy.after_failure(1, START, START, Some(not_before), 0.5), expected, "{not_before}");
        }
        // It is not the receiver that ends what is over by itself.
        assert_eq!(policy.after_failure(1, START, after(60), Some(after(90)), 0.5), AfterFailure::GiveUp);
        let once = RetryPolicy { attempts_max: Some(1), ..policy };
        assert_eq!(once.after_failure(1, START, START, Some(after(90)), 0.5), AfterFailure::GiveUp);
    }

    #[test]
    fn no_wait_stays_no_wait_however_many_attempts() {
        let policy = RetryPolicy { interval_first: Duration::ZERO, multiplier: 100.0, ..RetryPolicy::default() };
        assert_eq!(policy.after_failure(u32::MAX, START, START, None, 1.0), AfterFailure::RetryAt(START));
    }

    prop_compose! {
        fn policies()(
            attempts_max in proptest::option::of(1_u32..),
            durations: [u64; 3],
            multiplier in 1.0_f64..=100.0,
        ) -> RetryPolicy {
            let [duration, first, max] = durations.map(Duration::from_micros);
            RetryPolicy { attempts_max, attempts_duration: duration, interval_first: first, multiplier, interval_max: max }
        }
    }

    #[test]
    fn a_policy_is_checked_whole() {
        let good = RetryPolicy::default();
        assert_eq!(good.check(), Ok(()));
        assert_eq!(RetryPolicy { attempts_duration: Duration::ZERO, ..good.clone() }.check(), Ok(()));
        let beyond = limits::RETRY_SPAN_MAX + Duration::from_micros(1);
        for (bad, field) in [
            (RetryPolicy { attempts_max: Some(0), ..good.clone() }, Field::RetryAttemptsMax),
            (RetryPolicy { attempts_max: Some(u32::MAX), ..good.clone() }, Field::RetryAttemptsMax),
            (RetryPolicy { multiplier: 0.0, ..good.clone() }, Field::RetryMultiplier),
            (RetryPolicy { multiplier: 0.999, ..good.clone() }, Field::RetryMultiplier),
            (RetryPolicy { multiplier: 100.1, ..good.clone() }, Field::RetryMultiplier),
            (RetryPolicy { multiplier: f64::NAN, ..good.clone() }, Field::RetryMultiplier),
            (RetryPolicy { multiplier: f64::INFINITY, ..good.clone() }, Field::RetryMultiplier),
            (RetryPolicy { attempts_duration: beyond, ..good.clone() }, Field::RetryDuration),
            (RetryPolicy { interval_first: Duration::ZERO, ..good.clone() }, Field::RetryIntervalFirst),
            (RetryPolicy { interval_first: Duration::MAX, ..good.clone() }, Field::RetryIntervalFirst),
            (RetryPolicy { interval_max: Duration::from_micros(999), ..good.clone() }, Field::RetryIntervalMax),
            (RetryPolicy { interval_max: beyond, ..good.clone() }, Field::RetryIntervalMax),
        ] {
            assert_eq!(bad.check().expect_err("it is bad").field, field, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_retry_lies_within_its_bounds(
            policy in policies(),
            attempt in 1_u32..,
            first: i64,
            failed: i64,
            not_before in proptest::option::of(any::<i64>()),
            jitter in 0.0_f64..=1.0,
        ) {
            let (first, failed) = (Timestamp::from_micros(first), Timestamp::from_micros(failed));
            let not_before = not_before.map(Timestamp::from_micros);
            if let AfterFailure::RetryAt(at) = policy.after_failure(attempt, first, failed, not_before, jitter) {
                prop_assert!(at >= failed && Some(at) >= not_before);
                prop_assert!(at <= first.after(policy.attempts_duration));
                prop_assert!(policy.attempts_max.is_none_or(|max| attempt < max));
                let latest = failed.after(policy.interval_max.mul_f64(1.2).saturating_add(Duration::from_millis(1)));
                prop_assert!(at <= latest || Some(at) == not_before);
            }
        }

        #[test]
        fn a_later_attempt_never_waits_less(policy in policies(), attempt in 1_u32..1000, jitter in 0.0_f64..=1.0) {
            prop_assert!(policy.wait_after(attempt, jitter) <= policy.wait_after(attempt + 1, jitter));
        }
    }
}
