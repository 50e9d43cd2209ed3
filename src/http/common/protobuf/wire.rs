//! Writes fields of messages straight into a buffer, where building the message first would copy every text.

/// A field of variable length: a text, bytes or a message.
pub fn delimited(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    open(out, number, bytes.len());
    out.extend_from_slice(bytes);
}

/// Begins a field of variable length; the caller writes its `length` bytes.
pub fn open(out: &mut Vec<u8>, number: u32, length: usize) {
    varint(out, u64::from(number) << 3 | 2);
    varint(out, length as u64);
}

/// A field of one of the types uint32 and uint64.
pub fn unsigned(out: &mut Vec<u8>, number: u32, value: u64) {
    varint(out, u64::from(number) << 3);
    varint(out, value);
}

/// A field of one of the types int32 and int64.
pub fn signed(out: &mut Vec<u8>, number: u32, value: i64) {
    unsigned(out, number, value.cast_unsigned());
}

/// A field of the type double.
pub fn double(out: &mut Vec<u8>, number: u32, value: f64) {
    varint(out, u64::from(number) << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

/// How many bytes [`delimited`] writes for a field with a number below 16.
pub fn delimited_len(bytes: usize) -> usize {
    1 + varint_len(bytes as u64) + bytes
}

/// How many bytes a number takes.
pub fn varint_len(value: u64) -> usize {
    // Seven bits a byte, and zero takes one.
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// A number in groups of seven bits, the lowest first.
fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_are_written_as_prost_writes_them(value: u64, shift in 0..64) {
            let value = value >> shift;
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            varint(&mut ours, value);
            prost::encoding::encode_varint(value, &mut theirs);
            prop_assert_eq!(varint_len(value), ours.len());
            prop_assert_eq!(ours, theirs);
        }

        #[test]
        fn a_length_is_known_beforehand(bytes: Vec<u8>, number in 1..16_u32) {
            let mut out = Vec::new();
            delimited(&mut out, number, &bytes);
            prop_assert_eq!(out.len(), delimited_len(bytes.len()));
        }
    }

    #[test]
    fn the_ends_of_the_numbers() {
        for (value, length) in
            [(0, 1), (127, 1), (128, 2), (u64::from(u32::MAX), 5), (u64::MAX >> 1, 9), (u64::MAX, 10)]
        {
            let mut out = Vec::new();
            varint(&mut out, value);
            assert_eq!((out.len(), varint_len(value)), (length, length), "{value}");
        }
    }
}
