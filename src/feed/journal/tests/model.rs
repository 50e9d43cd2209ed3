//! The journal against a list: whatever is written, taken back, reopened and purged, every read is what the list says.

use std::time::Duration;

use proptest::prelude::*;

use super::support::*;
use crate::clock::Timestamp;
use crate::domain::history::History;
use crate::domain::sequence::{Lsn, Sequence};
use crate::domain::snapshot::Snapshot;
use crate::feed::query;
use crate::feed::sink::{Accept, Head, Row, Side, Sink};

const SCOPES: [&str; 5] = ["", "a", "b", "c", "rare"];

#[derive(Clone, Debug)]
enum Act {
    Commit(Vec<Change>),
    Abandon(Vec<Change>),
    /// Sends the newest transaction again.
    Repeat,
    Advance,
    /// A standby was promoted: so many seconds of what is still to come had committed before.
    Promote(u64),
    Flush,
    Reopen,
    /// Lets what is older than this many seconds before the newest go.
    Purge(u64),
    Read {
        scopes: Vec<usize>,
        back: usize,
        limit: usize,
        hide: Option<(u64, u64)>,
    },
}

#[derive(Clone, Debug)]
struct Change {
    scopes: Vec<(Side, usize)>,
    everyone: bool,
    padding: usize,
}

fn change() -> impl Strategy<Value = Change> {
    let side = prop_oneof![4 => Just(Side::Stays), 1 => Just(Side::Left), 1 => Just(Side::Entered)];
    let scopes = proptest::collection::vec((side, 0..SCOPES.len()), 0..3);
    let padding = prop_oneof![4 => 0_usize..100, 1 => 0_usize..9000];
    (scopes, proptest::bool::weighted(0.05), padding).prop_map(|(scopes, everyone, padding)| Change {
        scopes,
        everyone,
        padding,
    })
}

fn act() -> impl Strategy<Value = Act> {
    let changes = || {
        prop_oneof![
            8 => proptest::collection::vec(change(), 1..6),
            1 => proptest::collection::vec(change(), 50..90),
        ]
    };
    let scopes = proptest::collection::vec(0..SCOPES.len(), 1..4);
    let read = (scopes, 0_usize..300, 0_usize..60, proptest::option::of((0_u64..60, 0_u64..20)));
    prop_oneof![
        12 => changes().prop_map(Act::Commit),
        2 => changes().prop_map(Act::Abandon),
        1 => Just(Act::Repeat),
        1 => Just(Act::Advance),
        1 => (0_u64..12).prop_map(Act::Promote),
        6 => Just(Act::Flush),
        1 => Just(Act::Reopen),
        1 => (0_u64..200).prop_map(Act::Purge),
        12 => read.prop_map(|(scopes, back, limit, hide)| Act::Read { scopes, back, limit, hide }),
    ]
}

/// A change as the list has it.
struct Stored {
    sequence: Sequence,
    txid: u64,
    change: Change,
}

impl Stored {
    fn body(&self, wanted: &[&str]) -> Option<String> {
        let text = text(self.sequence, &self.change);
        let has = |side| self.change.scopes.iter().any(|(of, scope)| *of == side && wanted.contains(&SCOPES[*scope]));
        if self.change.everyone || has(Side::Stays) || (has(Side::Left) && has(Side::Entered)) {
            return Some(text);
        }
        if has(Side::Left) {
            return Some(format!("left {text}"));
        }
        has(Side::Entered).then(|| format!("entered {text}"))
    }
}

fn text(sequence: Sequence, change: &Change) -> String {
    format!("{sequence} {}", "x".repeat(change.padding))
}

fn push_all(writer: &mut super::super::Writer, head: &Head, changes: &[Change]) {
    for (index, change) in (0..).zip(changes) {
        let body = text(head.sequence(index), change);
        let (left, entered) = (format!("left {body}"), format!("entered {body}"));
        let scopes: Vec<_> = change.scopes.iter().map(|(side, scope)| (*side, SCOPES[*scope])).collect();
        let row = Row {
            index,
            scopes: if change.everyone { &[] } else { &scopes },
            to_everyone: change.everyone,
            body: body.as_bytes(),
            left_body: left.as_bytes(),
            entered_body: entered.as_bytes(),
        };
        writer.push(&row).unwrap();
    }
}

/// The head of the transaction that commits at `lsn`.
fn head_on(history: &History, lsn: u64) -> Head {
    Head { timeline: history.timeline_of(Lsn(lsn)), ..head(lsn) }
}

/// The history after another promotion, at `fork` or where the last one was, if that is still ahead.
fn promoted(history: &History, fork: Lsn) -> History {
    let ended = history.ended().iter().copied().map(|(timeline, ended_at)| (timeline, ended_at.min(fork)));
    History::new(history.current() + 1, ended.chain([(history.current(), fork)]).collect())
}

