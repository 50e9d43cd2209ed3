//! Whether the stream goes on where the journal ends. PostgreSQL streams on silently when it is asked for an older
//! position than the slot has, so we must notice ourselves. Pure.

use std::fmt;

use crate::domain::history::History;
use crate::domain::sequence::Lsn;
use crate::feed::source::Loss;

/// What the journal knows of the stream that it was written from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// The cluster's identifier.
    pub system: u64,
    /// The timelines of the server, at the last connection.
    pub history: History,
    /// Everything up to here is durable in the journal.
    pub durable: Lsn,
}

/// What the server has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The cluster's identifier.
    pub system: u64,
    /// Its timelines.
    pub history: History,
    /// Where its WAL ends; none for a standby, which may only be behind.
    pub wal_end: Option<Lsn>,
    /// The slot, if there is one.
    pub slot: Slot,
}

/// The slot, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// There is none.
    Missing,
    /// There is one without its WAL, or with a publication that it can never see: it is of no more use.
    Dead(Gap),
    /// It streams from here on.
    At(Lsn),
}

/// How to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing was ever stored: begin where the slot begins.
    Begin,
    /// Nothing is missing between the journal and the slot.
    Continue,
    /// Changes are missing: begin anew, and tell every reader.
    Anew(Gap),
}

/// Why changes are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    /// The server is another cluster.
    OtherCluster,
    /// The server is on an older timeline than before, or its WAL ends before what it has sent: it was restored.
    Restored,
    /// The server's history parted from the one that the journal was written from.
    Parted {
        /// Where they part.
        at: Lsn,
    },
    /// The slot is gone.
    SlotMissing,
    /// The slot is there, and of no more use.
    SlotLost(Loss),
    /// The slot was made anew or advanced by somebody else.
    SlotAhead {
        /// Where it begins.
        at: Lsn,
    },
    /// A publication was gone while changes were made.
    Unpublished,
}

/// Compares the two; `known` is none where nothing was ever stored.
pub(super) fn judge(known: Option<&Known>, found: &Found) -> Verdict {
    let Some(known) = known else { return Verdict::Begin };
    if known.system != found.system {
        return Verdict::Anew(Gap::OtherCluster);
    }
    if found.history.current() < known.history.current() {
        return Verdict::Anew(Gap::Restored);
    }
    if let Some(at) = known.history.parts_from(&found.history)
        && known.durable > at
    {
        return Verdict::Anew(Gap::Parted { at });
    }
    // Put back by a copy of its files, without a new timeline: asked for what lies beyond its WAL, PostgreSQL would
    // silently leave out all that commits before it gets there.
    if found.wal_end.is_some_and(|end| end < known.durable) {
        return Verdict::Anew(Gap::Restored);
    }
    match found.slot {
        Slot::Missing => Verdict::Anew(Gap::SlotMissing),
        Slot::Dead(gap) => Verdict::Anew(gap),
        Slot::At(at) if at > known.durable => Verdict::Anew(Gap::SlotAhead { at }),
        Slot::At(_) => Verdict::Continue,
    }
}

impl Verdict {
    /// Whether it may be the fault of this host alone, where another may know better: an old primary that came back lies
    /// behind the one that took its place, a name may lead to another cluster, and a standby need not have the slot.
    pub(super) fn may_be_the_hosts(self, is_spare: bool) -> bool {
        match self {
            Self::Continue => false,
            Self::Begin => is_spare,
            Self::Anew(gap) => is_spare || matches!(gap, Gap::Restored | Gap::OtherCluster),
        }
    }
}

