//! Spans as text, `300ms`, `30s`, `1h30m`: what the API, the commands and the settings read and write.

use std::time::Duration;

/// The units, largest first, each with its microseconds.
const UNITS: [(&str, u64); 7] = [
    ("w", 604_800_000_000),
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
];
/// The first ones are read and never written: how long a day is, depends on the day.
const UNITS_READ_ONLY: usize = 2;
/// More digits than this cannot matter: a microsecond is the finest that is kept.
const FRACTION_DIGITS_MAX: usize = 18;

/// The text is not a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a duration: expected numbers with units w, d, h, m, s, ms or us, the largest first, such as 300ms, 30s or 1h30m"
)]
pub struct ParseDurationError;

/// Reads a span: one or more numbers, each with its unit, larger units before smaller ones. A number may have a
/// decimal fraction, `1.5s`. What is finer than a microsecond is cut off.
pub fn parse(text: &str) -> Result<Duration, ParseDurationError> {
    let mut rest = text;
    let mut micros = 0_u64;
    let mut units = UNITS.iter();
    while !rest.is_empty() {
        let (number, after_number) = split_where(rest, |c| !c.is_ascii_digit() && c != '.');
        let (unit, after_unit) = split_where(after_number, |c| !c.is_ascii_alphabetic());
        // Goes on behind the unit of the part before, so that each unit comes once and in order.
        let (_, size) = units.find(|(name, _)| *name == unit).ok_or(ParseDurationError)?;
        let part = scaled(number, *size).ok_or(ParseDurationError)?;
        micros = micros.checked_add(part).ok_or(ParseDurationError)?;
        rest = after_unit;
    }
    match text.is_empty() {
        true => Err(ParseDurationError),
        false => Ok(Duration::from_micros(micros)),
    }
}

/// Writes a span so that [`parse`] reads it back, to the microsecond.
pub fn format(span: Duration) -> String {
    let mut rest = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, size) in UNITS.iter().skip(UNITS_READ_ONLY) {
        let (count, left) = (rest / size, rest % size);
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
        }
        rest = left;
    }
    match text.is_empty() {
        true => "0s".to_owned(),
        false => text,
    }
}

/// A decimal number times `size`; nothing where it is not a number or too large.
fn scaled(number: &str, size: u64) -> Option<u64> {
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) => (whole, fraction),
        None => (number, "0"),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let (mut numerator, mut denominator) = (0_u128, 1_u128);
    for digit in fraction.bytes().take(FRACTION_DIGITS_MAX) {
        numerator = numerator * 10 + u128::from(digit - b'0');
        denominator *= 10;
    }
    let part = u64::try_from(u128::from(size) * numerator / denominator).ok()?;
    whole.parse::<u64>().ok()?.checked_mul(size)?.checked_add(part)
}

/// Splits in front of the first character that ends the part.
fn split_where(text: &str, ends: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_people_write() {
        for (text, micros) in [
            ("300ms", 300_000),
            ("30s", 30_000_000),
            ("1h30m", 5_400_000_000),
            ("1h0m0s", 3_600_000_000),
            ("1.5s", 1_500_000),
            ("0.0000019s", 1),
            ("2d", 172_800_000_000),
            ("1w1d", 691_200_000_000),
            ("1.5h", 5_400_000_000),
            ("7us", 7),
            ("0s", 0),
            ("007s", 7_000_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_micros(micros)), "{text}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "",
            " ",
            "0",
            "5",
            "s",
            "30 s",
            " 30s",
            "30s ",
            "-1s",
            "+1s",
            "1e3s",
            "30S",
            "30sec",
            "1m1h",
            "1d1w",
            "1s1s",
            ".5s",
            "1.s",
            "1.2.3s",
            "PT1S",
            "1h-5m",
            "٣s",
            "18446744073709551616us",
            "99999999999999d",
            "9999999999999w",
            "1µs",
            "NaNs",
            "infs",
        ] {
            assert_eq!(parse(text), Err(ParseDurationError), "{text:?}");
        }
    }

    #[test]
    fn writes_the_shortest_form() {
        for (micros, text) in
            [(0, "0s"), (5_400_000_000, "1h30m"), (300_000, "300ms"), (1_500_000, "1s500ms"), (86_400_000_000, "24h")]
        {
            assert_eq!(format(Duration::from_micros(micros)), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(micros: u64) {
            let span = Duration::from_micros(micros);
            prop_assert_eq!(parse(&format(span)), Ok(span));
        }

        #[test]
        fn reading_never_panics(text in "[0-9.wdhmsuµ -]{0,40}") {
            let _ = parse(&text);
        }
    }
}
