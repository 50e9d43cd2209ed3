//! A purge beside readers that are slow.

use std::time::Duration;

use super::super::address::Address;
use super::super::frame::Frame;
use super::super::{fetch, key};
use super::support::*;
use crate::clock::Timestamp;
use crate::domain::sequence::Sequence;

/// One has looked which segments it needs, another has its page: both have all of it when the files are gone.
#[test]
fn readers_that_have_begun_are_not_disturbed() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, journal) = open(&small(folder.path())).unwrap();
    for lsn in 10..5000 {
        write(&mut writer, lsn, &["a"]);
    }
    writer.flush().unwrap();
    durable(&journal, 5000);
    let expected: Vec<String> = (10..5000).map(|lsn| format!("{lsn}.0")).collect();
    let page = page(&journal, &scopes(&["a"]), Sequence::ZERO, 100_000, None).unwrap();
    let view = journal.0.state.read().view(Sequence::ZERO, None).unwrap();
    assert!(view.segments.len() > 3, "{} segments", view.segments.len());

    journal.purge(Timestamp::from_micros(0).after(Duration::from_secs(10_000))).unwrap();
    let left = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(left.filter(|path| path.extension().is_some_and(|found| found == "log")).count(), 1);
    assert!(read(&journal, "a", Sequence::ZERO).is_empty());
    assert_eq!(bodies(&page), expected);
    let mut found = Vec::new();
    for segment in &view.segments {
        let end = Address { segment: segment.id, offset: segment.summary().end };
        let offsets = segment.candidates(&[key(b"a")], 0, end.offset, 100_000).unwrap();
        for bytes in fetch::frames(&journal.0, segment, &offsets, end.offset, usize::MAX).unwrap() {
            let frame = Frame::decode(&bytes).unwrap();
            let body = frame.body_for(&[b"a"]).unwrap();
            found.push(String::from_utf8(bytes[body].to_vec()).unwrap());
        }
    }
    assert_eq!(found, expected);
}
