//! Opening the stream: the checks before it, the slot, and what a gap means for the journal.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::watch;
use tokio_postgres::config::TargetSessionAttrs;
use tracing::{debug, error, info, warn};

use super::gap::{self, Found, Gap, Known, Verdict};
use super::meter::Meter;
use super::status::Served;
use super::{Config, Failure, Status, is_unpublished};
use crate::domain::history::History;
use crate::domain::limits;
use crate::domain::sequence::{Lsn, Sequence};
use crate::domain::snapshot::Snapshot;
use crate::feed::journal::{self, Identity, Journal, Writer};
use crate::feed::source::{self, Connection, Facts, Reports, Server, Session, Stream, System};
use crate::pg::Settings;

/// How long the creation of the slot may take. It waits for the transactions under way and, since others begin meanwhile,
/// more than once: given up early, it would have to begin anew each time and might never come to its end.
const CREATE_MAX: Duration = Duration::from_secs(24 * 3600);

/// How long the beginning may take to become durable. Where it does not, the next flush says why.
const SYNC_MAX: Duration = Duration::from_secs(30);

/// A stream that begins where the journal ends.
pub(super) struct Opened {
    pub server: Server,
    /// The session of the questions.
    pub session: Session,
    /// Of the host that it is.
    pub settings: Settings,
    pub facts: Facts,
    pub stream: Stream,
    pub reports: Reports,
    pub history: History,
    /// Where the stream begins.
    pub from: Lsn,
}

/// What it takes to open the stream.
pub(super) struct Opening<'a> {
    pub config: &'a Config,
    pub writer: &'a mut Writer,
    pub journal: &'a Journal,
    pub meter: &'a mut Meter,
    /// The session of the connection before, and then of this one, by host.
    pub sessions: &'a mut HashMap<String, Session>,
    pub status: &'a watch::Sender<Status>,
    /// The slot met changes without its publication. No longer so once the gap is told and the slot made anew, whatever
    /// fails behind that: the new slot would be dropped again, and another gap told.
    pub unpublished: &'a mut bool,
    /// Where the WAL ended when the journal began anew, until the stream has come so far.
    pub catch_up_to: &'a mut Option<Lsn>,
    /// What readers have meanwhile.
    pub served: Served,
}

/// What one host has, before anything is done about it.
struct Look {
    server: Server,
    session: Session,
    facts: Facts,
    connection: Connection,
    system: System,
    history: History,
    slot: gap::Slot,
    verdict: Verdict,
}

/// A host that may have fallen behind, or be another cluster's, while another may know better.
struct Behind<'a> {
    settings: &'a Settings,
    /// The greatest is the one to follow where there is none that knows better: of the known cluster before another one,
    /// then the newest timeline.
    rank: (bool, u32),
    why: String,
}

