//! Following the stream: every message through the assembler into the journal, and what that means for positions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::{Counter, counter};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::Failure;
use super::lookout::Signs;
use super::report::Received;
use super::status::Status;
use crate::domain::sequence::Lsn;
use crate::feed::assemble::{Assembler, Progress};
use crate::feed::journal::{self, Writer};
use crate::feed::sink::{Accept, Head, Row, Sink};
use crate::feed::source::{self, Event, Server, Stream};

/// How often to look after what does not hurry.
const TICK: Duration = Duration::from_secs(1);
/// Takes one connection's messages.
pub(super) struct Follower<'a> {
    pub writer: &'a mut Writer,
    pub assembler: Assembler,
    pub received: Arc<Received>,
    pub status: &'a watch::Sender<Status>,
    /// The server was a standby when its timelines were read.
    pub standby: bool,
    /// Is told that something came.
    pub signs: &'a Signs,
    /// How often an idle position is written down.
    pub note_every: Duration,
    /// Until here the feed counts as catching up; none where it does not.
    pub catch_up_to: &'a mut Option<Lsn>,
    pub state: State,
}

/// What changes from message to message.
pub(super) struct State {
    /// A transaction is under way.
    open: bool,
    /// No transaction was open when everything before this had arrived.
    quiet: Lsn,
    noted_at: Instant,
    tally: Tally,
}

impl Default for State {
    fn default() -> Self {
        Self { open: false, quiet: Lsn(0), noted_at: Instant::now(), tally: Tally::default() }
    }
}

impl Follower<'_> {
    /// Until `shutdown`, or until something fails.
    pub async fn run(
        &mut self,
        stream: &mut Stream,
        server: &Server,
        shutdown: &CancellationToken,
    ) -> Result<(), Failure> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.show_progress();
        // Some may have come with the answer to START_REPLICATION.
        self.arrived(stream, server, shutdown).await?;
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                _ = ticks.tick() => self.tick()?,
                read = stream.fill() => {
                    read?;
                    self.signs.heard();
                    self.arrived(stream, server, shutdown).await?;
                    // Under a flood there is always more to read. Whom this thread has woken meanwhile, the reports above
                    // all, may be where no other thread can take them over.
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Takes what one read brought, once its timeline is certain: a standby that is promoted streams on, and what commits
    /// there is of another timeline than we know of. What had arrived while it still was a standby is not.
    async fn arrived(
        &mut self,
        stream: &mut Stream,
        server: &Server,
        shutdown: &CancellationToken,
    ) -> Result<(), Failure> {
        if self.standby {
            match shutdown.run_until_cancelled(server.is_standby()).await {
                Some(standby) => standby?.then_some(()).ok_or(source::Error::Promoted)?,
                // It was not acknowledged, and comes again.
                None => return Ok(()),
            }
        }
        self.take(stream)
    }

    /// Takes what one read brought: decodes, renders and appends it, then makes it visible.
    fn take(&mut self, stream: &mut Stream) -> Result<(), Failure> {
        let Self { writer, assembler, received, state, .. } = self;
        let mut reply_wanted = false;
        let mut sink = Counting { writer, tally: &mut state.tally };
        while let Some(event) = stream.next_event()? {
            match event {
                Event::Data { lsn, payload } => match assembler.message(lsn, payload, &mut sink)? {
                    Progress::Within => state.open = true,
                    Progress::Idle => state.open = false,
                    Progress::Committed { end_lsn } => {
                        state.open = false;
                        state.quiet = state.quiet.max(end_lsn);
                        received.advance(end_lsn);
                    }
                },
                Event::Keepalive { end, reply } => {
                    received.advance(end);
                    // In the middle of a transaction it stands beyond rows that are still to come.
                    if !state.open {
                        state.quiet = state.quiet.max(end);
                    }
                    reply_wanted |= reply;
                }
            }
        }
        if reply_wanted {
            self.note();
        }
        self.writer.flush()?;
        self.state.tally.publish();
        if reply_wanted {
            self.received.ask();
        }
        self.show_progress();
        Ok(())
    }

    /// Has the journal note how far the stream has come without a change, so that the slot may move on: what is noted
    /// becomes durable behind all that came before it, and only then is it acknowledged.
    fn note(&mut self) {
        if !self.state.open {
            self.writer.advance(self.state.quiet);
        }
        self.state.noted_at = Instant::now();
    }

    fn tick(&mut self) -> Result<(), Failure> {
        if self.state.noted_at.elapsed() >= self.note_every {
            self.note();
            self.writer.flush()?;
        }
        Ok(())
    }

    fn show_progress(&mut self) {
        if self.catch_up_to.is_some_and(|target| self.received.end() < target) {
            self.status.send_if_modified(|status| replace(status, Status::CatchingUp));
            return;
        }
        *self.catch_up_to = None;
        if self.status.send_if_modified(|status| replace(status, Status::Streaming)) {
            info!(received = %self.received.end(), "the change feed is live");
        }
    }
}

/// Whether that is news.
fn replace(status: &mut Status, new: Status) -> bool {
    let news = *status != new;
    *status = new;
    news
}

/// What went into the journal since it was last published.
struct Tally {
    changes: u64,
    transactions: u64,
    changes_total: Counter,
    transactions_total: Counter,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            changes: 0,
            transactions: 0,
            changes_total: counter!("walclock_feed_changes_total"),
            transactions_total: counter!("walclock_feed_transactions_total"),
        }
    }
}

impl Tally {
    fn publish(&mut self) {
        self.changes_total.increment(std::mem::take(&mut self.changes));
        self.transactions_total.increment(std::mem::take(&mut self.transactions));
    }
}

/// The journal, with everything that passes counted.
struct Counting<'a> {
    writer: &'a mut Writer,
    tally: &'a mut Tally,
}

impl Sink for Counting<'_> {
    type Error = journal::Error;

    fn begin(&mut self, head: &Head) -> Result<Accept, Self::Error> {
        self.writer.begin(head)
    }

    fn push(&mut self, row: &Row<'_>) -> Result<(), Self::Error> {
        self.tally.changes = self.tally.changes.saturating_add(1);
        self.writer.push(row)
    }

    fn commit(&mut self, end_lsn: Lsn) -> Result<(), Self::Error> {
        self.tally.transactions = self.tally.transactions.saturating_add(1);
        self.writer.commit(end_lsn)
    }

    fn abandon(&mut self) {
        self.writer.abandon();
    }
}
