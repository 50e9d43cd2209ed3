//! A lock on a folder, so that one process at a time has it.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// The lock on the file `lock` in a folder. Let go when it is dropped, or when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Takes the lock, without waiting; none where another has it.
    ///
    /// # Errors
    ///
    /// Where the file cannot be made or the file system has no locks.
    pub fn take(folder: &Path) -> io::Result<Option<Self>> {
        let file = File::options().create(true).append(true).open(folder.join("lock"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Drop for Lock {
    /// Unlocks in so many words: to close the file would not do while a child that is being started still has it open.
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_free_again_at_once_though_a_copy_of_the_file_is_open() {
        let folder = tempfile::tempdir().unwrap();
        let lock = Lock::take(folder.path()).unwrap().expect("nobody has it");
        assert!(Lock::take(folder.path()).unwrap().is_none());
        let copy = lock.0.try_clone().unwrap();
        drop(lock);
        assert!(Lock::take(folder.path()).unwrap().is_some());
        drop(copy);
    }
}
