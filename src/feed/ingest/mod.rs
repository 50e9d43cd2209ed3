//! The runner of the way in: source, decoder, journal, acknowledgement.
//!
//! One connection after another: check whether the stream goes on where the journal ends, stream, and when it breaks try
//! again. Where the journal cannot take more, since the disk is full or fails, the connection is given up, the journal
//! goes back to what is durable, and PostgreSQL sends the rest again once there is room.

mod apart;
mod backoff;
mod budget;
mod follow;
mod gap;
mod lookout;
mod meter;
mod open;
mod outage;
mod published;
mod pulse;
mod report;
mod status;

pub use gap::Gap;
pub use status::Status;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::domain::causes;
use crate::domain::limits;
use crate::domain::sequence::Lsn;
use crate::feed::assemble;
use crate::feed::journal::{self, Journal, Writer};
use crate::feed::sink::Sink;
use crate::feed::source;
use apart::on_own_thread;
use backoff::Backoff;
use follow::Follower;
use lookout::{Lookout, Signs};
use meter::Meter;
use open::Opened;
use outage::Outage;
use pulse::Pulse;
use report::Received;
use status::Served;

/// How long the last transactions may take to become durable, and PostgreSQL to end the stream, when we stop.
const STOP_MAX: Duration = Duration::from_secs(3);
/// A connection that lasted so long was a good one: the next trouble is a new one.
const STABLE: Duration = Duration::from_secs(10);

/// Where changes come from and how they find their scopes.
#[derive(Clone, Debug)]
pub struct Config {
    /// The stream.
    pub source: source::Config,
    /// How rows find their scopes.
    pub assemble: assemble::Config,
    /// When to do what no change calls for.
    pub intervals: Intervals,
}

/// When to do what no change calls for. The defaults suit every server; tests have less time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intervals {
    /// How often to ask the server where its WAL ends and how the slot stands.
    pub pulse: Duration,
    /// Longest span without a heartbeat where the WAL grows and nothing of it is for us, and how often to look at what is
    /// published.
    pub heartbeat: Duration,
    /// How often an idle position is written down: each costs an fsync, and none loses a change.
    pub note: Duration,
    /// How often to say, while the slot is being made, which transactions that waits for.
    pub explain: Duration,
    /// How long the stream may bring nothing before the walsender is asked for an answer.
    pub silence: Duration,
    /// How long it has for that before it is looked what it does.
    pub answer: Duration,
}

impl Default for Intervals {
    fn default() -> Self {
        Self {
            pulse: Duration::from_secs(2),
            heartbeat: Duration::from_secs(10),
            note: Duration::from_secs(5),
            explain: Duration::from_secs(1),
            silence: limits::STREAM_SILENCE_MAX,
            answer: limits::STREAM_ANSWER_MAX,
        }
    }
}

impl Config {
    /// Refuses names that PostgreSQL would not take.
    pub fn validate(&self) -> Result<(), source::Error> {
        self.source.validate()
    }
}

/// Fills the journal.
pub struct Ingest {
    config: Config,
    writer: Writer,
    journal: Journal,
    status: watch::Sender<Status>,
    /// The last stream ended because a publication was gone: its slot can never see it again.
    unpublished: bool,
    streamed: bool,
    /// Another one was met on the slot, and nothing has been streamed since.
    stale: bool,
    outage: Outage,
    /// Where the WAL ended when the journal began anew, until the stream has come so far: over more than one connection.
    catch_up_to: Option<Lsn>,
    meter: Meter,
    published: published::Watch,
    /// The server's, as the pulse reads it.
    clock: Clock,
    /// The session of the last connection to each host: the server may not have noticed its end.
    sessions: HashMap<String, source::Session>,
    /// Where the reports leave, also while this part waits for the disk.
    reporting: Handle,
}

