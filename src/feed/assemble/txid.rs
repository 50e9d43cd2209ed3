//! Transaction ids: 32 bits in the stream, 64 in every snapshot.

/// Widens the stream's 32-bit ids. PostgreSQL keeps everything alive within 2^31 of its counter, and commits arrive in
/// order, so the nearest candidate to the newest id seen is the right one, however long the connection lives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Widening {
    newest: u64,
}

impl Widening {
    /// Starts from the server's counter, or any 64-bit id near it.
    pub(super) fn near(txid_now: u64) -> Self {
        Self { newest: txid_now }
    }

    /// The 64-bit id of `xid`.
    pub(super) fn widen(&mut self, xid: u32) -> u64 {
        let [.., a, b, c, d] = self.newest.to_be_bytes();
        let distance = xid.wrapping_sub(u32::from_be_bytes([a, b, c, d])).cast_signed();
        // Below epoch 0 there is nothing: such an id can only be meant as it stands.
        let wide = self.newest.checked_add_signed(i64::from(distance)).unwrap_or(u64::from(xid));
        self.newest = self.newest.max(wide);
        wide
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EPOCH: u64 = 1 << 32;

    #[test]
    fn the_nearest_candidate_counts() {
        for (now, xid, wide) in [
            (700, 650, 650),
            (700, 800, 800),
            (EPOCH + 5, 4_294_967_290, EPOCH - 6),
            (EPOCH - 6, 5, EPOCH + 5),
            (3 * EPOCH + 1_000, 999, 3 * EPOCH + 999),
            (3 * EPOCH, u32::MAX, 3 * EPOCH - 1),
            (3, 4_294_967_000, 4_294_967_000),
        ] {
            assert_eq!(Widening::near(now).widen(xid), wide, "{xid} near {now}");
        }
    }

    #[test]
    fn a_long_connection_is_followed_over_many_epochs() {
        let mut widening = Widening::near(1_000);
        let mut txid = 1_000_u64;
        for _ in 0..40 {
            txid += 1_000_000_000;
            assert_eq!(widening.widen((txid % EPOCH).try_into().expect("below 2^32")), txid);
        }
    }

    proptest! {
        #[test]
        fn ids_within_half_an_epoch_are_restored(now in EPOCH.., distance: i32) {
            let now = now / 2 + EPOCH;
            let txid = now.checked_add_signed(i64::from(distance)).expect("far from both ends");
            let xid = u32::try_from(txid % EPOCH).expect("below 2^32");
            prop_assert_eq!(Widening::near(now).widen(xid), txid);
        }
    }
}