impl Opening<'_> {
    /// Tries the hosts in turn. One that seems to have fallen behind is passed over, unless all of them do: a primary that
    /// was taken from its place and came back would have the journal dropped, and so would a name that leads elsewhere for a
    /// moment.
    pub async fn open(mut self) -> Result<Opened, Failure> {
        let name = source::application_name(&self.config.source.slot);
        let hosts = self.config.source.settings.clone().with_application_name(&name).each_host();
        let mut behind: Vec<Behind<'_>> = Vec::new();
        let mut failure: Option<source::Error> = None;
        for settings in &hosts {
            let opened = match self.look(settings).await {
                Ok(look) if hosts.len() > 1 && look.may_be_behind(settings) => {
                    debug!(server = %settings, "passed over for now: {}", look.why());
                    behind.push(Behind { settings, rank: look.rank(), why: look.why() });
                    continue;
                }
                Ok(look) => self.open_at(look, settings).await,
                Err(error) => Err(error.into()),
            };
            match opened {
                // What a host said that could be asked is worth more than that another could not be.
                Err(Failure::Source(error)) => match &failure {
                    Some(known) if !matches!(known, source::Error::Connect { .. }) => {}
                    Some(_) | None => failure = Some(error),
                },
                opened => {
                    for Behind { settings, why, .. } in &behind {
                        warn!(server = %settings, "passed over for another host of the database URL: {why}");
                    }
                    return opened;
                }
            }
        }
        // Of equal ones the first.
        let best = behind.into_iter().rev().max_by_key(|behind| behind.rank);
        match (best, failure) {
            (Some(Behind { settings, .. }), None) => {
                let look = self.look(settings).await?;
                self.open_at(look, settings).await
            }
            (Some(Behind { settings, why, .. }), Some(other @ source::Error::Connect { .. })) => {
                Err(source::Error::PassedOver { server: settings.to_string(), why, other: Box::new(other) }.into())
            }
            (_, failure) => Err(failure.unwrap_or(source::Error::Ended).into()),
        }
    }

    /// Asks a host for all that decides how to go on there.
    async fn look(&mut self, settings: &Settings) -> Result<Look, source::Error> {
        let server = Server::connect(settings).await?;
        let facts = server.facts().await?;
        // First of all, since it is worth knowing all the more where what follows fails.
        self.meter.look(&server).await?;
        let session = self.claim(&server, settings).await?;
        server.check_publications(&self.config.source.publications).await?;
        let mut connection = Connection::open(settings).await?;
        let system = connection.identify().await?;
        let slot = self.find_slot(&server, settings).await?;
        let history = History::new(system.timeline, connection.timeline_history(system.timeline).await?);
        let wal_end = (!facts.standby).then_some(system.wal_end);
        let found = Found { system: system.id, history: history.clone(), wal_end, slot };
        let known = self.journal.identity().map(|identity| Known {
            system: identity.system_id,
            history: self.journal.history(),
            durable: self.journal.durable(),
        });
        let verdict = gap::judge(known.as_ref(), &found);
        Ok(Look { server, session, facts, connection, system, history, slot, verdict })
    }

    async fn open_at(&mut self, look: Look, settings: &Settings) -> Result<Opened, Failure> {
        let source::Config { slot: name, publications, .. } = &self.config.source;
        let Look { server, session, facts, connection, system, history, slot, verdict } = look;
        let from = match verdict {
            Verdict::Continue => self.journal.durable(),
            Verdict::Begin | Verdict::Anew(_) => {
                let from = self.usable_slot(&server, &facts, settings, slot).await?;
                // Taken behind the beginning: it shows whatever committed before it, which the feed will never tell.
                let floor = server.moment().await?.snapshot;
                // A standby writes no heartbeat, which an idle stream would need to get there.
                *self.catch_up_to = if facts.standby { None } else { Some(server.wal(name).await?.end) };
                begin(self.writer, self.journal, verdict, just_before(from, &history), floor)?;
                *self.unpublished = false;
                self.writer.advance(from);
                self.writer.flush()?;
                // The identity must not say before the segments do that the stream is known up to here.
                let _ = tokio::time::timeout(SYNC_MAX, self.journal.watch_durable().wait_for(|end| *end >= from)).await;
                from
            }
        };
        self.writer.set_history(&history, just_before(from, &history))?;
        let identity = Identity { system_id: system.id, timeline: system.timeline, slot: name.clone() };
        self.journal.set_identity(identity)?;
        let (stream, reports) = source::start(connection, name, publications, from).await?;
        // Between the look and the start somebody may have moved the slot; PostgreSQL would not say so. Nor is it certain
        // before this that one name led both connections to one server.
        let moved = || source::Error::SlotMoved { slot: name.clone() };
        match server.slot(name, database(settings)).await? {
            Some(slot) if slot.confirmed <= from && slot.active_pid == Some(stream.pid()) => {}
            // It may have ended before that look, and has said why.
            Some(slot) if slot.active_pid.is_none() => {
                let error = stream.drain().await.unwrap_or_else(moved);
                *self.unpublished = is_unpublished(&error);
                return Err(error.into());
            }
            Some(_) | None => return Err(moved().into()),
        }
        info!(slot = name, server = %settings, %from, timeline = system.timeline, "streaming");
        Ok(Opened { server, session, settings: settings.clone(), facts, stream, reports, history, from })
    }

    /// Keeps every other walclock from the slot while this connection lasts.
    async fn claim(&mut self, server: &Server, settings: &Settings) -> Result<Session, source::Error> {
        if let Some(before) = self.sessions.get(&settings.to_string()).copied() {
            // Where its end was not noticed it still holds the claim. Without a session it is nobody's.
            server.end_session(before).await?;
        }
        // Known before it claims: the claim may be granted and the answer lost.
        let session = server.session().await?;
        self.sessions.insert(settings.to_string(), session);
        server.claim(&self.config.source.slot, limits::CLAIM_IDLE_MAX).await?;
        Ok(session)
    }

    async fn find_slot(&self, server: &Server, settings: &Settings) -> Result<gap::Slot, source::Error> {
        let (name, database) = (&self.config.source.slot, database(settings));
        let mut slot = server.slot(name, database).await?;
        if let Some(pid) = slot.as_ref().and_then(|slot| slot.active_pid) {
            server.end_stale(name, database, pid).await?;
            // It may have acknowledged something more.
            slot = server.slot(name, database).await?;
        }
        let Some(slot) = slot else { return Ok(gap::Slot::Missing) };
        if let Some(pid) = slot.active_pid {
            return Err(source::Error::SlotInUse { slot: name.clone(), pid });
        }
        Ok(match (slot.lost, *self.unpublished) {
            (Some(loss), _) => gap::Slot::Dead(Gap::SlotLost(loss)),
            (None, true) => gap::Slot::Dead(Gap::Unpublished),
            (None, false) => gap::Slot::At(slot.confirmed),
        })
    }

    /// Makes the slot where there is none that is of use, and says where its stream begins.
    async fn usable_slot(
        &self,
        server: &Server,
        facts: &Facts,
        settings: &Settings,
        slot: gap::Slot,
    ) -> Result<Lsn, source::Error> {
        let name = &self.config.source.slot;
        match slot {
            gap::Slot::At(from) => return Ok(from),
            gap::Slot::Missing => {}
            gap::Slot::Dead(_) => server.drop_slot(name).await?,
        }
        let create = async {
            let from = server.create_slot(name, facts, CREATE_MAX).await?;
            // A standby has no catalogs of its own to change. Who dies here finds the slot as PostgreSQL has made it.
            if facts.standby { Ok(from) } else { server.settle_catalogs().await }
        };
        tokio::select! {
            created = create => created,
            never = self.explain_wait(settings) => match never {},
        }
    }

    /// Says whom the creation of the slot waits for, for as long as it does. On a connection of its own: the other one is
    /// busy with the creation.
    async fn explain_wait(&self, settings: &Settings) -> Infallible {
        let mut server = None;
        let mut told = String::new();
        loop {
            tokio::time::sleep(self.config.intervals.explain).await;
            match self.writers(&mut server, settings).await {
                Ok(pids) if pids.is_empty() || pids == told => {}
                Ok(pids) => {
                    let error = source::Error::SlotWaits { slot: self.config.source.slot.clone(), pids: pids.clone() };
                    warn!("{error}");
                    self.status.send_replace(self.served.waiting(error.to_string()));
                    told = pids;
                }
                Err(error) => {
                    debug!(error = &error as &dyn std::error::Error, "cannot ask whom the new slot waits for");
                    server = None;
                }
            }
        }
    }

    async fn writers(&self, server: &mut Option<Server>, settings: &Settings) -> Result<String, source::Error> {
        let server = match server {
            Some(server) => server,
            None => server.insert(Server::connect(settings).await?),
        };
        server.writers().await
    }
}

