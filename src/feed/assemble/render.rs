//! A change as the contract's JSON.

use super::relation::{self, Field, Relation};
use super::{Violation, json};
use crate::domain::change::Operation;
use crate::domain::sequence::Lsn;
use crate::feed::pgoutput::{Column, Old, Tuple};
use crate::feed::sink::Head;

/// What all changes of a transaction have in common, rendered once.
#[derive(Debug, Default)]
pub(super) struct Stamp {
    /// `0.1390d838.`: the sequence but for its index.
    sequence: Vec<u8>,
    /// `","commitSequence":328259640,"changeSequence":`.
    commit: Vec<u8>,
    /// `,"txid":731,"timestamp":1763719200`.
    tail: Vec<u8>,
}

impl Stamp {
    pub(super) fn new(head: &Head) -> Self {
        let mut sequence = head.sequence(0).to_string().into_bytes();
        // The index 0, which each change replaces by its own.
        sequence.pop();
        let lsn = head.commit_lsn.0;
        let commit = format!("\",\"commitSequence\":{lsn},\"changeSequence\":").into_bytes();
        let seconds = head.committed_at.micros().div_euclid(1_000_000);
        let tail = format!(",\"txid\":{},\"timestamp\":{seconds}", head.txid).into_bytes();
        Self { sequence, commit, tail }
    }
}

/// Where a change stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// Its transaction.
    pub(super) stamp: &'a Stamp,
    /// Its own position in the log.
    pub(super) lsn: Lsn,
    /// Its index in the transaction.
    pub(super) index: u32,
}

/// One change of one row, or of a whole table: then it has no rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change<'a> {
    pub(super) relation: u32,
    pub(super) operation: Operation,
    pub(super) new: Option<Tuple<'a>>,
    pub(super) old: Option<Old<'a>>,
}

impl Change<'_> {
    /// Renders the change into `out`, in place of what was there.
    pub(super) fn render(&self, relation: &Relation, place: &Place<'_>, out: &mut Vec<u8>) -> Result<(), Violation> {
        out.clear();
        out.extend_from_slice(match self.operation {
            Operation::Insert => b"{\"operation\":1",
            Operation::Update => b"{\"operation\":2",
            Operation::Delete => b"{\"operation\":3",
            Operation::Truncate => b"{\"operation\":4",
        });
        out.extend_from_slice(&relation.table);
        out.extend_from_slice(&place.stamp.sequence);
        json::hex(out, place.index);
        out.extend_from_slice(&place.stamp.commit);
        json::decimal(out, place.lsn.0);
        out.extend_from_slice(b",\"commitIndex\":");
        json::decimal(out, u64::from(place.index));
        out.extend_from_slice(&place.stamp.tail);
        let mut unknown = false;
        if let Some(new) = &self.new {
            out.extend_from_slice(b",\"newRow\":{");
            unknown = self.new_row(relation, new, out)?;
            out.push(b'}');
        }
        // For who was not in the row's scopes before, an update is an insert, and the old row is none of their business.
        if let Some(old) = &self.old
            && self.operation != Operation::Insert
        {
            out.extend_from_slice(b",\"oldRow\":{");
            self.old_row(relation, old, out)?;
            out.push(b'}');
        }
        if unknown {
            out.extend_from_slice(b",\"unchangedColumns\":[");
            self.unknown_columns(relation, out);
            out.push(b']');
        }
        out.push(b'}');
        Ok(())
    }

    /// Writes the new row, and says whether it had to leave a column out.
    fn new_row(&self, relation: &Relation, new: &Tuple<'_>, out: &mut Vec<u8>) -> Result<bool, Violation> {
        let mut unknown = false;
        let mut list = Values::default();
        for (place, (field, column)) in relation.fields.iter().zip(new.columns()).enumerate() {
            match column {
                Column::Null => list.push(out, field, None),
                Column::Text(text) => list.push(out, field, Some(text)),
                Column::Unchanged => match self.old.as_ref().and_then(|old| relation.told_before(place, old)) {
                    Some(text) => list.push(out, field, Some(text)),
                    None => unknown = true,
                },
                Column::Binary(_) => return Err(Violation::Binary { id: self.relation }),
            }
        }
        Ok(unknown)
    }

    fn old_row(&self, relation: &Relation, old: &Old<'_>, out: &mut Vec<u8>) -> Result<(), Violation> {
        let is_whole = relation.is_whole(old);
        let mut list = Values::default();
        for (field, column) in relation.fields.iter().zip(old.tuple.columns()) {
            match column {
                column if !relation::tells(&column, is_whole) => {}
                Column::Null | Column::Unchanged => list.push(out, field, None),
                Column::Text(text) => list.push(out, field, Some(text)),
                Column::Binary(_) => return Err(Violation::Binary { id: self.relation }),
            }
        }
        Ok(())
    }

    fn unknown_columns(&self, relation: &Relation, out: &mut Vec<u8>) {
        let mut list = Values::default();
        let columns = self.new.iter().flat_map(Tuple::columns);
        for (place, (field, column)) in relation.fields.iter().zip(columns).enumerate() {
            let known = self.old.as_ref().is_some_and(|old| relation.told_before(place, old).is_some());
            if column == Column::Unchanged && !known {
                list.next(out);
                out.extend_from_slice(&field.name);
            }
        }
    }
}

/// Columns with their values, and the commas between them.
#[derive(Default)]
pub(in crate::feed) struct Values {
    begun: bool,
}

impl Values {
    fn next(&mut self, out: &mut Vec<u8>) {
        if self.begun {
            out.push(b',');
        }
        self.begun = true;
    }

    /// Writes the next column.
    pub(in crate::feed) fn push(&mut self, out: &mut Vec<u8>, field: &Field, text: Option<&[u8]>) {
        self.next(out);
        out.extend_from_slice(&field.open);
        match text {
            None => out.extend_from_slice(b"null"),
            Some(b"t") if field.is_bool => out.extend_from_slice(b"\"true\""),
            Some(b"f") if field.is_bool => out.extend_from_slice(b"\"false\""),
            Some(text) => json::string(out, text),
        }
        out.extend_from_slice(&field.close);
    }
}
