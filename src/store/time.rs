//! Moments and spans as PostgreSQL stores them, to the microsecond.

use std::error::Error;
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::types;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

use crate::clock::Timestamp;

/// 2000-01-01 00:00 UTC, from which PostgreSQL counts, in microseconds since 1970.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;
/// How PostgreSQL writes `infinity`; `-infinity` is `i64::MIN`.
const INFINITY: i64 = i64::MAX;

/// The first moment that a timer may be due at, 0001-01-01 00:00 UTC.
pub const EARLIEST: Timestamp = Timestamp::from_micros(-62_135_596_800_000_000);
/// The last moment that a timer may be due at, the end of the year 9999.
pub const LATEST: Timestamp = Timestamp::from_micros(253_402_300_799_999_999);

type Refused = Box<dyn Error + Sync + Send>;

/// `infinity` is [`Timestamp::MAX`], `-infinity` is [`Timestamp::MIN`].
impl<'a> FromSql<'a> for Timestamp {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Refused> {
        Ok(match types::timestamp_from_sql(raw)? {
            INFINITY => Self::MAX,
            i64::MIN => Self::MIN,
            micros => Self::from_micros(micros.saturating_add(POSTGRES_EPOCH_MICROS)),
        })
    }

    accepts!(TIMESTAMPTZ);
}

/// [`Timestamp::MAX`] becomes `infinity`, and so does [`Timestamp::MIN`], and what lies before PostgreSQL's years,
/// `-infinity`.
impl ToSql for Timestamp {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Refused> {
        let micros = match *self {
            Self::MAX => INFINITY,
            other => other.micros().saturating_sub(POSTGRES_EPOCH_MICROS),
        };
        types::timestamp_to_sql(micros, out);
        Ok(IsNull::No)
    }

    accepts!(TIMESTAMPTZ);
    to_sql_checked!();
}

/// A span as an `interval`. It is written in microseconds alone; where one is read that a client wrote, a day has
/// 24 hours and a month 30 days, as in PostgreSQL's own comparison, and a negative one is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl<'a> FromSql<'a> for Span {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Refused> {
        let (micros, rest) = raw.split_first_chunk().ok_or("an interval has 16 bytes")?;
        let (days, rest) = rest.split_first_chunk().ok_or("an interval has 16 bytes")?;
        let months: &[u8; 4] = rest.try_into()?;
        let days = i64::from(i32::from_be_bytes(*days)) + 30 * i64::from(i32::from_be_bytes(*months));
        let micros = i64::from_be_bytes(*micros).saturating_add(days.saturating_mul(86_400_000_000));
        Ok(Self(Duration::from_micros(u64::try_from(micros).unwrap_or(0))))
    }

    accepts!(INTERVAL);
}

impl ToSql for Span {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Refused> {
        let micros = i64::try_from(self.0.as_micros()).unwrap_or(i64::MAX);
        out.extend_from_slice(&micros.to_be_bytes());
        // No days and no months.
        out.extend_from_slice(&[0; 8]);
        Ok(IsNull::No)
    }

    accepts!(INTERVAL);
    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn moment_through_sql(at: Timestamp) -> Timestamp {
        let mut bytes = BytesMut::new();
        at.to_sql(&Type::TIMESTAMPTZ, &mut bytes).unwrap();
        Timestamp::from_sql(&Type::TIMESTAMPTZ, &bytes).unwrap()
    }

    #[test]
    fn the_ends_of_time_are_infinity() {
        let mut bytes = BytesMut::new();
        Timestamp::MAX.to_sql(&Type::TIMESTAMPTZ, &mut bytes).unwrap();
        assert_eq!(bytes[..], i64::MAX.to_be_bytes());
        assert_eq!(moment_through_sql(Timestamp::MAX), Timestamp::MAX);
        assert_eq!(moment_through_sql(Timestamp::MIN), Timestamp::MIN);
    }

    #[test]
    fn an_interval_of_a_client_counts_its_days_and_months() {
        let mut raw = 1_000_000_i64.to_be_bytes().to_vec();
        raw.extend_from_slice(&2_i32.to_be_bytes());
        raw.extend_from_slice(&1_i32.to_be_bytes());
        let span = Span::from_sql(&Type::INTERVAL, &raw).unwrap();
        assert_eq!(span.0, Duration::from_secs(32 * 86_400 + 1));
    }

    proptest! {
        #[test]
        fn moments_keep_their_microseconds(micros in -62_135_596_800_000_000_i64..=253_402_300_799_999_999) {
            let at = Timestamp::from_micros(micros);
            prop_assert_eq!(moment_through_sql(at), at);
        }

        #[test]
        fn spans_keep_their_microseconds(micros in 0..=i64::MAX.cast_unsigned()) {
            let span = Span(Duration::from_micros(micros));
            let mut bytes = BytesMut::new();
            span.to_sql(&Type::INTERVAL, &mut bytes).unwrap();
            prop_assert_eq!(Span::from_sql(&Type::INTERVAL, &bytes).unwrap(), span);
        }

        #[test]
        fn reading_never_panics(raw in proptest::collection::vec(any::<u8>(), 0..20)) {
            let _ = Span::from_sql(&Type::INTERVAL, &raw);
            let _ = Timestamp::from_sql(&Type::TIMESTAMPTZ, &raw);
        }
    }
}
