//! The worst commit and the worst read while half of a journal of 1 GiB is purged, beside the same without a purge.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use walclock::clock::Timestamp;
use walclock::domain::limits::CHANGES_BYTES_MAX;
use walclock::feed::journal::{Journal, Writer};

use crate::filled;
use crate::support::size;
use crate::verdict::{Target, Verdict};

const ROUNDS: usize = 3;
const FRAME_BYTES: u64 = 270;

pub fn run() -> Vec<Verdict> {
    let changes = size("JOURNAL_MIB", 1024) as u64 * (1 << 20) / FRAME_BYTES;
    println!("worst commit and worst read of the middle, ms, while half of {changes} changes is purged, and without");
    let (mut commits, mut reads) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut writer, journal) = filled::open(folder.path());
        filled::fill(&mut writer, 1..=changes);
        let mut next = changes + 1;
        let age = walclock::feed::journal::Config::new(folder.path()).max_age;
        let now = Timestamp::from_micros(0).after(Duration::from_secs(changes / 2) + age);
        let purge = || {
            let start = Instant::now();
            let segments = journal.purge(now).expect("a purge");
            assert!(segments > 0, "half of it goes");
            start.elapsed()
        };
        let during = worst(&mut writer, &journal, &mut next, changes, purge);
        let without = worst(&mut writer, &journal, &mut next, changes, || {
            let start = Instant::now();
            while start.elapsed() < during.took {
                std::thread::park_timeout(during.took);
            }
            during.took
        });
        let millis = |span: Duration| span.as_secs_f64() * 1e3;
        println!(
            "  round {round}: a purge of {:.1}: commit {:.2}, read {:.2}   without: commit {:.2}, read {:.2}",
            millis(during.took),
            millis(during.commit),
            millis(during.read),
            millis(without.commit),
            millis(without.read)
        );
        commits.push(during.commit.as_secs_f64() / without.commit.as_secs_f64());
        reads.push(during.read.as_secs_f64() / without.read.as_secs_f64());
    }
    vec![
        Verdict::new("worst commit during a purge, of without", commits, Target::AtMost(5.0), "the disk"),
        Verdict::new("worst read during a purge, of without", reads, Target::AtMost(5.0), "the disk"),
    ]
}

struct Worst {
    took: Duration,
    commit: Duration,
    read: Duration,
}

/// The worst commit and read for as long as `work` takes.
fn worst(
    writer: &mut Writer,
    journal: &Journal,
    next: &mut u64,
    changes: u64,
    work: impl FnOnce() -> Duration + Send,
) -> Worst {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let work = scope.spawn(|| {
            let took = work();
            over.store(true, Ordering::Release);
            took
        });
        let reader = scope.spawn(|| {
            let wanted = [filled::scope(7)];
            let mut worst = Duration::ZERO;
            while !over.load(Ordering::Acquire) {
                let start = Instant::now();
                journal.read(CHANGES_BYTES_MAX, &wanted, filled::sequence(changes * 3 / 4), 100, None).expect("a page");
                worst = worst.max(start.elapsed());
            }
            worst
        });
        let mut commit = Duration::ZERO;
        while !over.load(Ordering::Acquire) {
            let start = Instant::now();
            filled::commit(writer, *next);
            writer.flush().expect("written");
            commit = commit.max(start.elapsed());
            *next += 1;
        }
        let (took, read) = (work.join().expect("it ends"), reader.join().expect("it ends"));
        Worst { took, commit, read }
    })
}
