//! The words of this face: its parameters, and a snapshot as JSON. The rows come rendered from the feed.

use super::error::Failure;
use crate::domain::scope::Scope;
use crate::feed::snapshots::{Error, Row, Snapshot, Table};
use crate::http::common::indent::Indent;
use crate::http::common::{parameters, scopes};
use crate::service::snapshots::Form;

/// How much room an indented snapshot keeps for the row that comes next.
const ROOM_BYTES: usize = 64 * 1024;

/// A call, read and checked.
#[derive(Debug)]
pub(super) struct Request {
    /// At least one.
    pub(super) scopes: Vec<Scope>,
    /// Whether the answer is for human eyes.
    pub(super) pretty: bool,
}

/// Reads the parameters.
pub(super) fn request(query: &str) -> Result<Request, Failure> {
    let mut given = scopes::Given::default();
    let mut pretty = false;
    for (name, value) in parameters::pairs(query) {
        // A name that cannot be read is none of ours, and unknown parameters are ignored.
        if let Ok(name) = name {
            pretty |= name == "pretty";
            given.take(&name, value);
        }
    }
    let scopes = given.parse()?;
    if scopes.is_empty() { Err(Failure::missing_scope()) } else { Ok(Request { scopes, pretty }) }
}

/// A snapshot as one JSON object.
#[derive(Debug, Default)]
pub(super) struct Json {
    /// A table is open, and others may follow it.
    table: bool,
    /// It has rows already.
    rows: bool,
}

impl Form for Json {
    fn head(&mut self, snapshot: &Snapshot, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"snapshotInfo\":");
        string(out, snapshot.info());
        out.extend_from_slice(b",\"timestamp\":");
        string(out, snapshot.taken_at());
        out.extend_from_slice(b",\"tables\":[");
    }

    fn table(&mut self, table: &Table, out: &mut Vec<u8>) {
        if self.table {
            out.extend_from_slice(b"]},");
        }
        out.extend_from_slice(b"{\"name\":");
        string(out, &table.name);
        out.extend_from_slice(b",\"rows\":[");
        *self = Self { table: true, rows: false };
    }

    fn row(&mut self, row: &Row<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        if self.rows {
            out.push(b',');
        }
        self.rows = true;
        row.json(out)
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        if self.table {
            out.extend_from_slice(b"]}");
        }
        out.extend_from_slice(b"]}");
    }
}

/// The same indented, with a newline at its end. A part is indented as soon as it has been written.
#[derive(Debug, Default)]
pub(super) struct Pretty {
    json: Json,
    indent: Indent,
    /// The part, kept for its room.
    compact: Vec<u8>,
}

impl Pretty {
    fn indent<T>(&mut self, out: &mut Vec<u8>, write: impl FnOnce(&mut Json, &mut Vec<u8>) -> T) -> T {
        let written = write(&mut self.json, &mut self.compact);
        self.indent.write(&self.compact, out);
        self.compact.clear();
        // What one large row took is not kept for all that follow.
        self.compact.shrink_to(ROOM_BYTES);
        written
    }
}

impl Form for Pretty {
    fn head(&mut self, snapshot: &Snapshot, out: &mut Vec<u8>) {
        self.indent(out, |json, compact| json.head(snapshot, compact));
    }

    fn table(&mut self, table: &Table, out: &mut Vec<u8>) {
        self.indent(out, |json, compact| json.table(table, compact));
    }

    fn row(&mut self, row: &Row<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        self.indent(out, |json, compact| json.row(row, compact))
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        self.indent(out, Json::end);
        out.push(b'\n');
    }
}

fn string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a text can be written into memory");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_names_only_so_many_scopes() {
        use crate::domain::limits::SCOPES_MAX;
        let query = |count: usize| (0..count).map(|n| format!("&scope=s{n}")).collect::<String>();
        assert_eq!(request(&query(SCOPES_MAX)).map(|request| request.scopes.len()), Ok(SCOPES_MAX));
        let refused = request(&query(SCOPES_MAX + 1)).map(|request| request.scopes).map_err(|failure| failure.code());
        assert_eq!(refused, Err("PARAMETER_INVALID"));
    }

    #[test]
    fn a_call_names_at_least_one_scope() {
        for (query, expected) in [
            ("scope=b&selector=a&scope=b&other=1", Ok(vec!["a", "b"])),
            ("scope=&selector=x", Ok(vec!["x"])),
            ("", Err("MISSING_SCOPE")),
            ("scope=", Err("MISSING_SCOPE")),
            ("block=1", Err("MISSING_SCOPE")),
            ("scope=a&scope=b%20", Err("PARAMETER_INVALID")),
            ("scope=%ff", Err("PARAMETER_INVALID")),
            ("sc%ffope=a", Err("MISSING_SCOPE")),
            ("%zz=1&scope=a&sc%ffope=b", Ok(vec!["a"])),
        ] {
            let request = request(query);
            let read = request.as_ref().map(|request| request.scopes.iter().map(Scope::as_str).collect::<Vec<_>>());
            assert_eq!(read.map_err(|failure| failure.code()), expected, "{query}");
        }
    }
}
