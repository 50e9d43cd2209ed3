//! Integration: the journal and its readers, with threads that race, calls that wait, and a process that is killed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use walclock::clock::Timestamp;
use walclock::domain::scope::Scope;
use walclock::domain::sequence::{Lsn, Sequence};
use walclock::feed::journal::{Config, Journal, Writer, open};
use walclock::feed::query::{Change, Error, Page, Query};
use walclock::feed::reader::Reader;
use walclock::feed::sink::{Accept, Head, Row, Side, Sink};

use super::support::eventually;

/// Longer than any of these tests takes: a call that is not woken runs into [`SOON`] first.
const LONG: Duration = Duration::from_secs(300);
const SOON: Duration = Duration::from_secs(120);

fn small(folder: &Path) -> Config {
    let sizes =
        Config { segment_bytes: 64 << 10, memory_bytes: 16 << 10, buffer_bytes: 1 << 10, ..Config::new(folder) };
    // A larger journal has larger segments.
    Config { max_bytes: 32 << 20, ..sizes }
}

/// Writes a transaction of one row, with the txid `lsn`, and makes it visible.
fn write(writer: &mut Writer, lsn: u64, scope: Option<&str>) {
    let head = Head { timeline: 1, commit_lsn: Lsn(lsn), txid: lsn, committed_at: Timestamp::from_micros(1_000_000) };
    assert_eq!(writer.begin(&head).unwrap(), Accept::Take);
    let scopes: Vec<_> = scope.iter().map(|scope| (Side::Stays, *scope)).collect();
    let body = lsn.to_string();
    let to_everyone = scope.is_none();
    let row = Row { index: 0, scopes: &scopes, to_everyone, body: body.as_bytes(), left_body: b"", entered_body: b"" };
    writer.push(&row).unwrap();
    writer.commit(Lsn(lsn + 1)).unwrap();
    writer.flush().unwrap();
}

fn sequence(lsn: u64) -> Sequence {
    Sequence::new(1, Lsn(lsn), 0)
}

fn query(scope: &str) -> Query {
    let scopes = vec![Scope::parse(scope).unwrap()];
    Query { scopes, since: Sequence::ZERO, limit: 100, block: Duration::ZERO, snapshot: None }
}

fn blocking(scope: &str) -> Query {
    Query { block: LONG, ..query(scope) }
}

/// Begins a call and returns once it waits.
async fn call(reader: &Reader, query: Query) -> JoinHandle<Result<Page, Error>> {
    let before = reader.waiters();
    let call = tokio::spawn({
        let reader = reader.clone();
        async move { reader.changes(query).await }
    });
    eventually(SOON, "the call waits", async || (reader.waiters() > before).then_some(())).await;
    call
}

async fn answer(call: JoinHandle<Result<Page, Error>>) -> Told {
    told(timeout(SOON, call).await.expect("it is woken").unwrap().unwrap())
}

/// What matters of a page here: its first, its last, and the texts of its changes.
type Told = (Sequence, Sequence, Vec<String>);

fn told(page: Page) -> Told {
    let text = |change: &Change| String::from_utf8(change.body.to_vec()).unwrap();
    (page.first, page.last, page.changes.iter().map(text).collect())
}

fn page(first: u64, last: u64, changes: &[&str]) -> Told {
    let at = |lsn| if lsn == 0 { Sequence::ZERO } else { sequence(lsn) };
    (at(first), at(last), changes.iter().map(ToString::to_string).collect())
}

