//! A table as its rows need it: names rendered already, the scope column found.

use std::collections::BTreeSet;

use super::Violation;
use super::partitions::Key;
use super::scopes::{Scopes, Selector};
use super::{json, name};
use crate::feed::pgoutput::{self, Attribute, Column, Old, OldKind, ReplicaIdentity, Tuple};

/// The oid of `bool`, the one type whose text differs in JSON.
const BOOL: u32 = 16;

/// What is known of a table.
#[derive(Debug)]
pub(super) struct Relation {
    /// `,"table":"public.t","sequence":"`: the part of a change that names the table.
    pub(super) table: Vec<u8>,
    /// In the order of every row.
    pub(super) fields: Vec<Field>,
    /// Whether nobody is told of its rows, although a publication has them.
    pub(super) is_private: bool,
    /// Whether its own replica identity is full.
    pub(super) is_full: bool,
    /// The columns of its own key, where its replica identity is not full.
    pub(super) key: Key,
    /// What an old row may have in place of all its columns, by place: the keys of those partitions that it may come from
    /// and whose replica identity is not full.
    partial_keys: Vec<Vec<usize>>,
    selector: Selector,
}

/// What is known of a column.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::feed) struct Field {
    /// `"id"`.
    pub(super) name: Vec<u8>,
    /// `"id":{"value":`.
    pub(super) open: Vec<u8>,
    /// `,"type":23}`.
    pub(super) close: Vec<u8>,
    /// Whether its type is bool.
    pub(super) is_bool: bool,
}

impl Relation {
    pub(super) fn new(relation: &pgoutput::Relation<'_>, selector_columns: &[String]) -> Self {
        let mut table = b",\"table\":".to_vec();
        json::string(&mut table, name::qualified(relation.schema, relation.name).as_bytes());
        table.extend_from_slice(b",\"sequence\":\"");
        let fields: Vec<Field> = relation.attributes.map(|attribute| Field::new(&attribute)).collect();
        let of_key = fields.iter().zip(relation.attributes).filter(|(_, attribute)| attribute.is_key);
        Self {
            table,
            key: of_key.map(|(field, _)| field.name.clone()).collect(),
            fields,
            // A publication of all tables has walclock's own too, and the secrets in them. Of these only timers are told.
            is_private: relation.schema == b"walclock" && relation.name != b"timers",
            is_full: relation.identity == ReplicaIdentity::Full,
            partial_keys: Vec::new(),
            selector: Selector::of(relation, selector_columns),
        }
    }

    /// Says which keys its old rows may have in place of all columns.
    pub(super) fn set_partial_keys(&mut self, keys: &BTreeSet<&Key>) {
        let places = |key: &&Key| {
            let of_key = |(place, field): (usize, &Field)| key.contains(&field.name).then_some(place);
            self.fields.iter().enumerate().filter_map(of_key).collect()
        };
        self.partial_keys = keys.iter().map(places).collect();
    }

    /// Checks that a row has a value for every column.
    pub(super) fn check(&self, id: u32, tuple: &Tuple<'_>) -> Result<(), Violation> {
        match tuple.len() == self.fields.len() {
            true => Ok(()),
            false => Err(Violation::ColumnCount { id }),
        }
    }

    /// The scopes that a row has after a change; none where the stream does not tell.
    pub(super) fn scopes_after<'a>(&self, new: &Tuple<'a>, old: Option<&Old<'a>>) -> Option<Scopes<'a>> {
        self.selector.scopes(|place| match new.get(place)? {
            Column::Unchanged => self.told_before(place, old?).map(Column::Text),
            column @ (Column::Null | Column::Text(_) | Column::Binary(_)) => Some(column),
        })
    }

    /// The scopes that a row had before a change; none where the stream does not tell.
    pub(super) fn scopes_before<'a>(&self, old: &Old<'a>) -> Option<Scopes<'a>> {
        let is_whole = self.is_whole(old);
        self.selector.scopes(|place| old.tuple.get(place).filter(|column| tells(column, is_whole)))
    }

    /// The text that the old row has in a column, where it tells one.
    pub(super) fn told_before<'a>(&self, place: usize, old: &Old<'a>) -> Option<&'a [u8]> {
        match old.tuple.get(place)? {
            Column::Text(text) => Some(text),
            Column::Null | Column::Unchanged | Column::Binary(_) => None,
        }
    }

    /// Whether the log has all of this old row: PostgreSQL says so, and it has more than a partition's key.
    pub(super) fn is_whole(&self, old: &Old<'_>) -> bool {
        let has_more = |key: &Vec<usize>| {
            let mut columns = old.tuple.columns().enumerate();
            columns.any(|(place, column)| column != Column::Null && !key.contains(&place))
        };
        old.kind == OldKind::Full && self.partial_keys.iter().all(has_more)
    }
}

/// Whether a column of an old row says anything. A value is always true. A null is where the log has the whole row; else
/// it stands for all that the log lacks, and no column of a key is ever null.
pub(super) fn tells(column: &Column<'_>, is_whole: bool) -> bool {
    match column {
        Column::Text(_) | Column::Binary(_) => true,
        Column::Null => is_whole,
        // PostgreSQL always tells the whole of an old value; not telling it on is still the truth.
        Column::Unchanged => false,
    }
}

impl Field {
    pub(in crate::feed) fn new(attribute: &Attribute<'_>) -> Self {
        let mut name = Vec::new();
        json::string(&mut name, attribute.name);
        let mut open = name.clone();
        open.extend_from_slice(b":{\"value\":");
        let mut close = b",\"type\":".to_vec();
        json::decimal(&mut close, u64::from(attribute.type_id));
        close.push(b'}');
        Self { name, open, close, is_bool: attribute.type_id == BOOL }
    }
}
