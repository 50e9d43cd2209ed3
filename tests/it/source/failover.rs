//! A standby is promoted: with the slot on it the feed goes on, without it readers are told, and nothing is ever silent.

use std::path::PathBuf;

use tokio_postgres::Client;
use walclock::domain::scope::Scope;
use walclock::domain::sequence::{Lsn, Sequence};
use walclock::feed::ingest::Status;
use walclock::feed::query;
use walclock::feed::snapshots::{self, Snapshot, Snapshots};
use walclock::localpg::{Cluster, Config};
use walclock::pg::Settings;
use walclock::store::doctor;

use super::feed::{Feed, Running, copy_folder, id, insert, range, wal_end};
use super::{PATIENCE, publish_notes};
use crate::support;

/// The physical slot through which the standby follows.
const STANDBY: &str = "standby";
/// How a standby that is given no name calls itself.
const STANDBY_NAME: &str = "walreceiver";
/// The first version whose slots can follow to a standby.
const FAILOVER_SLOTS: u32 = 17;
/// The first version with logical slots on a standby.
const STANDBY_SLOTS: u32 = 16;

/// A primary, its standby, and a feed that takes whichever of the two can be written to.
struct Pair {
    primary: Cluster,
    standby: Cluster,
    feed: Feed,
    client: Client,
}

impl Pair {
    /// A primary whose feed has ten notes and is stopped, and a standby of it, which takes over the slot if it
    /// `synchronizes`.
    async fn new(synchronizes: bool) -> Self {
        let primary = tokio::task::spawn_blocking(|| support::new_cluster(&[])).await.unwrap();
        let mut feed = Feed::new(&primary.url("postgres"));
        let client = publish_notes(&primary.url("postgres")).await;
        let running = feed.live().await;
        insert(&client, 0..10).await;
        running.ids(10).await;
        running.stop().await;
        let (primary, standby) = with_standby(primary, synchronizes).await;
        feed.config.source.settings = Settings::parse(&either(&primary, &standby)).unwrap();
        let client = support::connect(&primary.url("postgres")).await;
        Self { primary, standby, feed, client }
    }

    async fn until_slot(&self, temporary: bool) {
        until_slot(&self.client, &self.standby, self.feed.slot(), temporary).await;
    }

    /// Waits until the standby has replayed all that the primary has written.
    async fn until_replayed(&self) {
        let end = wal_end(&self.client).await.to_string();
        let standby = support::connect(&self.standby.url("postgres")).await;
        let sql = "select coalesce(pg_last_wal_replay_lsn() >= $1::text::pg_lsn, false)";
        support::eventually(PATIENCE, "the standby follows", async || {
            standby.query_one(sql, &[&end]).await.unwrap().get::<_, bool>(0).then_some(())
        })
        .await;
    }

    async fn stop_standby(self) -> Self {
        let Self { primary, mut standby, feed, client } = self;
        let standby = tokio::task::spawn_blocking(move || {
            standby.stop();
            standby
        });
        Self { primary, standby: standby.await.unwrap(), feed, client }
    }

    /// The primary dies and the standby, which is started where it was stopped, takes its place.
    async fn fail_over(self) -> Promoted {
        let Self { mut primary, mut standby, feed, .. } = self;
        let both = tokio::task::spawn_blocking(move || {
            primary.crash();
            standby.stop();
            standby.restart().unwrap();
            (primary, standby)
        });
        let (primary, standby) = both.await.unwrap();
        let client = support::connect(&standby.url("postgres")).await;
        assert!(client.query_one("select pg_promote(true, 60)", &[]).await.unwrap().get::<_, bool>(0));
        Promoted { primary, cluster: standby, feed, client }
    }
}

/// What is left of the two.
struct Promoted {
    /// The one that died.
    primary: Cluster,
    cluster: Cluster,
    feed: Feed,
    client: Client,
}

impl Promoted {
    /// Where the new timeline left the old one.
    async fn fork(&self) -> Lsn {
        let sql = "select split_part(pg_read_file('pg_wal/00000002.history'), E'\\t', 2)";
        self.client.query_one(sql, &[]).await.unwrap().get::<_, String>(0).parse().unwrap()
    }
}

