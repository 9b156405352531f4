//! Writing, finding and reading checkpoint folders.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tch::Tensor;

use super::{CheckpointError, Progress, Snapshot};

const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const PROGRESS: &str = "progress.json";
const CONFIG: &str = "config.toml";
const COMPLETE: &str = "complete.json";
const PREFIX: &str = "step-";
const BEST: &str = "best";

/// Folder of the checkpoints of a run.
#[must_use]
pub fn folder_of(run_dir: &Path) -> PathBuf {
    run_dir.join("checkpoints")
}

fn place(root: &Path, step: u64) -> PathBuf {
    root.join(format!("{PREFIX}{step:08}"))
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> CheckpointError + '_ {
    move |source| CheckpointError::Io {
        path: path.to_owned(),
        source,
    }
}

fn sync(path: &Path) -> Result<(), CheckpointError> {
    File::open(path).and_then(|f| f.sync_all()).map_err(io(path))
}

fn digest(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        hash.update(&buffer[..n]);
    }
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

fn write_text(path: &Path, text: &str) -> Result<(), CheckpointError> {
    let mut file = File::create(path).map_err(io(path))?;
    file.write_all(text.as_bytes()).map_err(io(path))
}

/// Writes a checkpoint into `root` and answers its folder. The step's folder is replaced if it exists.
///
/// # Errors
/// [`CheckpointError::Io`] or [`CheckpointError::Torch`]; then nothing of the new checkpoint is left and older ones are untouched.
pub fn save(root: &Path, snapshot: &Snapshot) -> Result<PathBuf, CheckpointError> {
    fs::create_dir_all(root).map_err(io(root))?;
    let target = place(root, snapshot.progress.step);
    let temporary = root.join(format!(".tmp-{}-{:08}", std::process::id(), snapshot.progress.step));
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
    for name in [MODEL, OPTIMIZER, PROGRESS, CONFIG] {
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
    let target = place(Path::new(""), step);
    std::os::unix::fs::symlink(&target, &temporary).map_err(io(&temporary))?;
    fs::rename(&temporary, &link).map_err(io(&link))
}

/// Steps of the checkpoints that stand in `root`, ascending, without looking inside.
#[must_use]
pub fn steps(root: &Path) -> Vec<u64> {
    list(root).into_iter().map(|(step, _)| step).collect()
}

/// (step, folder) of the checkpoints in `root`, ascending, without looking inside.
#[must_use]
pub fn list(root: &Path) -> Vec<(u64, PathBuf)> {
    let Ok(entries) = fs::read_dir(root) else { return Vec::new() };
    let mut found: Vec<(u64, PathBuf)> = entries
        .flatten()
        .filter_map(|e| {
            let step = e.file_name().to_str()?.strip_prefix(PREFIX)?.parse().ok()?;
            Some((step, e.path()))
        })
        .collect();
    found.sort();
    found
}

fn verify(folder: &Path) -> Result<(), CheckpointError> {
    let damaged = |detail: String| CheckpointError::Damaged {
        path: folder.to_owned(),
        detail,
    };
    let text = fs::read_to_string(folder.join(COMPLETE)).map_err(|e| damaged(format!("{COMPLETE}: {e}")))?;
    let sums: BTreeMap<String, String> = serde_json::from_str(&text).map_err(|e| damaged(format!("{COMPLETE}: {e}")))?;
    for name in [MODEL, OPTIMIZER, PROGRESS, CONFIG] {
        let want = sums.get(name).ok_or_else(|| damaged(format!("{COMPLETE} does not name {name}")))?;
        let have = digest(&folder.join(name)).map_err(|e| damaged(format!("{name}: {e}")))?;
        if &have != want {
            return Err(damaged(format!("{name}: checksum differs")));
        }
    }
    Ok(())
}

/// The newest whole checkpoint, and what was set aside on the way to it.
#[derive(Debug, Default)]
pub struct Found {
    /// Its folder.
    pub folder: Option<PathBuf>,
    /// Damaged checkpoints, renamed to `damaged-…`, with the reason.
    pub set_aside: Vec<(PathBuf, String)>,
}

/// Finds the newest checkpoint in `root` whose checksums hold; damaged newer ones are renamed, left-over temporary folders removed.
///
/// # Errors
/// [`CheckpointError::Io`] if a damaged folder cannot be renamed.
pub fn newest(root: &Path) -> Result<Found, CheckpointError> {
    let mut found = Found::default();
    if let Ok(entries) = fs::read_dir(root) {
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(".tmp-") {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
    for (step, folder) in list(root).into_iter().rev() {
        match verify(&folder) {
            Ok(()) => {
                found.folder = Some(folder);
                break;
            }
            Err(e) => {
                let aside = (0..)
                    .map(|n| root.join(format!("damaged-{step:08}-{n}")))
                    .find(|p| !p.exists())
                    .expect("some number is free");
                fs::rename(&folder, &aside).map_err(io(&folder))?;
                found.set_aside.push((aside, e.to_string()));
            }
        }
    }
    Ok(found)
}

fn tensors(folder: &Path, name: &str) -> Result<Vec<(String, Tensor)>, CheckpointError> {
    Tensor::read_safetensors(folder.join(name)).map_err(|e| CheckpointError::Damaged {
        path: folder.to_owned(),
        detail: format!("{name}: {e}"),
    })
}

/// Reads the parameters of a checkpoint folder.
///
/// # Errors
/// [`CheckpointError::Damaged`] naming the file.
pub fn load_model(folder: &Path) -> Result<Vec<(String, Tensor)>, CheckpointError> {
    tensors(folder, MODEL)
}

/// Reads a whole checkpoint folder, checking its checksums.
///
/// # Errors
/// [`CheckpointError::Damaged`] naming the file.
pub fn load(folder: &Path) -> Result<Snapshot, CheckpointError> {
    verify(folder)?;
    let damaged = |detail: String| CheckpointError::Damaged {
        path: folder.to_owned(),
        detail,
    };
    let text = fs::read_to_string(folder.join(PROGRESS)).map_err(|e| damaged(format!("{PROGRESS}: {e}")))?;
    let progress: Progress = serde_json::from_str(&text).map_err(|e| damaged(format!("{PROGRESS}: {e}")))?;
    let config_toml = fs::read_to_string(folder.join(CONFIG)).map_err(|e| damaged(format!("{CONFIG}: {e}")))?;
    Ok(Snapshot {
        model: tensors(folder, MODEL)?,
        optimizer: tensors(folder, OPTIMIZER)?,
        progress,
        config_toml,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    fn snapshot(step: u64) -> Snapshot {
        let t = |v: f64| Tensor::full([3], v, (Kind::Float, Device::Cpu));
        Snapshot {
            model: vec![("a.weight".into(), t(step as f64))],
            optimizer: vec![("a.weight.exp_avg".into(), t(0.5))],
            progress: Progress {
                step,
                cursor: Default::default(),
                counters: BTreeMap::from([("steps".into(), step as f64)]),
                meter: BTreeMap::from([("total".into(), 0.1)]),
                word_counts: vec![1, 2],
                token_entropy: 1.5,
                codebook_perplexity: 4.5,
                codebook: "c0de".into(),
                watch: Default::default(),
                stability: Default::default(),
                parts: 0,
            },
            config_toml: "[run]\n".into(),
        }
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let want = snapshot(7);
        let path = save(dir.path(), &want).unwrap();
        let have = load(&path).unwrap();
        assert_eq!(have.progress, want.progress);
        assert_eq!(have.model[0].0, "a.weight");
        assert_eq!(have.model[0].1, want.model[0].1);
        assert_eq!(have.config_toml, want.config_toml);
    }

    #[test]
    fn the_best_is_a_link_that_moves_and_that_no_search_takes_for_a_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        for step in [1, 2] {
            save(dir.path(), &snapshot(step)).unwrap();
            mark_best(dir.path(), step).unwrap();
        }
        assert_eq!(load(&dir.path().join("best")).unwrap().progress.step, 2);
        mark_best(dir.path(), 1).unwrap();
        assert_eq!(load(&dir.path().join("best")).unwrap().progress.step, 1);
        assert_eq!(steps(dir.path()), [1, 2]);
        assert!(newest(dir.path()).unwrap().folder.unwrap().ends_with("step-00000002"));
    }

    #[test]
    fn a_progress_of_an_older_version_is_read() {
        let mut value = serde_json::to_value(snapshot(3).progress).unwrap();
        value.as_object_mut().unwrap().remove("watch");
        let old: Progress = serde_json::from_value(value).unwrap();
        assert_eq!(old, snapshot(3).progress);
    }

    #[test]
    fn a_damaged_newest_is_set_aside_and_the_previous_taken() {
        for damage in ["truncate", "flip", "empty", "missing", "unfinished"] {
            let dir = tempfile::tempdir().unwrap();
            save(dir.path(), &snapshot(1)).unwrap();
            let newer = save(dir.path(), &snapshot(2)).unwrap();
            let model = newer.join(MODEL);
            let mut bytes = fs::read(&model).unwrap();
            match damage {
                "truncate" => fs::write(&model, &bytes[..bytes.len() - 1]).unwrap(),
                "flip" => {
                    *bytes.last_mut().unwrap() ^= 1;
                    fs::write(&model, bytes).unwrap();
                }
                "empty" => fs::write(&model, b"").unwrap(),
                "missing" => fs::remove_file(&model).unwrap(),
                _ => fs::remove_file(newer.join(COMPLETE)).unwrap(),
            }
            let found = newest(dir.path()).unwrap();
            assert_eq!(load(&found.folder.unwrap()).unwrap().progress.step, 1, "{damage}");
            assert_eq!(found.set_aside.len(), 1, "{damage}");
            assert!(found.set_aside[0].0.exists(), "the bad one is kept");
        }
    }

    #[test]
    fn a_failed_write_leaves_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), &snapshot(1)).unwrap();
        // A file stands where the temporary folder would go.
        fs::write(dir.path().join(format!(".tmp-{}-{:08}", std::process::id(), 2)), b"x").unwrap();
        assert!(matches!(save(dir.path(), &snapshot(2)), Err(CheckpointError::Io { .. })));
        assert_eq!(steps(dir.path()), [1]);
    }

    #[test]
    fn left_over_temporary_folders_go() {
        let dir = tempfile::tempdir().unwrap();
        let stale = dir.path().join(".tmp-1-00000009");
        fs::create_dir_all(&stale).unwrap();
        assert!(newest(dir.path()).unwrap().folder.is_none());
        assert!(!stale.exists());
    }
}
