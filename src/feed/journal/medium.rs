//! How bytes get onto the disk: the seam at which tests let writes and syncs fail.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Writes and syncs. Reads need no seam: a test can damage the file itself.
pub(super) trait Medium: Send + Sync {
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Returns once what was written to the file survives a power cut.
    fn sync(&self, file: &File) -> io::Result<()>;
}

/// The disk as it is.
#[derive(Debug)]
pub(super) struct Disk;

impl Medium for Disk {
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}
