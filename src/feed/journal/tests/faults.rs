//! Faults: cuts, flipped bits, missing files, a disk that is full or gone. What was not written is never served, and
//! what is lost is said.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::super::{Error, recover};
use super::support::*;
use crate::clock::Timestamp;
use crate::domain::sequence::{Lsn, Sequence};
use crate::feed::query;
use crate::feed::sink::{Accept, Side, Sink};

fn file(folder: &Path, id: u32, kind: &str) -> PathBuf {
    folder.join(format!("{id:08x}.{kind}"))
}

/// Five transactions of two rows in one segment; returns where each ends in the file.
fn five(folder: &Path) -> Vec<u64> {
    let (mut writer, journal) = open(&small(folder)).unwrap();
    let mut ends = Vec::new();
    for lsn in [10, 20, 30, 40, 50] {
        write(&mut writer, lsn, &["a", "b"]);
        writer.flush().unwrap();
        ends.push(journal.bytes());
    }
    ends
}

/// Fills three segments and a part of a fourth with transactions of one row, and seals them; returns the last LSN.
fn four_segments(folder: &Path) -> u64 {
    let (mut writer, journal) = open(&small(folder)).unwrap();
    let mut lsn = 0;
    while !file(folder, 4, "log").exists() {
        lsn += 10;
        writer.begin(&head(lsn)).unwrap();
        push(&mut writer, 0, &[(Side::Stays, "a")], &format!("{lsn}{}", " ".repeat(500)));
        writer.commit(Lsn(lsn + 1)).unwrap();
        writer.flush().unwrap();
    }
    durable(&journal, lsn + 1);
    drop(writer);
    assert!(file(folder, 3, "idx").exists());
    lsn
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1 << (at % 8);
    fs::write(path, bytes).unwrap();
}

/// The LSNs of the rows that `four_segments` wrote and that are still there.
fn lsns(journal: &super::super::Journal, since: Sequence) -> Vec<u64> {
    read(journal, "a", since).iter().map(|body| body.trim_end().parse().unwrap()).collect()
}

#[test]
fn a_cut_at_any_offset_leaves_the_whole_transactions_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let ends = five(folder.path());
    let path = file(folder.path(), 1, "log");
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let (mut writer, journal) = open(&small(folder.path())).unwrap();
        let kept = ends.iter().filter(|end| **end <= length as u64).count();
        let expected: Vec<String> = (1..=kept).map(|n| format!("{}.0", n * 10)).collect();
        assert_eq!(read(&journal, "a", Sequence::ZERO), expected, "cut at {length}");
        assert_eq!(journal.durable(), Lsn(if kept == 0 { 0 } else { kept as u64 * 10 + 1 }));
        // It goes on where it was cut.
        assert_eq!(write(&mut writer, kept as u64 * 10 + 10, &["a", "b"]), Accept::Take);
        writer.flush().unwrap();
        assert_eq!(read(&journal, "b", Sequence::ZERO).len(), kept + 1);
    }
}

#[test]
fn a_bit_flipped_anywhere_is_never_served() {
    let folder = tempfile::tempdir().unwrap();
    let ends = five(folder.path());
    let path = file(folder.path(), 1, "log");
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        fs::write(&path, &whole).unwrap();
        flip(&path, at);
        let (_writer, journal) = open(&small(folder.path())).unwrap();
        let kept = match at {
            0..16 => 0,
            _ => ends.iter().filter(|end| **end <= at as u64).count(),
        };
        let expected: Vec<String> = (1..=kept).map(|n| format!("{}.0", n * 10)).collect();
        assert_eq!(read(&journal, "a", Sequence::ZERO), expected, "flipped at {at}");
    }
}

#[test]
fn a_bit_flipped_while_running_drops_what_it_is_in() {
    let folder = tempfile::tempdir().unwrap();
    let last = four_segments(folder.path());
    let size = usize::try_from(fs::metadata(file(folder.path(), 2, "log")).unwrap().len()).unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..10 {
        let copy = copy(folder.path());
        let (_writer, journal) = open(&small(copy.path())).unwrap();
        let at = random.usize(16..size);
        flip(&file(copy.path(), 2, "log"), at);
        let found = lsns(&journal, Sequence::ZERO);
        // What is left is the end of the stream, without a hole.
        assert_eq!(found, (found[0]..=last).step_by(10).collect::<Vec<_>>(), "flipped at {at}");
        assert!(found[0] > 10 && !file(copy.path(), 2, "log").exists() && file(copy.path(), 3, "log").exists());
        let scopes = scopes(&["a"]);
        let answer = |lsn: u64| page(&journal, &scopes, sequence(lsn, 0), 1, None);
        assert!(matches!(answer(found[0] - 20), Err(query::Error::TooOld)));
        assert_eq!(answer(found[0] - 10).unwrap().changes.len(), 1, "the predecessor of the first is good");
    }
}

