//! Moments as the API reads them: RFC 3339, strictly. A local time without an offset is nobody's moment.

use crate::clock::Timestamp;

/// The text is not RFC 3339 with an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 timestamp with an offset, such as 2030-12-20T15:30:00Z")]
pub struct ParseMomentError;

/// The fixed part of RFC 3339: `0` stands for a digit, everything else for itself.
const SHAPE: &str = "0000-00-00T00:00:00";

/// Reads `2030-12-20T15:30:00.25+01:00`. What is finer than a microsecond is cut off.
pub fn parse(text: &str) -> Result<Timestamp, ParseMomentError> {
    // The library reads more dialects than one (24:00, week dates, zone names); only the one shape gets through to it.
    let (fixed, rest) = text.split_at_checked(SHAPE.len()).ok_or(ParseMomentError)?;
    let offset = rest.strip_prefix('.').map_or(Some(rest), skip_fraction);
    let leap_second = fixed.ends_with(":60");
    match matches(fixed, SHAPE) && offset.is_some_and(is_offset) && !leap_second {
        true => text.parse().map_err(|_| ParseMomentError),
        false => Err(ParseMomentError),
    }
}

/// What follows the digits of a fraction; nothing where there is no digit.
fn skip_fraction(text: &str) -> Option<&str> {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    (rest.len() < text.len()).then_some(rest)
}

fn is_offset(text: &str) -> bool {
    let has_shape = matches(text, "+00:00") || matches(text, "-00:00");
    // The library goes further than RFC 3339, whose hours end at 23 and minutes at 59.
    let is_time = |hours: &str, minutes: &str| hours < "24" && minutes < "60";
    let fits = |text: &str| Some(is_time(text.get(1..3)?, text.get(4..6)?));
    text.eq_ignore_ascii_case("Z") || (has_shape && fits(text) == Some(true))
}

fn matches(text: &str, shape: &str) -> bool {
    let fits = |(found, wanted): (u8, u8)| match wanted {
        b'0' => found.is_ascii_digit(),
        mark => found.eq_ignore_ascii_case(&mark),
    };
    text.len() == shape.len() && text.bytes().zip(shape.bytes()).all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_rfc_3339() {
        for (text, micros) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01t00:00:00z", 0),
            ("1970-01-01T01:00:00.000001+01:00", 1),
            ("1970-01-01T00:00:00.0000019Z", 1),
            ("1969-12-31T19:00:00-05:00", 0),
            ("1970-01-01T05:30:00.5+05:30", 500_000),
            ("1970-01-01T23:59:00+23:59", 0),
            ("2030-12-20T15:30:00Z", 1_924_011_000_000_000),
            ("9999-12-31T00:00:00Z", 253_402_214_400_000_000),
            ("9999-12-31T23:59:59.999999Z", 253_402_300_799_999_999),
            ("9999-12-31T23:59:59.5+23:00", 253_402_217_999_500_000),
        ] {
            assert_eq!(parse(text), Ok(Timestamp::from_micros(micros)), "{text}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "",
            "infinity",
            "now",
            "1700000000",
            "2030-12-20",
            "2030-12-20T15:30:00",
            "2030-12-20T15:30Z",
            "2030-12-20 15:30:00Z",
            "2030-12-20T24:00:00Z",
            "2030-12-20T15:30:60Z",
            "2030-12-20T15:60:00Z",
            "2030-02-29T00:00:00Z",
            "2030-13-01T00:00:00Z",
            "2030-12-20T15:30:00.Z",
            "2030-12-20T15:30:00+1",
            "2030-12-20T15:30:00+0100",
            "2030-12-20T15:30:00+24:00",
            "2030-12-20T15:30:00-25:59",
            "2030-12-20T15:30:00+01:60",
            "2030-12-20T15:30:00 +01:00",
            "2030-12-20T15:30:00Z[UTC]",
            "2030-12-20T15:30:00[Europe/Berlin]",
            "+294277-01-01T00:00:00Z",
            "294277-01-01T00:00:00Z",
            "-2030-12-20T15:30:00Z",
            "9999-02-29T00:00:00Z",
            "2030-W51-5T15:30:00Z",
            "20301220T153000Z",
            " 2030-12-20T15:30:00Z",
            "2030-12-20T15:30:00Z\0",
            "２０３０-12-20T15:30:00Z",
        ] {
            assert_eq!(parse(text), Err(ParseMomentError), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_a_timestamp_writes_is_read_back(micros in 0_i64..253_402_300_799_999_999) {
            let at = Timestamp::from_micros(micros);
            prop_assert_eq!(parse(&at.to_string()), Ok(at));
        }

        #[test]
        fn reading_never_panics(text in "\\PC{0,40}") {
            let _ = parse(&text);
        }
    }
}
