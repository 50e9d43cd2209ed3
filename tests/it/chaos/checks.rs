//! The checkers: what must hold of a ledger, the tables in the end, and what readers were told meanwhile. Pure.

use std::collections::{BTreeMap, BTreeSet};

use walclock::domain::sequence::{Lsn, Sequence};

use super::ledger::{History, Key, Life, Rows, Scopes, Seen, Told, Transaction, within};

/// What does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Every committed change reaches every reader of its scopes, unless the reader was told of a gap and began anew.
    NothingLost,
    /// Sequences increase, a row's states come in order, a transaction is contiguous and has one commit LSN.
    InOrder,
    /// A reader that follows is told nothing twice, and the same sequence is always the same bytes.
    NothingTwice,
    /// Nothing of an aborted transaction, nothing of another scope.
    NothingInvented,
    /// What was told adds up to what the tables hold.
    FoldIsTable,
    /// PostgreSQL was never told that it may forget what is not durable.
    AckedIsDurable,
}

/// A rule that is broken, and how.
pub type Violation = (Rule, String);

/// Checks all readers against the ledger, whose outcomes must be settled, and the tables as they are in the end, when
/// every reader has caught up.
pub fn check(ledger: &[Transaction], tables: &Rows, readers: &[History]) -> Vec<Violation> {
    let committed: BTreeMap<u64, &Transaction> = ledger
        .iter()
        .filter(|transaction| transaction.committed())
        .filter_map(|transaction| Some((transaction.txid?, transaction)))
        .collect();
    let mut found = Vec::new();
    for reader in readers {
        let mut broken: Vec<Violation> = Vec::new();
        for (at, life) in reader.lives.iter().enumerate() {
            let ends = at + 1 < reader.lives.len();
            cursors(life, &mut broken);
            order(life, &mut broken);
            let told = Delivered { committed: &committed, scopes: &reader.scopes, life, ends };
            told.complete(&mut broken);
            told.whole(&mut broken);
        }
        same_bytes(reader, &mut broken);
        if let Some(life) = reader.lives.last() {
            fold(life, tables, &reader.scopes, &mut broken);
        }
        found.extend(broken.into_iter().map(|(rule, what)| (rule, format!("reader {}: {what}", reader.name))));
    }
    one_truth(readers, &mut found);
    found
}

/// What was acknowledged to PostgreSQL against what was found in the journal after a kill.
pub fn acknowledged(confirmed: Lsn, durable: Lsn) -> Vec<Violation> {
    match confirmed > durable {
        true => vec![(Rule::AckedIsDurable, format!("{confirmed} is acknowledged, {durable} is durable"))],
        false => Vec::new(),
    }
}

/// Every change lies behind the cursor that it was asked with, and the cursor never goes back.
fn cursors(life: &Life, broken: &mut Vec<Violation>) {
    for page in &life.pages {
        for change in page.changes.iter().filter(|change| change.sequence <= page.since) {
            broken.push((Rule::NothingTwice, format!("{} came to a reader at {}", change.sequence, page.since)));
        }
        let newest = page.changes.iter().map(|change| change.sequence).max().unwrap_or(page.since);
        if page.last < page.since.max(newest) {
            broken.push((Rule::InOrder, format!("the cursor went from {} to {}", page.since.max(newest), page.last)));
        }
    }
    for pair in life.pages.windows(2) {
        if pair[1].since != pair[0].last {
            broken.push((Rule::InOrder, format!("it was at {} and asked from {}", pair[0].last, pair[1].since)));
        }
    }
}

fn order(life: &Life, broken: &mut Vec<Violation>) {
    let mut before: Option<&Told> = None;
    let mut over: BTreeSet<u64> = BTreeSet::new();
    let mut states: BTreeMap<&Key, i64> = BTreeMap::new();
    for change in life.changes() {
        if let Some(before) = before {
            match before.sequence.cmp(&change.sequence) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => {
                    broken.push((Rule::NothingTwice, format!("{} came twice", change.sequence)));
                }
                std::cmp::Ordering::Greater => {
                    broken.push((Rule::InOrder, format!("{} came after {}", change.sequence, before.sequence)));
                }
            }
            let same = before.txid == change.txid;
            if same != (before.sequence.lsn == change.sequence.lsn) {
                broken.push((Rule::InOrder, format!("transaction {} has no commit LSN of its own", change.txid)));
            }
            if !same && !over.insert(before.txid) {
                broken.push((Rule::InOrder, format!("transaction {} came in pieces", before.txid)));
            }
        }
        let (operation, key, n) = &change.seen;
        let state = states.entry(key).or_default();
        if *operation != 4 && n < state {
            broken.push((Rule::InOrder, format!("{key:?} went from state {state} back to {n}")));
        }
        *state = (*state).max(*n);
        before = Some(change);
    }
}

/// What one reader was told in one life, against what was committed.
struct Delivered<'a> {
    committed: &'a BTreeMap<u64, &'a Transaction>,
    scopes: &'a Scopes,
    life: &'a Life,
    /// The server ended it: what was not told yet is told of by that.
    ends: bool,
}

