//! From messages to rendered transactions: relations, scopes, JSON.
//!
//! One assembler lives as long as one replication connection: PostgreSQL tells the columns of a table once a
//! connection. Rows go to the sink as they come, so that the size of a transaction does not matter here; each is
//! rendered once, into buffers that are used again.

mod json;
mod name;
mod partitions;
mod relation;
mod render;
mod scopes;
mod txid;

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use crate::domain::change::Operation;
use crate::domain::history::History;
use crate::domain::sequence::Lsn;
use crate::feed::pgoutput::{self, Begin, Commit, Delete, Insert, Message, Truncate, Update};
use crate::feed::sink::{Accept, Head, Row, Side, Sink};
use partitions::Partitions;
use relation::Relation;
use render::{Change, Place, Stamp};
use scopes::{Scopes, Sides};
use txid::Widening;

pub(in crate::feed) use name::qualified;
pub(in crate::feed) use relation::Field;
pub(in crate::feed) use render::Values;

/// How rows find their scopes.
#[derive(Clone, Debug)]
pub struct Config {
    /// The columns that may name a row's scope; the first that a table has counts.
    pub selector_columns: Vec<String>,
}

/// Where the stream stands after a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Inside a transaction.
    Within,
    /// At the end of one, whether or not it had rows for the sink: everything before `end_lsn` has been told.
    Committed {
        /// The position behind the transaction, to acknowledge once what it brought is durable.
        end_lsn: Lsn,
    },
    /// Between transactions.
    Idle,
}

/// Why a message could not be taken. Either way the connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum Error<S: std::error::Error + 'static> {
    /// The stream is not what PostgreSQL promises: a defect on one of the two sides, which another attempt meets again.
    #[error("the replication stream makes no sense")]
    Stream(#[source] Violation),
    /// The sink failed.
    #[error("the sink took no change")]
    Sink(#[source] S),
}

/// In which way the stream makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The bytes are no message.
    #[error("a message cannot be decoded")]
    Malformed(#[from] pgoutput::Error),
    /// A message at a place where it cannot be.
    #[error("{message} at the wrong place")]
    Misplaced {
        /// Which message.
        message: &'static str,
    },
    /// A row of a table whose columns were never told.
    #[error("relation {id} was never described")]
    UnknownRelation {
        /// The relation's id.
        id: u32,
    },
    /// A row with more or fewer values than its table has columns.
    #[error("a row of relation {id} does not fit the columns told for it")]
    ColumnCount {
        /// The relation's id.
        id: u32,
    },
    /// A value in binary form, which was not asked for.
    #[error("a value of relation {id} is in binary form")]
    Binary {
        /// The relation's id.
        id: u32,
    },
    /// More rows than an index can count.
    #[error("a transaction has more than 4294967295 rows")]
    TooManyRows,
}

impl<S: std::error::Error + 'static, V: Into<Violation>> From<V> for Error<S> {
    fn from(violation: V) -> Self {
        Self::Stream(violation.into())
    }
}

/// Turns the messages of one replication connection into transactions for a [`Sink`].
#[derive(Debug)]
pub struct Assembler {
    config: Config,
    history: History,
    widening: Widening,
    /// By oid. PostgreSQL never repeats a description that it believes is known, so none may be dropped.
    relations: HashMap<u32, Relation>,
    partitions: Partitions,
    open: Option<Open>,
    buffers: Buffers,
}

/// The transaction that is being told.
#[derive(Debug)]
struct Open {
    head: Head,
    /// How many rows there were.
    rows: u32,
    /// What the sink said at the first row; none before it.
    accept: Option<Accept>,
    stamp: Stamp,
}

/// Where a row is rendered.
#[derive(Debug, Default)]
struct Buffers {
    body: Vec<u8>,
    left: Vec<u8>,
    entered: Vec<u8>,
}

