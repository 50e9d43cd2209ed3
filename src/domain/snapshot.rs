//! A snapshot of PostgreSQL: which transactions a reader had already seen.

use std::str::FromStr;

/// What `pg_current_snapshot()` prints: `xmin:xmax:xip,xip`, all 64-bit transaction ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Every transaction below it was over.
    pub xmin: u64,
    /// No transaction from it on had begun to be over.
    pub xmax: u64,
    /// In progress between the two; sorted.
    xip: Vec<u64>,
}

impl Snapshot {
    /// Whether the effects of transaction `txid` (64-bit, epoch included) are visible in this snapshot.
    pub fn shows(&self, txid: u64) -> bool {
        txid < self.xmin || (txid < self.xmax && self.xip.binary_search(&txid).is_err())
    }

    /// Whether it shows every transaction that `other` shows.
    pub fn covers(&self, other: &Self) -> bool {
        if self.xip.iter().any(|txid| !self.shows(*txid) && other.shows(*txid)) {
            return false;
        }
        // From its xmax on it shows nothing: all of those that `other` could show must be in progress there.
        let beyond = other.xmax.saturating_sub(self.xmax);
        let in_progress = other.xip.iter().filter(|txid| (self.xmax..other.xmax).contains(txid)).count();
        beyond == in_progress as u64
    }

    /// The transactions in progress, in ascending order.
    pub fn in_progress(&self) -> &[u64] {
        &self.xip
    }
}

/// The text is not a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a snapshot: expected xmin:xmax:xip,xip in decimal, with 1 <= xmin <= xmax")]
pub struct ParseSnapshotError;

impl FromStr for Snapshot {
    type Err = ParseSnapshotError;

    /// Reads PostgreSQL's form; a trailing comma is allowed.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |text: &str| match text.bytes().all(|b| b.is_ascii_digit()) {
            true => text.parse::<u64>().map_err(|_| ParseSnapshotError),
            false => Err(ParseSnapshotError),
        };
        let mut parts = text.split(':');
        let (Some(xmin), Some(xmax), Some(list), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(ParseSnapshotError);
        };
        let (xmin, xmax) = (number(xmin)?, number(xmax)?);
        let list = list.strip_suffix(',').unwrap_or(list);
        let mut xip = match list {
            "" => Vec::new(),
            list => list.split(',').map(number).collect::<Result<Vec<_>, _>>()?,
        };
        if xmin == 0 || xmin > xmax {
            return Err(ParseSnapshotError);
        }
        xip.sort_unstable();
        Ok(Self { xmin, xmax, xip })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shows_what_was_over() {
        let snapshot: Snapshot = "10:20:14,12,".parse().expect("a snapshot");
        for (txid, shown) in [
            (1, true),
            (9, true),
            (10, true),
            (12, false),
            (13, true),
            (14, false),
            (19, true),
            (20, false),
            (1 << 33, false),
        ] {
            assert_eq!(snapshot.shows(txid), shown, "{txid}");
        }
    }

    #[test]
    fn texts_that_are_not_snapshots_are_refused() {
        for text in ["", "1", "1:2", "1:2:3:4", "a:2:", "1:2:x", "+1:2:", "3:2:", "0:2:", "1:99999999999999999999:"] {
            assert_eq!(text.parse::<Snapshot>(), Err(ParseSnapshotError), "{text}");
        }
    }

    fn snapshots() -> impl Strategy<Value = Snapshot> {
        (1_u64..12, 0_u64..12, proptest::collection::btree_set(0_u64..12, 0..6)).prop_map(|(xmin, span, xip)| {
            let xmax = xmin + span;
            Snapshot { xmin, xmax, xip: xip.into_iter().map(|n| xmin + n).filter(|txid| *txid < xmax).collect() }
        })
    }

    proptest! {
        #[test]
        fn to_cover_is_to_show_all_of_it(snapshot in snapshots(), other in snapshots()) {
            let expected = (1..40).all(|txid| !other.shows(txid) || snapshot.shows(txid));
            prop_assert_eq!(snapshot.covers(&other), expected, "{:?} {:?}", snapshot, other);
        }

        #[test]
        fn parsing_never_panics(text in "[0-9:,x]{0,40}") {
            let _ = text.parse::<Snapshot>();
        }
    }
}
