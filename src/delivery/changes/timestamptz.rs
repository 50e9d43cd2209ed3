//! Moments in PostgreSQL's ISO style, `2026-11-21 20:07:21.667984+00`: what the feed's session prints. Pure.

use crate::clock::Timestamp;

const SECOND: i64 = 1_000_000;

/// Reads a `timestamp with time zone` as `DateStyle = ISO` prints it, in any time zone, with years of up to six digits
/// and ` BC`; none where it is something else. What does not fit is the end of time.
pub(super) fn parse(text: &str) -> Option<Timestamp> {
    match text {
        "infinity" => return Some(Timestamp::MAX),
        "-infinity" => return Some(Timestamp::MIN),
        _ => {}
    }
    let mut rest = Rest(text.as_bytes());
    let year = rest.digits(4, 6)?;
    let month = rest.after(b'-')?.digits(2, 2)?;
    let day = rest.after(b'-')?.digits(2, 2)?;
    let hour = rest.after(b' ')?.digits(2, 2)?;
    let minute = rest.after(b':')?.digits(2, 2)?;
    let second = rest.after(b':')?.digits(2, 2)?;
    let micros = rest.fraction()?;
    let offset = rest.offset()?;
    let year = match rest.0 {
        b"" => year,
        // There is no year 0: the one before 1 AD is 1 BC.
        b" BC" => 1 - year,
        _ => return None,
    };
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 24 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Some(Timestamp::from_micros(seconds.saturating_mul(SECOND).saturating_add(micros)))
}

/// Days from 1970-01-01 to this day of the proleptic Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years that begin in March have their leap day at the end, and their months follow one line.
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// What is left of the text.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    /// Steps over one byte, which must be this one.
    fn after(&mut self, byte: u8) -> Option<&mut Self> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        (*first == byte).then_some(self)
    }

    /// A number of so many digits, at most six of them.
    fn digits(&mut self, min: usize, max: usize) -> Option<i64> {
        let count = self.0.iter().take(max).take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        (count >= min).then(|| digits.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
    }

    /// Up to six digits behind a point, in microseconds.
    fn fraction(&mut self) -> Option<i64> {
        if self.0.first() != Some(&b'.') {
            return Some(0);
        }
        let before = self.after(b'.')?.0.len();
        let digits = self.digits(1, 6)?;
        let count = before - self.0.len();
        Some((count..6).fold(digits, |number, _| number * 10))
    }

    /// `+05:30`, in seconds east.
    fn offset(&mut self) -> Option<i64> {
        let sign = match self.0.first()? {
            b'+' => 1,
            b'-' => -1,
            _ => return None,
        };
        self.0 = self.0.get(1..)?;
        let mut seconds = self.digits(2, 2)? * 3600;
        for unit in [60, 1] {
            if self.0.first() == Some(&b':') {
                seconds += self.after(b':')?.digits(2, 2)? * unit;
            }
        }
        Some(sign * seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_texts() {
        for (text, micros) in [
            ("1970-01-01 00:00:00+00", 0),
            ("1970-01-01 00:00:00.000001+00", 1),
            ("1970-01-01 00:00:00.5+00", 500_000),
            ("1969-12-31 23:59:59.999999+00", -1),
            ("1970-01-01 05:30:00+05:30", 0),
            ("1969-12-31 16:00:00-08", 0),
            ("1970-01-01 00:53:28+00:53:28", 0),
            ("2000-02-29 12:00:00+00", 951_825_600_000_000),
            ("2026-11-21 20:07:21.667984+00", 1_795_291_641_667_984),
            ("0001-01-01 00:00:00+00", -62_135_596_800_000_000),
            ("0001-12-31 00:00:00+00 BC", -62_135_683_200_000_000),
            ("10000-01-01 00:00:00+00", 253_402_300_800_000_000),
            ("294276-12-31 23:59:59.999999+00", i64::MAX),
            ("infinity", i64::MAX),
            ("-infinity", i64::MIN),
        ] {
            assert_eq!(parse(text), Some(Timestamp::from_micros(micros)), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "now",
            "1970-01-01",
            "1970-01-01 00:00:00",
            "1970-01-01T00:00:00+00",
            "1970-1-01 00:00:00+00",
            "1970-13-01 00:00:00+00",
            "1970-01-00 00:00:00+00",
            "1970-01-01 00:00:00.+00",
            "1970-01-01 00:00:00.1234567+00",
            "1970-01-01 00:00:00+0",
            "1970-01-01 00:00:00+00 AD",
            "1970-01-01 00:00:00 UTC",
            "1234567-01-01 00:00:00+00",
            "-970-01-01 00:00:00+00",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_calendar(micros in -62_135_596_800_000_000_i64..=253_402_300_799_999_999) {
            let text = Timestamp::from_micros(micros).to_string().replace('T', " ").replace('Z', "+00");
            prop_assert_eq!(parse(&text), Some(Timestamp::from_micros(micros)), "{}", text);
        }

        #[test]
        fn reading_never_panics(text in "[0-9:. +-]{0,40}( BC)?", any: String) {
            let _ = (parse(&text), parse(&any));
        }
    }
}
