//! Which field of a value holds what: from the oid of a type and PostgreSQL's text to protobuf.

use super::{ValueField, ValuePb, wire};

/// The oids of the types that are more than their text.
mod oid {
    pub(super) const BOOL: u32 = 16;
    pub(super) const BYTEA: u32 = 17;
    pub(super) const INT8: u32 = 20;
    pub(super) const INT2: u32 = 21;
    pub(super) const INT4: u32 = 23;
    pub(super) const OID: u32 = 26;
    pub(super) const FLOAT4: u32 = 700;
    pub(super) const FLOAT8: u32 = 701;
}

/// A value that is about to be written; borrows its text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// NULL.
    Null,
    /// The text as it is.
    String(&'a str),
    /// int2, int4, int8.
    Int(i64),
    /// oid.
    Uint(u64),
    /// float4, float8.
    Double(f64),
    /// bytea: an even number of hex digits.
    Hex(&'a [u8]),
    /// bool.
    Bool(bool),
}

impl<'a> Value<'a> {
    /// The value of this PostgreSQL text in a column of the type `oid`. A text that is not of its type stays a text, so
    /// that nothing is lost. bool is taken as `true` and as `t`.
    pub fn of(oid: u32, text: Option<&'a str>) -> Self {
        let Some(text) = text else { return Self::Null };
        let parsed = match oid {
            oid::INT2 | oid::INT4 | oid::INT8 => text.parse().ok().map(Self::Int),
            oid::OID => text.parse().ok().map(Self::Uint),
            oid::FLOAT4 | oid::FLOAT8 => text.parse().ok().map(Self::Double),
            oid::BYTEA => digits(text).map(Self::Hex),
            oid::BOOL => truth(text).map(Self::Bool),
            _ => None,
        };
        parsed.unwrap_or(Self::String(text))
    }

    /// How many bytes [`Value::write`] writes.
    pub fn encoded_len(self) -> usize {
        match self {
            Self::Null => 0,
            Self::String(text) => wire::delimited_len(text.len()),
            Self::Int(value) => 1 + wire::varint_len(value.cast_unsigned()),
            Self::Uint(value) => 1 + wire::varint_len(value),
            Self::Double(_) => 9,
            Self::Hex(digits) => wire::delimited_len(digits.len() / 2),
            Self::Bool(_) => 2,
        }
    }

    /// Writes the content of a [`ValuePb`].
    pub fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::Null => {}
            Self::String(text) => wire::delimited(out, 1, text.as_bytes()),
            Self::Int(value) => wire::signed(out, 2, value),
            Self::Uint(value) => wire::unsigned(out, 3, value),
            Self::Double(value) => wire::double(out, 4, value),
            Self::Hex(digits) => {
                wire::open(out, 5, digits.len() / 2);
                out.extend(bytes(digits));
            }
            Self::Bool(value) => wire::unsigned(out, 6, u64::from(value)),
        }
    }
}

impl From<Value<'_>> for ValuePb {
    fn from(value: Value<'_>) -> Self {
        let field = match value {
            Value::Null => None,
            Value::String(text) => Some(ValueField::String(text.to_owned())),
            Value::Int(value) => Some(ValueField::Int(value)),
            Value::Uint(value) => Some(ValueField::Uint(value)),
            Value::Double(value) => Some(ValueField::Double(value)),
            Value::Hex(digits) => Some(ValueField::Bytes(bytes(digits).collect())),
            Value::Bool(value) => Some(ValueField::Bool(value)),
        };
        Self { value: field }
    }
}

/// The message for a PostgreSQL text in a column of the type `oid`; see [`Value::of`].
pub fn value(oid: u32, text: Option<&str>) -> ValuePb {
    Value::of(oid, text).into()
}

/// The digits behind `\x`, where there is nothing else.
fn digits(text: &str) -> Option<&[u8]> {
    let digits = text.strip_prefix("\\x")?.as_bytes();
    let whole =
        digits.len().is_multiple_of(2) && digits.iter().fold(true, |all, digit| all & digit.is_ascii_hexdigit());
    whole.then_some(digits)
}

