//! The checkers themselves: a history that is right passes, and each planted violation is found by its own rule.

use walclock::domain::sequence::{Lsn, Sequence};

use super::checks::{Rule, acknowledged, check};
use super::ledger::{Act, Base, History, Key, Life, Outcome, Page, Row, Rows, Scopes, Told, Transaction};

fn scopes(names: &[&str]) -> Scopes {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn key(id: i64) -> Key {
    ("t".to_owned(), id)
}

fn row(n: i64, names: &[&str]) -> Row {
    Row { n, body: format!("body {n}"), scopes: scopes(names) }
}

/// Two writers: 100 inserts two rows, 101 moves one from a to b, 102 is rolled back, 103 deletes one and inserts
/// another, 104 is of the other writer, 105 truncates another table.
fn ledger() -> Vec<Transaction> {
    let put = |id, before, after| Act::Put { key: key(id), before, after };
    let all: [(usize, Outcome, Vec<Act>); 6] = [
        (0, Outcome::Committed, vec![put(1, None, row(1, &["a"])), put(2, None, row(2, &["a", "b"]))]),
        (0, Outcome::Committed, vec![put(1, Some(row(1, &["a"])), row(3, &["b"]))]),
        (0, Outcome::Aborted, vec![put(3, None, row(4, &["a"]))]),
        (
            0,
            Outcome::Committed,
            vec![Act::Delete { key: key(2), before: row(2, &["a", "b"]) }, put(3, None, row(5, &["a"]))],
        ),
        (1, Outcome::Committed, vec![put(9, None, row(6, &["b"]))]),
        (1, Outcome::Committed, vec![Act::Truncate { table: "u".to_owned() }]),
    ];
    let entry = |(at, (writer, outcome, acts)): (usize, (usize, Outcome, Vec<Act>))| {
        let number = i64::try_from(at).unwrap();
        Transaction { number, writer, txid: Some(100 + number.unsigned_abs()), outcome, acts }
    };
    all.into_iter().enumerate().map(entry).collect()
}

fn tables() -> Rows {
    [(key(1), row(3, &["b"])), (key(3), row(5, &["a"])), (key(9), row(6, &["b"]))].into()
}

/// What a reader of these scopes is told of the transactions `from` on, one page for each.
fn pages(wanted: &[&str], from: usize) -> Vec<Page> {
    let wanted = scopes(wanted);
    let mut since = Sequence::ZERO;
    let committed = ledger().into_iter().enumerate().skip(from).filter(|(_, transaction)| transaction.committed());
    let page = |(at, transaction): (usize, Transaction)| {
        let lsn = Lsn(1000 + u64::try_from(at).unwrap() * 10);
        let told = transaction.acts.iter().enumerate().filter_map(|(index, act)| {
            let seen = act.seen_by(&wanted)?;
            let sequence = Sequence::new(1, lsn, u32::try_from(index).unwrap());
            let body = act.after().filter(|_| seen.0 < 3).map(|row| row.body.clone());
            let raw = format!("{sequence} {seen:?}");
            Some(Told { sequence, txid: transaction.txid.unwrap(), seen, body, raw })
        });
        let page = Page { since, last: Sequence::new(1, lsn, 9), changes: told.collect() };
        since = page.last;
        page
    };
    committed.map(page).collect()
}

fn reader(names: &[&str]) -> History {
    History { lives: vec![Life { base: None, pages: pages(names, 0) }], ..History::new(&names.join("+"), names) }
}

/// One that was sent back to a beginning behind the first two transactions: its first life misses the second.
fn resynced() -> History {
    let rows = [(key(1), row(3, &["b"])), (key(2), row(2, &["a", "b"])), (key(50), row(7, &["c"]))].into();
    let base = Base { snapshot: "102:103:".parse().unwrap(), rows };
    let first = Life { base: None, pages: pages(&["a", "b"], 0).into_iter().take(1).collect() };
    let last = Life { base: Some(base), pages: pages(&["a", "b"], 3) };
    History { lives: vec![first, last], ..History::new("resynced", &["a", "b"]) }
}

fn broken(readers: &[History]) -> Vec<Rule> {
    let mut rules: Vec<Rule> = check(&ledger(), &tables(), readers).into_iter().map(|(rule, _)| rule).collect();
    rules.sort_unstable();
    rules.dedup();
    rules
}

#[test]
fn what_is_right_passes() {
    let readers = [reader(&["a"]), reader(&["b"]), reader(&["a", "b"]), reader(&["c"]), resynced()];
    assert_eq!(check(&ledger(), &tables(), &readers), []);
    assert_eq!(readers[0].lives[0].changes().count(), 6, "the checkers had something to look at");
}

/// Each of these is planted into one page of a reader of a, whose pages are by transaction.
#[test]
fn a_planted_violation_is_found_by_its_rule() {
    type Plant = fn(&mut Vec<Page>);
    let plants: &[(&str, Rule, Plant)] = &[
        ("a transaction is left out", Rule::NothingLost, |pages| pages[0].changes.clear()),
        ("the last transaction is left out", Rule::NothingLost, |pages| pages.last_mut().unwrap().changes.clear()),
        ("a row of a transaction is left out", Rule::NothingLost, |pages| drop(pages[2].changes.pop())),
        ("a row that left its scope is kept quiet", Rule::NothingLost, |pages| pages[1].changes.clear()),
        ("pages come in another order", Rule::InOrder, |pages| {
            let first = std::mem::take(&mut pages[0].changes);
            pages[2].changes.extend(first);
        }),
        ("the cursor goes back", Rule::InOrder, |pages| pages[1].last = Sequence::new(1, Lsn(5), 0)),
        ("a page is asked from elsewhere", Rule::InOrder, |pages| pages[1].since = Sequence::new(1, Lsn(1009), 0)),
        ("rows of a transaction change places", Rule::InOrder, |pages| {
            let changes = &mut pages[2].changes;
            let (first, second) = (changes[0].seen.clone(), changes[1].seen.clone());
            (changes[0].seen, changes[1].seen) = (second, first);
        }),
        ("one transaction has two commit LSNs", Rule::InOrder, |pages| pages[2].changes[1].sequence.lsn.0 += 1),
        ("a transaction comes in pieces", Rule::InOrder, |pages| {
            let mut piece = pages[2].changes.pop().unwrap();
            piece.sequence.lsn.0 += 30;
            pages[4].changes.push(piece);
        }),
        ("a page comes twice", Rule::NothingTwice, |pages| {
            let again = pages[0].changes.clone();
            pages[1].changes.splice(0..0, again);
        }),
        ("a change comes twice in a page", Rule::NothingTwice, |pages| {
            let again = pages[0].changes[0].clone();
            pages[0].changes.insert(0, again);
        }),
        ("an aborted row is told", Rule::NothingInvented, |pages| pages[2].changes[1].txid = 102),
        ("a row that is rolled back to a savepoint is told", Rule::NothingInvented, |pages| {
            pages[0].changes[1].seen.2 = 77;
        }),
        ("a row of another scope is told", Rule::NothingInvented, |pages| {
            let mut leak = pages[0].changes[0].clone();
            leak.seen = (1, key(9), 6);
            (leak.txid, leak.sequence) = (104, Sequence::new(1, Lsn(1040), 0));
            pages[3].changes.push(leak);
        }),
        ("an update is told where the row left", Rule::NothingInvented, |pages| pages[1].changes[0].seen.0 = 2),
        ("a body is another one", Rule::FoldIsTable, |pages| pages[2].changes[1].body = Some("other".to_owned())),
        ("a body is missing", Rule::FoldIsTable, |pages| pages[2].changes[1].body = None),
    ];
    for (what, rule, plant) in plants {
        let mut reader = reader(&["a"]);
        plant(&mut reader.lives[0].pages);
        let found = broken(&[reader]);
        assert!(found.contains(rule), "{what}: found {found:?}");
    }
}

#[test]
fn a_gap_excuses_the_end_of_a_life_and_nothing_else() {
    let mut hole = resynced();
    hole.lives[0].pages = pages(&["a", "b"], 0);
    hole.lives[0].pages[0].changes.clear();
    assert!(broken(&[hole]).contains(&Rule::NothingLost), "a hole before what was told");

    let mut ended = resynced();
    ended.lives[0].pages[0].changes.truncate(1);
    assert_eq!(broken(&[ended]), [], "the page ended inside the transaction");

    let mut late = resynced();
    late.lives[1].pages.remove(0);
    assert!(broken(&[late]).contains(&Rule::NothingLost), "the last life must be complete");

    let mut shown = resynced();
    shown.lives[1].pages = pages(&["a", "b"], 0);
    assert!(broken(&[shown]).contains(&Rule::NothingTwice), "what the snapshot showed comes again");

    let mut stale = resynced();
    stale.lives[1].base.as_mut().unwrap().rows.clear();
    assert_eq!(broken(&[stale]), [Rule::FoldIsTable], "what was taken over is not what the snapshot shows");

    let mut other = resynced();
    other.lives[0].pages[0].changes[0].sequence = other.lives[1].pages[0].changes[0].sequence;
    assert!(broken(&[other]).contains(&Rule::NothingTwice), "one sequence, two bodies");
}

#[test]
fn readers_agree_on_what_a_sequence_is() {
    let mut other = reader(&["b"]);
    for change in other.lives[0].pages.iter_mut().flat_map(|page| &mut page.changes) {
        change.sequence.lsn.0 += 1;
    }
    assert_eq!(broken(&[reader(&["a"]), other]), [Rule::InOrder]);
}

#[test]
fn an_acknowledgement_ahead_of_the_journal_is_found() {
    assert_eq!(acknowledged(Lsn(9), Lsn(9)), []);
    assert_eq!(acknowledged(Lsn(10), Lsn(9))[0].0, Rule::AckedIsDurable);
}
