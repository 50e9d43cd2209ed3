//! A table of a snapshot, and its rows as `/changes` shows them.

use tokio_postgres::SimpleQueryRow;

use super::error::Error;
use super::session::broken;
use crate::feed::assemble::{Field, Values, qualified};
use crate::feed::pgoutput::Attribute;

/// A published table, as the catalog had it.
#[derive(Debug, PartialEq, Eq)]
pub struct Table {
    /// `schema.table`, each in quotes where it needs them.
    pub name: String,
    /// Its published columns, in the order of every row.
    pub columns: Vec<Column>,
    pub(super) lock_sql: String,
    pub(super) read_sql: String,
}

/// A published column.
#[derive(Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The oid of its type.
    pub type_id: u32,
    field: Field,
}

/// One row of a table.
#[derive(Debug)]
pub struct Row<'a> {
    /// Its table.
    pub table: &'a Table,
    pub(super) values: SimpleQueryRow,
}

impl Table {
    pub(super) fn new<'a>(
        schema: &str,
        name: &str,
        columns: impl Iterator<Item = (&'a str, u32)>,
        lock_sql: String,
        read_sql: String,
    ) -> Self {
        let column = |(name, type_id): (&str, u32)| {
            let attribute = Attribute { is_key: false, name: name.as_bytes(), type_id, type_modifier: -1 };
            Column { name: name.to_owned(), type_id, field: Field::new(&attribute) }
        };
        let name = qualified(schema.as_bytes(), name.as_bytes());
        Self { name, columns: columns.map(column).collect(), lock_sql, read_sql }
    }
}

impl Row<'_> {
    /// Each column with its value in PostgreSQL's text form; none for NULL.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] where the row does not fit its table, or is no UTF-8.
    pub fn values(&self) -> impl Iterator<Item = Result<(&Column, Option<&str>), Error>> {
        let value = |(at, column)| Ok((column, self.values.try_get(at).map_err(broken)?));
        self.table.columns.iter().enumerate().map(value)
    }

    /// Appends the row as JSON, as the feed has a `newRow`.
    ///
    /// # Errors
    ///
    /// As [`Row::values`].
    pub fn json(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        let mut values = Values::default();
        out.push(b'{');
        for value in self.values() {
            let (column, text) = value?;
            values.push(out, &column.field, text.map(str::as_bytes));
        }
        out.push(b'}');
        Ok(())
    }
}
