//! Journals that are damaged while nobody looks: walclock is killed, bytes of its files are cut off or changed, and it
//! starts anew. What was acknowledged and is lost is told as a gap; nothing else is.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::links::behind_proxy;
use super::proxy::{End, Weather};
use super::world::{PATIENCE, World, assert_no_gap, slot, soak};
use crate::support::{connect, database, eventually};

/// Damages of one test.
const ROUNDS: usize = 3;
/// Told where the slot was acknowledged further than the journal reaches.
const GAP: &str = "changes are missing from the feed";

/// What becomes of a file's bytes from some offset on.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// They are gone.
    Cut,
    /// They are gone, and others stand there.
    Garbage,
    /// A bit of the first of them is flipped.
    Flip,
    /// They are zeros, as where a file was made longer and its content never came to the disk.
    Zeros,
    /// The whole file is gone.
    Removed,
}

impl Damage {
    /// Does it to bytes that stand at `at` or behind it.
    fn strike(self, path: &Path, at: u64, rng: &mut fastrand::Rng) {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let size = file.metadata().unwrap().len();
        assert!(at < size, "there is nothing at {at} of {size}");
        match self {
            Self::Cut => file.set_len(at).unwrap(),
            Self::Garbage => {
                let mut garbage = vec![0; rng.usize(1..20_000)];
                rng.fill(&mut garbage);
                file.set_len(at).unwrap();
                file.write_all_at(&garbage, at).unwrap();
            }
            Self::Flip => {
                let mut byte = [0];
                file.read_exact_at(&mut byte, at).unwrap();
                file.write_all_at(&[byte[0] ^ (1 << rng.u8(..8))], at).unwrap();
            }
            Self::Zeros => {
                file.set_len(at).unwrap();
                file.set_len(size).unwrap();
            }
            Self::Removed => std::fs::remove_file(path).unwrap(),
        }
    }
}

/// The segment that grows.
fn newest(world: &World) -> PathBuf {
    let files = std::fs::read_dir(world.folder.join("journal")).unwrap().map(|file| file.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|kind| kind == "log")).max().unwrap()
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

/// Waits until PostgreSQL may forget what readers have been told so far: without the journal, nobody has it.
async fn until_acknowledged(world: &World) {
    let (sql, told) = (connect(&world.database).await, world.told_up_to());
    let acknowledged = async || (slot(&sql, world.slot()).await?.0 >= told).then_some(());
    eventually(PATIENCE, "it is acknowledged", acknowledged).await;
}

/// How many gaps of the slot it has told, over all its lives.
fn gaps_told(world: &World) -> usize {
    let log = world.server().log();
    assert!(!log.contains("panicked"), "{log}");
    log.matches(GAP).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_end_that_was_never_acknowledged_comes_again() {
    let (database, proxy) = behind_proxy(Duration::from_secs(60)).await;
    let mut world = World::start_steady(&database, &proxy.url(&database), &[]).await;
    for round in 0..(ROUNDS + 1) * soak() {
        world.progress(10).await;
        // No acknowledgement gets through from here on.
        proxy.set(Weather { up_stalls: true, ..Weather::default() });
        let (segment, acknowledged) = (newest(&world), size(&newest(&world)));
        let more = async || (size(&segment) > acknowledged + 4096).then_some(());
        eventually(PATIENCE, "it stores what it cannot acknowledge", more).await;
        world.kill_unchecked();
        // Nor does one that is still in the network.
        proxy.end(End::Reset);
        world.check_acknowledged().await;
        proxy.set(Weather::default());
        let at = world.rng.u64(acknowledged..size(&segment));
        let damage = [Damage::Cut, Damage::Flip, Damage::Garbage, Damage::Zeros][round % 4];
        damage.strike(&segment, at, &mut world.rng);
        world.check_acknowledged().await;
        world.restart();
        world.server().until_ready().await;
        assert_eq!(gaps_told(&world), 0, "{damage:?} at {at} of {}", segment.display());
    }
    world.progress(20).await;
    assert_no_gap(&world.finish().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_and_is_lost_is_told() {
    let database = database().await;
    let mut world = World::start_steady(&database, &database, &[]).await;
    for round in 0..ROUNDS * soak() {
        world.progress(10).await;
        let (laggard, kept) = (world.history(), size(&newest(&world)));
        world.progress(20).await;
        until_acknowledged(&world).await;
        let before = gaps_told(&world);
        world.kill().await;
        let at = world.rng.u64(..kept);
        let damage = [Damage::Cut, Damage::Flip, Damage::Zeros, Damage::Garbage, Damage::Removed][round % 5];
        damage.strike(&newest(&world), at, &mut world.rng);
        world.restart();
        world.server().until_ready().await;
        assert_eq!(gaps_told(&world), before + 1, "{damage:?} at {at}");
        let laggard = world.follow(laggard);
        eventually(PATIENCE, "who is behind the gap is told", async || world.sent_back(laggard).then_some(())).await;
        world.join().await;
    }
    world.progress(20).await;
    world.finish_after_loss().await;
}

/// Without its meta file a journal says nothing for certain: walclock does not start on it, and an empty folder is a gap.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_meta_file_is_refused_and_a_journal_made_anew_is_told() {
    let database = database().await;
    let mut world = World::start_steady(&database, &database, &[]).await;
    world.progress(10).await;
    let laggard = world.history();
    world.progress(20).await;
    until_acknowledged(&world).await;
    world.kill().await;
    let meta = world.folder.join("journal/meta");
    let at = world.rng.u64(..size(&meta));
    Damage::Flip.strike(&meta, at, &mut world.rng);
    world.restart();
    let log = world.refused().await;
    assert!(log.contains("its meta file is") && !log.contains("panicked"), "{log}");
    std::fs::remove_dir_all(world.folder.join("journal")).unwrap();
    world.restart();
    world.server().until_ready().await;
    let laggard = world.follow(laggard);
    eventually(PATIENCE, "who is behind the gap is told", async || world.sent_back(laggard).then_some(())).await;
    world.join().await;
    world.progress(20).await;
    world.finish_after_loss().await;
}
