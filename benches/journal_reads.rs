//! Reads from old positions, and opening after a kill, beside plain reads of as many bytes from the same files.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use walclock::domain::limits::CHANGES_BYTES_MAX;
use walclock::domain::scope::Scope;
use walclock::domain::sequence::Sequence;
use walclock::feed::journal::Journal;

use crate::filled;
use crate::support::{quantile, size};
use crate::verdict::{Target, Verdict};

const ROUNDS: usize = 5;
const READS: u64 = 500;
const LIMIT: usize = 100;
/// A frame of a change of 200 bytes, roughly.
const FRAME_BYTES: usize = 270;

pub fn run() -> Vec<Verdict> {
    let folder = tempfile::tempdir().expect("a folder");
    let changes = size("CHANGES", 1_000_000) as u64;
    let (mut writer, journal) = filled::open(folder.path());
    filled::fill(&mut writer, 1..=changes);
    let logs = filled::files(folder.path(), "log");
    while filled::files(folder.path(), "idx").len() + 1 < logs.len() {
        std::thread::park_timeout(Duration::from_millis(20));
    }
    println!("old positions among {changes} changes of {} scopes in {} segments", filled::SCOPES, logs.len());
    let fifty = read_cost(&journal, &logs[0], 50, changes);
    let one = read_cost(&journal, &logs[0], 1, changes);
    let catch_up = catch_ups(&journal, &logs, changes);
    drop((writer, journal));
    let open = opens(folder.path());
    vec![fifty, one, catch_up, open]
}

/// Pages of 100 changes from positions in the first half, beside 100 preads of a frame each, as far apart.
fn read_cost(journal: &Journal, log: &Path, scopes: u64, changes: u64) -> Verdict {
    let wanted: Vec<Scope> = (0..scopes).map(filled::scope).collect();
    let file = File::open(log).expect("a segment");
    let stride = FRAME_BYTES as u64 * filled::SCOPES / scopes;
    let span = file.metadata().expect("its size").len();
    let mut ratios = Vec::new();
    let mut costs = (Vec::new(), Vec::new());
    for round in 0..ROUNDS as u64 {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for n in 0..READS {
            let place = (round * READS + n).wrapping_mul(7919) % (changes / 2);
            let start = Instant::now();
            let page =
                journal.read(CHANGES_BYTES_MAX, &wanted, filled::sequence(place + 1), LIMIT, None).expect("a page");
            ours.push(start.elapsed().as_secs_f64() * 1e6);
            assert_eq!(page.changes.len(), LIMIT);
            let from = place * FRAME_BYTES as u64;
            let start = Instant::now();
            for n in 0..LIMIT as u64 {
                let mut frame = vec![0; FRAME_BYTES];
                let at = (from + n * stride) % (span - FRAME_BYTES as u64);
                file.read_exact_at(&mut frame, at).expect("a frame");
                std::hint::black_box(frame);
            }
            theirs.push(start.elapsed().as_secs_f64() * 1e6);
        }
        ours.sort_by(f64::total_cmp);
        theirs.sort_by(f64::total_cmp);
        let (ours, theirs) = (quantile(&ours, 0.5), quantile(&theirs, 0.5));
        costs.0.push(ours);
        costs.1.push(theirs);
        ratios.push(ours / theirs);
    }
    println!("  {scopes:2} scopes: {:.0?} µs a page, {:.0?} µs for the preads", costs.0, costs.1);
    let what = format!("100 old changes of {scopes} scopes, of 100 preads");
    Verdict::new(what, ratios, Target::AtMost(4.0), "looking up the scopes, finding the place, checksums")
}

/// All changes of one scope in pages of 100, with nothing in the page cache, beside reading all segments through.
fn catch_ups(journal: &Journal, logs: &[std::path::PathBuf], changes: u64) -> Verdict {
    let scope = [filled::scope(7)];
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        cool_all(logs);
        let start = Instant::now();
        let bytes: u64 = logs.iter().map(|path| read_through(path)).sum();
        let theirs = start.elapsed();
        cool_all(logs);
        let (mut since, mut found) = (Sequence::ZERO, 0);
        let start = Instant::now();
        while since < filled::sequence(changes) {
            let page = journal.read(CHANGES_BYTES_MAX, &scope, since, LIMIT, None).expect("a page");
            found += page.changes.len();
            since = page.last;
        }
        let ours = start.elapsed();
        println!("  one scope, cold: {found} changes in {ours:.0?}; all {} MB read in {theirs:.0?}", bytes >> 20);
        ratios.push(ours.as_secs_f64() / theirs.as_secs_f64());
    }
    let what = "cold catch-up of 1 of 1,000 scopes, of reading all through";
    Verdict::new(what, ratios, Target::AtMost(1.0), "a read of the disk for each change")
}

/// Opening a journal whose newest segment has never been sealed, beside reading that segment through.
fn opens(folder: &Path) -> Verdict {
    let logs = filled::files(folder, "log");
    let newest = logs.last().expect("a segment").clone();
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        for warmth in ["cold", "warm"] {
            let cool = || {
                if warmth == "cold" {
                    cool_all(&logs)
                }
            };
            cool();
            let start = Instant::now();
            let bytes = read_through(&newest);
            let theirs = start.elapsed();
            cool();
            let start = Instant::now();
            let opened = filled::open(folder);
            let ours = start.elapsed();
            drop(opened);
            println!("  round {round}, {warmth}: open {ours:.0?}, its newest {} MB read {theirs:.0?}", bytes >> 20);
            if warmth == "cold" {
                ratios.push(ours.as_secs_f64() / theirs.as_secs_f64());
            }
        }
    }
    Verdict::new("opening, cold, of reading the newest segment", ratios, Target::AtMost(4.0), "checksums, the index")
}

fn cool_all(logs: &[std::path::PathBuf]) {
    for log in logs {
        filled::cool(log);
        let index = log.with_extension("idx");
        if index.exists() {
            filled::cool(&index);
        }
    }
}

fn read_through(path: &Path) -> u64 {
    let mut file = File::open(path).expect("a segment");
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        match file.read(&mut buffer).expect("readable") {
            0 => return total,
            count => total += count as u64,
        }
    }
}
