//! The meta file: what is true of the journal as a whole and stands in no segment. It is replaced whole, or not at all.

use std::fs::File;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::{Doing, Error};
use super::medium::Medium;
use crate::domain::history::History;
use crate::domain::sequence::{Lsn, Sequence};
use crate::domain::snapshot::Snapshot;

const NAME: &str = "meta";
/// The first line: what the file is, the version of the whole folder's format, and the checksum of what follows.
const TITLE: &str = "walclock journal 1 ";

/// What the journal's positions mean: an LSN alone is no position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// PostgreSQL's system identifier.
    pub system_id: u64,
    /// The timeline that was last received from.
    pub timeline: u32,
    /// The replication slot.
    pub slot: String,
}

/// How far back the journal reaches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Every change behind it is here, or was never committed; zero where nobody has said so.
    pub floor: Sequence,
    /// How far the positions of a database reached that the feed left for another, or for an earlier state of it.
    pub left: Sequence,
    /// No transaction above it has been purged. Which of those below it have is not kept.
    pub purged_txid: u64,
    /// It shows every transaction that has been purged; none where no such snapshot is known.
    pub purged: Option<Snapshot>,
    /// What it shows had committed before the feed began.
    pub snapshot: Option<Snapshot>,
    /// The timelines of the server: what is on another one, or behind the end of its own, is no part of the feed.
    pub history: History,
}

/// The content of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Meta {
    /// Whose positions these are; none until it has been said.
    pub identity: Option<Identity>,
    /// The oldest segment; whatever is older is a left-over.
    pub segment_first: u32,
    /// The newest sequence as far as the segments do not tell.
    pub last: Sequence,
    /// How far the stream had been received, as far as the segments do not tell.
    pub end_lsn: Lsn,
    /// How far back the journal reaches.
    pub bounds: Bounds,
}

/// The content as text.
#[derive(Serialize, Deserialize)]
struct Record {
    identity: Option<Identity>,
    segment_first: u32,
    last: String,
    end_lsn: String,
    floor: String,
    left: String,
    purged_txid: u64,
    #[serde(default)]
    purged: Option<String>,
    snapshot: Option<String>,
    /// Each timeline that ended, where it did, and the one that goes on from there.
    forks: Vec<(u32, String, u32)>,
}

impl Meta {
    /// Reads the file of a folder; none where there is no such file.
    pub fn load(folder: &Path) -> Result<Option<Self>, Error> {
        let unusable = |what: &str| Error::Unusable { folder: folder.to_owned(), what: what.to_owned() };
        let text = match std::fs::read_to_string(folder.join(NAME)) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => return Err(unusable("its meta file is damaged")),
            Err(source) => return Err(Error::Io { doing: "reading the meta file", source }),
        };
        let Some(rest) = text.strip_prefix(TITLE) else {
            return Err(unusable("its meta file is not of this format and version"));
        };
        let body = rest.split_once('\n').filter(|(sum, body)| *sum == checksum(body)).map(|(_, body)| body);
        let record = body.and_then(|body| serde_json::from_str::<Record>(body).ok());
        record.and_then(Record::read).map(Some).ok_or_else(|| unusable("its meta file is damaged"))
    }

    /// Replaces the file. Returns once the new one survives a power cut.
    pub fn store(&self, folder: &Path, medium: &dyn Medium) -> Result<(), Error> {
        let body = serde_json::to_string_pretty(&Record::of(self)).expect("numbers and texts are valid JSON");
        let text = format!("{TITLE}{}\n{body}", checksum(&body));
        let replace = || {
            let aside = folder.join("meta.new");
            let file = File::create(&aside)?;
            medium.write_at(&file, text.as_bytes(), 0)?;
            medium.sync(&file)?;
            std::fs::rename(&aside, folder.join(NAME))?;
            medium.sync(&File::open(folder)?)
        };
        replace().doing("writing the meta file")
    }
}