/// A standby that follows this primary, and takes over the slots that are made for it if it `synchronizes`.
pub async fn with_standby(mut primary: Cluster, synchronizes: bool) -> (Cluster, Cluster) {
    let client = support::connect(&primary.url("postgres")).await;
    let slot = format!("select pg_create_physical_replication_slot('{STANDBY}', true)");
    client.batch_execute(&slot).await.unwrap();
    let started = tokio::task::spawn_blocking(move || {
        primary.stop();
        let folder = copy(&primary);
        primary.restart().unwrap();
        let standby = start_standby(&primary, folder, synchronizes);
        (primary, standby)
    });
    started.await.unwrap()
}

/// Waits until the slot is on the standby in this form. It becomes permanent when it has moved on beyond what the standby
/// can decode from: a list of the running transactions, which PostgreSQL writes now and then, lets it.
pub async fn until_slot(primary: &Client, standby: &Cluster, slot: &str, temporary: bool) {
    let standby = support::connect(&standby.url("postgres")).await;
    let sql = "select from pg_replication_slots where slot_name = $1 and synced and temporary = $2";
    support::eventually(PATIENCE, "the slot is on the standby", async || {
        primary.batch_execute("select pg_current_xact_id()").await.unwrap();
        primary.batch_execute("select pg_log_standby_snapshot()").await.unwrap();
        let rows = standby.query(sql, &[&slot, &temporary]).await.unwrap();
        (!rows.is_empty()).then_some(())
    })
    .await;
}

/// Whichever of the two can be written to.
pub fn either(primary: &Cluster, standby: &Cluster) -> String {
    let (primary, standby) = (primary.port(), standby.port());
    format!("postgres://postgres@127.0.0.1:{primary},127.0.0.1:{standby}/postgres?target_session_attrs=read-write")
}

/// A cold copy in a folder of its own, without the slots, as a base backup has it.
fn copy(primary: &Cluster) -> PathBuf {
    let folder = primary.data().with_file_name("standby");
    std::fs::create_dir(&folder).unwrap();
    copy_folder(&primary.data(), &folder.join("data"));
    for slot in std::fs::read_dir(folder.join("data/pg_replslot")).unwrap() {
        std::fs::remove_dir_all(slot.unwrap().path()).unwrap();
    }
    std::fs::write(folder.join("data/standby.signal"), "").unwrap();
    folder
}

fn start_standby(primary: &Cluster, folder: PathBuf, synchronizes: bool) -> Cluster {
    let source = format!("host=127.0.0.1 port={} user=postgres dbname=postgres", primary.port());
    let mut settings = vec![
        ("fsync", "off"),
        ("max_wal_senders", "60"),
        ("max_replication_slots", "400"),
        ("primary_conninfo", &source),
        ("primary_slot_name", STANDBY),
        ("hot_standby_feedback", "on"),
        ("wal_retrieve_retry_interval", "100ms"),
    ];
    if synchronizes {
        settings.push(("sync_replication_slots", "on"));
    }
    let settings = settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Cluster::start(Config { folder, programs: support::programs(), settings }).unwrap()
}

/// What the feed tells from `since` on: the ids of notes, each with its sequence, in the order of the feed.
async fn told(running: &Running, since: Sequence) -> Vec<(i64, Sequence)> {
    let page = running.changes(since).await.unwrap();
    let told: Vec<_> = page.changes.iter().map(|one| (id(&one.body), one.sequence)).collect();
    assert!(told.is_sorted_by(|before, after| before.1 < after.1), "{told:?}");
    told
}

fn ids(told: &[(i64, Sequence)]) -> Vec<i64> {
    told.iter().map(|(id, _)| *id).collect()
}

/// Whether the doctor says this of a server.
async fn doctor_says(server: &Cluster, what: &str) {
    let settings = Settings::parse(&server.url("postgres")).unwrap();
    let findings = doctor::examine(&settings, &[], &[]).await.unwrap();
    assert!(findings.iter().any(|finding| finding.what.contains(what)), "nothing says {what}: {findings:#?}");
}

