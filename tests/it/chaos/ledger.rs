//! What the writers did, noted before and after each transaction, and what readers were told. Plain data.

use std::collections::{BTreeMap, BTreeSet};

use walclock::domain::sequence::Sequence;
use walclock::domain::snapshot::Snapshot;

/// A table and an id in it.
pub type Key = (String, i64);
/// The scopes of a row or of a reader; the empty scope is the empty text.
pub type Scopes = BTreeSet<String>;
/// What tables hold.
pub type Rows = BTreeMap<Key, Row>;

/// A row as a writer left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Grows with every act of its writer and never comes twice, not even after a rollback.
    pub n: i64,
    pub body: String,
    pub scopes: Scopes,
}

/// One thing that a transaction does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// An insert where there was no row before, else an update.
    Put {
        key: Key,
        before: Option<Row>,
        after: Row,
    },
    Delete {
        key: Key,
        before: Row,
    },
    Truncate {
        table: String,
    },
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Committed,
    Aborted,
    /// The connection broke before the answer.
    Unknown,
}

/// A transaction of a writer.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// The ledger's own number: PostgreSQL may use a txid again that a crash made it forget.
    pub number: i64,
    pub writer: usize,
    /// None until PostgreSQL has said it.
    pub txid: Option<u64>,
    pub outcome: Outcome,
    /// Without what was rolled back to a savepoint.
    pub acts: Vec<Act>,
}

/// A change as a reader sees it: operation (1 insert, 2 update, 3 delete, 4 truncate), where, and which state of the row.
pub type Seen = (u8, Key, i64);

/// A change that a reader was told.
#[derive(Clone, Debug)]
pub struct Told {
    pub sequence: Sequence,
    pub txid: u64,
    pub seen: Seen,
    /// The row's new body; none for a delete and a truncate.
    pub body: Option<String>,
    /// The change as it was sent, byte for byte.
    pub raw: String,
}

/// An answer, whole.
#[derive(Clone, Debug)]
pub struct Page {
    /// The cursor that it was asked with.
    pub since: Sequence,
    pub last: Sequence,
    pub changes: Vec<Told>,
}

/// The tables as a reader took them over.
#[derive(Clone, Debug)]
pub struct Base {
    pub snapshot: Snapshot,
    pub rows: Rows,
}

/// What a reader was told from a beginning until the server sent it back to another, or until the end.
#[derive(Clone, Debug, Default)]
pub struct Life {
    /// None where it began with the feed itself, on empty tables.
    pub base: Option<Base>,
    pub pages: Vec<Page>,
}

/// All that one reader was told. Every life but the last ended with SNAPSHOT_TOO_OLD.
#[derive(Clone, Debug)]
pub struct History {
    pub name: String,
    pub scopes: Scopes,
    pub lives: Vec<Life>,
}

impl Act {
    /// What a reader of these scopes sees of it, if anything. A row that leaves its scopes is deleted for it, one that
    /// enters them is inserted.
    pub fn seen_by(&self, wanted: &Scopes) -> Option<Seen> {
        let touches = |row: &Row| !row.scopes.is_disjoint(wanted);
        match self {
            Self::Truncate { table } => Some((4, (table.clone(), 0), 0)),
            Self::Delete { key, before } => touches(before).then(|| (3, key.clone(), before.n)),
            Self::Put { key, before, after } => {
                match (before.as_ref().filter(|before| touches(before)), touches(after)) {
                    (None, false) => None,
                    (None, true) => Some((1, key.clone(), after.n)),
                    (Some(_), true) => Some((2, key.clone(), after.n)),
                    (Some(before), false) => Some((3, key.clone(), before.n)),
                }
            }
        }
    }

    /// Does it.
    pub fn apply(&self, rows: &mut Rows) {
        match self {
            Self::Truncate { table } => rows.retain(|(of, _), _| of != table),
            Self::Delete { key, .. } => drop(rows.remove(key)),
            Self::Put { key, after, .. } => drop(rows.insert(key.clone(), after.clone())),
        }
    }

    /// The row that it leaves.
    pub fn after(&self) -> Option<&Row> {
        match self {
            Self::Put { after, .. } => Some(after),
            Self::Delete { .. } | Self::Truncate { .. } => None,
        }
    }
}

impl Transaction {
    pub fn committed(&self) -> bool {
        self.outcome == Outcome::Committed
    }

    /// What a reader of these scopes sees of it.
    pub fn seen_by(&self, wanted: &Scopes) -> Vec<Seen> {
        self.acts.iter().filter_map(|act| act.seen_by(wanted)).collect()
    }
}

impl Life {
    /// Everything told in it, in order.
    pub fn changes(&self) -> impl Iterator<Item = &Told> {
        self.pages.iter().flat_map(|page| &page.changes)
    }
}

impl History {
    pub fn new(name: &str, scopes: &[&str]) -> Self {
        let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        Self { name: name.to_owned(), scopes, lives: vec![Life::default()] }
    }
}

/// The part of some tables that a reader of these scopes has to know.
pub fn within(rows: &Rows, wanted: &Scopes) -> Rows {
    let of_it = rows.iter().filter(|(_, row)| !row.scopes.is_disjoint(wanted));
    of_it.map(|(key, row)| (key.clone(), row.clone())).collect()
}
