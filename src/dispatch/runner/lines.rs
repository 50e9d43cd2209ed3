//! Callbacks on their way out, in a line for each server. A few tasks call for a line, run after run, so that a run costs
//! no task of its own, and a server that answers fast is called over few connections, again and again. Where it is slow,
//! a line soon has as many tasks as runs: none waits for the answer to another one.

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock::{Clock, Timestamp};
use crate::dispatch::ports::{Delivery, Unmade};
use crate::domain::callback_url;
use crate::domain::run::{Attempt, Run};

/// Tasks that a line begins with. Each has a connection, and the caches must hold the buffers and sockets at both ends of it
/// beside all else: over 32, a request costs walclock and the receiver a seventh less CPU than over 128.
const CALLERS_FIRST: usize = 32;
/// Tasks that a line soon has where fewer calls than that end within [`LOOK_EVERY`]: enough to keep the cores busy with a
/// server that answers within it, at 12,800 callbacks a second at least.
const CALLERS_SOON: usize = 128;
/// How often a line in which runs wait is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Looks that a call may take before its server counts as slow by itself: a queue for the cores seldom makes it so long, also
/// where other processes have most of them.
const SLOW_LOOKS: usize = 10;
/// The same as long as there are less than [`CALLERS_SOON`], of which there cannot be too many.
const SLOW_LOOKS_FEW: usize = 2;

/// A run that is done with here, and its attempt; none where it might not be sent.
pub(super) type Ended = (Box<Run>, Option<Result<Attempt, Unmade>>);
/// Says whether a run may be sent at this moment.
pub(super) type MaySend = Box<dyn Fn(&Run) -> bool + Send + Sync>;

/// Makes attempts, and keeps how they went until they are taken. Cheap to clone.
pub(super) struct Lines<D>(Arc<Inner<D>>);

struct Inner<D> {
    delivery: Arc<D>,
    clock: Clock,
    /// Asked just before a request leaves, however long its run has waited here.
    may_send: MaySend,
    /// By server; as long as somebody calls for it.
    lines: Mutex<HashMap<Arc<str>, Line>>,
    /// At most as many as there are runs under way.
    ended: Mutex<Vec<Ended>>,
    news: Notify,
}

/// The runs for one server, and the tasks that call for them.
#[derive(Debug)]
struct Line {
    server: Arc<str>,
    waiting: VecDeque<Box<Run>>,
    callers: usize,
    callers_max: usize,
    /// Callers that have not taken their first run yet.
    starting: usize,
    /// Calls that ended since the last look.
    ended: usize,
    /// Calls that ended in the look before the callers became more.
    ended_with_fewer: usize,
    /// Whether somebody looks at it again and again.
    is_watched: bool,
}

impl Line {
    fn new(server: &str) -> Self {
        Self {
            server: server.into(),
            waiting: VecDeque::new(),
            callers: 0,
            callers_max: CALLERS_FIRST,
            starting: 0,
            ended: 0,
            ended_with_fewer: 0,
            is_watched: false,
        }
    }

    /// How many more callers are to start.
    fn hire(&mut self) -> usize {
        let wanted = self.waiting.len().saturating_sub(self.starting);
        let hired = wanted.min(self.callers_max.saturating_sub(self.callers));
        self.callers += hired;
        self.starting += hired;
        hired
    }

    /// Whether more runs wait than there are callers for, with no more to be had.
    fn is_short(&self) -> bool {
        self.waiting.len() > self.starting
    }

    /// Allows twice as many callers where most of them wait for the server: from the first 32 to 4,096 within 70 ms. Where
    /// they wait for the cores instead, more of them end no more calls; all they do is to flood the server's queue of new
    /// connections, and what falls out of that is tried again a second later only.
    fn look(&mut self) {
        let ended = std::mem::take(&mut self.ended);
        let slow_looks = if self.callers < CALLERS_SOON { SLOW_LOOKS_FEW } else { SLOW_LOOKS };
        // Those that were started at the last look and have not begun wait for a core.
        let waits = ended < self.callers.max(CALLERS_SOON) && self.starting == 0;
        let has_helped = ended > self.ended_with_fewer + self.ended_with_fewer / 4;
        let is_slow = ended < self.callers / slow_looks;
        if waits && (has_helped || is_slow) {
            self.ended_with_fewer = ended;
            self.callers_max = self.callers_max.saturating_mul(2);
        }
    }
}