/// Waits until the feed streams from the promoted server.
async fn until_taken_over(running: &Running) {
    support::eventually(PATIENCE, "the feed streams from the promoted server", async || {
        running.journal.identity().filter(|identity| identity.timeline == 2).map(|_| ())
    })
    .await;
}

/// Whether this server lacks failover slots, which is said where it does.
pub async fn lacks_failover_slots(test: &str) -> bool {
    let lacks = support::server_major().await < FAILOVER_SLOTS;
    if lacks {
        support::say_skipped(test, "failover slots are there from PostgreSQL 17 on");
    }
    lacks
}

/// Without the slot on the standby, which before PostgreSQL 17 cannot have it.
#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_without_the_slot_is_a_gap_and_readers_are_told() {
    let pair = Pair::new(false).await;
    let (primary, standby) = match support::server_major().await >= FAILOVER_SLOTS {
        true => ("synchronized_standby_slots is empty", "this standby does not synchronize slots"),
        false => ("before PostgreSQL 17", "before PostgreSQL 17"),
    };
    doctor_says(&pair.primary, primary).await;
    doctor_says(&pair.standby, standby).await;
    let running = pair.feed.live().await;
    insert(&pair.client, 10..20).await;
    running.ids(20).await;
    let old = told(&running, Sequence::ZERO).await;
    pair.until_replayed().await;
    let promoted = pair.fail_over().await;
    until_taken_over(&running).await;
    insert(&promoted.client, 20..25).await;
    assert_eq!(running.ids(5).await, range(20..25));
    let fork = promoted.fork().await;
    let beyond = [fork, Lsn(fork.0 + 1000)].map(|lsn| Sequence::new(1, lsn, 0));
    for cursor in old.into_iter().map(|(_, sequence)| sequence).chain(beyond) {
        assert!(matches!(running.changes(cursor).await, Err(query::Error::TooOld)), "{cursor}");
    }
    let new = told(&running, Sequence::ZERO).await;
    assert!(new.iter().all(|(_, sequence)| sequence.to_string().starts_with("2.")), "{new:?}");
    running.stop().await;
}

/// An old primary that comes back, or a standby, is not the one to follow only because it is the first that answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_has_fallen_behind_is_passed_over() {
    let mut pair = Pair::new(false).await;
    let hosts = |first: &Cluster, second: &Cluster, attributes: &str| {
        let (first, second) = (first.port(), second.port());
        let url = format!("postgres://postgres@127.0.0.1:{first},127.0.0.1:{second}/postgres?{attributes}");
        Settings::parse(&url).unwrap()
    };
    let first_writable = std::mem::replace(
        &mut pair.feed.config.source.settings,
        hosts(&pair.standby, &pair.primary, "connect_timeout=10"),
    );
    let running = pair.feed.live().await;
    insert(&pair.client, 10..12).await;
    assert_eq!(running.ids(12).await, range(0..12), "the standby has no slot, the primary has");
    running.stop().await;

    pair.feed.config.source.settings = first_writable;
    pair.until_replayed().await;
    let Promoted { mut primary, cluster: mut promoted, mut feed, client } = pair.fail_over().await;
    let running = feed.live().await;
    insert(&client, 20..25).await;
    assert_eq!(running.ids(5).await, range(20..25));
    let before = told(&running, Sequence::ZERO).await;
    running.stop().await;
    let (primary, mut cluster) = tokio::task::spawn_blocking(move || {
        primary.restart().unwrap();
        promoted.stop();
        (primary, promoted)
    })
    .await
    .unwrap();
    let mut running = feed.start();
    let is_passed_over = |status: &Status| matches!(status, Status::Starting { why } if why.contains("is passed over"));
    running.wait_for("the old primary alone is not followed", is_passed_over).await;
    assert_eq!(told(&running, Sequence::ZERO).await, before);
    let alone = snapshot(&feed, Settings::parse(&primary.url("postgres")).unwrap(), &running).await;
    assert!(matches!(alone, Err(snapshots::Error::Behind { found: 1, known: 2 })), "what it shows is not the feed's");
    let cluster = tokio::task::spawn_blocking(move || {
        cluster.restart().unwrap();
        cluster
    });
    let cluster = cluster.await.unwrap();
    let client = support::connect(&cluster.url("postgres")).await;
    insert(&client, 25..30).await;
    assert_eq!(running.ids(10).await, range(20..30));
    assert_eq!(&told(&running, Sequence::ZERO).await[..5], before, "nothing was dropped");
    let either = snapshot(&feed, feed.config.source.settings.clone(), &running).await;
    assert!(either.is_ok(), "a snapshot comes from the one behind it: {:?}", either.err());
    running.stop().await;

    feed.config.source.settings = hosts(&primary, &primary, "connect_timeout=10");
    let running = feed.live().await;
    let answer = running.changes(before[0].1).await;
    assert!(matches!(answer, Err(query::Error::TooOld)), "all of them say that it was restored");
    running.stop().await;
}