fn run(acts: &[Act]) {
    let folder = tempfile::tempdir().unwrap();
    let config = small(folder.path());
    let mut open_now = Some(open(&config).unwrap());
    let (mut list, mut visible, mut lsn) = (Vec::<Stored>::new(), 0, 10);
    // The sequence up to which everything has been purged.
    let mut floor = Sequence::ZERO;
    let mut history = History::default();
    for act in acts {
        let (writer, journal) = open_now.as_mut().unwrap();
        match act {
            Act::Commit(changes) => {
                lsn += 3;
                let head = head_on(&history, lsn);
                assert_eq!(writer.begin(&head).unwrap(), Accept::Take);
                push_all(writer, &head, changes);
                writer.commit(Lsn(lsn + 1)).unwrap();
                list.extend((0..).zip(changes).map(|(index, change)| Stored {
                    sequence: head.sequence(index),
                    txid: lsn,
                    change: change.clone(),
                }));
            }
            Act::Abandon(changes) => {
                let head = head_on(&history, lsn + 3);
                assert_eq!(writer.begin(&head).unwrap(), Accept::Take);
                push_all(writer, &head, changes);
                writer.abandon();
            }
            Act::Repeat => {
                if let Some(newest) = list.last() {
                    assert_eq!(writer.begin(&head_on(&history, newest.sequence.lsn.0)).unwrap(), Accept::Skip);
                }
            }
            Act::Advance => writer.advance(Lsn(lsn + 2)),
            Act::Promote(ahead) => {
                history = promoted(&history, Lsn(lsn + 1 + ahead));
                writer.set_history(&history, Sequence::ZERO).unwrap();
                let beyond = Sequence::new(history.current() - 1, Lsn(lsn + 1 + ahead), 0);
                assert!(page(journal, &scopes(&["a"]), beyond, 1, None).is_err(), "{beyond} became no history");
                visible = list.len();
            }
            Act::Flush => {
                writer.flush().unwrap();
                visible = list.len();
            }
            Act::Reopen => {
                writer.flush().unwrap();
                visible = list.len();
                let range = journal.range();
                drop(open_now.take());
                let (writer, journal) = open(&config).unwrap();
                assert_eq!(journal.range(), range);
                open_now = Some((writer, journal));
            }
            Act::Purge(age) => {
                writer.flush().unwrap();
                let now = Timestamp::from_micros(0).after(Duration::from_secs((lsn + 100).saturating_sub(*age)));
                journal.purge(now).unwrap();
                let first = journal.range().first;
                let oldest = now.before(config.max_age);
                // What goes is old; the sequence before the first that is left is the floor.
                for gone in list.iter().filter(|stored| stored.sequence < first) {
                    assert!(head(gone.txid).committed_at < oldest, "purged too early: {}", gone.sequence);
                    floor = floor.max(gone.sequence);
                }
                if list.last().is_some_and(|newest| head(newest.txid).committed_at < oldest) {
                    floor = list.last().unwrap().sequence;
                    assert_eq!(journal.purge(now).unwrap(), 0);
                }
                list.retain(|stored| stored.sequence > floor);
                visible = list.len();
            }
            Act::Read { scopes: wanted, back, limit, hide } => {
                // A flush that a full buffer made may have shown more.
                let newest = journal.range().last;
                visible = visible.max(list.partition_point(|stored| stored.sequence <= newest));
                let since = match list[..visible].len().checked_sub(*back) {
                    Some(at) if at > 0 => list[at - 1].sequence,
                    Some(_) | None => floor,
                };
                let hide = hide.map(|(back, span)| {
                    let xmin = lsn.saturating_sub(back).max(1);
                    format!("{xmin}:{}:{}", xmin + span, xmin + span / 2).parse::<Snapshot>().unwrap()
                });
                check(journal, &list[..visible], floor, since, wanted, *limit, hide.as_ref());
            }
        }
    }
}

fn check(
    journal: &super::super::Journal,
    list: &[Stored],
    floor: Sequence,
    since: Sequence,
    wanted: &[usize],
    limit: usize,
    hide: Option<&Snapshot>,
) {
    let names: Vec<&str> = wanted.iter().map(|scope| SCOPES[*scope]).collect();
    let answer = page(journal, &scopes(&names), since, limit, hide);
    if since == Sequence::ZERO && floor > Sequence::ZERO && hide.is_some() {
        // Whether the snapshot completes what was purged has its own tests.
        assert!(matches!(answer, Ok(_) | Err(query::Error::TooOld)));
        return;
    }
    let page = answer.unwrap();
    let hidden = |stored: &&Stored| hide.is_none_or(|snapshot| !snapshot.shows(stored.txid));
    let found: Vec<(Sequence, String)> = list
        .iter()
        .filter(|stored| stored.sequence > since)
        .filter(hidden)
        .filter_map(|stored| Some((stored.sequence, stored.body(&names)?)))
        .take(limit)
        .collect();
    let newest = list.last().map_or(floor, |stored| stored.sequence);
    let last = match found.last() {
        _ if limit == 0 => since,
        Some((sequence, _)) if found.len() == limit => *sequence,
        Some(_) | None => newest.max(since),
    };
    assert_eq!(bodies(&page), found.into_iter().map(|(_, body)| body).collect::<Vec<_>>());
    assert_eq!(page.last, last);
    assert_eq!(page.first, list.first().map_or(floor, |stored| stored.sequence));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn it_reads_what_was_written(acts in proptest::collection::vec(act(), 1..150)) {
        run(&acts);
    }
}
