//! Whether the stream goes on where the journal ends. PostgreSQL streams on silently when it is asked for an older
//! position than the slot has, so we must notice ourselves. Pure.

use std::fmt;

use crate::domain::sequence::Lsn;

/// What the journal knows of the stream that it was written from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// The cluster's identifier.
    pub system: u64,
    /// The timeline of the last connection.
    pub timeline: u32,
    /// Everything up to here is durable in the journal.
    pub durable: Lsn,
}

/// What the server has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The cluster's identifier.
    pub system: u64,
    /// The timeline that it is on.
    pub timeline: u32,
    /// Where its WAL ends; none for a standby, which may only be behind.
    pub wal_end: Option<Lsn>,
    /// Where its timeline left each of its parents.
    pub forks: Vec<(u32, Lsn)>,
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
    /// The slot is there, its WAL is not.
    SlotLost,
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
    if found.timeline < known.timeline {
        return Verdict::Anew(Gap::Restored);
    }
    if found.timeline > known.timeline {
        let fork = found.forks.iter().find(|(parent, _)| *parent == known.timeline);
        match fork {
            Some((_, at)) if known.durable <= *at => {}
            Some((_, at)) => return Verdict::Anew(Gap::Parted { at: *at }),
            None => return Verdict::Anew(Gap::Parted { at: Lsn(0) }),
        }
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

impl Gap {
    /// Whether the positions and transaction ids of before mean nothing any more.
    pub(super) fn is_elsewhere(self) -> bool {
        match self {
            Self::OtherCluster | Self::Restored => true,
            Self::Parted { .. } | Self::SlotMissing | Self::SlotLost | Self::SlotAhead { .. } | Self::Unpublished => {
                false
            }
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
            Self::SlotLost => {
                write!(f, "the replication slot lost its WAL: raise max_slot_wal_keep_size, or stop for a shorter time")
            }
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

    const KNOWN: Known = Known { system: 1, timeline: 2, durable: Lsn(100) };

    fn found(timeline: u32, slot: Slot) -> Found {
        Found { system: 1, timeline, wal_end: Some(Lsn(200)), forks: vec![(1, Lsn(50)), (2, Lsn(150))], slot }
    }

    #[test]
    fn verdicts() {
        let parted = |at| Found { forks: vec![(2, Lsn(at))], ..found(3, Slot::At(Lsn(90))) };
        for (found, expected) in [
            (found(2, Slot::At(Lsn(100))), Verdict::Continue),
            (found(2, Slot::At(Lsn(10))), Verdict::Continue),
            (found(2, Slot::At(Lsn(101))), Verdict::Anew(Gap::SlotAhead { at: Lsn(101) })),
            (found(2, Slot::Missing), Verdict::Anew(Gap::SlotMissing)),
            (found(2, Slot::Dead(Gap::SlotLost)), Verdict::Anew(Gap::SlotLost)),
            (found(1, Slot::At(Lsn(10))), Verdict::Anew(Gap::Restored)),
            (Found { wal_end: Some(Lsn(99)), ..found(2, Slot::At(Lsn(90))) }, Verdict::Anew(Gap::Restored)),
            (Found { wal_end: Some(Lsn(100)), ..found(2, Slot::At(Lsn(90))) }, Verdict::Continue),
            (Found { wal_end: None, ..found(2, Slot::At(Lsn(90))) }, Verdict::Continue),
            // Promoted: good while all that we have lies before the fork and the slot came along.
            (found(3, Slot::At(Lsn(100))), Verdict::Continue),
            (found(3, Slot::Missing), Verdict::Anew(Gap::SlotMissing)),
            (parted(100), Verdict::Continue),
            (parted(99), Verdict::Anew(Gap::Parted { at: Lsn(99) })),
            (Found { forks: Vec::new(), ..found(3, Slot::At(Lsn(1))) }, Verdict::Anew(Gap::Parted { at: Lsn(0) })),
            (Found { system: 2, ..found(2, Slot::At(Lsn(1))) }, Verdict::Anew(Gap::OtherCluster)),
        ] {
            assert_eq!(judge(Some(&KNOWN), &found), expected, "{found:?}");
            assert_eq!(judge(None, &found), Verdict::Begin);
        }
    }
}