/// A snapshot beside this feed, from the server of these settings.
async fn snapshot(feed: &Feed, settings: Settings, running: &Running) -> Result<Snapshot, snapshots::Error> {
    let (source, assemble) = (&feed.config.source, &feed.config.assemble);
    let config = snapshots::Config::new(settings, source.publications.clone(), assemble.selector_columns.clone());
    Snapshots::new(config, running.journal.clone()).take(&[Scope::parse("a").unwrap()]).await
}

/// The slot has followed to the standby: the same cursors are good, nothing is lost and nothing comes twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_feed_goes_on_with_a_slot_that_was_synchronized() {
    if lacks_failover_slots("a_feed_goes_on_with_a_slot_that_was_synchronized").await {
        return;
    }
    let pair = Pair::new(true).await;
    hold_back(&pair.client).await;
    let running = pair.feed.live().await;
    pair.until_slot(false).await;
    doctor_says(&pair.primary, "hears of nothing before standby has it").await;
    doctor_says(&pair.standby, &format!("ready for a promotion: {}", pair.feed.slot())).await;
    insert(&pair.client, 10..20).await;
    running.ids(20).await;
    let cursors = told(&running, Sequence::ZERO).await;
    let promoted = pair.fail_over().await;
    until_taken_over(&running).await;
    insert(&promoted.client, 20..25).await;
    assert_eq!(running.ids(25).await, range(0..25));
    let all = told(&running, Sequence::ZERO).await;
    assert_eq!(&all[..20], cursors, "what was told before stays as it was");
    for (at, (_, cursor)) in (0..).zip(cursors) {
        assert_eq!(ids(&told(&running, cursor).await), range(at + 1..25), "after {cursor}");
    }
    assert!(all[20..].iter().all(|(_, sequence)| sequence.timeline == 2), "{all:?}");
    running.stop().await;
}

/// The feed is away while its server dies. What committed before the fork is told under the sequences that it had.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_stopped_feed_missed_comes_from_the_promoted_server() {
    if lacks_failover_slots("what_a_stopped_feed_missed_comes_from_the_promoted_server").await {
        return;
    }
    let pair = Pair::new(true).await;
    let running = pair.feed.live().await;
    pair.until_slot(false).await;
    let last = running.changes(Sequence::ZERO).await.unwrap().last;
    running.stop().await;
    insert(&pair.client, 10..20).await;
    pair.until_replayed().await;
    let promoted = pair.fail_over().await;
    insert(&promoted.client, 20..25).await;
    let fork = promoted.fork().await;
    let running = promoted.feed.live().await;
    assert_eq!(running.ids(25).await, range(0..25));
    let new = told(&running, last).await;
    assert_eq!(ids(&new), range(10..25));
    for (id, sequence) in new {
        assert_eq!(sequence.timeline, if id < 20 { 1 } else { 2 }, "{id}: {sequence}");
        assert_eq!(sequence.lsn < fork, id < 20, "{id}: {sequence}, the fork is at {fork}");
    }
    running.stop().await;
}