impl Look {
    /// Whether what speaks against going on here may be the host's alone. Whoever asks for a standby means it.
    fn may_be_behind(&self, settings: &Settings) -> bool {
        let wants_standby = settings.config().get_target_session_attrs() == TargetSessionAttrs::ReadOnly;
        self.verdict.may_be_the_hosts(self.facts.standby && !wants_standby)
    }

    fn rank(&self) -> (bool, u32) {
        (self.verdict != Verdict::Anew(Gap::OtherCluster), self.history.current())
    }

    /// What speaks against it, for people.
    fn why(&self) -> String {
        match self.verdict {
            Verdict::Anew(Gap::OtherCluster) => Gap::OtherCluster.to_string(),
            Verdict::Anew(Gap::Restored) => {
                format!("it has less than the journal, on timeline {}", self.history.current())
            }
            Verdict::Anew(gap) => format!("it is a standby, and {gap}"),
            Verdict::Begin | Verdict::Continue => "it is a standby, and the feed has not begun yet".to_owned(),
        }
    }
}

/// Lets the journal begin behind `before`, just ahead of where the slot begins: a transaction may commit at that very
/// position. After a gap it forgets what it has, so that readers are told.
fn begin(
    writer: &mut Writer,
    journal: &Journal,
    verdict: Verdict,
    before: Sequence,
    floor: Snapshot,
) -> Result<(), journal::Error> {
    // First, so that no reader comes in between with a snapshot that the feed cannot complete.
    journal.set_floor(floor)?;
    match verdict {
        Verdict::Anew(gap) => {
            metrics::counter!("walclock_feed_gaps_total").increment(1);
            error!(%before, "changes are missing from the feed, it begins anew: {gap}");
            match gap.is_elsewhere() {
                true => writer.begin_elsewhere(before)?,
                false => writer.begin_anew(before)?,
            }
        }
        // An attempt that died on its way noted a position of another server. Left as it is, it would be acknowledged.
        Verdict::Begin if journal.durable() > Lsn(before.lsn.0.saturating_add(1)) => {
            info!(%before, "the feed begins, before where an earlier attempt did");
            writer.begin_elsewhere(before)?;
        }
        Verdict::Begin | Verdict::Continue => {
            info!(%before, "the feed begins");
            journal.set_origin(before)?;
        }
    }
    Ok(())
}

