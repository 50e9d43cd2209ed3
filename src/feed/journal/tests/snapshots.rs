//! The snapshots of readers against a model of the server: none that hides a purged transaction passes, and a fresh one
//! passes whatever is open for however long.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::super::{Config, Journal, Writer};
use super::support::*;
use crate::clock::Timestamp;
use crate::domain::sequence::{Lsn, Sequence};
use crate::domain::snapshot::Snapshot;
use crate::feed::sink::{Head, Side, Sink};

#[derive(Clone, Copy, Debug)]
enum Act {
    Begin,
    /// Commits one of the open transactions; whether it has a published row of 18 KB, in all its forms.
    Commit(usize, bool),
    /// The commit comes in before the transaction is over for others, as it does where the server waits for a standby.
    CommitUnseen(usize),
    /// A reader takes a snapshot, and keeps it.
    Take,
    Pulse,
    /// Lets what is older than so many seconds go; whether there was a pulse just before.
    Purge(u64, bool),
    Reopen,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => Just(Act::Begin),
        8 => (0_usize..100, proptest::bool::weighted(0.8)).prop_map(|(which, published)| Act::Commit(which, published)),
        1 => (0_usize..100).prop_map(Act::CommitUnseen),
        3 => Just(Act::Take),
        3 => Just(Act::Pulse),
        3 => (0_u64..200, proptest::bool::weighted(0.95)).prop_map(|(age, pulse)| Act::Purge(age, pulse)),
        1 => Just(Act::Reopen),
    ]
}

/// The server: which of its transactions are over.
#[derive(Default)]
struct Server {
    newest: u64,
    open: BTreeSet<u64>,
    completed: u64,
    lsn: u64,
}

impl Server {
    fn snapshot(&self) -> Snapshot {
        let xmax = self.completed + 1;
        let open: Vec<u64> = self.open.range(..xmax).copied().collect();
        let list: Vec<String> = open.iter().map(u64::to_string).collect();
        format!("{}:{xmax}:{}", open.first().unwrap_or(&xmax), list.join(",")).parse().unwrap()
    }

    fn end(&mut self, txid: u64) {
        self.open.remove(&txid);
        self.completed = self.completed.max(txid);
    }

    /// Writes the commit of a transaction, and returns its position.
    fn commit(&mut self, writer: &mut Writer, txid: u64) -> u64 {
        self.lsn += 10;
        writer.begin(&Head { txid, ..head(self.lsn) }).unwrap();
        push(writer, 0, &[(Side::Stays, "a")], &"x".repeat(6_000));
        writer.commit(Lsn(self.lsn + 1)).unwrap();
        writer.flush().unwrap();
        self.lsn
    }
}

fn passes(journal: &Journal, snapshot: &Snapshot) -> bool {
    page(journal, &scopes(&["a"]), Sequence::ZERO, 1, Some(snapshot)).is_ok()
}