#[tokio::test]
async fn pages_and_their_sequences() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, journal) = open(small(folder.path())).unwrap();
    let reader = Reader::new(journal.clone());
    assert!(matches!(reader.changes(query("a")).await, Err(Error::NotBegun)));
    assert_eq!(reader.position(), Sequence::ZERO);
    journal.set_origin(sequence(9)).unwrap();
    assert_eq!(told(reader.changes(query("a")).await.unwrap()), page(0, 0, &[]));
    assert_eq!(reader.position(), sequence(9), "behind it nothing is missed");
    for (lsn, scope) in [(10, "a"), (20, "b"), (30, "a"), (40, "b"), (50, "c")] {
        write(&mut writer, lsn, Some(scope));
    }
    assert_eq!(reader.position(), sequence(50));
    let ask = |since, limit| Query { since, limit, ..query("a") };
    for (query, expected) in [
        (ask(Sequence::ZERO, 100), page(10, 50, &["10", "30"])),
        (ask(Sequence::ZERO, 3), page(10, 50, &["10", "30"])),
        (ask(Sequence::ZERO, 2), page(10, 30, &["10", "30"])),
        (ask(Sequence::ZERO, 1), page(10, 10, &["10"])),
        (ask(Sequence::ZERO, 0), page(10, 0, &[])),
        (ask(sequence(20), 0), page(10, 20, &[])),
        (ask(sequence(10), 100), page(10, 50, &["30"])),
        (ask(sequence(30), 100), page(10, 50, &[])),
        (ask(sequence(900), 100), page(10, 900, &[])),
        (query("unknown"), page(10, 50, &[])),
    ] {
        assert_eq!(told(reader.changes(query.clone()).await.unwrap()), expected, "{query:?}");
    }
    let too_old = reader.changes(ask(sequence(5), 100)).await;
    assert!(matches!(too_old, Err(Error::TooOld)));
}

#[tokio::test]
async fn a_call_waits_for_its_own_scopes_only() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, journal) = open(small(folder.path())).unwrap();
    let reader = Reader::new(journal);
    write(&mut writer, 10, Some("b"));
    let waiting = call(&reader, blocking("a")).await;
    write(&mut writer, 20, Some("b"));
    write(&mut writer, 30, Some("a"));
    assert_eq!(answer(waiting).await, page(10, 30, &["30"]));
    // A change for everyone ends every wait.
    let waiting = call(&reader, Query { since: sequence(30), ..blocking("a") }).await;
    write(&mut writer, 40, None);
    assert_eq!(answer(waiting).await, page(10, 40, &["40"]));
    assert_eq!(reader.waiters(), 0);
}

#[tokio::test]
async fn what_does_not_end_a_wait() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, journal) = open(small(folder.path())).unwrap();
    let reader = Reader::new(journal);
    write(&mut writer, 10, Some("a"));
    let hidden = Query { snapshot: Some("25:25:".parse().unwrap()), ..blocking("a") };
    let hidden = call(&reader, hidden).await;
    let ahead = call(&reader, Query { since: sequence(25), ..blocking("a") }).await;
    write(&mut writer, 20, Some("a"));
    write(&mut writer, 30, Some("a"));
    assert_eq!(answer(hidden).await, page(10, 30, &["30"]), "20 is hidden by the snapshot");
    assert_eq!(answer(ahead).await, page(10, 30, &["30"]), "20 is before the cursor");
}

#[tokio::test]
async fn a_wait_ends_empty_with_the_newest_sequence() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, journal) = open(small(folder.path())).unwrap();
    let reader = Reader::new(journal.clone());
    journal.set_origin(sequence(9)).unwrap();
    let short = Query { block: Duration::from_millis(10), ..query("a") };
    assert_eq!(told(reader.changes(short).await.unwrap()), page(0, 0, &[]), "nothing was ever stored");
    write(&mut writer, 10, Some("b"));
    let waiting = call(&reader, Query { block: Duration::from_secs(2), ..query("a") }).await;
    write(&mut writer, 20, Some("b"));
    assert_eq!(answer(waiting).await, page(10, 20, &[]));
}

#[tokio::test]
async fn a_release_answers_all_who_wait_and_lets_nobody_wait_again() {
    let folder = tempfile::tempdir().unwrap();
    let (_writer, journal) = open(small(folder.path())).unwrap();
    journal.set_origin(sequence(9)).unwrap();
    let reader = Reader::new(journal);
    let waiting = call(&reader, blocking("a")).await;
    let gone = call(&reader, blocking("a")).await;
    gone.abort();
    eventually(SOON, "the place is free", async || (reader.waiters() == 1).then_some(())).await;
    reader.release_all();
    assert_eq!(answer(waiting).await, page(0, 0, &[]));
    assert_eq!(told(timeout(SOON, reader.changes(blocking("a"))).await.unwrap().unwrap()), page(0, 0, &[]));
}

#[tokio::test]
async fn a_gap_ends_a_wait() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, journal) = open(small(folder.path())).unwrap();
    let reader = Reader::new(journal);
    write(&mut writer, 10, Some("a"));
    let waiting = call(&reader, Query { since: sequence(10), ..blocking("a") }).await;
    writer.begin_anew(sequence(100)).unwrap();
    assert_too_old(waiting).await;
}

