//! Going on after a failure: whatever fails, and when, nothing is lost, nothing comes twice, and what was acknowledged
//! survives a power cut.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::super::medium::{Disk, Medium};
use super::super::{Config, Error, Journal, Writer, recover};
use super::support::*;
use crate::domain::limits::JOURNAL_ROOM_BYTES_MIN;
use crate::domain::sequence::{Lsn, Sequence};
use crate::feed::query;
use crate::feed::sink::{Accept, Row, Side, Sink};

fn wait_for_failure(journal: &Journal) {
    while journal.failure().is_none() {
        std::thread::yield_now();
    }
}

#[test]
fn a_failed_write_stops_the_writer_until_it_is_mended() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, journal, disk) = open_failing(small(folder.path()));
    write(&mut writer, 10, &["a"]);
    writer.flush().unwrap();
    disk.writes.store(true, Ordering::SeqCst);
    write(&mut writer, 20, &["a"]);
    assert!(matches!(writer.flush(), Err(Error::Stopped(failure)) if failure.is_disk_full()));
    assert!(writer.mend().unwrap_err().is_disk_full(), "there is still no room");
    // Half of it is on the disk, so it is not tried again as it is.
    disk.writes.store(false, Ordering::SeqCst);
    assert!(matches!(writer.flush(), Err(Error::Stopped(_)) | Ok(())));
    assert!(journal.failure().is_some() && journal.watch_failure().borrow().is_some());
    assert_eq!(read(&journal, "a", Sequence::ZERO), ["10.0"]);
    writer.mend().unwrap();
    assert_eq!((writer.last(), journal.durable()), (sequence(10, 0), Lsn(11)), "what was written whole is kept");
    assert!(journal.failure().is_none());
    assert_eq!(write(&mut writer, 10, &["a"]), Accept::Skip);
    for lsn in [20, 30] {
        assert_eq!(write(&mut writer, lsn, &["a"]), Accept::Take);
    }
    writer.flush().unwrap();
    durable(&journal, 31);
    assert_eq!(read(&journal, "a", Sequence::ZERO), ["10.0", "20.0", "30.0"]);
    drop((writer, journal));
    let (_writer, journal) = open(&small(folder.path())).unwrap();
    assert_eq!(read(&journal, "a", Sequence::ZERO), ["10.0", "20.0", "30.0"]);
}

/// A reader has seen what no sync had brought to the disk, and goes on from there.
#[test]
fn what_was_seen_and_cut_off_comes_again_and_is_not_seen_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, journal, disk) = open_failing(small(folder.path()));
    write(&mut writer, 10, &["a"]);
    writer.flush().unwrap();
    durable(&journal, 11);
    disk.syncs.store(true, Ordering::SeqCst);
    write(&mut writer, 20, &["a"]);
    writer.flush().unwrap();
    wait_for_failure(&journal);
    write(&mut writer, 30, &["a"]);
    assert!(matches!(writer.flush(), Err(Error::Stopped(_))));
    assert_eq!(journal.durable(), Lsn(11), "nothing more is acknowledged");
    assert_eq!(read(&journal, "a", Sequence::ZERO), ["10.0", "20.0"], "what is visible stays so");
    assert!(writer.mend().is_err(), "the disk still fails");
    disk.syncs.store(false, Ordering::SeqCst);
    writer.mend().unwrap();
    assert_eq!((writer.last(), journal.durable()), (sequence(10, 0), Lsn(11)));
    let page = page(&journal, &scopes(&["a"]), sequence(20, 0), 10, None).unwrap();
    assert_eq!((page.last, page.changes.len()), (sequence(20, 0), 0), "it waits until the journal is there again");
    for lsn in [20, 30] {
        assert_eq!(write(&mut writer, lsn, &["a"]), Accept::Take);
    }
    writer.flush().unwrap();
    assert_eq!(read(&journal, "a", sequence(20, 0)), ["30.0"]);
    durable(&journal, 31);
}

