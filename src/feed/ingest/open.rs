//! Opening the stream: the checks before it, the slot, and what a gap means for the journal.

use std::time::Duration;

use tracing::{error, info};

use super::Failure;
use super::gap::{self, Found, Gap, Known, Verdict};
use crate::domain::history::History;
use crate::domain::sequence::{Lsn, Sequence};
use crate::domain::snapshot::Snapshot;
use crate::feed::journal::{self, Identity, Journal, Writer};
use crate::feed::source::{self, Connection, Facts, Reports, Server, Stream};
use crate::pg::Settings;

/// How long the creation of the slot may wait for the transactions under way before we say which, and try again.
const CREATE_PATIENCE: Duration = Duration::from_secs(30);

/// How long the beginning may take to become durable. Where it does not, the next flush says why.
const SYNC_MAX: Duration = Duration::from_secs(30);

/// A stream that begins where the journal ends.
pub(super) struct Opened {
    pub server: Server,
    pub facts: Facts,
    pub stream: Stream,
    pub reports: Reports,
    pub history: History,
    /// Where the stream begins.
    pub from: Lsn,
    /// Where the WAL ended when the journal began anew; none where it went on.
    pub catch_up_to: Option<Lsn>,
}

/// Tries the hosts in turn. `unpublished` says that the slot met changes without its publication.
pub(super) async fn open(
    config: &source::Config,
    writer: &mut Writer,
    journal: &Journal,
    unpublished: bool,
) -> Result<Opened, Failure> {
    let mut failure = source::Error::Ended;
    let settings = config.settings.clone().with_application_name(&format!("walclock {}", config.slot));
    for settings in settings.each_host() {
        match Server::connect(&settings).await {
            Ok(server) => return open_at(server, &settings, config, writer, journal, unpublished).await,
            Err(error) => failure = error,
        }
    }
    Err(failure.into())
}

async fn open_at(
    server: Server,
    settings: &Settings,
    config: &source::Config,
    writer: &mut Writer,
    journal: &Journal,
    unpublished: bool,
) -> Result<Opened, Failure> {
    let facts = server.facts().await?;
    server.check_publications(&config.publications).await?;
    let mut connection = Connection::open(settings).await?;
    let system = connection.identify().await?;
    let slot = find_slot(&server, settings, config, unpublished).await?;
    let history = History::new(system.timeline, connection.timeline_history(system.timeline).await?);
    let wal_end = (!facts.standby).then_some(system.wal_end);
    let found = Found { system: system.id, history: history.clone(), wal_end, slot };
    let known = journal.identity().map(|identity| Known {
        system: identity.system_id,
        history: journal.history(),
        durable: journal.durable(),
    });
    let verdict = gap::judge(known.as_ref(), &found);
    let from = match verdict {
        Verdict::Continue => journal.durable(),
        Verdict::Begin | Verdict::Anew(_) => {
            let from = usable_slot(&server, &facts, config, found.slot).await?;
            // Taken behind the beginning: it shows whatever committed before it, which the feed will never tell.
            let floor = server.snapshot().await?;
            begin(writer, journal, verdict, just_before(from, &history), floor)?;
            writer.advance(from);
            writer.flush()?;
            // The identity must not say before the segments do that the stream is known up to here.
            let _ = tokio::time::timeout(SYNC_MAX, journal.watch_durable().wait_for(|end| *end >= from)).await;
            from
        }
    };
    writer.set_history(&history, just_before(from, &history))?;
    journal.set_identity(Identity { system_id: system.id, timeline: system.timeline, slot: config.slot.clone() })?;
    let (stream, reports) = source::start(connection, &config.slot, &config.publications, from).await?;
    // Between the look and the start somebody may have moved the slot; PostgreSQL would not say so. Nor is it certain
    // before this that one name led both connections to one server.
    match server.slot(&config.slot, database(settings)).await? {
        Some(slot) if slot.confirmed <= from && slot.active_pid == Some(stream.pid()) => {}
        Some(_) | None => return Err(source::Error::SlotMoved { slot: config.slot.clone() }.into()),
    }
    let anew = !facts.standby && matches!(verdict, Verdict::Begin | Verdict::Anew(_));
    let catch_up_to = if anew { Some(server.wal_position().await?) } else { None };
    info!(slot = config.slot, server = %settings, %from, timeline = system.timeline, "streaming");
    Ok(Opened { server, facts, stream, reports, history, from, catch_up_to })
}

async fn find_slot(
    server: &Server,
    settings: &Settings,
    config: &source::Config,
    unpublished: bool,
) -> Result<gap::Slot, source::Error> {
    let slot = server.slot(&config.slot, database(settings)).await?;
    let Some(slot) = slot else { return Ok(gap::Slot::Missing) };
    if let Some(pid) = slot.active_pid {
        return Err(source::Error::SlotInUse { slot: config.slot.clone(), pid });
    }
    Ok(match (slot.lost, unpublished) {
        (true, _) => gap::Slot::Dead(Gap::SlotLost),
        (false, true) => gap::Slot::Dead(Gap::Unpublished),
        (false, false) => gap::Slot::At(slot.confirmed),
    })
}

/// Makes the slot where there is none that is of use, and says where its stream begins.
async fn usable_slot(
    server: &Server,
    facts: &Facts,
    config: &source::Config,
    slot: gap::Slot,
) -> Result<Lsn, source::Error> {
    match slot {
        gap::Slot::At(from) => Ok(from),
        gap::Slot::Missing => server.create_slot(&config.slot, facts, CREATE_PATIENCE).await,
        gap::Slot::Dead(_) => {
            server.drop_slot(&config.slot).await?;
            server.create_slot(&config.slot, facts, CREATE_PATIENCE).await
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

    /// Were it on the new timeline, the journal would skip what is still to come of the old one.
    #[test]
    fn a_stream_that_begins_before_a_promotion_hides_nothing_of_it() {
        let history = History::new(2, vec![(1, Lsn(100))]);
        for (from, before) in [(50, (1, 49)), (100, (1, 99)), (101, (2, 100)), (200, (2, 199))] {
            assert_eq!(just_before(Lsn(from), &history), Sequence::new(before.0, Lsn(before.1), 0));
        }
    }
}