impl<D> Clone for Lines<D> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<D: Delivery> Lines<D> {
    pub(super) fn new(delivery: Arc<D>, clock: Clock, may_send: MaySend) -> Self {
        let (lines, ended, news) = (Mutex::default(), Mutex::default(), Notify::new());
        Self(Arc::new(Inner { delivery, clock, may_send, lines, ended, news }))
    }

    /// Begins these attempts, each as soon as somebody is free to call its server.
    pub(super) fn deliver(&self, runs: impl Iterator<Item = Box<Run>>) {
        let mut lines = self.0.lines.lock();
        for run in runs {
            let server = callback_url::origin(&run.timer.definition.callback.url);
            let line = match lines.get_mut(&*server) {
                Some(line) => line,
                None => lines.entry((&*server).into()).or_insert(Line::new(&server)),
            };
            line.waiting.push_back(run);
            self.serve(line);
        }
    }

    /// Waits until attempts have ended that were not taken yet.
    pub(super) async fn news(&self) {
        self.0.news.notified().await;
    }

    /// Takes what has ended.
    pub(super) fn take_ended(&self) -> Vec<Ended> {
        std::mem::take(&mut *self.0.ended.lock())
    }

    /// Starts the callers that the line may have, and a look at it now and then where they are not enough.
    fn serve(&self, line: &mut Line) {
        for _ in 0..line.hire() {
            tokio::spawn(self.clone().call(line.server.clone()));
        }
        if line.is_short() && !line.is_watched {
            line.is_watched = true;
            tokio::spawn(self.clone().watch(line.server.clone()));
        }
    }

    /// Calls for the runs of a line until none waits.
    async fn call(self, server: Arc<str>) {
        let mut next = self.first(&server);
        while let Some(run) = next {
            let attempt = match (self.0.may_send)(&run) {
                true => Some(self.attempt(&run).await),
                false => None,
            };
            self.end(run, attempt);
            next = self.next(&server);
        }
    }

    async fn attempt(&self, run: &Run) -> Result<Attempt, Unmade> {
        let sent_at = self.0.clock.now();
        let attempt = AssertUnwindSafe(self.0.delivery.attempt(run)).catch_unwind().await;
        attempt.unwrap_or_else(|_| Ok(panicked(sent_at, self.0.clock.now())))
    }

    async fn watch(self, server: Arc<str>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let mut lines = self.0.lines.lock();
            let Some(line) = lines.get_mut(&server) else { return };
            if line.waiting.is_empty() {
                line.is_watched = false;
                return;
            }
            line.look();
            self.serve(line);
        }
    }

    fn end(&self, run: Box<Run>, attempt: Option<Result<Attempt, Unmade>>) {
        let mut ended = self.0.ended.lock();
        ended.push((run, attempt));
        // Whoever takes one takes them all.
        if ended.len() == 1 {
            self.0.news.notify_one();
        }
    }

    /// The first run of a caller.
    fn first(&self, server: &str) -> Option<Box<Run>> {
        self.take(server, |line| line.starting -= 1)
    }

    /// Its next one, once the last call has ended.
    fn next(&self, server: &str) -> Option<Box<Run>> {
        self.take(server, |line| line.ended += 1)
    }

    /// Notes how far a caller is, and takes the next run of the line; where there is none, there is one caller less.
    fn take(&self, server: &str, note: impl FnOnce(&mut Line)) -> Option<Box<Run>> {
        let mut lines = self.0.lines.lock();
        let line = lines.get_mut(server)?;
        note(line);
        let run = line.waiting.pop_front();
        if run.is_none() {
            line.callers -= 1;
            if line.callers == 0 {
                lines.remove(server);
            }
        }
        run
    }
}

/// What is known of an attempt that panicked: it failed, and is tried again.
fn panicked(sent_at: Timestamp, answered_at: Timestamp) -> Attempt {
    tracing::error!("a callback panicked: this is a bug");
    Attempt::unanswered(sent_at, answered_at, "internal error".to_owned())
}

#[cfg(test)]
mod tests;