/// Where the database turns out to be another one after that, the cursors beyond the cut are cursors of the old one.
#[test]
fn what_was_seen_and_cut_off_is_not_waited_for_in_another_database() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, journal, disk) = open_failing(small(folder.path()));
    disk.syncs.store(true, Ordering::SeqCst);
    write(&mut writer, 900, &["a"]);
    writer.flush().unwrap();
    wait_for_failure(&journal);
    disk.syncs.store(false, Ordering::SeqCst);
    writer.mend().unwrap();
    writer.begin_elsewhere(sequence(100, 0)).unwrap();
    let answer = page(&journal, &scopes(&["a"]), sequence(900, 0), 10, None);
    assert!(matches!(answer, Err(query::Error::TooOld)));
}

#[test]
fn it_stops_before_the_disk_is_full_and_goes_on_with_twice_the_room() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, journal, disk) = open_failing(small(folder.path()));
    let leave = |bytes: u64| disk.taken.store(u64::MAX - bytes, Ordering::SeqCst);
    write(&mut writer, 10, &["a"]);
    writer.flush().unwrap();
    leave(JOURNAL_ROOM_BYTES_MIN - 1);
    let mut taken = 10;
    while journal.failure().is_none() {
        assert!(journal.bytes() < 4 << 20, "it does not look");
        taken += 10;
        write(&mut writer, taken, &["a"; 5]);
        let _ = writer.flush();
    }
    assert!(journal.failure().unwrap().is_disk_full());
    for room in [0, JOURNAL_ROOM_BYTES_MIN, 2 * JOURNAL_ROOM_BYTES_MIN - 1] {
        leave(room);
        assert!(writer.mend().unwrap_err().is_disk_full(), "{room}");
    }
    leave(2 * JOURNAL_ROOM_BYTES_MIN);
    writer.mend().unwrap();
    assert_eq!(write(&mut writer, taken, &["a"]), Accept::Take);
    writer.flush().unwrap();
    assert_eq!(journal.range().last, sequence(taken, 0));
}

/// What it wrote is cut off, so there is room again, and yet not enough.
#[test]
fn a_transaction_larger_than_the_disk_is_not_tried_again_before_there_is_more_room() {
    const MIB: u64 = 1 << 20;
    let folder = tempfile::tempdir().unwrap();
    let config = Config { segment_bytes: MIB, buffer_bytes: 64 << 10, ..small(folder.path()) };
    let (mut writer, journal, disk) = open_failing(config);
    write(&mut writer, 10, &["a"]);
    writer.flush().unwrap();
    durable(&journal, 11);
    disk.size.store(32 * MIB, Ordering::SeqCst);
    let filled = fill(&mut writer, 20, u64::MAX);
    assert!((20 * MIB..32 * MIB).contains(&filled), "{filled}");
    let (lsn, fails) = (Lsn(20), |writer: &mut Writer, size: u64| {
        disk.size.store(size, Ordering::SeqCst);
        let error = writer.mend().unwrap_err();
        assert!(error.is_disk_full());
        std::error::Error::source(&error).unwrap().to_string()
    });
    let said = fails(&mut writer, 32 * MIB);
    assert!(said.contains(&format!("transaction 20, committed at {lsn}, filled")), "{said}");
    assert!(journal.bytes() < MIB, "what it took is given back");
    assert_eq!(fails(&mut writer, 32 * MIB), said, "also when it is asked again");
    fails(&mut writer, 33 * MIB);
    // With more room it comes again, and goes further.
    disk.size.store(48 * MIB, Ordering::SeqCst);
    writer.mend().unwrap();
    let further = fill(&mut writer, 20, u64::MAX);
    assert!(further > filled, "{further}");
    fails(&mut writer, 49 * MIB);
    disk.size.store(80 * MIB, Ordering::SeqCst);
    writer.mend().unwrap();
    fill(&mut writer, 20, further + MIB);
    assert_eq!(journal.range().last.lsn, lsn, "it is whole");
    // Once it is in, a disk that fails needs no more room for it.
    durable(&journal, 21);
    disk.syncs.store(true, Ordering::SeqCst);
    write(&mut writer, 30, &["a"]);
    writer.flush().unwrap();
    wait_for_failure(&journal);
    disk.syncs.store(false, Ordering::SeqCst);
    disk.size.store(journal.bytes() + 20 * MIB, Ordering::SeqCst);
    writer.mend().unwrap();
}

