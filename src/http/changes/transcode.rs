//! One change from the journal's JSON to protobuf. It is read and written in one pass: texts go from the journal's bytes to
//! the answer without a copy between, and columns keep their order.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};

use crate::http::common::protobuf::{Value, wire};

/// A change in the journal is not what the feed writes: a defect.
#[derive(Debug, thiserror::Error)]
#[error("a change of the journal is not understood")]
pub(super) struct Error(#[from] serde_json::Error);

/// Appends the content of a `ChangePb` to `out`. After an error `out` holds a part of it.
pub(super) fn change(json: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    let text = std::str::from_utf8(json).map_err(serde_json::Error::custom)?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    deserializer.deserialize_map(Change(out))?;
    deserializer.end()?;
    Ok(())
}

/// The fields of a change.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "camelCase")]
enum Field {
    Operation,
    Table,
    Sequence,
    CommitSequence,
    ChangeSequence,
    CommitIndex,
    Txid,
    Timestamp,
    NewRow,
    OldRow,
    UnchangedColumns,
}

/// A text, borrowed where nothing in it is escaped.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// What a row has for a column.
#[derive(Deserialize)]
struct Column<'a> {
    #[serde(borrow)]
    value: Option<Text<'a>>,
    r#type: u32,
}

/// Writes a change as it is read.
struct Change<'o>(&'o mut Vec<u8>);

impl<'de> Visitor<'de> for Change<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a change")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self(out) = self;
        let (mut operation, mut table) = (false, false);
        while let Some(field) = map.next_key()? {
            match field {
                Field::Operation => {
                    operation = true;
                    wire::signed(out, 1, map.next_value()?);
                }
                Field::Table => {
                    table = true;
                    wire::delimited(out, 2, map.next_value::<Text<'_>>()?.0.as_bytes());
                }
                Field::Sequence => wire::delimited(out, 3, map.next_value::<Text<'_>>()?.0.as_bytes()),
                Field::CommitSequence => wire::unsigned(out, 4, map.next_value()?),
                Field::ChangeSequence => wire::unsigned(out, 5, map.next_value()?),
                Field::CommitIndex => wire::unsigned(out, 6, map.next_value()?),
                Field::Txid => wire::unsigned(out, 11, map.next_value()?),
                Field::Timestamp => wire::signed(out, 10, map.next_value()?),
                Field::NewRow => map.next_value_seed(Row { out, number: 8 })?,
                Field::OldRow => map.next_value_seed(Row { out, number: 9 })?,
                Field::UnchangedColumns => {
                    for name in map.next_value::<Vec<Text<'_>>>()? {
                        wire::delimited(out, 20, name.0.as_bytes());
                    }
                }
            }
        }
        if !operation {
            return Err(A::Error::missing_field("operation"));
        }
        if !table {
            return Err(A::Error::missing_field("table"));
        }
        Ok(())
    }
}

/// Writes the columns of a row as they are read.
struct Row<'o> {
    out: &'o mut Vec<u8>,
    /// The field that they are repeated under.
    number: u32,
}

impl<'de> DeserializeSeed<'de> for Row<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Row<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((name, column)) = map.next_entry::<Text<'_>, Column<'_>>()? {
            self::column(self.out, self.number, &name.0, &column);
        }
        Ok(())
    }
}

