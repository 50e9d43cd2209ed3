//! A namespace isolates the ids of timers.

use super::invalid::{Field, Invalid};
use super::limits;

/// Checks the text of a namespace: 1 to 255 bytes, no control characters.
pub fn check(name: &str) -> Result<(), Invalid> {
    let fits = (1..=limits::NAMESPACE_BYTES_MAX).contains(&name.len());
    match fits && !name.contains(is_control) {
        true => Ok(()),
        false => {
            let allowed = format!("1 to {} bytes without control characters", limits::NAMESPACE_BYTES_MAX);
            Err(Invalid::new(Field::Namespace, name, allowed))
        }
    }
}

/// Whether the character has no place in a name: the control characters, and the two that break lines like them.
pub(super) fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_and_printable() {
        for (name, good) in [
            ("default", true),
            ("a/b c", true),
            ("größe 字", true),
            (&"n".repeat(255), true),
            ("", false),
            (&"n".repeat(256), false),
            (&"字".repeat(86), false),
            ("a\0", false),
            ("a\nb", false),
            ("a\u{7f}", false),
            ("a\u{85}", false),
            ("a\u{2028}", false),
        ] {
            assert_eq!(check(name).is_ok(), good, "{name:?}");
        }
    }
}
