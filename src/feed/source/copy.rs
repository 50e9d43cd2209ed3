//! The messages inside the replication stream: what the walsender sends and what it is answered. Pure.

use bytes::{BufMut, BytesMut};

use crate::clock::Timestamp;
use crate::domain::sequence::Lsn;

/// Seconds from 1970 to 2000, where PostgreSQL's clock begins, in microseconds.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// One message of the walsender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A message of the output plugin.
    Data {
        /// Where in the WAL it comes from.
        lsn: Lsn,
        /// The message.
        payload: &'a [u8],
    },
    /// A sign of life.
    Keepalive {
        /// Everything up to here has been sent, as far as it is published.
        end: Lsn,
        /// The walsender wants an answer at once.
        reply: bool,
    },
}

impl<'a> Event<'a> {
    /// Reads the content of a CopyData; none where it is neither of the two.
    pub fn parse(body: &'a [u8]) -> Option<Self> {
        match body.split_first()? {
            (b'w', rest) => {
                let (lsn, rest) = rest.split_first_chunk::<8>()?;
                // The end of the WAL and the server's clock follow; pgoutput's own messages say it better.
                let (_, payload) = rest.split_first_chunk::<16>()?;
                Some(Self::Data { lsn: Lsn(u64::from_be_bytes(*lsn)), payload })
            }
            (b'k', rest) => {
                let (end, rest) = rest.split_first_chunk::<8>()?;
                let (_, reply) = rest.split_first_chunk::<8>()?;
                Some(Self::Keepalive { end: Lsn(u64::from_be_bytes(*end)), reply: *reply.first()? != 0 })
            }
            _ => None,
        }
    }
}

/// What we report to the walsender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Received up to here.
    pub received: Lsn,
    /// Durable up to here: the slot may forget what lies before it.
    pub acknowledged: Lsn,
}

/// Writes a StandbyStatusUpdate, framed as CopyData. With `reply` the walsender is asked for a sign of life.
pub fn put_status(out: &mut BytesMut, position: Position, now: Timestamp, reply: bool) {
    out.put_u8(b'd');
    out.put_i32(4 + 34);
    out.put_u8(b'r');
    out.put_u64(position.received.0.max(position.acknowledged.0));
    out.put_u64(position.acknowledged.0);
    out.put_u64(position.acknowledged.0);
    out.put_i64(now.micros().saturating_sub(EPOCH_MICROS));
    out.put_u8(u8::from(reply));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_messages() {
        let mut data = vec![b'w'];
        data.extend(7_u64.to_be_bytes());
        data.extend([0; 16]);
        data.extend(b"payload");
        assert_eq!(Event::parse(&data), Some(Event::Data { lsn: Lsn(7), payload: b"payload" }));
        let mut keepalive = vec![b'k'];
        keepalive.extend(9_u64.to_be_bytes());
        keepalive.extend([0; 8]);
        assert_eq!(Event::parse(&keepalive), None);
        keepalive.push(1);
        assert_eq!(Event::parse(&keepalive), Some(Event::Keepalive { end: Lsn(9), reply: true }));
    }

    #[test]
    fn a_status_never_says_received_below_acknowledged() {
        let position = Position { received: Lsn(1), acknowledged: Lsn(2) };
        for reply in [false, true] {
            let mut out = BytesMut::new();
            put_status(&mut out, position, Timestamp::from_micros(EPOCH_MICROS + 5), reply);
            let mut expected = vec![b'd', 0, 0, 0, 38, b'r'];
            for word in [2_u64, 2, 2, 5] {
                expected.extend(word.to_be_bytes());
            }
            expected.push(u8::from(reply));
            assert_eq!(out, expected);
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(body: Vec<u8>) {
            let _ = Event::parse(&body);
        }
    }
}