/// A slot that the standby had not made its own before the promotion goes with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_before_the_slot_was_synchronized_is_a_gap() {
    if lacks_failover_slots("a_promotion_before_the_slot_was_synchronized_is_a_gap").await {
        return;
    }
    // The feed is stopped, so that its slot stays behind what the standby could still decode.
    let pair = Pair::new(true).await;
    pair.until_slot(true).await;
    insert(&pair.client, 10..20).await;
    pair.until_replayed().await;
    let promoted = pair.fail_over().await;
    let running = promoted.feed.live().await;
    insert(&promoted.client, 20..25).await;
    assert_eq!(running.ids(5).await, range(20..25));
    let cursor = Sequence::new(1, promoted.fork().await, 0);
    assert!(matches!(running.changes(cursor).await, Err(query::Error::TooOld)));
    running.stop().await;
}

/// The primary told the feed what the standby never got. It is not the history any more, and readers hear of that.
#[tokio::test(flavor = "multi_thread")]
async fn a_feed_ahead_of_the_promoted_server_is_a_gap() {
    let synchronizes = support::server_major().await >= FAILOVER_SLOTS;
    let pair = Pair::new(synchronizes).await;
    let running = pair.feed.live().await;
    if synchronizes {
        pair.until_slot(false).await;
    }
    pair.until_replayed().await;
    let known = running.changes(Sequence::ZERO).await.unwrap().last;
    let pair = pair.stop_standby().await;
    insert(&pair.client, 10..20).await;
    running.ids(20).await;
    let ahead = told(&running, Sequence::ZERO).await.split_off(10);
    let promoted = pair.fail_over().await;
    let fork = promoted.fork().await;
    assert!(ahead.iter().all(|(_, sequence)| sequence.lsn >= fork), "{ahead:?} became history up to {fork}");
    until_taken_over(&running).await;
    insert(&promoted.client, 20..25).await;
    assert_eq!(running.ids(5).await, range(20..25), "what never became history is gone");
    for cursor in ahead.into_iter().map(|(_, sequence)| sequence).chain([known]) {
        assert!(matches!(running.changes(cursor).await, Err(query::Error::TooOld)), "{cursor}");
    }
    running.stop().await;
}

/// With `synchronized_standby_slots` the feed cannot get ahead: it hears of nothing that a promotion could undo.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_waits_for_its_standby_keeps_the_feed_from_getting_ahead() {
    if lacks_failover_slots("a_primary_that_waits_for_its_standby_keeps_the_feed_from_getting_ahead").await {
        return;
    }
    let pair = Pair::new(true).await;
    hold_back(&pair.client).await;
    let running = pair.feed.live().await;
    pair.until_slot(false).await;
    insert(&pair.client, 10..15).await;
    running.ids(15).await;
    let cursor = running.changes(Sequence::ZERO).await.unwrap().last;
    let pair = pair.stop_standby().await;
    insert(&pair.client, 15..20).await;
    let sql =
        "select from pg_stat_activity where backend_type = 'walsender' and wait_event = 'WaitForStandbyConfirmation'";
    support::eventually(PATIENCE, "the walsender waits for the standby", async || {
        pair.client.query_opt(sql, &[]).await.unwrap().map(|_| ())
    })
    .await;
    let promoted = pair.fail_over().await;
    until_taken_over(&running).await;
    insert(&promoted.client, 20..25).await;
    assert_eq!(running.ids(20).await, [range(0..15), range(20..25)].concat());
    assert_eq!(ids(&told(&running, cursor).await), range(20..25));
    running.stop().await;
}