/// The bytes that hex digits stand for.
fn bytes(digits: &[u8]) -> impl ExactSizeIterator<Item = u8> {
    digits.as_chunks().0.iter().map(|[high, low]| nibble(*high) << 4 | nibble(*low))
}

/// The number that a hex digit stands for: letters have bit 6, and their lowest bits count from 1.
fn nibble(digit: u8) -> u8 {
    (digit & 0xf) + 9 * (digit >> 6)
}

fn truth(text: &str) -> Option<bool> {
    match text {
        "true" | "t" => Some(true),
        "false" | "f" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::ValueField::{Bool, Bytes, Double, Int, String as Text, Uint};
    use super::*;
    use proptest::prelude::*;
    use prost::Message;

    fn field(oid: u32, text: &str) -> ValueField {
        value(oid, Some(text)).value.expect("a field")
    }

    #[test]
    fn each_type_has_its_field() {
        for (oid, text, expected) in [
            (oid::INT2, "-32768", Int(-32768)),
            (oid::INT4, "0", Int(0)),
            (oid::INT8, "-9223372036854775808", Int(i64::MIN)),
            (oid::INT8, "9223372036854775807", Int(i64::MAX)),
            (oid::OID, "4294967295", Uint(4_294_967_295)),
            (oid::FLOAT4, "1.5", Double(1.5)),
            (oid::FLOAT4, "3.4028235e+38", Double(3.402_823_5e38)),
            (oid::FLOAT8, "-0", Double(-0.0)),
            (oid::FLOAT8, "5e-324", Double(5e-324)),
            (oid::FLOAT8, "Infinity", Double(f64::INFINITY)),
            (oid::FLOAT8, "-Infinity", Double(f64::NEG_INFINITY)),
            (oid::BYTEA, "\\x", Bytes(Vec::new())),
            (oid::BYTEA, "\\x00fF9a0A", Bytes(vec![0, 0xff, 0x9a, 0x0a])),
            (oid::BOOL, "true", Bool(true)),
            (oid::BOOL, "f", Bool(false)),
            (25, "", Text(String::new())),
            (25, "12", Text("12".to_owned())),
            (1700, "NaN", Text("NaN".to_owned())),
            (1184, "2026-01-01 00:00:00+00", Text("2026-01-01 00:00:00+00".to_owned())),
            (1007, "{1,2}", Text("{1,2}".to_owned())),
        ] {
            assert_eq!(field(oid, text), expected, "{oid} {text}");
        }
        let Double(nan) = field(oid::FLOAT4, "NaN") else { panic!("a double") };
        assert!(nan.is_nan());
    }

    #[test]
    fn what_does_not_fit_its_type_stays_a_text() {
        for (oid, text) in [
            (oid::INT4, ""),
            (oid::INT8, "9223372036854775808"),
            (oid::INT8, "1.0"),
            (oid::OID, "-1"),
            (oid::FLOAT8, "one"),
            (oid::BYTEA, "abc"),
            (oid::BYTEA, "\\000"),
            (oid::BYTEA, "\\x0"),
            (oid::BYTEA, "\\x0g"),
            (oid::BYTEA, "\\xü"),
            (oid::BOOL, "yes"),
            (oid::BOOL, "unknown"),
        ] {
            assert_eq!(field(oid, text), Text(text.to_owned()), "{oid} {text}");
        }
    }

    #[test]
    fn null_has_no_field() {
        for oid in [25, oid::INT4, oid::BOOL, oid::BYTEA] {
            assert_eq!(value(oid, None).encode_to_vec(), b"", "{oid}");
        }
    }

    proptest! {
        #[test]
        fn it_is_written_as_prost_writes_it(
            oid in prop::sample::select(vec![16_u32, 17, 20, 21, 23, 25, 26, 700, 701, 1700]),
            text in "-?[0-9]{1,20}|-?[0-9]{1,5}(\\.[0-9]{1,5})?(e-?[0-9]{1,3})?|\\\\x([0-9a-f]{2}){0,80}|true|false|t|f|.{0,200}",
        ) {
            let value = Value::of(oid, Some(&text));
            let mut ours = Vec::new();
            value.write(&mut ours);
            prop_assert_eq!(value.encoded_len(), ours.len());
            prop_assert_eq!(ours, ValuePb::from(value).encode_to_vec());
        }
    }
}