/// Sends a transaction of so many bytes, or for as long as there is room; returns how much was taken.
fn fill(writer: &mut Writer, lsn: u64, bytes: u64) -> u64 {
    let body = "x".repeat(60_000);
    assert_eq!(writer.begin(&head(lsn)).unwrap(), Accept::Take);
    let scopes = [(Side::Stays, "a")];
    let rows = u32::try_from(bytes / 60_000).unwrap_or(u32::MAX);
    for index in 0..rows {
        let row = Row {
            index,
            scopes: &scopes,
            to_everyone: false,
            body: body.as_bytes(),
            left_body: b"",
            entered_body: b"",
        };
        if let Err(error) = writer.push(&row) {
            assert!(error.is_disk_full(), "{error}");
            writer.abandon();
            return u64::from(index) * 60_000;
        }
    }
    writer.commit(Lsn(lsn + 1)).unwrap();
    writer.flush().unwrap();
    bytes
}

/// A disk of which some calls fail. A failed write leaves a half, a failed sync loses what was not synced, as a kernel
/// may that drops the pages it could not write.
#[derive(Default)]
struct Cruel(Mutex<Calls>);

#[derive(Default)]
struct Calls {
    count: usize,
    /// The calls that fail, counted from 1.
    fail: std::ops::Range<usize>,
    /// What was written and not synced, by file.
    loose: HashMap<u64, Vec<(u64, usize)>>,
}

impl Calls {
    fn fails(&mut self) -> bool {
        self.count += 1;
        self.fail.contains(&self.count)
    }
}

impl Medium for Cruel {
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut calls = self.0.lock();
        let fails = calls.fails();
        let bytes = if fails { &bytes[..bytes.len() / 2] } else { bytes };
        calls.loose.entry(file.metadata()?.ino()).or_default().push((offset, bytes.len()));
        Disk.write_at(file, bytes, offset)?;
        if fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(());
        }
        let mut calls = self.0.lock();
        let fails = calls.fails();
        for (offset, length) in calls.loose.remove(&metadata.ino()).unwrap_or_default() {
            lose(file, offset, length, fails)?;
        }
        if fails { Err(io::Error::other("the disk is gone")) } else { Ok(()) }
    }

    fn room(&self, _folder: &Path) -> u64 {
        u64::MAX
    }
}

/// Overwrites what would not be there, as far as the file still reaches.
fn lose(file: &File, offset: u64, length: usize, lost: bool) -> io::Result<()> {
    let left = file.metadata()?.len().saturating_sub(offset);
    let length = length.min(usize::try_from(left).unwrap());
    match lost && length > 0 {
        true => Disk.write_at(file, &vec![0; length], offset),
        false => Ok(()),
    }
}

/// Opens what a power cut at this moment would leave, and checks that all up to `acknowledged` is in it.
fn check_power_cut(disk: &Cruel, folder: &Path, acknowledged: Lsn) {
    let copy = tempfile::tempdir().unwrap();
    let calls = disk.0.lock();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = copy.path().join(entry.file_name());
        // What is renamed meanwhile is a sidecar, and a cut may come before it is there.
        let Ok(_) = fs::copy(entry.path(), &path) else { continue };
        let file = File::options().write(true).open(&path).unwrap();
        for (offset, length) in calls.loose.get(&entry.metadata().unwrap().ino()).into_iter().flatten() {
            lose(&file, *offset, *length, true).unwrap();
        }
    }
    drop(calls);
    let (writer, journal) = open(&small(copy.path())).unwrap();
    assert!(journal.durable() >= acknowledged, "{:?} was acknowledged, {:?} is there", acknowledged, journal.durable());
    let expected = LSNS.take_while(|lsn| Lsn(lsn + 1) <= journal.durable());
    assert_eq!(read(&journal, "a", Sequence::ZERO), expected.flat_map(bodies_of).collect::<Vec<_>>());
    drop(writer);
}