#[test]
fn a_damaged_sidecar_is_rebuilt() {
    let folder = tempfile::tempdir().unwrap();
    let last = four_segments(folder.path());
    let expected: Vec<u64> = (10..=last).step_by(10).collect();
    let path = file(folder.path(), 2, "idx");
    let whole = fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(97) {
        let (_writer, journal) = open(&small(folder.path())).unwrap();
        flip(&path, at);
        assert_eq!(lsns(&journal, Sequence::ZERO), expected, "flipped while running at {at}");
        drop((_writer, journal));
        fs::write(&path, &whole).unwrap();
        flip(&path, at);
        let (_writer, journal) = open(&small(folder.path())).unwrap();
        assert_eq!(lsns(&journal, Sequence::ZERO), expected, "flipped before opening at {at}");
        drop((_writer, journal));
        fs::write(&path, &whole).unwrap();
    }
    fs::remove_file(&path).unwrap();
    let (_writer, journal) = open(&small(folder.path())).unwrap();
    assert_eq!(lsns(&journal, Sequence::ZERO), expected, "removed");
}

#[test]
fn damage_found_when_opening_moves_the_first_behind_it() {
    for damage in ["segment", "missing"] {
        let folder = tempfile::tempdir().unwrap();
        let last = four_segments(folder.path());
        match damage {
            "segment" => {
                flip(&file(folder.path(), 2, "log"), 5000);
                flip(&file(folder.path(), 2, "idx"), 0);
            }
            _ => fs::remove_file(file(folder.path(), 2, "log")).unwrap(),
        }
        let (_writer, journal) = open(&small(folder.path())).unwrap();
        let found = lsns(&journal, Sequence::ZERO);
        assert_eq!(found, (found[0]..=last).step_by(10).collect::<Vec<_>>(), "{damage}");
        assert!(found[0] > 10);
        let answer = page(&journal, &scopes(&["a"]), sequence(10, 0), 1, None);
        assert!(matches!(answer, Err(query::Error::TooOld)), "{damage}");
        // The bound is kept.
        drop((_writer, journal));
        let (_writer, journal) = open(&small(folder.path())).unwrap();
        assert_eq!(journal.range().first, sequence(found[0], 0));
        assert!(page(&journal, &scopes(&["a"]), sequence(10, 0), 1, None).is_err());
    }
}

/// Where a segment may be cut: at the ends of some of its transactions, and beside one.
fn cuts(segment: &[u8]) -> [usize; 5] {
    let mut ends = vec![16];
    while let Some(length) = segment.get(ends[ends.len() - 1]..).and_then(|rest| rest.first_chunk()) {
        ends.push(ends[ends.len() - 1] + usize::try_from(u32::from_le_bytes(*length)).unwrap());
    }
    assert_eq!(ends.pop(), Some(segment.len()), "the frames are all of it");
    [ends[0], ends[1], ends[1] + 1, ends[ends.len() / 2], ends[ends.len() - 1]]
}

