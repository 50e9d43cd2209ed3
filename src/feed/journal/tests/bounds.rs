//! What is whole, how far back the journal reaches, and what it says about it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::super::{Config, Identity, Journal, Writer};
use super::support::*;
use crate::clock::Timestamp;
use crate::domain::history::History;
use crate::domain::sequence::{Lsn, Sequence};
use crate::feed::query::{self, Page};
use crate::feed::sink::{Accept, Row, Side, Sink};

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(0).after(Duration::from_secs(seconds))
}

fn ask(journal: &Journal, since: Sequence, snapshot: Option<&str>) -> Result<Page, query::Error> {
    let snapshot = snapshot.map(|text| text.parse().unwrap());
    page(journal, &scopes(&["a"]), since, 100, snapshot.as_ref())
}

fn too_old(journal: &Journal, since: Sequence, snapshot: Option<&str>) -> bool {
    matches!(ask(journal, since, snapshot), Err(query::Error::TooOld))
}

#[test]
fn nothing_was_ever_stored() {
    let folder = tempfile::tempdir().unwrap();
    let (_writer, journal) = open(&small(folder.path())).unwrap();
    let page = ask(&journal, Sequence::ZERO, None).unwrap();
    assert_eq!((page.first, page.last, page.changes.len()), (Sequence::ZERO, Sequence::ZERO, 0));
    assert_eq!(ask(&journal, sequence(5, 0), None).unwrap().last, sequence(5, 0), "it never goes back");
}

#[test]
fn a_transaction_is_visible_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, journal) = open(&small(folder.path())).unwrap();
    write(&mut writer, 10, &["a"]);
    assert_eq!(writer.begin(&head(20)).unwrap(), Accept::Take);
    let body = "x".repeat(300);
    // It is far larger than the buffer, the memory and a segment.
    for index in 0..1000 {
        push(&mut writer, index, &[(Side::Stays, "a")], &body);
    }
    writer.flush().unwrap();
    assert_eq!(read(&journal, "a", Sequence::ZERO), ["10.0"]);
    assert!(journal.bytes() > 3 * small(folder.path()).segment_bytes, "it is not held in memory");
    writer.commit(Lsn(21)).unwrap();
    writer.flush().unwrap();
    let all = read(&journal, "a", Sequence::ZERO);
    assert_eq!((all.len(), journal.range().last), (1001, sequence(20, 999)));
    assert_eq!(read(&journal, "a", sequence(20, 500)).len(), 499);
    drop((writer, journal));
    let (_writer, journal) = open(&small(folder.path())).unwrap();
    assert_eq!(read(&journal, "a", Sequence::ZERO), all);
}

#[test]
fn a_transaction_that_never_ended_is_gone_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    for rows in [1, 1000] {
        let (mut writer, journal) = open(&small(folder.path())).unwrap();
        if rows == 1 {
            write(&mut writer, 10, &["a"]);
        }
        writer.begin(&head(20)).unwrap();
        for index in 0..rows {
            push(&mut writer, index, &[(Side::Stays, "a")], &"x".repeat(300));
        }
        writer.flush().unwrap();
        drop((writer, journal));
        let (writer, journal) = open(&small(folder.path())).unwrap();
        assert_eq!(read(&journal, "a", Sequence::ZERO), ["10.0"]);
        assert_eq!((writer.last(), journal.durable()), (sequence(10, 0), Lsn(11)));
    }
}

#[test]
fn an_abandoned_transaction_can_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, journal) = open(&small(folder.path())).unwrap();
    write(&mut writer, 10, &["a"]);
    for rows in [1, 5, 1000] {
        writer.begin(&head(20)).unwrap();
        for index in 0..rows {
            push(&mut writer, index, &[(Side::Stays, "a")], &"x".repeat(300));
        }
        writer.abandon();
        writer.flush().unwrap();
        assert_eq!(read(&journal, "a", Sequence::ZERO), ["10.0"], "{rows} rows");
    }
    assert_eq!(write(&mut writer, 20, &["a", "b"]), Accept::Take);
    assert_eq!(write(&mut writer, 20, &["a", "b"]), Accept::Skip);
    assert_eq!(write(&mut writer, 15, &["a"]), Accept::Skip);
    writer.flush().unwrap();
    assert_eq!(read(&journal, "a", Sequence::ZERO), ["10.0", "20.0"]);
    drop((writer, journal));
    let (mut writer, journal) = open(&small(folder.path())).unwrap();
    assert_eq!(read(&journal, "a", Sequence::ZERO), ["10.0", "20.0"]);
    assert_eq!(write(&mut writer, 20, &["a"]), Accept::Skip);
}