/// The feed reads from the standby itself. What commits behind the fork is never told as if it were of the old timeline.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_is_promoted_under_the_stream_is_followed_onto_its_timeline() {
    const NAME: &str = "a_standby_that_is_promoted_under_the_stream_is_followed_onto_its_timeline";
    if support::server_major().await < STANDBY_SLOTS {
        return support::say_skipped(NAME, "slots on a standby are there from PostgreSQL 16 on");
    }
    let Pair { mut primary, standby, client, .. } = Pair::new(false).await;
    let feed = Feed::new(&standby.url("postgres"));
    let running = feed.start();
    support::eventually(PATIENCE, "the feed streams from the standby", async || {
        // The slot on the standby waits for it.
        client.batch_execute("select pg_log_standby_snapshot()").await.unwrap();
        (*running.status.borrow() == Status::Streaming).then_some(())
    })
    .await;
    insert(&client, 10..20).await;
    assert_eq!(running.ids(10).await, range(10..20));
    let before = told(&running, Sequence::ZERO).await;
    tokio::task::spawn_blocking(move || primary.crash()).await.unwrap();
    let client = support::connect(&standby.url("postgres")).await;
    assert!(client.query_one("select pg_promote(true, 60)", &[]).await.unwrap().get::<_, bool>(0));
    insert(&client, 20..25).await;
    assert_eq!(running.ids(15).await, range(10..25));
    let all = told(&running, Sequence::ZERO).await;
    assert_eq!(&all[..10], before, "what was told before stays as it was");
    assert!(all[10..].iter().all(|(_, sequence)| sequence.timeline == 2), "{all:?}");
    assert_eq!(ids(&told(&running, before[9].1).await), range(20..25));
    running.stop().await;
}

/// The connection is lost while the feed catches up: it does not count as caught up by that.
#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_was_cut_off_while_it_catches_up_is_not_ready() {
    if lacks_failover_slots("a_feed_that_was_cut_off_while_it_catches_up_is_not_ready").await {
        return;
    }
    let mut cluster = tokio::task::spawn_blocking(|| support::new_cluster(&[])).await.unwrap();
    let url = cluster.url("postgres");
    let (client, feed) = (publish_notes(&url).await, Feed::new(&url));
    // The walsender waits for this standby, which there is not, so the feed catches up for as long as we like.
    let slots = format!(
        "select pg_create_physical_replication_slot('{STANDBY}', true);
         select pg_create_logical_replication_slot('{}', 'pgoutput', failover => true)",
        feed.slot()
    );
    client.batch_execute(&slots).await.unwrap();
    hold_back(&client).await;
    insert(&client, 0..10).await;
    let mut running = feed.start();
    running.wait_for("catching up", |status| *status == Status::CatchingUp).await;
    cluster = tokio::task::spawn_blocking(move || {
        cluster.crash();
        cluster
    })
    .await
    .unwrap();
    running.wait_for("cut off", |status| !matches!(status, Status::CatchingUp | Status::Streaming)).await;
    assert!(running.status.borrow().not_ready().is_some(), "{:?}", running.status.borrow());
    let _cluster = tokio::task::spawn_blocking(move || {
        cluster.restart().unwrap();
        cluster
    })
    .await
    .unwrap();
    running.wait_for("catching up again", |status| *status == Status::CatchingUp).await;
    let client = support::connect(&url).await;
    client.batch_execute("alter system reset synchronized_standby_slots").await.unwrap();
    client.batch_execute("select pg_reload_conf()").await.unwrap();
    running.wait_for("caught up", |status| *status == Status::Streaming).await;
    assert_eq!(running.ids(10).await, range(0..10));
    running.stop().await;
}

/// The primary tells its failover slots of nothing that the standby has not got.
pub async fn hold_back(primary: &Client) {
    set(primary, "synchronized_standby_slots", STANDBY).await;
}

/// The primary tells nobody that a transaction is committed before the standby has it.
pub async fn commit_on_both(primary: &Client) {
    set(primary, "synchronous_standby_names", STANDBY_NAME).await;
}

async fn set(primary: &Client, name: &str, value: &str) {
    primary.batch_execute(&format!("alter system set {name} = '{value}'")).await.unwrap();
    primary.batch_execute("select pg_reload_conf()").await.unwrap();
    support::eventually(PATIENCE, "the setting counts", async || {
        let row = primary.query_one("select current_setting($1)", &[&name]).await.unwrap();
        (row.get::<_, String>(0) == value).then_some(())
    })
    .await;
}
