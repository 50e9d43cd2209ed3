//! The little JSON that a change needs, written straight into a buffer. Whatever the bytes are, the JSON is well formed:
//! what is not UTF-8 becomes U+FFFD.

/// How many bytes are looked at together for something to escape; the compiler makes vector instructions of it.
const BLOCK: usize = 32;

/// Writes `text` as a JSON string, quotes and all.
pub(super) fn string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    if text.chunks(BLOCK).all(|block| block.iter().fold(true, |plain, byte| plain & is_plain(*byte))) {
        out.extend_from_slice(text);
    } else {
        for chunk in text.utf8_chunks() {
            escaped(out, chunk.valid());
            if !chunk.invalid().is_empty() {
                out.extend_from_slice("\u{fffd}".as_bytes());
            }
        }
    }
    out.push(b'"');
}

/// Writes `number` in decimal.
pub(super) fn decimal(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0_u8; 20];
    let mut rest = number;
    let mut used = 0;
    for place in digits.iter_mut().rev() {
        *place = b'0' + low_byte(rest % 10);
        rest /= 10;
        used += 1;
        if rest == 0 {
            break;
        }
    }
    out.extend(digits.iter().skip(digits.len() - used));
}

/// Writes `number` in lower-case hex, without leading zeros.
pub(super) fn hex(out: &mut Vec<u8>, number: u32) {
    let digits = 8 - (number.leading_zeros() / 4).min(7);
    for place in (0..digits).rev() {
        let digit = low_byte(u64::from(number >> (4 * place) & 0xf));
        out.push(if digit < 10 { b'0' + digit } else { b'a' - 10 + digit });
    }
}

fn escaped(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| needs_escape(*byte)) {
        let (before, behind) = rest.split_at(at);
        out.extend_from_slice(before);
        let Some((byte, behind)) = behind.split_first() else { return };
        escape(out, *byte);
        rest = behind;
    }
    out.extend_from_slice(rest);
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        0x08 => out.extend_from_slice(b"\\b"),
        0x0c => out.extend_from_slice(b"\\f"),
        byte => {
            out.extend_from_slice(if byte < 0x10 { b"\\u000" } else { b"\\u00" });
            hex(out, u32::from(byte));
        }
    }
}

fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Printable ASCII that stands for itself.
fn is_plain(byte: u8) -> bool {
    matches!(byte, 0x20..0x7f) & (byte != b'"') & (byte != b'\\')
}

fn low_byte(number: u64) -> u8 {
    number.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    #[test]
    fn what_is_not_utf8_is_replaced() {
        for (bytes, json) in [
            (&b"a\xffb"[..], "\"a\u{fffd}b\""),
            (b"\xe4\xf6", "\"\u{fffd}\u{fffd}\""),
            (b"\xf0\x9f\x98", "\"\u{fffd}\""),
            (b"\"\xff\\", "\"\\\"\u{fffd}\\\\\""),
        ] {
            assert_eq!(written(|out| string(out, bytes)), json);
        }
    }

    proptest! {
        #[test]
        fn strings_are_what_serde_json_reads(text in "\\PC*|[\\x00-\\x7f]{0,80}|.{0,80}") {
            let json = written(|out| string(out, text.as_bytes()));
            prop_assert_eq!(serde_json::from_str::<String>(&json).expect("a JSON string"), text);
        }

        #[test]
        fn any_bytes_make_a_json_string(bytes: Vec<u8>) {
            let json = written(|out| string(out, &bytes));
            let text = serde_json::from_str::<String>(&json).expect("a JSON string");
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn numbers_are_as_the_standard_library_writes_them(number: u64, small: u32, shift in 0..64) {
            let number = number >> shift;
            prop_assert_eq!(written(|out| decimal(out, number)), number.to_string());
            let small = small >> (shift / 2);
            prop_assert_eq!(written(|out| hex(out, small)), format!("{small:x}"));
        }
    }

    #[test]
    fn the_ends_of_the_numbers() {
        for number in [0, 9, 10, u64::MAX] {
            assert_eq!(written(|out| decimal(out, number)), number.to_string());
        }
        for number in [0, 0xf, 0x10, u32::MAX] {
            assert_eq!(written(|out| hex(out, number)), format!("{number:x}"));
        }
    }
}