#[test]
fn an_idle_stream_moves_what_is_durable() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, journal) = open(&small(folder.path())).unwrap();
    write(&mut writer, 10, &["a"]);
    writer.advance(Lsn(500));
    writer.advance(Lsn(400));
    writer.flush().unwrap();
    durable(&journal, 500);
    assert_eq!(journal.range().last, sequence(10, 0));
    drop((writer, journal));
    let (mut writer, journal) = open(&small(folder.path())).unwrap();
    assert_eq!(journal.durable(), Lsn(500));
    assert_eq!(write(&mut writer, 600, &["a"]), Accept::Take);
    writer.flush().unwrap();
    assert_eq!(read(&journal, "a", Sequence::ZERO), ["10.0", "600.0"]);
}

#[test]
fn a_purge_by_age_keeps_first_and_last() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, journal) = open(&small(folder.path())).unwrap();
    for lsn in [10, 20, 30] {
        write(&mut writer, lsn, &["a"]);
    }
    writer.flush().unwrap();
    assert_eq!(journal.purge(at(105)).unwrap(), 0, "nothing is too old");
    assert_eq!(journal.purge(at(115)).unwrap(), 0, "the newest of the segment is young");
    assert_eq!(read(&journal, "a", Sequence::ZERO).len(), 3);
    assert!(journal.purge(at(131)).unwrap() > 0);
    let check = |writer: &Writer, journal: &Journal| {
        let page = ask(journal, Sequence::ZERO, None).unwrap();
        assert_eq!((page.first, page.last, page.changes.len()), (sequence(30, 0), sequence(30, 0), 0));
        assert!(too_old(journal, sequence(20, 0), None));
        assert!(!too_old(journal, sequence(30, 0), None));
        assert_eq!(writer.last(), sequence(30, 0));
    };
    check(&writer, &journal);
    drop((writer, journal));
    let (mut writer, journal) = open(&small(folder.path())).unwrap();
    check(&writer, &journal);
    assert_eq!(journal.durable(), Lsn(31));
    write(&mut writer, 40, &["a"]);
    writer.flush().unwrap();
    let page = ask(&journal, sequence(30, 0), None).unwrap();
    assert_eq!((page.first, page.last, bodies(&page)), (sequence(40, 0), sequence(40, 0), vec!["40.0".to_owned()]));
}

#[test]
fn a_purged_file_that_survived_a_crash_is_not_served() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, journal) = open(&small(folder.path())).unwrap();
    write(&mut writer, 10, &["a"]);
    writer.flush().unwrap();
    let (path, aside) = (folder.path().join("00000001.log"), folder.path().join("aside"));
    std::fs::copy(&path, &aside).unwrap();
    assert_eq!(journal.purge(at(1000)).unwrap(), 1);
    assert!(!path.exists());
    drop((writer, journal));
    std::fs::rename(&aside, &path).unwrap();
    let (_writer, journal) = open(&small(folder.path())).unwrap();
    assert_eq!(read(&journal, "a", Sequence::ZERO), [""; 0]);
    assert!(!path.exists());
}

#[test]
fn a_purge_by_size_keeps_the_newest() {
    let folder = tempfile::tempdir().unwrap();
    let config = super::super::Config { max_bytes: 256 << 10, ..small(folder.path()) };
    let (mut writer, journal) = open(&config).unwrap();
    for lsn in 1..=2000 {
        write(&mut writer, lsn * 10, &["a", "b", "c", "d"]);
        writer.flush().unwrap();
    }
    assert!(journal.bytes() > config.max_bytes);
    assert!(journal.purge(Timestamp::MIN).unwrap() > 0, "also before it is known what time it is");
    assert!(journal.bytes() <= config.max_bytes && journal.bytes() > config.max_bytes / 2);
    let first = journal.range().first;
    let found = read(&journal, "a", Sequence::ZERO);
    assert_eq!(found.last().map(String::as_str), Some("20000.0"));
    assert!(first > sequence(10, 0) && too_old(&journal, sequence(10, 0), None));
}

