//! The timelines of a server: which of them wrote which part of its write-ahead log. Pure.

use super::sequence::Lsn;

/// A line of timelines, from the first one that is known to the one that goes on. Each is told by its number.
///
/// Which timeline a position belongs to follows from this alone, not from when or over which connection it was
/// received: so it is the same for everybody who looks at the same history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// The timelines that ended, by number, with the position at which the next one took over.
    ended: Vec<(u32, Lsn)>,
    current: u32,
}

impl Default for History {
    /// The one of a server that was never promoted or restored.
    fn default() -> Self {
        Self { ended: Vec::new(), current: 1 }
    }
}

impl History {
    /// The history of a server on timeline `current`, which has these parents: each with the position at which its
    /// child took over. What is no parent, since its number is not below `current`, is left out.
    pub fn new(current: u32, mut ended: Vec<(u32, Lsn)>) -> Self {
        ended.retain(|(timeline, _)| *timeline < current);
        // A child's number is above its parent's.
        ended.sort_unstable();
        Self { ended, current }
    }

    /// The timeline that goes on.
    pub fn current(&self) -> u32 {
        self.current
    }

    /// The timelines that ended, oldest first, each with the position at which the next one took over.
    pub fn ended(&self) -> &[(u32, Lsn)] {
        &self.ended
    }

    /// The timeline that a record at `lsn` belongs to; one that begins where a timeline ended belongs to the next.
    /// Greater positions never belong to a smaller timeline.
    pub fn timeline_of(&self, lsn: Lsn) -> u32 {
        let owner = self.ended.iter().find(|(_, ended_at)| lsn < *ended_at);
        owner.map_or(self.current, |(timeline, _)| *timeline)
    }

    /// The position from which on `other` is another history; none where the two are the same.
    pub fn parts_from(&self, other: &Self) -> Option<Lsn> {
        let ends = self.ended.iter().chain(&other.ended).map(|(_, ended_at)| *ended_at);
        let mut steps: Vec<Lsn> = std::iter::once(Lsn(0)).chain(ends).collect();
        steps.sort_unstable();
        steps.into_iter().find(|lsn| self.timeline_of(*lsn) != other.timeline_of(*lsn))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn history(current: u32, ended: &[(u32, u64)]) -> History {
        History::new(current, ended.iter().map(|(timeline, lsn)| (*timeline, Lsn(*lsn))).collect())
    }

    #[test]
    fn a_position_belongs_to_the_timeline_that_wrote_it() {
        let twice = history(4, &[(1, 100), (2, 150)]);
        for (lsn, timeline) in [(0, 1), (99, 1), (100, 2), (101, 2), (149, 2), (150, 4), (u64::MAX, 4)] {
            assert_eq!(twice.timeline_of(Lsn(lsn)), timeline, "{lsn}");
        }
        assert_eq!(History::default().timeline_of(Lsn(u64::MAX)), 1);
        // The order of the lines does not matter, and what is no parent says nothing.
        assert_eq!(history(4, &[(2, 150), (7, 10), (4, 10), (1, 100)]), twice);
    }

    #[test]
    fn histories_are_one_up_to_where_they_part() {
        let first = History::default();
        let promoted = history(2, &[(1, 100)]);
        for (one, other, at) in [
            (&first, &first, None),
            (&promoted, &promoted, None),
            (&first, &promoted, Some(100)),
            (&promoted, &history(3, &[(1, 100), (2, 150)]), Some(150)),
            // Two standbys promoted apart, under the same number and under two.
            (&promoted, &history(2, &[(1, 90)]), Some(90)),
            (&promoted, &history(3, &[(1, 120)]), Some(100)),
            (&promoted, &history(3, &[]), Some(0)),
        ] {
            assert_eq!(one.parts_from(other), at.map(Lsn), "{one:?} {other:?}");
            assert_eq!(other.parts_from(one), at.map(Lsn), "{other:?} {one:?}");
        }
    }

    proptest! {
        #[test]
        fn timelines_never_go_back(
            current in 1_u32..9,
            ended in proptest::collection::vec((1_u32..9, 0_u64..40), 0..8),
        ) {
            let history = history(current, &ended);
            let timelines: Vec<u32> = (0..50).map(|lsn| history.timeline_of(Lsn(lsn))).collect();
            prop_assert!(timelines.is_sorted());
            prop_assert_eq!(timelines.last(), Some(&current));
        }

        #[test]
        fn what_is_before_the_parting_is_the_same(
            one in (1_u32..5, proptest::collection::vec((1_u32..5, 0_u64..20), 0..5)),
            other in (1_u32..5, proptest::collection::vec((1_u32..5, 0_u64..20), 0..5)),
        ) {
            let (one, other) = (history(one.0, &one.1), history(other.0, &other.1));
            let differ = (0..30).map(Lsn).find(|lsn| one.timeline_of(*lsn) != other.timeline_of(*lsn));
            prop_assert_eq!(one.parts_from(&other), differ);
        }
    }
}