/// The greatest position that a stream from `from` does not tell. The timeline is that of the position: one that comes
/// later would hide what is told of the timelines before it.
fn just_before(from: Lsn, history: &History) -> Sequence {
    let lsn = Lsn(from.0.saturating_sub(1));
    Sequence::new(history.timeline_of(lsn), lsn, 0)
}

fn database(settings: &Settings) -> &str {
    settings.config().get_dbname().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::domain::scope::Scope;
    use crate::feed::query;
    use crate::feed::sink::{Head, Row, Sink};

    fn new_journal() -> (tempfile::TempDir, Writer, Journal) {
        let folder = tempfile::tempdir().expect("a folder");
        let (writer, journal) = journal::open(journal::Config::new(folder.path())).expect("a new journal");
        (folder, writer, journal)
    }

    fn write(writer: &mut Writer, lsn: u64, txid: u64) {
        let committed_at = Timestamp::from_micros(0);
        writer.begin(&Head { timeline: 1, commit_lsn: Lsn(lsn), txid, committed_at }).expect("room");
        let row = Row { index: 0, scopes: &[], to_everyone: true, body: b"{}", left_body: &[], entered_body: &[] };
        writer.push(&row).and_then(|()| writer.commit(Lsn(lsn + 1))).expect("room");
        writer.flush().expect("room");
    }

    fn read(journal: &Journal, since: Sequence, snapshot: &str) -> Result<usize, query::Error> {
        let snapshot: Snapshot = snapshot.parse().expect("a snapshot");
        journal.read(1 << 20, &[Scope::empty()], since, 10, Some(&snapshot)).map(|page| page.changes.len())
    }

    /// A lagging standby was promoted: transaction ids and positions that the old line had used come again.
    #[tokio::test]
    async fn what_the_line_that_was_left_had_counted_says_nothing_of_the_other() {
        let (_folder, mut writer, journal) = new_journal();
        write(&mut writer, 900, 1000);
        let floor = "150:150:".parse().expect("a snapshot");
        let parted = Verdict::Anew(Gap::Parted { at: Lsn(100) });
        begin(&mut writer, &journal, parted, Sequence::new(1, Lsn(200), 0), floor).expect("room");
        write(&mut writer, 300, 160);
        assert_eq!(read(&journal, Sequence::ZERO, "155:155:").expect("a fresh snapshot is good"), 1);
        assert!(matches!(read(&journal, Sequence::ZERO, "140:140:"), Err(query::Error::TooOld)));
        let other_line = Sequence::new(1, Lsn(900), 0);
        assert!(matches!(read(&journal, other_line, "155:155:"), Err(query::Error::TooOld)), "it would wait");
    }

    /// The process died between the beginning and the word of whose positions these are, and came back on another server.
    #[tokio::test]
    async fn what_a_dead_attempt_noted_on_another_server_is_not_acknowledged() {
        let (_folder, mut writer, journal) = new_journal();
        writer.advance(Lsn(900));
        writer.flush().expect("room");
        journal.watch_durable().wait_for(|end| *end == Lsn(900)).await.expect("the writer lives");
        let floor: Snapshot = "150:150:".parse().expect("a snapshot");
        let before = Sequence::new(1, Lsn(199), 0);
        begin(&mut writer, &journal, Verdict::Begin, before, floor.clone()).expect("room");
        assert_eq!(journal.durable(), Lsn(199));
        // The same server, where the slot has not moved since.
        writer.advance(Lsn(200));
        writer.flush().expect("room");
        journal.watch_durable().wait_for(|end| *end == Lsn(200)).await.expect("the writer lives");
        begin(&mut writer, &journal, Verdict::Begin, before, floor).expect("room");
        assert_eq!((journal.durable(), journal.range().last), (Lsn(200), before));
    }

    /// Were it on the new timeline, the journal would skip what is still to come of the old one.
    #[test]
    fn a_stream_that_begins_before_a_promotion_hides_nothing_of_it() {
        let history = History::new(2, vec![(1, Lsn(100))]);
        for (from, before) in [(50, (1, 49)), (100, (1, 99)), (101, (2, 100)), (200, (2, 199))] {
            assert_eq!(just_before(Lsn(from), &history), Sequence::new(before.0, Lsn(before.1), 0));
        }
    }
}
