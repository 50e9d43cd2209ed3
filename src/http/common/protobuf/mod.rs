//! The messages of `proto/transicator.proto`, which says what they mean, and the way there from PostgreSQL's texts.
//!
//! They are written by hand, so that no compiler of protobuf is needed to build; a test holds them to the file.

mod value;
pub mod wire;

#[cfg(test)]
mod agreement;

pub use value::{Value, value};

/// One value; without a field it is NULL.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ValuePb {
    /// Holds the value.
    #[prost(oneof = "ValueField", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub value: Option<ValueField>,
}

/// The fields of [`ValuePb`], one of which holds the value.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum ValueField {
    /// PostgreSQL's text.
    #[prost(string, tag = "1")]
    String(String),
    /// int2, int4, int8.
    #[prost(int64, tag = "2")]
    Int(i64),
    /// oid.
    #[prost(uint64, tag = "3")]
    Uint(u64),
    /// float4, float8.
    #[prost(double, tag = "4")]
    Double(f64),
    /// bytea.
    #[prost(bytes, tag = "5")]
    Bytes(Vec<u8>),
    /// bool.
    #[prost(bool, tag = "6")]
    Bool(bool),
    /// Microseconds since 2000-01-01 UTC; never sent.
    #[prost(int64, tag = "7")]
    Timestamp(i64),
}

/// A column, with its value where it stands in a row.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ColumnPb {
    /// Its name.
    #[prost(string, required, tag = "1")]
    pub name: String,
    /// Its value; absent means NULL.
    #[prost(message, optional, tag = "2")]
    pub value: Option<ValuePb>,
    /// The oid of its type.
    #[prost(int32, optional, tag = "3")]
    pub r#type: Option<i32>,
}

/// One row of one committed transaction, or a TRUNCATE.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ChangePb {
    /// 1 insert, 2 update, 3 delete, 4 truncate.
    #[prost(int32, required, tag = "1")]
    pub operation: i32,
    /// `schema.table`, quoted where needed.
    #[prost(string, required, tag = "2")]
    pub table: String,
    /// Where the change stands.
    #[prost(string, optional, tag = "3")]
    pub sequence: Option<String>,
    /// The LSN of the transaction's commit.
    #[prost(uint64, optional, tag = "4")]
    pub commit_sequence: Option<u64>,
    /// The LSN of the change itself.
    #[prost(uint64, optional, tag = "5")]
    pub change_sequence: Option<u64>,
    /// Counts the published rows of the transaction from 0.
    #[prost(uint32, optional, tag = "6")]
    pub commit_index: Option<u32>,
    /// The transaction's id without its epoch; not sent.
    #[prost(uint32, optional, tag = "7")]
    pub transaction_id: Option<u32>,
    /// The row as it is now.
    #[prost(message, repeated, tag = "8")]
    pub new_columns: Vec<ColumnPb>,
    /// The row, or its key, as it was before.
    #[prost(message, repeated, tag = "9")]
    pub old_columns: Vec<ColumnPb>,
    /// When the transaction committed, in Unix seconds.
    #[prost(int64, optional, tag = "10")]
    pub timestamp: Option<i64>,
    /// The transaction's id with its epoch.
    #[prost(uint64, optional, tag = "11")]
    pub transaction_id_epoch: Option<u64>,
    /// The columns that are missing in `new_columns`, since PostgreSQL did not send what had not changed.
    #[prost(string, repeated, tag = "20")]
    pub unchanged_columns: Vec<String>,
}

/// The body of an answer of `GET /changes`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ChangeListPb {
    /// Where to follow on.
    #[prost(string, optional, tag = "1")]
    pub last_sequence: Option<String>,
    /// The oldest change that is still there.
    #[prost(string, optional, tag = "2")]
    pub first_sequence: Option<String>,
    /// The changes in commit order.
    #[prost(message, repeated, tag = "3")]
    pub changes: Vec<ChangePb>,
}

/// The first frame of a snapshot.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SnapshotHeaderPb {
    /// When it was taken.
    #[prost(string, required, tag = "1")]
    pub timestamp: String,
    /// `xmin:xmax:xips`.
    #[prost(string, required, tag = "2")]
    pub snapshot: String,
}

/// Begins a table.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TableHeaderPb {
    /// `schema.table`, quoted where needed.
    #[prost(string, required, tag = "1")]
    pub name: String,
    /// The columns of its rows, without values.
    #[prost(message, repeated, tag = "2")]
    pub columns: Vec<ColumnPb>,
}

/// A row of the table that was begun last.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RowPb {
    /// One value for each of the table's columns.
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<ValuePb>,
}

/// Every frame of a snapshot behind the first.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StreamMessagePb {
    /// What it is.
    #[prost(oneof = "StreamField", tags = "1, 2")]
    pub message: Option<StreamField>,
}

/// The fields of [`StreamMessagePb`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum StreamField {
    /// A table begins.
    #[prost(message, tag = "1")]
    Table(TableHeaderPb),
    /// A row.
    #[prost(message, tag = "2")]
    Row(RowPb),
}