/// Why a connection came to its end.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Source(#[from] source::Error),
    #[error("reading the stream")]
    Stream(#[source] assemble::Violation),
    #[error("writing the journal")]
    Journal(#[from] journal::Error),
}

impl From<assemble::Error<journal::Error>> for Failure {
    fn from(error: assemble::Error<journal::Error>) -> Self {
        match error {
            assemble::Error::Stream(violation) => Self::Stream(violation),
            assemble::Error::Sink(error) => Self::Journal(error),
        }
    }
}

impl Ingest {
    /// The part; it does nothing before [`Ingest::run`]. Called within the runtime that is to send the reports.
    pub fn new(config: Config, writer: Writer, journal: Journal) -> Self {
        let (status, _) = watch::channel(Status::Starting { why: "connecting to PostgreSQL".to_owned() });
        let meter = Meter::new(&config.source.slot);
        let published = published::Watch::new(&config.source.publications, config.intervals.heartbeat);
        Self {
            config,
            writer,
            journal,
            status,
            unpublished: false,
            streamed: false,
            stale: false,
            outage: Outage::default(),
            catch_up_to: None,
            meter,
            published,
            clock: Clock::system(),
            sessions: HashMap::new(),
            reporting: Handle::current(),
        }
    }

    /// How it stands, from now on.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// What somebody should know of the WAL that the slot keeps, in one line; none while there is plenty of room.
    pub fn warning(&self) -> watch::Receiver<Option<String>> {
        self.meter.warning()
    }

    /// What was published and is no longer, or was not for a while, in one line; none where that has not been found of late.
    pub fn unpublished(&self) -> watch::Receiver<Option<String>> {
        self.published.warning()
    }

    /// The server's clock, which commits are stamped by.
    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// [`Ingest::run`] on a thread of its own, as it is to be in a server: it waits for the disk, and in a flood it sleeps.
    ///
    /// # Errors
    /// The outer where there can be no thread, and where it panics.
    pub async fn run_apart(self, shutdown: CancellationToken) -> io::Result<Result<(), source::Error>> {
        on_own_thread("ingest", self.run(shutdown)).await
    }

    /// Streams until `shutdown`; then what has arrived is made durable and acknowledged.
    ///
    /// # Errors
    /// Only before the first stream, and only where waiting cannot help: a wrong password, a missing right, a bad
    /// setting. Later troubles show in the status alone, since the journal goes on serving what it has.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), source::Error> {
        self.config.validate()?;
        let mut backoff = Backoff::default();
        loop {
            let began = Instant::now();
            let failure = match self.connection(&shutdown).await {
                Ok(()) => {
                    self.status.send_replace(Status::Stopped);
                    return Ok(());
                }
                Err(failure) => failure,
            };
            self.writer.abandon();
            if began.elapsed() >= STABLE {
                backoff.reset();
            }
            match failure {
                Failure::Source(error) if !self.streamed && !error.may_heal() => return Err(error),
                Failure::Source(error) => {
                    self.stale |= error.is_anothers();
                    self.wait_after(&error);
                }
                Failure::Stream(violation) => self.wait_after(&violation),
                Failure::Journal(failure) if failure.may_heal() => self.block(&failure),
                Failure::Journal(failure) => {
                    error!(error = &failure as &dyn std::error::Error, "the journal takes nothing more");
                    self.status.send_replace(Status::after(&failure));
                    shutdown.cancelled().await;
                    return Ok(());
                }
            }
            metrics::counter!("walclock_feed_reconnects_total").increment(1);
            tokio::select! {
                () = tokio::time::sleep(backoff.next(fastrand::f64())) => {}
                () = shutdown.cancelled() => {}
            }
        }
    }

    /// One connection, from its checks to its end; ends well only by `shutdown`.
    async fn connection(&mut self, shutdown: &CancellationToken) -> Result<(), Failure> {
        if shutdown.is_cancelled() {
            return Ok(());
        }
        blocking(|| self.writer.mend())?;
        let served = self.served();
        let opening = open::Opening {
            config: &self.config,
            writer: &mut self.writer,
            journal: &self.journal,
            meter: &mut self.meter,
            sessions: &mut self.sessions,
            status: &self.status,
            unpublished: &mut self.unpublished,
            catch_up_to: &mut self.catch_up_to,
            served,
        };
        let opened = tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            opened = opening.open() => opened?,
        };
        (self.streamed, self.stale) = (true, false);
        self.outage.over();
        self.stream(opened, shutdown).await
    }

    /// The stream, from its beginning to its end.
    async fn stream(&mut self, opened: Opened, shutdown: &CancellationToken) -> Result<(), Failure> {
        let Opened { server, session, settings, facts, mut stream, reports, history, from } = opened;
        let intervals = self.config.intervals;
        let (signs, received) = (Signs::default(), Arc::new(Received::default()));
        received.advance(from);
        let done = CancellationToken::new();
        let reporting =
            report::run(reports, self.journal.clone(), Arc::clone(&received), facts.walsender_timeout, done.clone());
        let mut reporter = AbortOnDropHandle::new(self.reporting.spawn(reporting));
        let assembler = assemble::Assembler::new(self.config.assemble.clone(), history, facts.txid);
        let mut follower = Follower {
            writer: &mut self.writer,
            assembler,
            received: Arc::clone(&received),
            status: &self.status,
            standby: facts.standby,
            signs: &signs,
            note_every: intervals.note,
            catch_up_to: &mut self.catch_up_to,
            state: follow::State::default(),
        };
        let pulse = Pulse {
            server: &server,
            standby: facts.standby,
            received: &received,
            meter: &mut self.meter,
            published: &mut self.published,
            journal: &self.journal,
            clock: &self.clock,
            signs: &signs,
            intervals,
        };
        let lookout = Lookout {
            server: &server,
            session,
            settings: &settings,
            walsender: stream.pid(),
            received: &received,
            signs: &signs,
            silence_max: intervals.silence.min(facts.walsender_timeout),
            answer_max: intervals.answer.min(facts.walsender_timeout),
        };
        let end = tokio::select! {
            end = follower.run(&mut stream, &server, shutdown) => end,
            end = &mut reporter => Err(end.map_or(Ok(()), |end| end).err().unwrap_or(source::Error::Ended).into()),
            error = pulse.run() => Err(error.into()),
            error = lookout.run() => Err(error.into()),
        };
        if let Err(Failure::Source(error)) = &end {
            self.unpublished = is_unpublished(error);
        }
        end?;
        self.writer.abandon();
        self.writer.flush()?;
        self.wait_until_durable().await;
        done.cancel();
        let _ = tokio::time::timeout(STOP_MAX, async { tokio::join!(&mut reporter, stream.drain()) }).await;
        info!("the stream ended in good order");
        Ok(())
    }

    /// Bounded: what does not become durable in time is sent again after the next start.
    async fn wait_until_durable(&self) {
        let mut durable = self.journal.watch_durable();
        let last = self.writer.last().lsn;
        let _ = tokio::time::timeout(STOP_MAX, durable.wait_for(|end| *end > last)).await;
    }

    /// The disk may have room again, or work again, by the next attempt.
    fn block(&self, failure: &journal::Error) {
        let status = Status::after(failure);
        warn!(error = status.not_ready(), "the journal cannot take changes for now");
        self.status.send_replace(status);
    }

    fn wait_after(&mut self, error: &(dyn std::error::Error + 'static)) {
        let why = causes::chain(error);
        if self.outage.is_news(&why, Instant::now()) {
            warn!(error = why, "no change feed for now");
        }
        self.status.send_replace(self.served().waiting(why));
    }

    /// What readers have of the feed while nothing streams.
    fn served(&self) -> Served {
        match self.streamed && self.catch_up_to.is_none() {
            false => Served::TooLittle,
            true if self.stale => Served::Stale,
            true => Served::All,
        }
    }
}

/// Runs what takes long without keeping other tasks from running, where the runtime has a thread for them.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// Whether a running stream ended because a publication (or what else decoding needs) was not there. PostgreSQL decodes
/// with the catalog as it was at the time of each change, so that making it again does not help the slot.
fn is_unpublished(error: &source::Error) -> bool {
    matches!(error, source::Error::Skipped { .. }) || error.code() == Some("42704")
}