/// Writes a `ColumnPb` as the field `number`.
fn column(out: &mut Vec<u8>, number: u32, name: &str, column: &Column<'_>) {
    let value = Value::of(column.r#type, column.value.as_ref().map(|text| &*text.0));
    let value_len = value.encoded_len();
    // An oid is unsigned, the field is not: as in SQL, the upper half of the oids is negative there.
    let type_id = i64::from(column.r#type.cast_signed());
    let type_len = 1 + wire::varint_len(type_id.cast_unsigned());
    wire::open(out, number, wire::delimited_len(name.len()) + wire::delimited_len(value_len) + type_len);
    wire::delimited(out, 1, name.as_bytes());
    wire::open(out, 2, value_len);
    value.write(out);
    wire::signed(out, 3, type_id);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::common::protobuf::{ChangePb, ColumnPb, value};
    use proptest::prelude::*;
    use prost::Message;

    fn transcoded(json: &str) -> Result<ChangePb, Error> {
        let mut out = Vec::new();
        change(json.as_bytes(), &mut out)?;
        Ok(ChangePb::decode(&*out).expect("protobuf"))
    }

    fn string(text: &str) -> String {
        serde_json::to_string(text).expect("a text")
    }

    /// A column as PostgreSQL has it: name, type, text.
    type Plain = (String, u32, Option<String>);

    fn json_row(row: &[Plain]) -> String {
        let column = |(name, type_id, text): &Plain| {
            let value = text.as_deref().map_or("null".to_owned(), string);
            format!("{}:{{\"value\":{value},\"type\":{type_id}}}", string(name))
        };
        row.iter().map(column).collect::<Vec<_>>().join(",")
    }

    fn columns(row: &[Plain]) -> Vec<ColumnPb> {
        let column = |(name, type_id, text): &Plain| ColumnPb {
            name: name.clone(),
            value: Some(value(*type_id, text.as_deref())),
            r#type: Some(type_id.cast_signed()),
        };
        row.iter().map(column).collect()
    }

    fn any_text() -> impl Strategy<Value = String> {
        prop_oneof![".{0,40}", "-?[0-9]{1,20}(\\.[0-9]{1,5})?", "\\\\x([0-9a-f]{2}){0,70}", "[\\x00-\\x7f]{0,300}"]
    }

    fn any_row() -> impl Strategy<Value = Vec<Plain>> {
        let known = prop::sample::select(vec![16_u32, 17, 20, 21, 23, 25, 26, 700, 701, 1184, 1700]);
        let type_id = prop_oneof![4 => known, 1 => any::<u32>()];
        prop::collection::vec((".{1,12}", type_id, prop::option::of(any_text())), 0..6)
    }

    /// What a change has, but for its numbers.
    type Rows = (Option<Vec<Plain>>, Option<Vec<Plain>>, Vec<String>);

    fn any_rows() -> impl Strategy<Value = Rows> {
        let unchanged = prop::collection::vec(".{1,12}", 0..3);
        (prop::option::of(any_row()), prop::option::of(any_row()), unchanged)
    }

    proptest! {
        #[test]
        fn a_change_is_the_message_that_its_parts_make(
            operation in 1..=4_i32,
            (table, sequence) in (".{0,20}", "[0-9a-f.]{5,20}"),
            (commit, own, index, txid, timestamp) in any::<(u64, u64, u32, u64, i64)>(),
            (new, old, unchanged) in any_rows(),
        ) {
            let mut json = format!(
                "{{\"operation\":{operation},\"table\":{},\"sequence\":{},\"commitSequence\":{commit},\"changeSequence\":{own},\
                 \"commitIndex\":{index},\"txid\":{txid},\"timestamp\":{timestamp}",
                string(&table), string(&sequence),
            );
            for (name, row) in [("newRow", &new), ("oldRow", &old)] {
                if let Some(row) = row {
                    json += &format!(",\"{name}\":{{{}}}", json_row(row));
                }
            }
            if !unchanged.is_empty() {
                json += &format!(",\"unchangedColumns\":{}", serde_json::to_string(&unchanged).expect("texts"));
            }
            json.push('}');
            let expected = ChangePb {
                operation,
                table,
                sequence: Some(sequence),
                commit_sequence: Some(commit),
                change_sequence: Some(own),
                commit_index: Some(index),
                transaction_id: None,
                new_columns: columns(new.as_deref().unwrap_or_default()),
                old_columns: columns(old.as_deref().unwrap_or_default()),
                timestamp: Some(timestamp),
                transaction_id_epoch: Some(txid),
                unchanged_columns: unchanged,
            };
            // Compared as bytes, since no NaN equals another.
            prop_assert_eq!(transcoded(&json).expect("a change").encode_to_vec(), expected.encode_to_vec());
        }
    }

    #[test]
    fn what_is_no_change_is_an_error() {
        let whole = "{\"operation\":4,\"table\":\"public.t\"}";
        assert_eq!(transcoded(whole).expect("a change").operation, 4);
        for json in [
            "",
            "null",
            "[]",
            "{}",
            "{\"operation\":4}",
            "{\"table\":\"public.t\"}",
            "{\"operation\":4,\"table\":\"public.t\"",
            "{\"operation\":4,\"table\":\"public.t\"} 1",
            "{\"operation\":4,\"table\":\"public.t\",\"newRow\":{\"a\":{\"value\":1,\"type\":23}}}",
            "{\"operation\":4,\"table\":\"public.t\",\"newRow\":{\"a\":{\"value\":null}}}",
            // What this code does not know it would lose.
            "{\"operation\":4,\"table\":\"public.t\",\"owner\":\"x\"}",
        ] {
            assert!(transcoded(json).is_err(), "{json}");
        }
        assert!(change(b"\"\xff\"", &mut Vec::new()).is_err());
    }
}
