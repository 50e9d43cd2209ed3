//! Runs that are put back as they were before their claim, or are over, because no attempt was made: none is counted.

use std::time::Duration;

use super::Engine;
use super::runs::{last_retry, origin};
use crate::clock::Timestamp;
use crate::dispatch::ports::Unmade;
use crate::domain::run::{Attempt, Ending, Run, Settlement};

/// For how long a run is put off at least where the process is short of something.
const SHORTAGE_PAUSE: Duration = Duration::from_secs(1);
/// How far apart those are due again that are put off for that, so that very many keep the database busy with nothing else.
const SHORTAGE_PACE: Duration = Duration::from_millis(1);
/// Over how long they are spread at most.
const SHORTAGE_SPREAD_MAX: Duration = Duration::from_secs(300);

impl Engine {
    /// Puts a run off whose attempt was not made, because this process was short of something. It says nothing of the host.
    pub(super) fn unmade(&mut self, now: Timestamp, run: Box<Run>, unmade: Unmade) {
        self.hosts.unsent(now, &origin(&run), &run.key);
        let from = now.after(SHORTAGE_PAUSE);
        // Each is put behind all others, and the clock may have been set back meanwhile.
        let until = self.short_until.max(from).after(SHORTAGE_PACE).min(from.after(SHORTAGE_SPREAD_MAX));
        self.short_until = until;
        self.put_off(now, from, until, *run, unmade.reason);
    }

    /// Has a run be due again at some moment between these two; one that was tried is over where its policy ends before, and
    /// where that ends between them, its last try is within it.
    pub(super) fn put_off(&mut self, now: Timestamp, from: Timestamp, until: Timestamp, run: Run, reason: String) {
        let last = last_retry(&run);
        let at = from.after(until.min(last).since(from).mul_f64(self.random.fraction()));
        if at <= last {
            return self.defer(now, at, run, reason);
        }
        let reason = match &run.timer.last_error {
            Some(error) => format!("{error}; {reason}"),
            None => reason,
        };
        self.settle_unmade(now, run, reason, Ending::GivenUp);
    }

    /// Puts a run back as it was before its claim, to be due again at `at`.
    pub(super) fn defer(&mut self, now: Timestamp, at: Timestamp, run: Run, reason: String) {
        self.deferred += 1;
        self.settle_unmade(now, run, reason, Ending::Defer(at));
    }

    fn settle_unmade(&mut self, now: Timestamp, run: Run, reason: String, ending: Ending) {
        let attempt = Attempt::unmade(now, reason);
        self.settlements.push_back(Settlement { run, attempt, ending });
    }
}
