//! The sequence of a change: where it stands in the history of the whole database.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// A position in PostgreSQL's write-ahead log, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    /// PostgreSQL's own form, `16/B374D848`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl FromStr for Lsn {
    type Err = ParseSequenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (high, low) = text.split_once('/').ok_or(ParseSequenceError)?;
        Ok(Self(u64::from(hex(high)?) << 32 | u64::from(hex(low)?)))
    }
}

/// Timeline, commit LSN and index within the transaction; the order of the fields is the order of changes.
///
/// The text form is `hi.lo.index` in lower-case hex, with the timeline in front where it is above 1
/// (`2.0.1390d838.0`). Texts do not sort like sequences do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence {
    /// PostgreSQL's timeline, from 1; 0 only in [`Sequence::ZERO`].
    pub timeline: u32,
    /// The LSN of the transaction's commit record: `final_lsn` of pgoutput's Begin.
    pub lsn: Lsn,
    /// 0-based over all published rows of the transaction.
    pub index: u32,
}

impl Sequence {
    /// Before every change; `0.0.0` in text.
    pub const ZERO: Self = Self { timeline: 0, lsn: Lsn(0), index: 0 };

    /// The sequence of change number `index` of the transaction that committed at `lsn`.
    pub const fn new(timeline: u32, lsn: Lsn, index: u32) -> Self {
        Self { timeline, lsn, index }
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.timeline > 1 {
            write!(f, "{:x}.", self.timeline)?;
        }
        write!(f, "{:x}.{:x}.{:x}", self.lsn.0 >> 32, self.lsn.0 & 0xffff_ffff, self.index)
    }
}

impl Serialize for Sequence {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The text is not a sequence, `hi.lo.index` or `timeline.hi.lo.index` in hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a sequence: expected hi.lo.index in hex")]
pub struct ParseSequenceError;

impl FromStr for Sequence {
    type Err = ParseSequenceError;

    /// Reads the text form, upper-case hex too. `0.0.0` is [`Sequence::ZERO`], anything else without a timeline is
    /// on timeline 1.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = [0_u32; 4];
        let mut count = 0;
        for part in text.split('.') {
            *parts.get_mut(count).ok_or(ParseSequenceError)? = hex(part)?;
            count += 1;
        }
        let (timeline, [high, low, index]) = match (count, parts) {
            (3, [high, low, index, _]) => (1, [high, low, index]),
            (4, [timeline, high, low, index]) if timeline > 1 => (timeline, [high, low, index]),
            _ => return Err(ParseSequenceError),
        };
        if count == 3 && high == 0 && low == 0 && index == 0 {
            return Ok(Self::ZERO);
        }
        Ok(Self { timeline, lsn: Lsn(u64::from(high) << 32 | u64::from(low)), index })
    }
}

/// Up to eight hex digits. `u32::from_str_radix` would also take a sign.
fn hex(text: &str) -> Result<u32, ParseSequenceError> {
    if text.is_empty() || text.len() > 8 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(ParseSequenceError);
    }
    u32::from_str_radix(text, 16).map_err(|_| ParseSequenceError)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_that_are_not_sequences_are_refused() {
        for text in [
            "",
            "0",
            "0.0",
            "xx0.0.0",
            "0.0.0.0",
            "1.0.0.0",
            "0.0.0.0.0",
            "0.0.+1",
            "0.0.-1",
            " 0.0.0",
            "0..0",
            "0.0.123456789",
        ] {
            assert_eq!(text.parse::<Sequence>(), Err(ParseSequenceError), "{text}");
        }
    }

    #[test]
    fn known_texts() {
        let on = |timeline, lsn, index| Sequence::new(timeline, Lsn(lsn), index);
        for (text, sequence) in [
            ("0.0.0", Sequence::ZERO),
            ("0.1390d838.0", on(1, 0x1390_d838, 0)),
            ("1.2.a", on(1, 0x1_0000_0002, 10)),
            ("2.0.1390d838.0", on(2, 0x1390_d838, 0)),
        ] {
            assert_eq!(text.parse::<Sequence>(), Ok(sequence));
            assert_eq!(sequence.to_string(), text);
            assert_eq!(text.to_uppercase().parse::<Sequence>(), Ok(sequence));
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(timeline in 1_u32.., lsn in 1_u64.., index: u32) {
            let sequence = Sequence::new(timeline, Lsn(lsn), index);
            prop_assert_eq!(sequence.to_string().parse::<Sequence>(), Ok(sequence));
            prop_assert_eq!(Lsn(lsn).to_string().parse::<Lsn>(), Ok(Lsn(lsn)));
        }

        #[test]
        fn parsing_never_panics(text in ".{0,40}") {
            let _ = text.parse::<Sequence>();
        }
    }
}
