//! The power is cut: whatever was said to be durable is there afterwards.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::super::medium::{Disk, Medium};
use super::super::recover;
use super::support::*;
use crate::domain::sequence::{Lsn, Sequence};
use crate::feed::sink::{Side, Sink};

/// A disk that loses with the power what was not synced: of a file what was written since, of a folder the names since.
#[derive(Debug, Default)]
struct Volatile {
    /// By inode, what each file had in it when it was synced last.
    files: Mutex<HashMap<u64, Vec<u8>>>,
    /// The names that the folder had when it was synced last, and their inodes.
    names: Mutex<BTreeMap<OsString, u64>>,
}

impl Medium for Volatile {
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        Disk.write_at(file, bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        let (about, place) = (file.metadata()?, PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())));
        if about.is_file() {
            self.files.lock().insert(about.ino(), fs::read(place)?);
            return Ok(());
        }
        let entries = fs::read_dir(place)?.map(|entry| entry.map(|entry| (entry.file_name(), entry.ino())));
        *self.names.lock() = entries.collect::<io::Result<_>>()?;
        Ok(())
    }

    fn room(&self, folder: &Path) -> u64 {
        Disk.room(folder)
    }
}

impl Volatile {
    /// The folder as it is found when the power is back.
    fn cut(&self) -> tempfile::TempDir {
        let found = tempfile::tempdir().unwrap();
        for (name, inode) in &*self.names.lock() {
            fs::write(found.path().join(name), self.files.lock().get(inode).map_or(&[][..], Vec::as_slice)).unwrap();
        }
        found
    }
}

#[test]
fn what_was_said_to_be_durable_survives_a_power_cut() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(Volatile::default());
    let (mut writer, journal) = recover::open(small(folder.path()), disk.clone()).unwrap();
    // Most end in the segment in which they begin, of 64 KiB, and every fifth fills more than one.
    for number in 1..=20 {
        let rows = if number % 5 == 0 { 300 } else { 30 };
        let lsn = number * 10;
        writer.begin(&head(lsn)).unwrap();
        for index in 0..rows {
            push(&mut writer, index, &[(Side::Stays, "a")], &format!("{lsn}.{index:500}"));
        }
        writer.commit(Lsn(lsn + 1)).unwrap();
        writer.flush().unwrap();
        durable(&journal, lsn + 1);
        let found = disk.cut();
        let (_writer, survived) = open(&small(found.path())).unwrap();
        assert_eq!(survived.durable(), Lsn(lsn + 1));
        assert_eq!(read(&survived, "a", Sequence::ZERO), read(&journal, "a", Sequence::ZERO), "up to {lsn}");
    }
    assert!(folder.path().join("0000000a.log").exists(), "it is about many segments");
}