fn run(acts: &[Act]) {
    let folder = tempfile::tempdir().unwrap();
    let config = small(folder.path());
    let mut pair = Some(open(&config).unwrap());
    let mut server = Server::default();
    // Committed and published, by position; those of them that have not been seen to be over.
    let (mut committed, mut unseen) = (Vec::<(u64, u64)>::new(), Vec::new());
    let mut taken = Vec::new();
    // Every purge so far knew a snapshot that shows all of it.
    let mut known = true;
    for act in acts {
        let (writer, journal) = pair.as_mut().unwrap();
        match *act {
            Act::Begin => {
                server.newest += 1;
                server.open.insert(server.newest);
            }
            Act::Commit(which, published) => {
                let which = which.checked_rem(server.open.len()).unwrap_or(0);
                let Some(txid) = server.open.iter().nth(which).copied() else { continue };
                if published && !unseen.contains(&txid) {
                    committed.push((server.commit(writer, txid), txid));
                }
                server.end(txid);
                unseen.retain(|other| *other != txid);
            }
            Act::CommitUnseen(which) => {
                let which = which.checked_rem(server.open.len()).unwrap_or(0);
                let Some(txid) = server.open.iter().nth(which).copied() else { continue };
                if !unseen.contains(&txid) {
                    committed.push((server.commit(writer, txid), txid));
                    unseen.push(txid);
                }
            }
            Act::Take => taken.push(server.snapshot()),
            Act::Pulse => journal.note_snapshot(server.snapshot()),
            Act::Purge(age, pulse) => {
                if pulse {
                    journal.note_snapshot(server.snapshot());
                }
                let now = (server.lsn + 200).saturating_sub(age);
                let segments = journal.purge(Timestamp::from_micros(0).after(Duration::from_secs(now))).unwrap();
                known &= segments == 0 || (pulse && unseen.is_empty());
            }
            Act::Reopen => {
                drop(pair.take());
                pair = Some(open(&config).unwrap());
            }
        }
        let journal = &pair.as_ref().unwrap().1;
        let page = page(journal, &scopes(&["a"]), Sequence::ZERO, 1000, None).unwrap();
        let kept: BTreeSet<u64> = page.changes.iter().map(|change| change.sequence.lsn.0).collect();
        let purged: Vec<u64> = committed.iter().filter(|(lsn, _)| !kept.contains(lsn)).map(|(_, txid)| *txid).collect();
        let fresh = server.snapshot();
        for snapshot in taken.iter().chain([&fresh]) {
            let hidden = purged.iter().find(|txid| !snapshot.shows(**txid));
            assert!(hidden.is_none() || !passes(journal, snapshot), "{snapshot:?} hides {hidden:?}, which is purged");
        }
        assert!(!known || passes(journal, &fresh), "{fresh:?} shows all of {purged:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_snapshot_passes_where_nothing_is_missing(acts in proptest::collection::vec(act(), 1..120)) {
        run(&acts);
    }
}

/// Transaction 5 is open for longer than changes are kept.
#[test]
fn a_snapshot_from_just_behind_what_was_purged_is_still_good() {
    let folder = tempfile::tempdir().unwrap();
    let config = small(folder.path());
    let (mut writer, journal) = open(&config).unwrap();
    let mut server = Server { newest: 9, open: BTreeSet::from([5, 6, 7]), completed: 9, lsn: 0 };
    let (early, late) = {
        let early = server.snapshot();
        for txid in [6, 7] {
            server.commit(&mut writer, txid);
            server.end(txid);
        }
        journal.purge(Timestamp::from_micros(0).after(Duration::from_secs(115))).unwrap();
        journal.note_snapshot(server.snapshot());
        (early, server.snapshot())
    };
    server.newest = 20;
    server.completed = 20;
    journal.note_snapshot(server.snapshot());
    let purge = || journal.purge(Timestamp::from_micros(0).after(Duration::from_secs(1000))).unwrap();
    assert_eq!((purge(), journal.range().first), (1, sequence(20, 0)));
    assert!(!passes(&journal, &early), "6 and 7 are missing");
    assert!(passes(&journal, &late) && passes(&journal, &server.snapshot()));
    drop((writer, journal));
    let (_writer, journal) = open(&config).unwrap();
    assert!(!passes(&journal, &early) && passes(&journal, &late), "a restart changes nothing");
}

/// What a step costs grows with the scopes, so their product must not.
#[test]
fn changes_that_a_snapshot_shows_are_passed_over_in_few_steps_and_for_as_long_as_somebody_waits() {
    const HIDDEN: u64 = 20_000;
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, journal) = open(&Config::new(folder.path())).unwrap();
    (1..=HIDDEN + 1).for_each(|number| {
        let txid = if number <= HIDDEN { number + 1 } else { HIDDEN + 10 };
        writer.begin(&Head { txid, ..head(number * 10) }).unwrap();
        push(&mut writer, 0, &[(Side::Stays, "a")], "x");
        writer.commit(Lsn(number * 10 + 1)).unwrap();
    });
    writer.flush().unwrap();
    // One was open all the time.
    let snapshot: Snapshot = format!("1:{}:1", HIDDEN + 5).parse().unwrap();
    let asked = Cell::new(0);
    let in_vain = |in_vain_max: u64| {
        asked.set(0);
        let goes_on = |in_vain: usize| {
            asked.set(asked.get() + 1);
            in_vain as u64 <= in_vain_max
        };
        journal.read_while(1 << 20, &scopes(&["a"]), Sequence::ZERO, 1, Some(&snapshot), &goes_on).unwrap()
    };
    assert_eq!(in_vain(HIDDEN).map(|page| page.changes.len()), Some(1));
    assert!(asked.get() < 20, "{} steps", asked.get());
    assert!(in_vain(1_000).is_none());
    assert!(asked.get() < 10, "{} steps", asked.get());
}