impl Record {
    fn of(meta: &Meta) -> Self {
        let bounds = &meta.bounds;
        Self {
            identity: meta.identity.clone(),
            segment_first: meta.segment_first,
            last: meta.last.to_string(),
            end_lsn: meta.end_lsn.to_string(),
            floor: bounds.floor.to_string(),
            left: bounds.left.to_string(),
            purged_txid: bounds.purged_txid,
            purged: bounds.purged.as_ref().map(snapshot_text),
            snapshot: bounds.snapshot.as_ref().map(snapshot_text),
            forks: forks(&bounds.history),
        }
    }

    fn read(self) -> Option<Meta> {
        let current = self.forks.last().map_or(1, |(_, _, next)| *next);
        let snapshot = |text: Option<String>| text.map(|text| text.parse()).transpose().ok();
        let ended = |(timeline, ended_at, _): (u32, String, u32)| Some((timeline, ended_at.parse().ok()?));
        Some(Meta {
            identity: self.identity,
            segment_first: self.segment_first,
            last: self.last.parse().ok()?,
            end_lsn: self.end_lsn.parse().ok()?,
            bounds: Bounds {
                floor: self.floor.parse().ok()?,
                left: self.left.parse().ok()?,
                purged_txid: self.purged_txid,
                purged: snapshot(self.purged)?,
                snapshot: snapshot(self.snapshot)?,
                history: History::new(current, self.forks.into_iter().map(ended).collect::<Option<_>>()?),
            },
        })
    }
}

fn forks(history: &History) -> Vec<(u32, String, u32)> {
    let nexts = history.ended().iter().skip(1).map(|(timeline, _)| *timeline).chain([history.current()]);
    let forks = history.ended().iter().zip(nexts);
    forks.map(|((timeline, ended_at), next)| (*timeline, ended_at.to_string(), next)).collect()
}

fn checksum(body: &str) -> String {
    format!("{:08x}", crc32c::crc32c(body.as_bytes()))
}

fn snapshot_text(snapshot: &Snapshot) -> String {
    let in_progress: Vec<String> = snapshot.in_progress().iter().map(u64::to_string).collect();
    format!("{}:{}:{}", snapshot.xmin, snapshot.xmax, in_progress.join(","))
}

#[cfg(test)]
mod tests {
    use super::super::medium::Disk;
    use super::*;

    fn example() -> Meta {
        Meta {
            identity: Some(Identity { system_id: u64::MAX, timeline: 3, slot: "feed".to_owned() }),
            segment_first: 7,
            last: Sequence::new(3, Lsn(1 << 40), 5),
            end_lsn: Lsn(1 << 41),
            bounds: Bounds {
                floor: Sequence::new(2, Lsn(77), u32::MAX),
                left: Sequence::new(4, Lsn(9), 1),
                purged_txid: 1 << 50,
                purged: Some("7:9:8".parse().expect("a snapshot")),
                snapshot: Some("10:20:12,14".parse().expect("a snapshot")),
                history: History::new(3, vec![(1, Lsn(50)), (2, Lsn(99))]),
            },
        }
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(Meta::load(folder.path()).expect("readable"), None);
        for meta in [Meta::default(), example()] {
            meta.store(folder.path(), &Disk).expect("stored");
            assert_eq!(Meta::load(folder.path()).expect("readable"), Some(meta));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        example().store(folder.path(), &Disk).expect("stored");
        let path = folder.path().join(NAME);
        let bytes = std::fs::read(&path).expect("stored");
        let damaged = |bytes: &[u8]| {
            std::fs::write(&path, bytes).expect("writable");
            matches!(Meta::load(folder.path()), Err(Error::Unusable { .. }))
        };
        for length in 0..bytes.len() {
            assert!(damaged(&bytes[..length]), "cut at {length}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(damaged(&flipped), "bit {bit}");
        }
    }
}
