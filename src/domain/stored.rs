//! Texts of others as PostgreSQL stores them.

/// The beginning of a text, of at most `bytes_max` bytes. PostgreSQL takes no zero bytes: each becomes U+FFFD.
pub fn text(text: &str, bytes_max: usize) -> String {
    let mut text = text.replace('\0', "\u{fffd}");
    text.truncate(text.floor_char_boundary(bytes_max));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_text_keeps_whole_characters_and_no_zero_byte() {
        for (given, bytes_max, stored) in [
            ("plain", 5, "plain"),
            ("plain", 4, "plai"),
            ("a\0b", 9, "a\u{fffd}b"),
            ("a\0b", 3, "a"),
            ("ü", 1, ""),
            ("", 0, ""),
        ] {
            assert_eq!(text(given, bytes_max), stored, "{given:?}");
        }
    }

    proptest! {
        #[test]
        fn a_text_is_within_its_bound(given: String, bytes_max in 0_usize..40) {
            let stored = text(&given, bytes_max);
            prop_assert!(stored.len() <= bytes_max && !stored.contains('\0'));
            let replaced = given.replace('\0', "\u{fffd}");
            prop_assert!(replaced.starts_with(&stored));
        }
    }
}
