//! The other direction, for tests: messages as PostgreSQL writes them.

use super::{Attribute, Column, OldKind};

/// `B`.
pub(crate) fn begin(final_lsn: u64, micros_since_2000: i64, xid: u32) -> Vec<u8> {
    Output::new(b'B').bytes(&final_lsn.to_be_bytes()).bytes(&micros_since_2000.to_be_bytes()).u32(xid).0
}

/// `C`.
pub(crate) fn commit(commit_lsn: u64, end_lsn: u64, micros_since_2000: i64) -> Vec<u8> {
    let output = Output::new(b'C').u8(0).bytes(&commit_lsn.to_be_bytes()).bytes(&end_lsn.to_be_bytes());
    output.bytes(&micros_since_2000.to_be_bytes()).0
}

/// `O`.
pub(crate) fn origin(commit_lsn: u64, name: &[u8]) -> Vec<u8> {
    Output::new(b'O').bytes(&commit_lsn.to_be_bytes()).string(name).0
}

/// `R`.
pub(crate) fn relation(id: u32, schema: &[u8], name: &[u8], identity: u8, columns: &[Attribute<'_>]) -> Vec<u8> {
    let mut output = Output::new(b'R').u32(id).string(schema).string(name).u8(identity).count(columns.len());
    for column in columns {
        output = output.u8(u8::from(column.is_key)).string(column.name);
        output = output.u32(column.type_id).bytes(&column.type_modifier.to_be_bytes());
    }
    output.0
}

/// `Y`.
pub(crate) fn type_(id: u32, schema: &[u8], name: &[u8]) -> Vec<u8> {
    Output::new(b'Y').u32(id).string(schema).string(name).0
}

/// `I`.
pub(crate) fn insert(relation: u32, new: &[Column<'_>]) -> Vec<u8> {
    Output::new(b'I').u32(relation).tuple(b'N', new).0
}

/// `U`.
pub(crate) fn update(relation: u32, old: Option<(OldKind, &[Column<'_>])>, new: &[Column<'_>]) -> Vec<u8> {
    let output = Output::new(b'U').u32(relation);
    let output = match old {
        Some((kind, columns)) => output.tuple(mark(kind), columns),
        None => output,
    };
    output.tuple(b'N', new).0
}

/// `D`.
pub(crate) fn delete(relation: u32, kind: OldKind, old: &[Column<'_>]) -> Vec<u8> {
    Output::new(b'D').u32(relation).tuple(mark(kind), old).0
}

/// `T`.
pub(crate) fn truncate(relations: &[u32], cascade: bool, restart_identity: bool) -> Vec<u8> {
    let count = u32::try_from(relations.len()).expect("a test has few tables");
    let options = u8::from(cascade) | u8::from(restart_identity) << 1;
    relations.iter().fold(Output::new(b'T').u32(count).u8(options), |output, id| output.u32(*id)).0
}

/// `M`.
pub(crate) fn logical(transactional: bool, lsn: u64, prefix: &[u8], content: &[u8]) -> Vec<u8> {
    let output = Output::new(b'M').u8(u8::from(transactional)).bytes(&lsn.to_be_bytes());
    output.string(prefix).sized(content).0
}

fn mark(kind: OldKind) -> u8 {
    match kind {
        OldKind::Key => b'K',
        OldKind::Full => b'O',
    }
}

struct Output(Vec<u8>);

impl Output {
    fn new(kind: u8) -> Self {
        Self(vec![kind])
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn u8(self, byte: u8) -> Self {
        self.bytes(&[byte])
    }

    fn u32(self, number: u32) -> Self {
        self.bytes(&number.to_be_bytes())
    }

    fn count(self, count: usize) -> Self {
        self.bytes(&u16::try_from(count).expect("a test has few columns").to_be_bytes())
    }

    fn string(self, text: &[u8]) -> Self {
        self.bytes(text).u8(0)
    }

    fn sized(self, bytes: &[u8]) -> Self {
        self.u32(u32::try_from(bytes.len()).expect("a test has small values")).bytes(bytes)
    }

    fn tuple(self, mark: u8, columns: &[Column<'_>]) -> Self {
        columns.iter().fold(self.u8(mark).count(columns.len()), |output, column| match column {
            Column::Null => output.u8(b'n'),
            Column::Unchanged => output.u8(b'u'),
            Column::Text(text) => output.u8(b't').sized(text),
            Column::Binary(bytes) => output.u8(b'b').sized(bytes),
        })
    }
}
