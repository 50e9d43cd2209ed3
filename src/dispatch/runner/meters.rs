//! What the dispatcher tells about itself: metrics, and a line per callback.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{Status, align};
use crate::clock::{Standing, Timestamp};
use crate::dispatch::engine::Target;
use crate::dispatch::ports::Unmade;
use crate::domain::callback::Verdict;
use crate::domain::run::{Attempt, Run};
use crate::domain::timer::TimerKey;

/// Lines within a second that are logged as they are; more are logged at debug, so that the log does not slow callbacks.
const LOGGED_PER_SECOND_MAX: u32 = 100;

/// Registered once, because looking a metric up costs more than counting.
pub(super) struct Meters {
    succeeded: Counter,
    rescheduled: Counter,
    retried: Counter,
    failed: Counter,
    lateness: Histogram,
    claims: Counter,
    claimed: Counter,
    stale: Counter,
    deferred: Counter,
    spared: Counter,
    found: Counter,
    adopted: Counter,
    abandoned: Counter,
    queued: Gauge,
    inflight: Gauge,
    waiting: Gauge,
    hosts_spared: Gauge,
    shards: Gauge,
    epoch_max: Gauge,
    clock_offset: Gauge,
    clock_error: Gauge,
    clock_age: Gauge,
    held_back: Gauge,
    window_at: Instant,
    logged: u32,
}

impl Meters {
    pub(super) fn new() -> Self {
        let callbacks = |outcome: &'static str| counter!("walclock_callbacks_total", "outcome" => outcome);
        Self {
            succeeded: callbacks("succeeded"),
            rescheduled: callbacks("rescheduled"),
            retried: callbacks("retried"),
            failed: callbacks("failed"),
            lateness: histogram!("walclock_lateness_seconds"),
            claims: counter!("walclock_claims_total"),
            claimed: counter!("walclock_claimed_timers_total"),
            stale: counter!("walclock_stale_writes_total"),
            deferred: counter!("walclock_callbacks_deferred_total"),
            spared: counter!("walclock_hosts_spared_total"),
            found: counter!("walclock_sweep_found_total"),
            adopted: counter!("walclock_adopted_runs_total"),
            abandoned: counter!("walclock_abandoned_attempts_total"),
            queued: gauge!("walclock_due_queue_entries"),
            inflight: gauge!("walclock_callbacks_inflight"),
            waiting: gauge!("walclock_callbacks_waiting"),
            hosts_spared: gauge!("walclock_hosts_spared"),
            shards: gauge!("walclock_shards_held"),
            epoch_max: gauge!("walclock_lease_epoch_max"),
            clock_offset: gauge!("walclock_clock_offset_seconds"),
            clock_error: gauge!("walclock_clock_error_seconds"),
            clock_age: gauge!("walclock_clock_age_seconds"),
            held_back: gauge!("walclock_firing_held_back"),
            window_at: Instant::now(),
            logged: 0,
        }
    }

    pub(super) fn claimed(&self, runs: usize) {
        self.claims.increment(1);
        self.claimed.increment(u64::try_from(runs).unwrap_or(u64::MAX));
    }

    pub(super) fn stale(&self, count: u64) {
        self.stale.increment(count);
    }

    /// So many runs were deferred since the beginning.
    pub(super) fn deferred(&self, count: u64) {
        self.deferred.absolute(count);
    }

    pub(super) fn spared(&mut self, Target { host, namespace }: &Target, until: Timestamp) {
        self.spared.increment(1);
        if self.may_log() {
            let namespace = namespace.as_deref();
            warn!(%host, namespace, %until, "a host fails again and again: its callbacks wait until it is tried anew");
        }
    }

    pub(super) fn back(&mut self, Target { host, namespace }: &Target) {
        if self.may_log() {
            info!(%host, namespace = namespace.as_deref(), "a host that was spared answers again");
        }
    }

    pub(super) fn found(&mut self, key: &TimerKey) {
        self.found.increment(1);
        // Without a feed, every new timer is found like this.
        if self.may_log() {
            warn!(timer = %key, "the sweep found an overdue timer that nothing had told of");
        } else {
            debug!(timer = %key, "the sweep found an overdue timer that nothing had told of");
        }
    }

    pub(super) fn adopted(&self, runs: usize) {
        self.adopted.increment(u64::try_from(runs).unwrap_or(u64::MAX));
    }

    /// It may be what ends the dispatchers, so each one is told.
    pub(super) fn abandoned(&self, key: &TimerKey) {
        self.abandoned.increment(1);
        warn!(timer = %key, "one dispatcher after the other was gone before this callback was over: it counts as failed");
    }

    pub(super) fn status(&self, status: Status) {
        self.queued.set(count(status.queued));
        self.inflight.set(count(status.inflight));
        self.waiting.set(count(status.waiting));
        self.hosts_spared.set(count(status.hosts_spared));
        self.shards.set(count(status.shards));
    }

    /// How the clock stands, and whether everything is held back because of it.
    pub(super) fn clock(&self, standing: Option<Standing>, is_held_back: bool) {
        self.held_back.set(f64::from(u8::from(is_held_back)));
        if let Some(Standing { offset, error, age }) = standing {
            self.clock_offset.set(align::seconds(offset));
            self.clock_error.set(error.as_secs_f64());
            self.clock_age.set(age.as_secs_f64());
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a metric")]
    pub(super) fn epoch_max(&self, epoch: i64) {
        self.epoch_max.set(epoch as f64);
    }

    /// One callback is over.
    pub(super) fn attempted(&mut self, run: &Run, attempt: &Attempt) {
        let due_at = run.timer.due_at();
        let late = attempt.sent_at.since(due_at);
        let (counter, outcome, error) = match &attempt.verdict {
            Verdict::Succeeded => (&self.succeeded, "callback succeeded", None),
            Verdict::Reschedule(_) => (&self.rescheduled, "callback rescheduled itself", None),
            Verdict::Retry { error, .. } => (&self.retried, "callback failed and is tried again", Some(error.as_str())),
            Verdict::Failed { error } => (&self.failed, "callback failed", Some(error.as_str())),
        };
        counter.increment(1);
        self.lateness.record(late.as_secs_f64());
        let (timer, sent_at, status) = (&run.key.timer, attempt.sent_at, attempt.status);
        let late_ms = (late.as_secs_f64() * 1e6).round() / 1e3;
        let number = run.timer.attempts;
        if self.may_log() {
            info!(target: "walclock::callback", %timer, due = %due_at, sent = %sent_at, late_ms, attempt = number, status, error, "{outcome}");
        } else {
            debug!(target: "walclock::callback", %timer, due = %due_at, sent = %sent_at, late_ms, attempt = number, status, error, "{outcome}");
        }
    }

    /// No attempt was made, and none is counted.
    pub(super) fn unmade(&mut self, run: &Run, unmade: &Unmade) {
        if self.may_log() {
            warn!(timer = %run.key.timer, reason = unmade.reason, "a callback is put off: the process is short of something");
        }
    }

    fn may_log(&mut self) -> bool {
        let now = Instant::now();
        if now.duration_since(self.window_at) >= Duration::from_secs(1) {
            self.window_at = now;
            self.logged = 0;
        }
        self.logged = self.logged.saturating_add(1);
        self.logged <= LOGGED_PER_SECOND_MAX
    }
}

fn count(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