impl Assembler {
    /// An assembler for a connection to a server with this history: a transaction belongs to the timeline that it
    /// committed on, also where it is received after a promotion, so that all who receive it agree on its sequences.
    /// `txid_now` is the server's 64-bit transaction counter at that time (`pg_snapshot_xmax(pg_current_snapshot())`),
    /// against which the stream's 32-bit ids are widened.
    pub fn new(config: Config, history: History, txid_now: u64) -> Self {
        Self {
            config,
            history,
            widening: Widening::near(txid_now),
            relations: HashMap::new(),
            partitions: Partitions::default(),
            open: None,
            buffers: Buffers::default(),
        }
    }

    /// Takes one message of pgoutput. `lsn` is where the log has it (the start of its XLogData), zero where that is not
    /// known. A transaction reaches the sink with its first row; one without rows never does.
    pub fn message<S: Sink>(&mut self, lsn: Lsn, payload: &[u8], sink: &mut S) -> Result<Progress, Error<S::Error>> {
        match Message::parse(payload)? {
            Message::Insert(Insert { relation, new }) => {
                self.row(lsn, &Change { relation, operation: Operation::Insert, new: Some(new), old: None }, sink)?;
            }
            Message::Update(Update { relation, old, new }) => {
                self.row(lsn, &Change { relation, operation: Operation::Update, new: Some(new), old }, sink)?;
            }
            Message::Delete(Delete { relation, old }) => {
                self.row(lsn, &Change { relation, operation: Operation::Delete, new: None, old: Some(old) }, sink)?;
            }
            Message::Begin(begin) => self.begin(&begin)?,
            Message::Commit(commit) => return self.commit(&commit, sink),
            Message::Relation(relation) => self.describe(&relation),
            Message::Truncate(truncate) => self.truncate(lsn, &truncate, sink)?,
            Message::Logical(_) | Message::Origin(_) | Message::Type(_) => {}
        }
        Ok(if self.open.is_some() { Progress::Within } else { Progress::Idle })
    }

    fn describe(&mut self, relation: &pgoutput::Relation<'_>) {
        self.partitions.describe(relation.id);
        let mut known = Relation::new(relation, &self.config.selector_columns);
        known.set_partial_keys(&self.partitions.partial_keys(relation.id));
        self.relations.insert(relation.id, known);
    }

    /// Notes the partition that a row is the first one of, told as this table.
    fn note_partition(&mut self, table: u32) {
        let Some(partition) = self.partitions.of_row(table) else { return };
        let partial = self.relations.get(&partition).filter(|partition| !partition.is_full);
        self.partitions.attach(partition, table, partial.map(|partition| partition.key.clone()));
        if let Some(known) = self.relations.get_mut(&table) {
            known.set_partial_keys(&self.partitions.partial_keys(table));
        }
    }

    fn begin(&mut self, begin: &Begin) -> Result<(), Violation> {
        if self.open.is_some() {
            return Err(Violation::Misplaced { message: "Begin" });
        }
        let head = Head {
            timeline: self.history.timeline_of(begin.final_lsn),
            commit_lsn: begin.final_lsn,
            txid: self.widening.widen(begin.xid),
            committed_at: begin.committed_at,
        };
        self.open = Some(Open { head, rows: 0, accept: None, stamp: Stamp::default() });
        Ok(())
    }

    fn commit<S: Sink>(&mut self, commit: &Commit, sink: &mut S) -> Result<Progress, Error<S::Error>> {
        match self.open.take() {
            Some(open) if open.head.commit_lsn == commit.commit_lsn => {
                if open.accept == Some(Accept::Take) {
                    sink.commit(commit.end_lsn).map_err(Error::Sink)?;
                }
                Ok(Progress::Committed { end_lsn: commit.end_lsn })
            }
            Some(_) | None => Err(Violation::Misplaced { message: "Commit" }.into()),
        }
    }