fn copy(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

/// Also where the cut leaves nothing but whole transactions: that the end is missing is known from the sidecar, and where
/// that is of no use, from the next segment.
#[test]
fn a_segment_that_is_shorter_than_it_was_is_damaged_wherever_it_was_cut() {
    let folder = tempfile::tempdir().unwrap();
    let last = four_segments(folder.path());
    let whole = fs::read(file(folder.path(), 2, "log")).unwrap();
    for (end, is_damaged) in cuts(&whole).into_iter().flat_map(|end| [(end, false), (end, true)]) {
        let copy = copy(folder.path());
        fs::write(file(copy.path(), 2, "log"), &whole[..end]).unwrap();
        if is_damaged {
            flip(&file(copy.path(), 2, "idx"), 0);
        }
        let (_writer, journal) = open(&small(copy.path())).unwrap();
        let found = lsns(&journal, Sequence::ZERO);
        assert_eq!(found, (found[0]..=last).step_by(10).collect::<Vec<_>>(), "cut at {end}");
        let answer = page(&journal, &scopes(&["a"]), sequence(10, 0), 1, None);
        assert!(matches!(answer, Err(query::Error::TooOld)), "cut at {end}");
    }
}

/// A power cut took the end of a segment that was not synced yet, and left the next one. What is behind the cut was never
/// acknowledged and comes again: the journal ends there.
#[test]
fn a_segment_that_was_never_sealed_is_the_end_wherever_it_was_cut() {
    let folder = tempfile::tempdir().unwrap();
    let last = four_segments(folder.path());
    let whole = fs::read(file(folder.path(), 3, "log")).unwrap();
    fs::remove_file(file(folder.path(), 3, "idx")).unwrap();
    for end in cuts(&whole) {
        let copy = copy(folder.path());
        fs::write(file(copy.path(), 3, "log"), &whole[..end]).unwrap();
        let (mut writer, journal) = open(&small(copy.path())).unwrap();
        let left = *lsns(&journal, Sequence::ZERO).last().unwrap();
        assert!(left < last && journal.durable() == Lsn(left + 1), "cut at {end}");
        assert_eq!(lsns(&journal, Sequence::ZERO), (10..=left).step_by(10).collect::<Vec<_>>(), "cut at {end}");
        for lsn in (left + 10..=last).step_by(10) {
            assert_eq!(write(&mut writer, lsn, &["a"]), Accept::Take);
        }
        writer.flush().unwrap();
        assert_eq!(read(&journal, "a", Sequence::ZERO).len() as u64, last / 10, "cut at {end}");
    }
}

/// Such as were written before segments knew the size of the one before them.
#[test]
fn a_segment_that_names_no_size_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let last = four_segments(folder.path());
    for id in 1..=4 {
        let mut bytes = fs::read(file(folder.path(), id, "log")).unwrap();
        bytes[..8].copy_from_slice(b"WALCLKJ1");
        let sum = crc32c::crc32c(&bytes[..12]);
        bytes[12..16].copy_from_slice(&sum.to_le_bytes());
        fs::write(file(folder.path(), id, "log"), bytes).unwrap();
        let _ = fs::remove_file(file(folder.path(), id, "idx"));
    }
    let (_writer, journal) = open(&small(folder.path())).unwrap();
    assert_eq!(lsns(&journal, Sequence::ZERO), (10..=last).step_by(10).collect::<Vec<_>>());
}

/// After a power cut the newest segment may be there while the end of the one before it is not. Nothing of that was
/// acknowledged, so the journal goes back to it instead of giving up what is before it.
#[test]
fn a_torn_segment_that_was_never_sealed_is_the_end() {
    let folder = tempfile::tempdir().unwrap();
    four_segments(folder.path());
    fs::remove_file(file(folder.path(), 3, "idx")).unwrap();
    let path = file(folder.path(), 3, "log");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 10]).unwrap();
    let (mut writer, journal) = open(&small(folder.path())).unwrap();
    let found = lsns(&journal, Sequence::ZERO);
    let last = *found.last().unwrap();
    assert_eq!(found, (10..=last).step_by(10).collect::<Vec<_>>());
    assert_eq!((journal.durable(), writer.last()), (Lsn(last + 1), sequence(last, 0)));
    assert!(!file(folder.path(), 4, "log").exists());
    write(&mut writer, last + 10, &["b"]);
    writer.flush().unwrap();
    assert_eq!(read(&journal, "b", Sequence::ZERO).len(), 1);
}

#[test]
fn a_purge_makes_room_on_a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let last = four_segments(folder.path());
    let (writer, journal, disk) = open_failing(small(folder.path()));
    *disk.full_with.lock() = Some(file(folder.path(), 1, "log"));
    assert!(journal.set_floor("1:1:".parse().unwrap()).unwrap_err().is_disk_full());
    let all_old = Timestamp::MAX;
    // The segment that grows cannot be ended while the disk is full; those before it go all the same.
    let _ = journal.purge(all_old);
    assert!(journal.purge(all_old).unwrap() > 0);
    assert!(!file(folder.path(), 3, "log").exists());
    drop((writer, journal));
    let (_writer, journal) = open(&small(folder.path())).unwrap();
    assert_eq!(journal.range().last, sequence(last, 0));
    assert!(matches!(page(&journal, &scopes(&["a"]), sequence(10, 0), 1, None), Err(query::Error::TooOld)));
}