#[test]
fn an_open_transaction_is_not_purged() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, journal) = open(&small(folder.path())).unwrap();
    writer.begin(&head(20)).unwrap();
    for index in 0..1000 {
        push(&mut writer, index, &[(Side::Stays, "a")], &"x".repeat(300));
    }
    writer.flush().unwrap();
    assert_eq!(journal.purge(at(10_000)).unwrap(), 0);
    writer.commit(Lsn(21)).unwrap();
    writer.flush().unwrap();
    assert_eq!(read(&journal, "a", Sequence::ZERO).len(), 1000);
    assert!(journal.purge(at(10_000)).unwrap() > 3);
    assert_eq!(journal.range().first, sequence(20, 999));
}

/// Whoever begins anew at the very moment is not sent to where the next call is too old once more.
#[test]
fn a_gap_is_told_once() {
    const GAPS: u64 = 100;
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, journal) = open(&small(folder.path())).unwrap();
    let (over, followed) = (AtomicBool::new(false), AtomicU64::new(0));
    let told = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut since, mut told) = (Sequence::ZERO, 0);
            while !over.load(Ordering::Relaxed) {
                match ask(&journal, since, None) {
                    Ok(page) => since = page.last,
                    Err(_) => (since, told) = (Sequence::ZERO, told + 1),
                }
                followed.store(since.lsn.0, Ordering::Relaxed);
            }
            told
        });
        for gap in 1..=GAPS {
            write(&mut writer, 1000 * gap, &["a"]);
            writer.flush().unwrap();
            while followed.load(Ordering::Relaxed) < 1000 * gap {
                std::thread::yield_now();
            }
            writer.begin_anew(sequence(1000 * gap + 500, 0)).unwrap();
        }
        over.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    assert!((GAPS - 1..=GAPS).contains(&told), "{told} times for {GAPS} gaps");
}

#[test]
fn a_gap_is_never_silent() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, journal) = open(&small(folder.path())).unwrap();
    for lsn in [10, 20] {
        write(&mut writer, lsn, &["a"]);
    }
    writer.begin(&head(30)).unwrap();
    push(&mut writer, 0, &[(Side::Stays, "a")], "never committed");
    writer.begin_anew(sequence(1000, 0)).unwrap();
    drop((writer, journal));
    let (mut writer, journal) = open(&small(folder.path())).unwrap();
    assert!(too_old(&journal, sequence(20, 0), None));
    let page = ask(&journal, Sequence::ZERO, None).unwrap();
    assert_eq!((page.first, page.last, page.changes.len()), (sequence(1000, 0), sequence(1000, 0), 0));
    assert_eq!((journal.durable(), writer.last()), (Lsn(1000), sequence(1000, 0)));
    assert_eq!(write(&mut writer, 900, &["a"]), Accept::Skip);
    assert_eq!(write(&mut writer, 1100, &["a"]), Accept::Take);
    writer.flush().unwrap();
    assert_eq!(bodies(&ask(&journal, sequence(1000, 0), None).unwrap()), ["1100.0"]);
    assert_eq!(journal.range().first, sequence(1100, 0));
    // In the middle of a stream, too.
    writer.begin_anew(sequence(2000, 0)).unwrap();
    assert!(too_old(&journal, sequence(1100, 0), None));
    write(&mut writer, 2100, &["a"]);
    writer.flush().unwrap();
    assert_eq!(read(&journal, "a", Sequence::ZERO), ["2100.0"]);
}