impl Delivered<'_> {
    fn is_in_base(&self, txid: u64) -> bool {
        self.life.base.as_ref().is_some_and(|base| base.snapshot.shows(txid))
    }

    fn by_transaction(&self) -> BTreeMap<u64, Vec<&Seen>> {
        let mut told: BTreeMap<u64, Vec<&Seen>> = BTreeMap::new();
        for change in self.life.changes() {
            told.entry(change.txid).or_default().push(&change.seen);
        }
        told
    }

    /// No committed transaction is missing. Where the life was ended, one may miss the end, but nothing before it: a
    /// writer's transactions follow each other, so each writer's must be told without a hole.
    fn complete(&self, broken: &mut Vec<Violation>) {
        let told = self.by_transaction();
        let mut missing: BTreeMap<usize, i64> = BTreeMap::new();
        let mut expected: Vec<_> =
            self.committed.iter().map(|(txid, transaction)| (transaction.number, *txid)).collect();
        expected.sort_unstable();
        for (number, txid) in expected {
            let transaction = self.committed[&txid];
            if self.is_in_base(txid) || transaction.seen_by(self.scopes).is_empty() {
                continue;
            }
            match (told.contains_key(&txid), missing.get(&transaction.writer)) {
                (true, Some(hole)) if self.ends => {
                    let what = format!("transaction {number} was told and {hole} before it was not");
                    broken.push((Rule::NothingLost, what));
                }
                (true, _) => {}
                (false, _) if self.ends => drop(missing.entry(transaction.writer).or_insert(number)),
                (false, _) => {
                    let what =
                        format!("transaction {number} (txid {txid}) of writer {} is missing", transaction.writer);
                    broken.push((Rule::NothingLost, what));
                }
            }
        }
    }

    /// What was told of each transaction is what it did.
    fn whole(&self, broken: &mut Vec<Violation>) {
        let newest = self.life.changes().last().map(|change| change.txid);
        for (txid, told) in self.by_transaction() {
            let Some(transaction) = self.committed.get(&txid) else {
                broken.push((Rule::NothingInvented, format!("txid {txid} was told and was never committed")));
                continue;
            };
            if self.is_in_base(txid) {
                broken.push((Rule::NothingTwice, format!("txid {txid} was told although the snapshot showed it")));
                continue;
            }
            let expected = transaction.seen_by(self.scopes);
            // A page may end inside a transaction, and the life with it.
            let cut = self.ends && newest == Some(txid) && told.len() < expected.len();
            let expected: Vec<&Seen> = expected.iter().take(if cut { told.len() } else { usize::MAX }).collect();
            if told == expected {
                continue;
            }
            let (mut extra, mut lost) = (told.clone(), expected.clone());
            extra.retain(|seen| !expected.contains(seen));
            lost.retain(|seen| !told.contains(seen));
            let rule = match (extra.is_empty(), lost.is_empty()) {
                (false, _) => Rule::NothingInvented,
                (true, false) => Rule::NothingLost,
                (true, true) => Rule::InOrder,
            };
            broken.push((rule, format!("txid {txid} was told as {told:?} and did {expected:?}")));
        }
    }
}

/// What a reader asks for twice looks the same, in every life.
fn same_bytes(reader: &History, broken: &mut Vec<Violation>) {
    let mut bytes: BTreeMap<Sequence, &str> = BTreeMap::new();
    for change in reader.lives.iter().flat_map(Life::changes) {
        let known = *bytes.entry(change.sequence).or_insert(&change.raw);
        if known != change.raw {
            broken.push((Rule::NothingTwice, format!("{} was {known} and is {}", change.sequence, change.raw)));
        }
    }
}

/// Base and changes make the tables.
fn fold(life: &Life, tables: &Rows, scopes: &Scopes, broken: &mut Vec<Violation>) {
    let base = life.base.as_ref().map(|base| within(&base.rows, scopes)).unwrap_or_default();
    let table = within(tables, scopes);
    let states = |rows: &Rows| -> BTreeMap<Key, (i64, String)> {
        rows.iter().map(|(key, row)| (key.clone(), (row.n, row.body.clone()))).collect()
    };
    let (mut rows, table) = (states(&base), states(&table));
    for change in life.changes() {
        let (operation, key, n) = &change.seen;
        match (operation, &change.body) {
            (1 | 2, Some(body)) => drop(rows.insert(key.clone(), (*n, body.clone()))),
            (1 | 2, None) => broken.push((Rule::FoldIsTable, format!("{} has no body", change.sequence))),
            (4, _) => rows.retain(|(table, _), _| *table != key.0),
            _ => drop(rows.remove(key)),
        }
    }
    for key in rows.keys().chain(table.keys()).collect::<BTreeSet<_>>() {
        let (told, held) = (rows.get(key), table.get(key));
        if told != held {
            let state = |row: Option<&(i64, String)>| row.map(|(n, body)| (*n, body.len()));
            let what = format!("{key:?} adds up to {:?} and is {:?}", state(told), state(held));
            broken.push((Rule::FoldIsTable, what));
        }
    }
}

/// A sequence is the same place in the same transaction for all readers.
fn one_truth(readers: &[History], broken: &mut Vec<Violation>) {
    let mut lsns: BTreeMap<u64, Lsn> = BTreeMap::new();
    let mut places: BTreeMap<Sequence, (u64, &Key)> = BTreeMap::new();
    for change in readers.iter().flat_map(|reader| &reader.lives).flat_map(Life::changes) {
        let lsn = *lsns.entry(change.txid).or_insert(change.sequence.lsn);
        if lsn != change.sequence.lsn {
            broken.push((Rule::InOrder, format!("txid {} committed at {lsn} and {}", change.txid, change.sequence)));
        }
        let place = (change.txid, &change.seen.1);
        let known = *places.entry(change.sequence).or_insert(place);
        if known != place {
            broken.push((Rule::InOrder, format!("{} is {known:?} and {place:?}", change.sequence)));
        }
    }
}
