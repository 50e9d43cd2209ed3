//! What can go wrong with the journal.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why the journal could not be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is out of its bounds.
    #[error("journal: {0}")]
    Setting(&'static str),
    /// Another process holds the folder.
    #[error("another process is using the journal in {}", .0.display())]
    Locked(PathBuf),
    /// The folder holds something that this version does not read, or that is damaged beyond what can be rebuilt.
    #[error("the journal in {} is not usable: {what}", folder.display())]
    Unusable {
        /// Where it is.
        folder: PathBuf,
        /// What was found.
        what: String,
    },
    /// A file could not be read or changed. The journal itself is as it was.
    #[error("{doing} of the journal")]
    Io {
        /// The act, as "writing the meta file".
        doing: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A change is larger than a frame may be.
    #[error("a change of {bytes} bytes does not fit into the journal")]
    Oversized {
        /// Its size as a frame.
        bytes: usize,
    },
    /// The journal takes nothing more until it is mended.
    #[error(transparent)]
    Stopped(#[from] Failure),
}

/// A write or a sync failed. What is on the disk is not known any more, so it is never tried again: the journal goes on
/// serving what was visible, and acknowledges nothing more before [`super::Writer::mend`] has gone back to what is
/// certain.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the journal stopped while {doing}: {source}")]
pub struct Failure {
    /// The act, as "writing a segment".
    pub doing: &'static str,
    /// The cause.
    #[source]
    pub source: Arc<io::Error>,
}

impl Failure {
    /// Whether the cause is that the disk or the quota is full.
    pub fn is_disk_full(&self) -> bool {
        is_disk_full(&self.source)
    }
}

impl Error {
    /// Whether the same may go well later.
    pub fn may_heal(&self) -> bool {
        match self {
            Self::Io { .. } | Self::Stopped(_) => true,
            Self::Setting(_) | Self::Locked(_) | Self::Unusable { .. } | Self::Oversized { .. } => false,
        }
    }

    /// Whether the cause is that the disk or the quota is full.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => is_disk_full(source),
            Self::Stopped(failure) => failure.is_disk_full(),
            Self::Setting(_) | Self::Locked(_) | Self::Unusable { .. } | Self::Oversized { .. } => false,
        }
    }
}

fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Adds to an input or output error what was being done.
pub(super) trait Doing<T> {
    /// The error as one of the journal's.
    fn doing(self, doing: &'static str) -> Result<T, Error>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, doing: &'static str) -> Result<T, Error> {
        self.map_err(|source| Error::Io { doing, source })
    }
}

/// Why stored changes could not be read.
#[derive(Debug)]
pub(super) enum Fault {
    /// The file could not be read; nothing is known about what is in it.
    Io(io::Error),
    /// The segment's own bytes are not what was written.
    Segment,
    /// The sidecar's bytes are not what was written. It can be rebuilt.
    Sidecar,
}

impl From<io::Error> for Fault {
    fn from(source: io::Error) -> Self {
        Self::Io(source)
    }
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Io(source) => source,
            Fault::Segment => Self::new(io::ErrorKind::InvalidData, "a segment is damaged"),
            Fault::Sidecar => Self::new(io::ErrorKind::InvalidData, "a sidecar is damaged"),
        }
    }
}