/// A database that was put back goes on at lower positions, and with lower transaction ids.
#[test]
fn cursors_of_a_database_that_was_left_are_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, journal) = open(&small(folder.path())).unwrap();
    write(&mut writer, 900, &["a"]);
    writer.begin_elsewhere(sequence(100, 0)).unwrap();
    drop((writer, journal));
    let (mut writer, journal) = open(&small(folder.path())).unwrap();
    assert_eq!((journal.durable(), writer.last()), (Lsn(100), sequence(100, 0)));
    assert!(too_old(&journal, sequence(900, 0), None), "it would wait while changes pass it by");
    assert!(!too_old(&journal, sequence(901, 0), None), "nobody was ever there");
    assert!(!too_old(&journal, Sequence::ZERO, Some("150:150:")), "transaction 900 is of another history");
    assert_eq!(write(&mut writer, 200, &["a"]), Accept::Take);
    writer.flush().unwrap();
    assert_eq!(read(&journal, "a", sequence(100, 0)), ["200.0"]);
}

/// A reader who waited for the first change, or the dispatcher, stands where the feed began.
#[test]
fn where_a_feed_without_a_change_began_is_left_too() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, journal) = open(&small(folder.path())).unwrap();
    journal.set_origin(sequence(900, 0)).unwrap();
    writer.begin_elsewhere(sequence(100, 0)).unwrap();
    assert!(too_old(&journal, sequence(900, 0), None), "it would wait while changes pass it by");
    assert!(!too_old(&journal, sequence(100, 0), None));
}

#[test]
fn a_cursor_from_before_the_first_change_needs_a_known_origin() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, journal) = open(&small(folder.path())).unwrap();
    journal.set_origin(sequence(50, 0)).unwrap();
    assert_eq!(journal.range().last, Sequence::ZERO);
    write(&mut writer, 100, &["a"]);
    writer.flush().unwrap();
    assert!(too_old(&journal, sequence(40, 0), None));
    assert_eq!(bodies(&ask(&journal, sequence(60, 0), None).unwrap()), ["100.0"]);
    drop((writer, journal));
    let elsewhere = tempfile::tempdir().unwrap();
    let (mut writer, journal) = open(&small(elsewhere.path())).unwrap();
    write(&mut writer, 100, &["a"]);
    writer.flush().unwrap();
    assert!(too_old(&journal, sequence(60, 0), None), "nobody knows what was between");
}

#[test]
fn snapshots_hide_and_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, journal) = open(&small(folder.path())).unwrap();
    for lsn in [10, 20, 30] {
        write(&mut writer, lsn, &["a"]);
    }
    writer.flush().unwrap();
    for (snapshot, expected) in [
        ("1:1:", &["10.0", "20.0", "30.0"][..]),
        ("20:20:", &["20.0", "30.0"]),
        ("15:31:20", &["20.0"]),
        ("31:31:", &[]),
    ] {
        let page = ask(&journal, Sequence::ZERO, Some(snapshot)).unwrap();
        assert_eq!(bodies(&page), expected, "{snapshot}");
    }
    journal.set_floor("8:12:9".parse().unwrap()).unwrap();
    assert!(too_old(&journal, Sequence::ZERO, Some("8:12:9,11")), "11 committed before the feed began");
    assert!(!too_old(&journal, Sequence::ZERO, Some("8:12:9")));
    journal.purge(at(131)).unwrap();
    assert!(too_old(&journal, Sequence::ZERO, Some("30:31:30")), "30 is purged");
    assert!(!too_old(&journal, Sequence::ZERO, Some("31:31:")));
    assert!(!too_old(&journal, sequence(30, 0), Some("30:31:30")), "who follows a cursor has had it");
}

/// Commits a transaction with one row of scope `a` and this sequence as its body.
fn write_at(writer: &mut Writer, sequence: Sequence) {
    let head = crate::feed::sink::Head { timeline: sequence.timeline, ..head(sequence.lsn.0) };
    assert_eq!(writer.begin(&head).unwrap(), Accept::Take, "{sequence}");
    push(writer, 0, &[(Side::Stays, "a")], &sequence.to_string());
    writer.commit(Lsn(sequence.lsn.0 + 1)).unwrap();
    writer.flush().unwrap();
}

fn on(timeline: u32, lsn: u64) -> Sequence {
    Sequence::new(timeline, Lsn(lsn), 0)
}

fn history(current: u32, ended: &[(u32, u64)]) -> History {
    History::new(current, ended.iter().map(|(timeline, lsn)| (*timeline, Lsn(*lsn))).collect())
}