    /// Tells the sink of one row, if it wants the transaction.
    fn row<S: Sink>(&mut self, lsn: Lsn, change: &Change<'_>, sink: &mut S) -> Result<(), Error<S::Error>> {
        self.note_partition(change.relation);
        let open = self.open.as_mut().ok_or(Violation::Misplaced { message: "a row" })?;
        let relation = known(&self.relations, change.relation)?;
        if relation.is_private {
            return Ok(());
        }
        let Some(index) = open.next_index(sink)? else { return Ok(()) };
        for tuple in change.new.iter().chain(change.old.as_ref().map(|old| &old.tuple)) {
            relation.check(change.relation, tuple)?;
        }
        let place = open.place(lsn, index);
        let sides = sides(relation, change);
        let Buffers { body, left, entered } = &mut self.buffers;
        change.render(relation, &place, body)?;
        left.clear();
        if sides.any(Side::Left) {
            Change { operation: Operation::Delete, new: None, ..*change }.render(relation, &place, left)?;
        }
        entered.clear();
        if sides.any(Side::Entered) {
            // The old row stays with the change, for the values that the new one took over from it unchanged.
            Change { operation: Operation::Insert, ..*change }.render(relation, &place, entered)?;
        }
        let scopes = sides.as_slice();
        let row = Row { index, scopes, to_everyone: false, body, left_body: left, entered_body: entered };
        sink.push(&row).map_err(Error::Sink)
    }

    /// Tells the sink of emptied tables, if it wants the transaction: each is a change of its own, for every reader.
    fn truncate<S: Sink>(&mut self, lsn: Lsn, truncate: &Truncate<'_>, sink: &mut S) -> Result<(), Error<S::Error>> {
        let open = self.open.as_mut().ok_or(Violation::Misplaced { message: "Truncate" })?;
        for id in truncate.relations() {
            // Tables are described for it one by one, and no partition beside its root.
            self.partitions.of_row(id);
            let relation = known(&self.relations, id)?;
            if relation.is_private {
                continue;
            }
            let Some(index) = open.next_index(sink)? else { return Ok(()) };
            let change = Change { relation: id, operation: Operation::Truncate, new: None, old: None };
            let body = &mut self.buffers.body;
            change.render(relation, &open.place(lsn, index), body)?;
            let row = Row { index, scopes: &[], to_everyone: true, body, left_body: &[], entered_body: &[] };
            sink.push(&row).map_err(Error::Sink)?;
        }
        Ok(())
    }
}

impl Open {
    /// The index of the next row; none where the sink has the transaction already. Asks it at the first row.
    fn next_index<S: Sink>(&mut self, sink: &mut S) -> Result<Option<u32>, Error<S::Error>> {
        let index = self.rows;
        self.rows = index.checked_add(1).ok_or(Violation::TooManyRows)?;
        let accept = match self.accept {
            Some(accept) => accept,
            None => {
                self.stamp = Stamp::new(&self.head);
                *self.accept.insert(sink.begin(&self.head).map_err(Error::Sink)?)
            }
        };
        Ok(match accept {
            Accept::Take => Some(index),
            Accept::Skip => None,
        })
    }

    fn place(&self, lsn: Lsn, index: u32) -> Place<'_> {
        let lsn = if lsn == Lsn::default() { self.head.commit_lsn } else { lsn };
        Place { stamp: &self.stamp, lsn, index }
    }
}

fn known(relations: &HashMap<u32, Relation>, id: u32) -> Result<&Relation, Violation> {
    relations.get(&id).ok_or(Violation::UnknownRelation { id })
}

/// Which scopes a change is told to. Where the log lacks the old scope, an update counts as one that moved nothing and
/// a deleted row as one of the empty scope: `doctor` names the tables where that can happen. Where it lacks the scope of a
/// row that is there, since the update left a large value alone, the row's values are told to nobody.
fn sides<'a>(relation: &Relation, change: &Change<'a>) -> Sides<'a> {
    let unknown = |scopes| {
        metrics::counter!("walclock_feed_scope_unknown_total").increment(1);
        scopes
    };
    let before = change.old.as_ref().and_then(|old| relation.scopes_before(old));
    let Some(new) = &change.new else { return Sides::staying(&before.unwrap_or_else(|| unknown(Scopes::EMPTY))) };
    let after = relation.scopes_after(new, change.old.as_ref()).unwrap_or_else(|| unknown(Scopes::UNKNOWN));
    match before {
        Some(before) => Sides::moving(&before, &after),
        None => Sides::staying(&after),
    }
}
