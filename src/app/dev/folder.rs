//! The folder of `walclock dev`: one process at a time, and a note in it of where that process listens.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::lockfile::Lock;

/// The note, `dev.json`.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Note {
    /// Where the server listens.
    pub(super) url: String,
    /// Its database.
    pub(super) database_url: String,
}

/// A folder that this process alone uses. An ephemeral one is removed with it.
pub(super) struct Folder {
    path: PathBuf,
    /// Held for its lock.
    _lock: Lock,
    /// Held for its end.
    ephemeral: Option<tempfile::TempDir>,
}

impl Folder {
    /// Makes the folder if it is missing, and locks it.
    pub(super) fn open(path: PathBuf) -> anyhow::Result<Self> {
        fs::create_dir_all(&path).with_context(|| format!("making the folder {}", path.display()))?;
        let path = fs::canonicalize(&path).with_context(|| format!("finding the folder {}", path.display()))?;
        let lock = lock(&path)?;
        // Of a process that was killed: nobody listens there any more.
        let _ = fs::remove_file(path.join("dev.json"));
        Ok(Self { path, _lock: lock, ephemeral: None })
    }

    /// A new folder that goes with this value.
    pub(super) fn ephemeral() -> anyhow::Result<Self> {
        let made = tempfile::Builder::new().prefix("walclock-dev-").tempdir().context("making a temporary folder")?;
        // PostgreSQL may run as another user, who has to get to its own folder in it.
        fs::set_permissions(made.path(), fs::Permissions::from_mode(0o755)).context("opening the temporary folder")?;
        let folder = Self::open(made.path().to_owned())?;
        Ok(Self { ephemeral: Some(made), ..folder })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it goes with this value.
    pub(super) fn is_ephemeral(&self) -> bool {
        self.ephemeral.is_some()
    }

    /// Writes the note, at once and whole.
    pub(super) fn write_note(&self, note: &Note) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(note).context("writing dev.json")?;
        let (new, path) = (self.path.join("dev.json.new"), self.path.join("dev.json"));
        fs::write(&new, text).and_then(|()| fs::rename(&new, &path)).context("writing dev.json")
    }

    /// Removes the note.
    pub(super) fn remove_note(&self) {
        if let Err(error) = fs::remove_file(self.path.join("dev.json"))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "removing dev.json");
        }
    }
}

fn lock(path: &Path) -> anyhow::Result<Lock> {
    if let Some(lock) = Lock::take(path).with_context(|| format!("locking {}", path.display()))? {
        return Ok(lock);
    }
    let note = fs::read(path.join("dev.json")).ok();
    match note.and_then(|note| serde_json::from_slice::<Note>(&note).ok()) {
        Some(note) => bail!("{} is in use by the walclock at {}", path.display(), note.url),
        None => bail!("{} is in use by another walclock, which is still starting", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_hears_where_the_first_one_listens() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("a/b");
        let first = Folder::open(path.clone()).unwrap();
        let refused = |path: &Path| Folder::open(path.to_owned()).err().unwrap().to_string();
        assert!(refused(&path).ends_with("is in use by another walclock, which is still starting"));
        first.write_note(&Note { url: "http://h:1".to_owned(), database_url: "postgres://d".to_owned() }).unwrap();
        assert!(refused(&path).ends_with("is in use by the walclock at http://h:1"));
        drop(first);
        let third = Folder::open(path.clone()).unwrap();
        assert!(!third.path().join("dev.json").exists(), "a stale note is not believed");
    }

    #[test]
    fn an_ephemeral_folder_goes() {
        let folder = Folder::ephemeral().unwrap();
        let path = folder.path().to_owned();
        assert!(path.is_dir());
        drop(folder);
        assert!(!path.exists());
    }
}
