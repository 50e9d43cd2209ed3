//! Disks that are full or fail under load, and later have room again or work again. Nothing is told that is wrong, then or
//! behind it, and nothing is acknowledged that a crash would not have left.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use walclock::domain::sequence::Lsn;

use super::world::{PATIENCE, Spawn, World, assert_no_gap, slot, soak};
use crate::disk::until_given_up;
use crate::support::server::Server;
use crate::support::{connect, database, eventually, preload, say_skipped, scratch};

/// Logged whenever it cannot go on: when the disk fails, and at each attempt to go back to what is durable and on from there.
const BLOCKED: &str = "the journal cannot take changes for now";

/// To the last byte, so that a write fails in its middle; and then so that there is too little, which it looks for itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_again_and_again_loses_nothing() {
    let bytes = (48 + 16 * u64::try_from(soak()).unwrap()) << 20;
    let on_disk: Spawn = Box::new(move |url, folder, flags| Server::spawn_on_disk(url, folder, bytes, 0, flags));
    let Some(mut world) = World::start_by(&database().await, on_disk).await else {
        return say_skipped(
            "a_disk_that_is_full_again_and_again_loses_nothing",
            "this machine does not permit a disk for a test",
        );
    };
    for left in [0, 4 << 20].repeat(soak()) {
        world.progress(20).await;
        let said = said_blocked(&world);
        let filler = world.server().file(&world.folder.join("filler"));
        fill(&filler, left);
        while_blocked(&mut world, said, "disk full").await;
        std::fs::remove_file(&filler).unwrap();
        world.server().until_ready().await;
    }
    end(world).await;
}

/// The first time it is killed amid the fault; each time after that it goes on by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_or_turns_read_only_again_and_again_loses_nothing() {
    let Some(library) = preload::library("disk/failing.c") else {
        return say_skipped(
            "a_disk_that_fails_or_turns_read_only_again_and_again_loses_nothing",
            "nothing can be preloaded here",
        );
    };
    let faults = tempfile::tempdir_in(scratch()).unwrap();
    let variables = preload::variables(&library, "DISK_FAULTS", faults.path());
    let preloaded: Spawn =
        Box::new(move |url, folder, flags| Some(Server::spawn_among(&variables, url, folder, flags)));
    let mut world = World::start_by(&database().await, preloaded).await.expect("that is permitted");
    let (sync, readonly) = (("sync", "Input/output error"), ("readonly", "Read-only file system"));
    // A sync is what fails where one is under way when the fault comes, else most often a write.
    let faults_of_a_round = [(sync, true), (sync, true), (readonly, false), (readonly, true)];
    for (at, ((fault, error), amid_a_sync)) in faults_of_a_round.repeat(soak()).into_iter().enumerate() {
        world.progress(20).await;
        let said = said_blocked(&world);
        let (stall, switch) = (faults.path().join("stall"), faults.path().join(fault));
        if amid_a_sync {
            File::create(&stall).unwrap();
            until_received(&world).await;
        }
        File::create(&switch).unwrap();
        let _ = std::fs::remove_file(&stall);
        while_blocked(&mut world, said, error).await;
        if at == 0 {
            world.kill().await;
            std::fs::remove_file(&switch).unwrap();
            world.restart();
        } else {
            std::fs::remove_file(&switch).unwrap();
        }
        world.server().until_ready().await;
    }
    end(world).await;
}

/// Fills the disk under `filler` until only so many bytes are left.
fn fill(filler: &Path, left: u64) {
    let mut file = File::create(filler).unwrap();
    let disk = rustix::fs::fstatvfs(&file).unwrap();
    let bytes = (disk.f_bavail * disk.f_frsize).saturating_sub(left);
    // The journal grows meanwhile, so the last of them may not be there.
    let filled = std::io::copy(&mut std::io::repeat(0).take(bytes), &mut file);
    assert!(filled.as_ref().err().is_none_or(|error| error.kind() == ErrorKind::StorageFull), "{filled:?}");
}

fn said_blocked(world: &World) -> usize {
    world.server().log().matches(BLOCKED).count()
}

/// Waits until readers have been told of what was committed from now on, and PostgreSQL that it is received: whether it is
/// durable is said with that.
async fn until_received(world: &World) {
    let sql = connect(&world.database).await;
    let lsn = async |query: &str| -> Option<Lsn> {
        let row = sql.query_one(query, &[]).await.unwrap();
        Some(row.get::<_, Option<&str>>(0)?.parse().unwrap())
    };
    let now = lsn("select pg_current_wal_insert_lsn()::text").await.unwrap();
    let told = async || Some(world.told_up_to()).filter(|told| *told > now);
    let told = eventually(PATIENCE, "it is told before it is durable", told).await;
    let query = format!(
        "select max(write_lsn)::text from pg_stat_replication
         where pid = (select active_pid from pg_replication_slots where slot_name = '{}')",
        world.slot()
    );
    let received = async || lsn(&query).await.filter(|received| *received >= told);
    eventually(PATIENCE, "PostgreSQL knows that it is received", received).await;
}

/// Waits until it says that it takes nothing, with this error, and has gone back to what is durable. That is all that was
/// acknowledged, and stays so while the load goes on and another reader joins.
async fn while_blocked(world: &mut World, said_before: usize, error: &str) {
    let sql = connect(&world.database).await;
    until_given_up(&sql, world.slot(), world.server(), error).await;
    let gone_back = async || (said_blocked(world) >= said_before + 2).then_some(());
    eventually(PATIENCE, "it goes back to what is durable", gone_back).await;
    world.check_acknowledged_stopped().await;
    let confirmed = slot(&sql, world.slot()).await.unwrap().0;
    world.join().await;
    world.commits(20, async || Some(())).await;
    until_given_up(&sql, world.slot(), world.server(), error).await;
    assert_eq!(slot(&sql, world.slot()).await.unwrap().0, confirmed, "nothing more is acknowledged");
}

/// All is compared, and it has gone on to the end by itself.
async fn end(mut world: World) {
    world.progress(20).await;
    assert_no_gap(&world.finish().await);
    let log = world.server().log();
    assert!(!log.contains("panicked"), "{log}");
}