/// One that is behind at a promotion goes on with what had committed before it, under the sequences that others gave it.
#[test]
fn what_committed_before_a_promotion_follows_where_it_stood() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, journal) = open(&small(folder.path())).unwrap();
    write_at(&mut writer, on(1, 10));
    // A reader that another changeserver has told more is not taken back.
    assert_eq!(page(&journal, &scopes(&["a"]), on(2, 30), 9, None).unwrap().last, on(2, 30));
    writer.set_history(&history(2, &[(1, 25)]), on(1, 10)).unwrap();
    for sequence in [on(1, 20), on(1, 24), on(2, 25), on(2, 30)] {
        write_at(&mut writer, sequence);
    }
    let told = |since| read(&journal, "a", since);
    assert_eq!(told(on(1, 20)), ["0.18.0", "2.0.19.0", "2.0.1e.0"]);
    assert_eq!(told(on(2, 25)), ["2.0.1e.0"]);
    assert!(told(on(2, 30)).is_empty());
    drop((writer, journal));
    let (_writer, journal) = open(&small(folder.path())).unwrap();
    assert_eq!(read(&journal, "a", on(1, 10)), ["0.14.0", "0.18.0", "2.0.19.0", "2.0.1e.0"]);
    assert_eq!(journal.history(), history(2, &[(1, 25)]));
}

#[test]
fn cursors_that_are_not_on_the_history_are_too_old() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, journal) = open(&small(folder.path())).unwrap();
    for sequence in [on(1, 10), on(1, 20)] {
        write_at(&mut writer, sequence);
    }
    // Timeline 2 left the first one elsewhere, and is nobody's parent here.
    writer.set_history(&history(3, &[(1, 25)]), on(1, 20)).unwrap();
    write_at(&mut writer, on(3, 27));
    for (since, good) in [
        (on(1, 10), true),
        (on(1, 24), true),
        (on(1, 25), false),
        (on(1, 99), false),
        (on(2, 15), false),
        (on(2, 26), false),
        (on(3, 24), false),
        (on(3, 25), true),
        (on(3, 99), true),
        // Nobody here knows of it yet.
        (on(4, 15), true),
    ] {
        assert_eq!(too_old(&journal, since, None), !good, "{since}");
    }
    assert_eq!(read(&journal, "a", on(1, 24)), ["3.0.1b.0"]);
}

#[test]
fn a_journal_that_is_not_on_the_history_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, journal) = open(&small(folder.path())).unwrap();
    for sequence in [on(1, 10), on(1, 20), on(1, 30)] {
        write_at(&mut writer, sequence);
    }
    // What was received behind the fork is no history; the stream goes on from 21.
    writer.set_history(&history(2, &[(1, 25)]), on(1, 20)).unwrap();
    assert_eq!(journal.range().last, on(1, 20));
    assert!(too_old(&journal, on(1, 30), None) && too_old(&journal, on(1, 10), None));
    for sequence in [on(1, 22), on(2, 26)] {
        write_at(&mut writer, sequence);
    }
    assert_eq!(read(&journal, "a", on(1, 20)), ["0.16.0", "2.0.1a.0"]);
}

#[test]
fn the_identity_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (writer, journal) = open(&small(folder.path())).unwrap();
    assert_eq!(journal.identity(), None);
    let identity = Identity { system_id: 7, timeline: 1, slot: "feed".to_owned() };
    journal.set_identity(identity.clone()).unwrap();
    drop((writer, journal));
    let (_writer, journal) = open(&small(folder.path())).unwrap();
    assert_eq!(journal.identity(), Some(identity));
}

/// Rows of a rare scope are found behind many segments that have nothing of it, from memory and from disk.
#[test]
fn a_rare_scope_is_found_in_every_segment() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, journal) = open(&small(folder.path())).unwrap();
    let mut expected = Vec::new();
    for lsn in 1..=3000_u64 {
        let scope = if lsn % 500 == 0 { "rare".to_owned() } else { format!("s{}", lsn % 700) };
        write(&mut writer, lsn * 10, &[&scope, "b"]);
        if scope == "rare" {
            expected.push(format!("{}.0", lsn * 10));
        }
        writer.flush().unwrap();
    }
    assert_eq!(read(&journal, "rare", Sequence::ZERO), expected);
    drop((writer, journal));
    let (_writer, journal) = open(&small(folder.path())).unwrap();
    assert_eq!(read(&journal, "rare", Sequence::ZERO), expected);
    assert_eq!(read(&journal, "s7", Sequence::ZERO).len(), 5);
    assert_eq!(read(&journal, "b", Sequence::ZERO).len(), 3000);
}

