//! One daemon per run folder: an advisory lock that the kernel drops with the process, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::exit::CliError;
use crate::held_lock::HeldLock;

/// Name of the lock file in a run folder; it stays there, only the lock on it comes and goes.
pub const LOCK_FILE: &str = "daemon.lock";

/// The lock, and what this process made to get it.
#[derive(Debug)]
pub struct RunLock {
    file: File,
    held: HeldLock,
    path: PathBuf,
    /// Folders that did not exist before, innermost first.
    made: Vec<PathBuf>,
    /// Whether the file did not exist before.
    fresh: bool,
}

impl RunLock {
    /// Takes the lock, making the folder if need be.
    ///
    /// # Errors
    /// Exit code 64 naming the holder if another process has it; 74 if the folder cannot be written.
    pub fn take(run_dir: &Path) -> Result<Self, CliError> {
        let made: Vec<PathBuf> = run_dir
            .ancestors()
            .take_while(|a| !a.as_os_str().is_empty() && !a.exists())
            .map(Path::to_path_buf)
            .collect();
        let refused = |e: std::io::Error| refused(run_dir, &e);
        std::fs::create_dir_all(run_dir).map_err(refused)?;
        let path = run_dir.join(LOCK_FILE);
        let fresh = !path.exists();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(refused)?;
        match file.try_lock() {
            Ok(()) => Ok(Self {
                held: HeldLock::new(&path, &file).map_err(|e| CliError::io(format!("{}: {e}", path.display())))?,
                file,
                path,
                made,
                fresh,
            }),
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let holder = holder.split_whitespace().collect::<Vec<_>>().join(", ");
                let holder = if holder.is_empty() { "another process".to_owned() } else { holder };
                Err(CliError::usage(
                    format!("run.dir = \"{}\": run folder in use by {holder}", run_dir.display()),
                    "stop that daemon, or choose another run.dir".to_owned(),
                ))
            }
            Err(TryLockError::Error(e)) => Err(CliError::io(format!("{}: cannot be locked: {e}", path.display()))),
        }
    }

    /// Writes who holds it, for whoever is refused.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn describe(&self, admin: Option<std::net::SocketAddr>) -> std::io::Result<()> {
        let mut file = &self.file;
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "pid={}", std::process::id())?;
        if let Some(address) = admin {
            writeln!(file, "admin=http://{address}")?;
        }
        file.flush()
    }

    /// How the folder is recognised: by whoever writes into it, and by the watch that ends the run when it is lost.
    #[must_use]
    pub fn held(&self) -> &HeldLock {
        &self.held
    }

    /// Removes what [`Self::take`] made, so that a refused start leaves nothing; folders with other content stay.
    pub fn undo(&self) {
        if self.fresh {
            let _ = std::fs::remove_file(&self.path);
        }
        for folder in &self.made {
            if std::fs::remove_dir(folder).is_err() {
                break;
            }
        }
    }
}

/// A folder that cannot be made or written: the config's fault where it names what is none or another's; a disk that is full, read-only or broken may be
/// mended, and a supervisor that starts the run again then has a point.
fn refused(run_dir: &Path, e: &std::io::Error) -> CliError {
    use std::io::ErrorKind as K;
    let message = format!("run.dir = \"{}\": {e}", run_dir.display());
    match e.kind() {
        K::PermissionDenied
        | K::NotADirectory
        | K::AlreadyExists
        | K::NotFound
        | K::InvalidInput
        | K::InvalidFilename
        | K::IsADirectory => CliError::usage(message, "choose a folder that can be written".to_owned()),
        _ => CliError {
            hint: Some("make room or mend the disk, and start again; or choose a folder on another one".into()),
            ..CliError::io(message)
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_taker_is_told_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("runs/a");
        let first = RunLock::take(&run).unwrap();
        first.describe(Some("127.0.0.1:9464".parse().unwrap())).unwrap();
        let error = RunLock::take(&run).unwrap_err();
        assert_eq!(error.code, crate::exit::ExitCode::Usage);
        assert!(
            error
                .message
                .contains(&format!("in use by pid={}, admin=http://127.0.0.1:9464", std::process::id())),
            "{}",
            error.message
        );
        drop(first);
        RunLock::take(&run).unwrap();
    }

    #[test]
    fn a_folder_that_is_renamed_deleted_or_replaced_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("runs/a");
        let moved = dir.path().join("moved");
        let held = || {
            let _ = std::fs::remove_dir_all(dir.path().join("runs"));
            let lock = RunLock::take(&run).unwrap();
            assert_eq!(lock.held().lost(), None);
            lock
        };
        let lock = held();
        std::fs::rename(dir.path().join("runs"), &moved).unwrap();
        assert!(lock.held().lost().unwrap().contains("its lock is gone"));
        std::fs::rename(&moved, dir.path().join("runs")).unwrap();
        assert_eq!(lock.held().lost(), None, "it is back");

        let lock = held();
        std::fs::rename(&run, &moved).unwrap();
        let other = RunLock::take(&run).unwrap();
        assert!(lock.held().lost().unwrap().contains("another file"));
        assert_eq!(other.held().lost(), None);

        let lock = held();
        std::fs::remove_file(run.join(LOCK_FILE)).unwrap();
        assert!(lock.held().lost().unwrap().contains("is gone"));

        let lock = held();
        std::fs::remove_dir_all(&run).unwrap();
        std::fs::write(&run, "a file").unwrap();
        assert!(lock.held().lost().unwrap().contains("is gone"));
    }

    #[test]
    fn undo_leaves_nothing_that_was_not_there() {
        let dir = tempfile::tempdir().unwrap();
        RunLock::take(&dir.path().join("runs/a")).unwrap().undo();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        std::fs::create_dir_all(dir.path().join("runs")).unwrap();
        RunLock::take(&dir.path().join("runs/a")).unwrap().undo();
        assert!(dir.path().join("runs").exists());
        let lock = RunLock::take(&dir.path().join("runs/a")).unwrap();
        std::fs::write(dir.path().join("runs/a/kept"), "x").unwrap();
        lock.undo();
        assert!(dir.path().join("runs/a/kept").exists());
    }
}
