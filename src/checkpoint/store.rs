//! Writing and deleting checkpoint folders.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use tch::Tensor;

use super::files::{COMPLETE, CONFIG, FILES, MODEL, OPTIMIZER, PROGRESS, digest, io, name_of, step_of};
use super::find::{check_head, list};
use super::{CheckpointError, Snapshot};

const BEST: &str = "best";
/// Folders on their way in or out.
const TEMPORARY: &str = ".tmp-";

/// Folder of the checkpoints of a run.
#[must_use]
pub fn folder_of(run_dir: &Path) -> PathBuf {
    run_dir.join("checkpoints")
}

fn place(root: &Path, step: u64) -> PathBuf {
    root.join(name_of(step))
}

/// A folder in `root` in which this process may gather the files of a step; [`sweep`] removes it.
#[must_use]
pub fn temporary(root: &Path, step: u64) -> PathBuf {
    root.join(format!("{TEMPORARY}{}-{step:08}", std::process::id()))
}

/// Step of the checkpoint that the link `best` in `root` points at.
#[must_use]
pub fn best(root: &Path) -> Option<u64> {
    step_of(fs::read_link(root.join(BEST)).ok()?.file_name()?.to_str()?)
}

fn sync(path: &Path) -> Result<(), CheckpointError> {
    File::open(path).and_then(|f| f.sync_all()).map_err(io(path))
}

fn write_text(path: &Path, text: &str) -> Result<(), CheckpointError> {
    let mut file = File::create(path).map_err(io(path))?;
    file.write_all(text.as_bytes()).map_err(io(path))
}

/// Writes a checkpoint into `root`, which is made if its parent is there, and answers its folder. The step's folder is replaced if it exists.
///
/// # Errors
/// [`CheckpointError::Io`] or [`CheckpointError::Torch`]; then nothing of the new checkpoint is left and older ones are untouched.
pub fn save(root: &Path, snapshot: &Snapshot) -> Result<PathBuf, CheckpointError> {
    // Never the run folder itself: if that is gone, somebody renamed or deleted it under the run.
    match fs::create_dir(root) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(io(root)(e)),
        _ => {}
    }
    let target = place(root, snapshot.progress.step);
    let temporary = temporary(root, snapshot.progress.step);
    let written = write_into(&temporary, snapshot).and_then(|()| {
        put_in_place(&temporary, &target)?;
        sync(root)
    });
    if written.is_err() {
        let _ = fs::remove_dir_all(&temporary);
    }
    written.map(|()| target)
}

/// Renames `temporary` to `target`. An older folder of that name is exchanged in one act where the file system can, so that no moment
/// is without one.
fn put_in_place(temporary: &Path, target: &Path) -> Result<(), CheckpointError> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    if target.exists() {
        if renameat_with(CWD, temporary, CWD, target, RenameFlags::EXCHANGE).is_ok() {
            return fs::remove_dir_all(temporary).map_err(io(temporary));
        }
        fs::remove_dir_all(target).map_err(io(target))?;
    }
    fs::rename(temporary, target).map_err(io(target))
}

fn write_into(folder: &Path, snapshot: &Snapshot) -> Result<(), CheckpointError> {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).map_err(io(folder))?;
    let torch = |source| CheckpointError::Torch {
        path: folder.to_owned(),
        source,
    };
    Tensor::write_safetensors(&snapshot.model, folder.join(MODEL)).map_err(torch)?;
    Tensor::write_safetensors(&snapshot.optimizer, folder.join(OPTIMIZER)).map_err(torch)?;
    let progress = serde_json::to_string_pretty(&snapshot.progress).expect("plain data serialises");
    write_text(&folder.join(PROGRESS), &progress)?;
    write_text(&folder.join(CONFIG), &snapshot.config_toml)?;
    let mut sums = BTreeMap::new();
    for name in [MODEL, OPTIMIZER] {
        check_head(&folder.join(name)).map_err(|detail| CheckpointError::Damaged {
            path: folder.to_owned(),
            detail: format!("{name} was not written whole: {detail}"),
        })?;
    }
    for name in FILES {
        let path = folder.join(name);
        sync(&path)?;
        sums.insert(name, digest(&path).map_err(io(&path))?);
    }
    let complete = folder.join(COMPLETE);
    write_text(&complete, &serde_json::to_string_pretty(&sums).expect("plain data serialises"))?;
    sync(&complete)?;
    sync(folder)
}

/// Points the link `best` in `root` at the checkpoint of `step`.
///
/// # Errors
/// [`CheckpointError::Io`]; an older link then stands.
pub fn mark_best(root: &Path, step: u64) -> Result<(), CheckpointError> {
    let (link, temporary) = (root.join(BEST), root.join(format!(".{BEST}-{}", std::process::id())));
    let _ = fs::remove_file(&temporary);
    let target = PathBuf::from(name_of(step));
    std::os::unix::fs::symlink(&target, &temporary).map_err(io(&temporary))?;
    fs::rename(&temporary, &link).map_err(io(&link))
}

/// Removes what writers and deletions that were cut short have left in `root`. Only for whoever holds the run's lock.
pub fn sweep(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Deletes a checkpoint. It gets another name first, so that a process that dies on the way leaves no half one.
///
/// # Errors
/// [`CheckpointError::Io`].
pub fn delete(folder: &Path) -> Result<(), CheckpointError> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let going = folder.with_file_name(format!("{TEMPORARY}{}-{name}", std::process::id()));
    fs::rename(folder, &going).map_err(io(folder))?;
    fs::remove_dir_all(&going).map_err(io(&going))
}

/// Steps of the checkpoints that stand in `root`, ascending, without looking inside.
#[must_use]
pub fn steps(root: &Path) -> Vec<u64> {
    list(root).unwrap_or_default().into_iter().map(|(step, _)| step).collect()
}