/// Who waits for the very first change has the empty position, from which on the oldest is told.
#[tokio::test]
async fn a_gap_ends_a_wait_for_the_first_change() {
    for is_elsewhere in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, journal) = open(small(folder.path())).unwrap();
        journal.set_origin(sequence(50)).unwrap();
        let reader = Reader::new(journal);
        let waiting = call(&reader, blocking("a")).await;
        if is_elsewhere {
            writer.begin_elsewhere(sequence(20)).unwrap();
        } else {
            writer.begin_anew(sequence(100)).unwrap();
            write(&mut writer, 200, Some("a"));
        }
        assert_too_old(waiting).await;
    }
}

async fn assert_too_old(call: JoinHandle<Result<Page, Error>>) {
    let answer = timeout(SOON, call).await.expect("it is woken").unwrap();
    assert!(matches!(answer, Err(Error::TooOld)), "{answer:?}");
}

/// Many followers race with the writer and with purges of nothing: each sees each change of its scope once, in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn followers_miss_nothing() {
    const CHANGES: u64 = 3000;
    const SCOPES: u64 = 7;
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, journal) = open(small(folder.path())).unwrap();
    journal.set_origin(sequence(0)).unwrap();
    let reader = Reader::new(journal.clone());
    let followers: Vec<_> = (0..40)
        .map(|number| {
            let reader = reader.clone();
            let scope = number % SCOPES;
            tokio::spawn(async move {
                let mut expected = (1..=CHANGES).filter(|lsn| lsn % SCOPES == scope).map(|lsn| lsn.to_string());
                let mut query = Query { limit: 5, ..blocking(&format!("s{scope}")) };
                let mut left = expected.clone().count();
                while left > 0 {
                    let page = reader.changes(query.clone()).await.unwrap();
                    assert!(!page.changes.is_empty());
                    left -= page.changes.len();
                    for change in &page.changes {
                        assert_eq!(std::str::from_utf8(&change.body).unwrap(), expected.next().unwrap());
                    }
                    query.since = page.last;
                }
            })
        })
        .collect();
    let writing = std::thread::spawn(move || {
        for lsn in 1..=CHANGES {
            write(&mut writer, lsn, Some(&format!("s{}", lsn % SCOPES)));
            if lsn % 100 == 0 {
                // Let them catch up and wait, so that wakes are what carries them.
                journal.purge(Timestamp::from_micros(0)).unwrap();
                std::thread::yield_now();
            }
        }
        writer
    });
    for follower in followers {
        timeout(SOON, follower).await.expect("no wake is lost").unwrap();
    }
    writing.join().unwrap();
}

const FOLDER: &str = "WALCLOCK_TEST_JOURNAL";

/// What the next test starts and kills. It writes until then, and tells what is durable.
#[test]
#[expect(clippy::disallowed_methods, reason = "a child process is told by its environment which part it plays")]
#[expect(clippy::print_stdout, reason = "this is how the child tells what is durable")]
fn the_process_that_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let (mut writer, journal) = open(small(Path::new(&folder))).unwrap();
    let first = writer.last().lsn.0 + 1;
    for lsn in first.. {
        write(&mut writer, lsn, Some(if lsn % 10 == 0 { "rare" } else { "a" }));
        println!("durable {}", journal.durable().0);
    }
}

#[test]
fn a_killed_process_loses_nothing_that_was_durable() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["journal::the_process_that_is_killed", "--exact", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let told = lines.map(Result::unwrap).filter_map(|line| Some(line.rsplit_once("durable ")?.1.parse().unwrap()));
        let durable: u64 = told.take(random.usize(50..1500)).last().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let (writer, journal) = open(small(folder.path())).unwrap();
        let last = writer.last().lsn.0;
        assert!(journal.durable() >= Lsn(durable), "{durable} was durable");
        assert_eq!(journal.durable(), Lsn(last + 1));
        check(&journal, last);
    }
}

/// Every change up to `last` is there, in order.
fn check(journal: &Journal, last: u64) {
    let scopes = ["a", "rare"].map(|scope| Scope::parse(scope).unwrap());
    let page = journal.read(usize::MAX, &scopes, Sequence::ZERO, 100_000, None).unwrap();
    let found: Vec<u64> =
        page.changes.iter().map(|change| std::str::from_utf8(&change.body).unwrap().parse().unwrap()).collect();
    assert_eq!(found, (1..=last).collect::<Vec<_>>());
}
