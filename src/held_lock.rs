//! Whose run folder is it? A run knows its folder by the inode of the lock file that its process holds, so that it notices when the folder was renamed,
//! deleted or replaced, and writes nothing where another process may.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The run folder is no longer the one that this process locked; nothing was written.
#[derive(Debug, thiserror::Error)]
#[error("{reason}; nothing is written where another process may")]
pub struct FolderLost {
    /// What became of it.
    pub reason: String,
}

/// A lock file that this process holds, by its inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldLock {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl HeldLock {
    /// The lock on `file`, which was opened at `path`.
    ///
    /// # Errors
    /// The file system does not tell.
    pub fn new(path: &Path, file: &File) -> io::Result<Self> {
        let found = file.metadata()?;
        Ok(Self {
            path: path.to_owned(),
            device: found.dev(),
            inode: found.ino(),
        })
    }

    /// Why the folder is no longer this process's, if it is not: its lock file is gone, or another file has its name. Then the folder was renamed,
    /// deleted or replaced, and whoever comes next finds no lock.
    #[must_use]
    pub fn lost(&self) -> Option<String> {
        let what = match std::fs::metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == (self.device, self.inode) => return None,
            Ok(_) => "another file has the place of its lock",
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => "its lock is gone",
            // A file system that does not answer for a while says nothing about the folder.
            Err(_) => return None,
        };
        let folder = self.path.parent().unwrap_or(&self.path);
        Some(format!(
            "run.dir = \"{}\": the run folder was renamed, deleted or replaced under the run ({what}: {})",
            folder.display(),
            self.path.display()
        ))
    }

    /// Before something is written into the folder.
    ///
    /// # Errors
    /// [`FolderLost`] if it is no longer this process's.
    pub fn check(&self) -> Result<(), FolderLost> {
        self.lost().map_or(Ok(()), |reason| Err(FolderLost { reason }))
    }
}
