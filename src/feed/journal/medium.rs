//! How bytes get onto the disk: the seam at which tests let writes and syncs fail.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Writes and syncs. Reads need no seam: a test can damage the file itself.
pub(super) trait Medium: Send + Sync {
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Returns once what was written to the file survives a power cut.
    fn sync(&self, file: &File) -> io::Result<()>;
    /// How many bytes are free where `folder` is; as many as can be where that is not known.
    fn room(&self, folder: &Path) -> u64;
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

    fn room(&self, folder: &Path) -> u64 {
        rustix::fs::statvfs(folder).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}
