//! The parameters of a query string, decoded strictly: what cannot be decoded is an error, never a replacement character.

use std::borrow::Cow;

/// A parameter is not percent-encoded UTF-8, or has a zero in it, which no text of PostgreSQL can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not percent-encoded UTF-8: {0}")]
pub struct Undecodable<'a>(pub &'a str);

/// A part of a query string, decoded where it can be.
pub type Text<'a> = Result<Cow<'a, str>, Undecodable<'a>>;

/// A text for an error to show: decoded where it can be, else as it came.
pub fn given<'a>(text: &'a Text<'_>) -> &'a str {
    text.as_deref().unwrap_or_else(|Undecodable(raw)| raw)
}

/// The names and values of a query string, in order. A name without `=` has the empty value.
pub fn pairs(query: &str) -> impl Iterator<Item = (Text<'_>, Text<'_>)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    })
}

/// Decodes `%41` and, as forms have it, `+` for a space.
fn decode(text: &str) -> Text<'_> {
    match text.bytes().any(|byte| matches!(byte, b'%' | b'+' | 0)) {
        true => unescaped(text).map(Cow::Owned).ok_or(Undecodable(text)),
        false => Ok(Cow::Borrowed(text)),
    }
}

fn unescaped(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let ([high, low], behind) = behind.split_first_chunk()?;
                rest = behind;
                hex(*high)? << 4 | hex(*low)?
            }
            byte => *byte,
        });
    }
    String::from_utf8(out).ok().filter(|text| !text.contains('\0'))
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pairs_are_decoded_one_by_one() {
        let ok = |text: &'static str| Ok(Cow::Borrowed(text));
        let bad = |text: &'static str| Err(Undecodable(text));
        for (query, expected) in [
            ("", vec![]),
            ("&&", vec![]),
            ("a=1&b=2", vec![(ok("a"), ok("1")), (ok("b"), ok("2"))]),
            ("a&b=&=c", vec![(ok("a"), ok("")), (ok("b"), ok("")), (ok(""), ok("c"))]),
            ("a=b=c", vec![(ok("a"), ok("b=c"))]),
            ("%61=%c3%BC+%2B", vec![(ok("a"), ok("ü +"))]),
            ("a=%", vec![(ok("a"), bad("%"))]),
            ("a=%4", vec![(ok("a"), bad("%4"))]),
            ("a=%4g", vec![(ok("a"), bad("%4g"))]),
            ("a=%ff&b=1", vec![(ok("a"), bad("%ff")), (ok("b"), ok("1"))]),
            ("a=x%00", vec![(ok("a"), bad("x%00"))]),
            ("%zz=1", vec![(bad("%zz"), ok("1"))]),
        ] {
            assert_eq!(pairs(query).collect::<Vec<_>>(), expected, "{query}");
        }
    }

    proptest! {
        #[test]
        fn what_a_client_encodes_is_read(values in prop::collection::vec("[^\0]*", 0..4)) {
            let mut client = url::form_urlencoded::Serializer::new(String::new());
            client.extend_pairs(values.iter().map(|value| ("scope", value)));
            let query = client.finish();
            let read: Vec<_> = pairs(&query).map(|(_, value)| value.map(Cow::into_owned)).collect();
            prop_assert_eq!(read, values.into_iter().map(Ok).collect::<Vec<_>>());
        }

        #[test]
        fn any_text_is_read_or_refused(query: String) {
            pairs(&query).for_each(drop);
        }
    }
}