impl Gap {
    /// Whether the positions and transaction ids of before mean nothing any more.
    pub(super) fn is_elsewhere(self) -> bool {
        match self {
            // Where two lines part, each goes on to count for itself, perhaps under the same timeline's number.
            Self::OtherCluster | Self::Restored | Self::Parted { .. } => true,
            Self::SlotMissing | Self::SlotLost(_) | Self::SlotAhead { .. } | Self::Unpublished => false,
        }
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherCluster => write!(f, "the server is another PostgreSQL cluster than before"),
            Self::Restored => write!(f, "the server was restored to an earlier state"),
            Self::Parted { at } => write!(f, "the server's history parts from the journal's at {at}"),
            Self::SlotMissing => write!(f, "the replication slot is gone"),
            Self::SlotLost(loss) => write!(f, "the replication slot {loss}"),
            Self::SlotAhead { at } => {
                write!(f, "the replication slot stands at {at}, beyond the journal: it was made anew or advanced")
            }
            Self::Unpublished => write!(f, "a publication was gone while changes were made"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(current: u32, ended: &[(u32, u64)]) -> History {
        History::new(current, ended.iter().map(|(timeline, lsn)| (*timeline, Lsn(*lsn))).collect())
    }

    fn found(history: History, slot: Slot) -> Found {
        Found { system: 1, history, wal_end: Some(Lsn(200)), slot }
    }

    #[test]
    fn what_one_of_several_hosts_may_be_wrong_about() {
        let lost = Gap::SlotLost(Loss::Idle);
        for (verdict, on_primary, on_standby) in [
            (Verdict::Continue, false, false),
            (Verdict::Begin, false, true),
            (Verdict::Anew(Gap::Restored), true, true),
            (Verdict::Anew(Gap::OtherCluster), true, true),
            (Verdict::Anew(Gap::SlotMissing), false, true),
            (Verdict::Anew(lost), false, true),
        ] {
            let found = [false, true].map(|is_standby| verdict.may_be_the_hosts(is_standby));
            assert_eq!(found, [on_primary, on_standby], "{verdict:?}");
        }
    }

    #[test]
    fn verdicts() {
        let second = || history(2, &[(1, 50)]);
        let third = |at| history(3, &[(1, 50), (2, at)]);
        let known = Known { system: 1, history: second(), durable: Lsn(100) };
        let at = |lsn| Slot::At(Lsn(lsn));
        let lost = Gap::SlotLost(Loss::Idle);
        let parted = |at| Verdict::Anew(Gap::Parted { at: Lsn(at) });
        for (found, expected) in [
            (found(second(), at(100)), Verdict::Continue),
            (found(second(), at(10)), Verdict::Continue),
            (found(second(), at(101)), Verdict::Anew(Gap::SlotAhead { at: Lsn(101) })),
            (found(second(), Slot::Missing), Verdict::Anew(Gap::SlotMissing)),
            (found(second(), Slot::Dead(lost)), Verdict::Anew(lost)),
            (found(history(1, &[]), at(10)), Verdict::Anew(Gap::Restored)),
            (Found { wal_end: Some(Lsn(99)), ..found(second(), at(90)) }, Verdict::Anew(Gap::Restored)),
            (Found { wal_end: Some(Lsn(100)), ..found(second(), at(90)) }, Verdict::Continue),
            (Found { wal_end: None, ..found(second(), at(90)) }, Verdict::Continue),
            // Promoted: good while all that we have lies before the fork and the slot came along.
            (found(third(150), at(100)), Verdict::Continue),
            (found(third(150), Slot::Missing), Verdict::Anew(Gap::SlotMissing)),
            (found(third(100), at(90)), Verdict::Continue),
            (found(third(99), at(90)), parted(99)),
            // Never a part of its history.
            (found(history(3, &[]), at(1)), parted(0)),
            (found(history(3, &[(1, 60)]), at(1)), parted(50)),
            // Another standby was promoted under the same number.
            (found(history(2, &[(1, 60)]), at(1)), parted(50)),
            (Found { system: 2, ..found(second(), at(1)) }, Verdict::Anew(Gap::OtherCluster)),
        ] {
            assert_eq!(judge(Some(&known), &found), expected, "{found:?}");
            assert_eq!(judge(None, &found), Verdict::Begin);
        }
    }
}
