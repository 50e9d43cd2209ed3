//! A breaker: whoever does nothing but fail is spared, and comes back slowly. It opens after so many failures in a row. While it
//! is open, runs are deferred and no request leaves. After a span, one run may try. If that fails too, the span is twice as
//! long. If not, requests leave again, a few at a time at first, so that what comes back is not run over.

use std::time::Duration;

use super::{Admission, Bounds};
use crate::clock::Timestamp;
use crate::domain::run::RunKey;

/// For how long a host is spared at first; each time that follows doubles it.
const SPAN_FIRST: Duration = Duration::from_secs(1);
/// For how long it is spared at most: one that is back waits for its timers no longer than that.
const SPAN_MAX: Duration = Duration::from_secs(30);
/// Requests at once to a host that is back; they double with as many answers.
const WINDOW_FIRST: usize = 4;
/// How far apart deferred runs are due again, so that very many keep the database busy with nothing else.
const DEFERRAL_PACE: Duration = Duration::from_millis(1);
/// Over how long they are spread at most.
const DEFERRAL_SPREAD_MAX: Duration = Duration::from_secs(300);

/// What an attempt says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    Alive,
    Failed,
    /// Nothing.
    None,
}

/// What follows from a sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Turn {
    /// It fails, and is spared until this moment.
    Spared(Timestamp),
    /// It answers again.
    Back,
}

/// What may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// So many requests at once.
    Open(usize),
    /// The next run may try.
    Ajar,
    /// Nothing before this moment.
    Shut(Timestamp),
}

impl Gate {
    /// Requests that may be under way at once.
    pub(super) fn window(self) -> usize {
        match self {
            Self::Open(window) => window,
            // What is under way was sent before it was spared.
            Self::Ajar => usize::MAX,
            Self::Shut(_) => 0,
        }
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Closed,
    Open {
        until: Timestamp,
    },
    /// This run tries.
    Probing {
        run: RunKey,
        since: Timestamp,
    },
}

#[derive(Debug, Default)]
pub(super) struct Breaker {
    state: State,
    failures: u32,
    /// Times that it was open without having come back for good.
    spared: u32,
    span: Duration,
    deferred: u32,
    /// Requests at once while it comes back; none once it has.
    window: Option<usize>,
    answers: usize,
}

impl Breaker {
    pub(super) fn is_open(&self) -> bool {
        self.state != State::Closed
    }

    /// Whether nothing is lost where it is forgotten.
    pub(super) fn is_usual(&self) -> bool {
        self.state == State::Closed && self.failures == 0 && self.window.is_none()
    }

    pub(super) fn gate(&self, now: Timestamp) -> Gate {
        match &self.state {
            State::Closed => Gate::Open(self.window.unwrap_or(usize::MAX)),
            State::Open { until } if now < *until => Gate::Shut(*until),
            State::Open { .. } => Gate::Ajar,
            // The longer the answer takes, the longer it is likely to take.
            State::Probing { since, .. } => Gate::Shut(now.after(now.since(*since).max(SPAN_FIRST))),
        }
    }

    /// This run leaves; where it is open, that is the try.
    pub(super) fn pass(&mut self, now: Timestamp, run: &RunKey) {
        if self.is_open() {
            self.state = State::Probing { run: run.clone(), since: now };
        }
    }

    /// Puts a run off that may not pass before this moment.
    pub(super) fn defer(&mut self, from: Timestamp) -> Admission {
        self.deferred = self.deferred.saturating_add(1);
        let spread = DEFERRAL_PACE.saturating_mul(self.deferred).clamp(self.span, DEFERRAL_SPREAD_MAX);
        Admission::Defer(from, from.after(spread))
    }

    /// Takes in what an attempt has shown. `jitter` is from 0 to 1.
    pub(super) fn heard(
        &mut self,
        now: Timestamp,
        run: &RunKey,
        sign: Sign,
        jitter: f64,
        bounds: Bounds,
    ) -> Option<Turn> {
        match &self.state {
            State::Closed => match sign {
                Sign::Alive => {
                    self.failures = 0;
                    self.widen(bounds);
                    None
                }
                Sign::Failed => {
                    self.failures = self.failures.saturating_add(1);
                    let few = self.window.and_then(|window| u32::try_from(window).ok()).unwrap_or(u32::MAX);
                    let opens = bounds.failures_max > 0 && self.failures >= bounds.failures_max.min(few);
                    opens.then(|| self.open(now, jitter))
                }
                Sign::None => None,
            },
            State::Probing { run: probe, .. } if probe == run => match sign {
                Sign::Alive => {
                    self.state = State::Closed;
                    (self.failures, self.answers, self.window) = (0, 0, Some(WINDOW_FIRST));
                    Some(Turn::Back)
                }
                Sign::Failed => Some(self.open(now, jitter)),
                Sign::None => {
                    self.state = State::Open { until: now };
                    None
                }
            },
            // Sent before it was spared: what counts is the probe.
            State::Open { .. } | State::Probing { .. } => None,
        }
    }

    fn widen(&mut self, bounds: Bounds) {
        let Some(window) = self.window else { return };
        self.answers += 1;
        if self.answers >= window {
            self.answers = 0;
            self.window = Some(window * 2).filter(|window| *window < bounds.inflight_max);
            if self.window.is_none() {
                self.spared = 0;
            }
        }
    }

    fn open(&mut self, now: Timestamp, jitter: f64) -> Turn {
        self.span = SPAN_FIRST.saturating_mul(1 << self.spared.min(16)).min(SPAN_MAX);
        self.spared = self.spared.saturating_add(1);
        self.deferred = 0;
        // Up to a fifth earlier or later, so that dispatchers do not all try at once.
        let until = now.after(self.span.mul_f64(0.8 + 0.4 * jitter));
        self.state = State::Open { until };
        Turn::Spared(until)
    }
}