/// What PostgreSQL has: transactions of a row or two, and one that is longer than two segments.
const LSNS: std::ops::RangeInclusive<u64> = 1..=12;
const LONG: u64 = 6;

fn bodies_of(lsn: u64) -> impl Iterator<Item = String> {
    let rows = if lsn == LONG { 40 } else { lsn % 2 + 1 };
    (0..rows).map(move |index| format!("{lsn}.{index}{}", " ".repeat(if lsn == LONG { 4000 } else { 300 })))
}

fn send(writer: &mut Writer, lsn: u64) -> Result<(), Error> {
    if writer.begin(&head(lsn))? == Accept::Skip {
        return Ok(());
    }
    for (index, body) in (0..).zip(bodies_of(lsn)) {
        let scopes = [(Side::Stays, "a")];
        let body = body.as_bytes();
        writer.push(&Row { index, scopes: &scopes, to_everyone: false, body, left_body: b"", entered_body: b"" })?;
    }
    writer.commit(Lsn(lsn + 1))?;
    writer.flush()
}

/// A reader who follows all the time.
#[derive(Default)]
struct Follower {
    since: Sequence,
    seen: Vec<String>,
}

impl Follower {
    fn look(&mut self, journal: &Journal) {
        match page(journal, &scopes(&["a"]), self.since, 100_000, None) {
            Ok(page) => {
                assert!(page.last >= self.since);
                self.since = page.last;
                self.seen.extend(bodies(&page));
            }
            // Bytes that the disk has just lost cannot be read; they come again.
            Err(query::Error::Journal(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

/// Connects, streams and mends as the way in does, until all is durable.
fn stream(folder: &Path, disk: &Arc<Cruel>, writer: &mut Writer, journal: &Journal, follower: &mut Follower) {
    'connection: loop {
        follower.look(journal);
        check_power_cut(disk, folder, journal.durable());
        if writer.mend().is_err() {
            continue;
        }
        let from = journal.durable();
        for lsn in LSNS.filter(|lsn| Lsn(lsn + 1) > from) {
            if send(writer, lsn).is_err() {
                writer.abandon();
                continue 'connection;
            }
            follower.look(journal);
        }
        while journal.durable() <= Lsn(*LSNS.end()) {
            if journal.failure().is_some() {
                continue 'connection;
            }
            std::thread::yield_now();
        }
        return;
    }
}

/// Returns how many calls there were.
fn check(fail: std::ops::Range<usize>) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(Cruel::default());
    let (mut writer, journal) = recover::open(small(folder.path()), disk.clone()).unwrap();
    journal.set_origin(sequence(0, 1)).unwrap();
    let begin = disk.0.lock().count;
    disk.0.lock().fail = begin + fail.start..begin + fail.end;
    let mut follower = Follower::default();
    stream(folder.path(), &disk, &mut writer, &journal, &mut follower);
    let calls = disk.0.lock().count - begin;
    follower.look(&journal);
    let expected: Vec<String> = LSNS.flat_map(bodies_of).collect();
    assert!(follower.seen == expected, "the follower misses something, or has it twice: {fail:?}");
    assert!(read(&journal, "a", Sequence::ZERO) == expected, "{fail:?}");
    check_power_cut(&disk, folder.path(), journal.durable());
    drop((writer, journal));
    let (_writer, journal) = open(&small(folder.path())).unwrap();
    assert!(read(&journal, "a", Sequence::ZERO) == expected, "opened anew: {fail:?}");
    calls
}

#[test]
fn whichever_call_fails_nothing_is_lost_and_nothing_comes_twice() {
    let calls = check(0..0);
    assert!(calls > 50, "{calls}");
    for first in 1..calls {
        check(first..first + 1);
    }
}

#[test]
fn calls_may_fail_again_and_again() {
    for first in (1..60).step_by(5) {
        check(first..first + 12);
    }
}