/// A killed process leaves bytes that no sync has seen; they are there to read, and not yet to be acknowledged.
#[test]
fn what_was_never_synced_is_synced_before_it_counts_as_durable() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, journal, disk) = open_failing(small(folder.path()));
    disk.syncs.store(true, Ordering::SeqCst);
    write(&mut writer, 10, &["a"]);
    writer.flush().unwrap();
    drop((writer, journal));
    assert!(matches!(recover::open(small(folder.path()), disk.clone()), Err(Error::Io { .. })));
    disk.syncs.store(false, Ordering::SeqCst);
    let (_writer, journal) = recover::open(small(folder.path()), disk).unwrap();
    assert_eq!(journal.durable(), Lsn(11));
}

#[test]
fn one_process_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(&small(folder.path())).unwrap();
    assert!(matches!(open(&small(folder.path())), Err(Error::Locked(_))));
    drop(first);
    open(&small(folder.path())).unwrap();
}

#[test]
fn a_folder_that_is_not_understood_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    five(folder.path());
    let meta = fs::read_to_string(folder.path().join("meta")).unwrap();
    fs::write(folder.path().join("meta"), meta.replace("journal 1", "journal 2")).unwrap();
    assert!(matches!(open(&small(folder.path())), Err(Error::Unusable { .. })));
    fs::remove_file(folder.path().join("meta")).unwrap();
    assert!(matches!(open(&small(folder.path())), Err(Error::Unusable { .. })));
    assert!(file(folder.path(), 1, "log").exists());
}

/// Damages one file of a folder: a flipped bit, a cut, or a run of zeros.
fn damage(folder: &Path, random: &mut fastrand::Rng) {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some() || path.ends_with("meta"));
    files.sort();
    let path = &files[random.usize(..files.len())];
    let mut bytes = fs::read(path).unwrap();
    if bytes.is_empty() {
        return;
    }
    let at = random.usize(..bytes.len());
    match random.u8(..4) {
        0 => bytes.truncate(at),
        1 => {
            let end = bytes.len().min(at + random.usize(1..5000));
            bytes[at..end].fill(0);
        }
        _ => bytes[at] ^= 1 << random.u8(..8),
    }
    // In place, as the bytes of an open file would change.
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
}

/// Every cursor gets what is behind it, or is told that it is too old. What is no longer there at the end is no longer
/// said to be durable, so that the source notices and asks for it, or tells of a gap.
fn check_served(journal: &super::super::Journal, last: u64, seed: u64) {
    let end = journal.range().last.lsn.0;
    assert!(end <= last && journal.durable() <= Lsn(end + 1), "{seed}");
    for since in (0..last + 10).step_by(90) {
        let since_sequence = if since == 0 { Sequence::ZERO } else { sequence(since, 0) };
        match page(journal, &scopes(&["a"]), since_sequence, 100_000, None) {
            Ok(page) => {
                let found: Vec<u64> = bodies(&page).iter().map(|body| body.trim_end().parse().unwrap()).collect();
                let first = if since == 0 { page.first.lsn.0 } else { since + 10 };
                // Where nothing is left, first and last are the newest that ever was.
                if !(found.is_empty() && page.first == page.last) {
                    assert_eq!(found, (first..=end).step_by(10).collect::<Vec<_>>(), "seed {seed}, since {since}");
                }
                assert!(page.last >= since_sequence);
            }
            Err(query::Error::TooOld) => assert!(since > 0, "{seed}"),
            Err(other) => panic!("{other}: seed {seed}, since {since}"),
        }
    }
}

#[test]
fn whatever_is_damaged_nothing_wrong_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let last = four_segments(folder.path());
    let mut opened = 0;
    for seed in 0..500 {
        let mut random = fastrand::Rng::with_seed(seed);
        let copy = copy(folder.path());
        // Half of them are damaged before they are opened, the others while they are.
        let before = random.bool();
        for _ in 0..if before { random.u8(1..4) } else { 0 } {
            damage(copy.path(), &mut random);
        }
        let (mut writer, journal) = match open(&small(copy.path())) {
            Ok(opened) => opened,
            Err(Error::Unusable { .. }) => continue,
            Err(other) => panic!("{other}: seed {seed}"),
        };
        opened += 1;
        if !before {
            damage(copy.path(), &mut random);
        }
        check_served(&journal, last, seed);
        let next = journal.range().last.lsn.0.max(last) + 10;
        write(&mut writer, next, &["b"]);
        writer.flush().unwrap();
        assert_eq!(read(&journal, "b", sequence(next - 1, 0)), [format!("{next}.0")], "seed {seed}");
    }
    assert!(opened > 250, "{opened}");
}
