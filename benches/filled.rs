//! A journal without a server, filled with changes of 200 bytes in many scopes, a row in each transaction.

use std::path::Path;
use std::time::Duration;

use walclock::clock::Timestamp;
use walclock::domain::scope::Scope;
use walclock::domain::sequence::{Lsn, Sequence};
use walclock::feed::journal::{self, Journal, Writer};
use walclock::feed::sink::{Head, Row, Side, Sink};

/// The scopes that changes have in turn.
pub const SCOPES: u64 = 1000;

pub fn open(folder: &Path) -> (Writer, Journal) {
    journal::open(journal::Config::new(folder)).expect("a journal")
}

pub fn scope(number: u64) -> Scope {
    Scope::parse(&format!("scope-{}", number % SCOPES)).expect("a scope")
}

/// The sequence of change `number`, counted from 1, which commits so many seconds after 1970.
pub fn sequence(number: u64) -> Sequence {
    Sequence::new(1, Lsn(number * 8), 0)
}

/// Commits one change, without a flush.
pub fn commit(writer: &mut Writer, number: u64) {
    let committed_at = Timestamp::from_micros(0).after(Duration::from_secs(number));
    let head = Head { timeline: 1, commit_lsn: sequence(number).lsn, txid: number, committed_at };
    writer.begin(&head).expect("it takes changes");
    let scope = scope(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32);
    let scopes = [(Side::Stays, scope.as_str())];
    let body = [b'x'; 200];
    let row = Row { index: 0, scopes: &scopes, to_everyone: false, body: &body, left_body: &[], entered_body: &[] };
    writer.push(&row).expect("a row");
    writer.commit(Lsn(head.commit_lsn.0 + 1)).expect("a commit");
}

/// Commits the changes of these numbers.
pub fn fill(writer: &mut Writer, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        commit(writer, number);
    }
    writer.flush().expect("written");
}

/// Takes a file out of the page cache, once it is on the disk.
pub fn cool(path: &Path) {
    let file = format!("if={}", path.display());
    std::fs::File::open(path).and_then(|file| file.sync_all()).expect("synced");
    let cooled = std::process::Command::new("dd").args([&file, "iflag=nocache", "count=0", "status=none"]).status();
    assert!(cooled.expect("dd runs").success());
}

/// The journal's segments or their indexes, by their ending.
pub fn files(folder: &Path, ending: &str) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|found| found == ending)).collect();
    files.sort();
    files
}
