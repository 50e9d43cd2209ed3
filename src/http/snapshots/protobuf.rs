//! A snapshot as frames of protobuf: each a length, four bytes big endian, and a message so long.

use prost::Message;

use crate::feed::snapshots::{Error, Row, Snapshot, Table};
use crate::feed::source;
use crate::http::common::protobuf::{
    ColumnPb, RowPb, SnapshotHeaderPb, StreamField, StreamMessagePb, TableHeaderPb, value,
};
use crate::service::snapshots::Form;

/// Writes frames.
#[derive(Debug, Default)]
pub(super) struct Frames {}

impl Form for Frames {
    fn head(&mut self, snapshot: &Snapshot, out: &mut Vec<u8>) {
        let header =
            SnapshotHeaderPb { timestamp: snapshot.taken_at().to_owned(), snapshot: snapshot.info().to_owned() };
        frame(out, &header).expect("a few words fit into a frame");
    }

    fn table(&mut self, table: &Table, out: &mut Vec<u8>) {
        let column = |column: &crate::feed::snapshots::Column| ColumnPb {
            name: column.name.clone(),
            value: None,
            // Types have unsigned numbers; on this wire they are signed.
            r#type: Some(column.type_id.cast_signed()),
        };
        let columns = table.columns.iter().map(column).collect();
        let table = StreamField::Table(TableHeaderPb { name: table.name.clone(), columns });
        frame(out, &StreamMessagePb { message: Some(table) }).expect("the names of 1,600 columns fit into a frame");
    }

    fn row(&mut self, row: &Row<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        let values = row.values().map(|told| told.map(|(column, text)| value(column.type_id, text)));
        let row = StreamField::Row(RowPb { values: values.collect::<Result<_, _>>()? });
        frame(out, &StreamMessagePb { message: Some(row) })
            .ok_or(Error::Unavailable(source::Error::Protocol { what: "a row of more than 2 GiB" }))
    }

    fn end(&mut self, _: &mut Vec<u8>) {}
}

/// None where the message is longer than a frame can say.
fn frame(out: &mut Vec<u8>, message: &impl Message) -> Option<()> {
    let length = i32::try_from(message.encoded_len()).ok()?;
    out.extend_from_slice(&length.to_be_bytes());
    message.encode_raw(out);
    Some(())
}