/// What a reader can make the server hold is bounded in bytes, not only in changes; following on gives the rest.
#[test]
fn a_page_of_large_changes_ends_early() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { segment_bytes: 1 << 30, ..small(folder.path()) };
    let (mut writer, journal) = open(&config).unwrap();
    let body = "x".repeat(2 << 20);
    for lsn in 1..=10 {
        assert_eq!(writer.begin(&head(lsn * 10)).unwrap(), Accept::Take);
        let scopes = [(Side::Stays, "a")];
        let row = Row {
            index: 0,
            scopes: &scopes,
            to_everyone: false,
            body: body.as_bytes(),
            left_body: b"",
            entered_body: b"",
        };
        writer.push(&row).unwrap();
        writer.commit(Lsn(lsn * 10 + 1)).unwrap();
    }
    writer.flush().unwrap();
    let page = |since| page(&journal, &scopes(&["a"]), since, 100_000, None).unwrap();
    let first = page(Sequence::ZERO);
    assert_eq!((first.changes.len(), first.last), (8, sequence(80, 0)));
    let second = page(first.last);
    assert_eq!((second.changes.len(), second.last), (2, sequence(100, 0)));
    assert!(first.changes.iter().chain(&second.changes).all(|change| change.body == body));
}

/// Each segment keeps files open, and a process may have only so many.
#[test]
fn a_large_journal_has_large_segments() {
    let files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let folder = tempfile::tempdir().unwrap();
    let config = |max_bytes| Config { max_bytes, ..small(folder.path()) };
    for (max_bytes, segments) in [(1 << 20, 16..=20), (256 << 20, 2..=3)] {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, journal) = open(&Config { folder: folder.path().to_owned(), ..config(max_bytes) }).unwrap();
        for lsn in 1..=1000 {
            writer.begin(&head(lsn * 10)).unwrap();
            push(&mut writer, 0, &[(Side::Stays, "a")], &"x".repeat(340));
            writer.commit(Lsn(lsn * 10 + 1)).unwrap();
            writer.flush().unwrap();
        }
        let logs = std::fs::read_dir(folder.path()).unwrap().map(Result::unwrap);
        let logs = logs.filter(|entry| entry.path().extension().is_some_and(|kind| kind == "log")).count();
        assert!(
            segments.contains(&logs),
            "{logs} segments of {} bytes in all, {} files open",
            journal.bytes(),
            files()
        );
    }
}

#[test]
fn the_newest_changes_are_in_memory_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { segment_bytes: 1 << 20, memory_bytes: 128 << 10, ..small(folder.path()) };
    let (mut writer, journal) = open(&config).unwrap();
    for lsn in 1..=1000 {
        write(&mut writer, lsn * 10, &["a", "b"]);
        writer.advance(Lsn(lsn * 10 + 5));
        writer.flush().unwrap();
    }
    assert!(journal.is_in_memory(sequence(9_000, 0)) && !journal.is_in_memory(sequence(10, 0)));
    let all = read(&journal, "b", Sequence::ZERO);
    drop((writer, journal));
    let (mut writer, journal) = open(&config).unwrap();
    assert!(journal.is_in_memory(sequence(9_000, 0)) && !journal.is_in_memory(sequence(10, 0)));
    write(&mut writer, 10_010, &["b"]);
    writer.flush().unwrap();
    // Without its file the end is there all the same, and as it was.
    std::fs::File::options().write(true).open(folder.path().join("00000001.log")).unwrap().set_len(0).unwrap();
    let newest = read(&journal, "b", sequence(9_000, 1));
    assert_eq!((newest.len(), newest.last().map(String::as_str)), (101, Some("10010.0")));
    assert_eq!(newest[..100], all[900..]);
}
