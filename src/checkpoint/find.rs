//! Which checkpoint a run goes on from: the newest whose files are all whole. Everyone who wants to know asks here: the trainer, the daemon before it
//! starts one, the verbs that read a run.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use safetensors::tensor::Metadata;
use tch::Tensor;

use super::files::{COMPLETE, CONFIG, FILES, MODEL, OPTIMIZER, PREFIX, PROGRESS, digest, io, step_of};
use super::{CheckpointError, Progress, Snapshot};

/// A checkpoint whose files are all whole, and what it holds besides tensors.
#[derive(Debug)]
pub struct Good {
    /// Its folder.
    pub folder: PathBuf,
    /// Everything but tensors and config.
    pub progress: Progress,
    /// The config that it was written under.
    pub config_toml: String,
}

/// A folder that is no checkpoint any more.
#[derive(Debug)]
pub struct Bad {
    /// Its step, by its name.
    pub step: u64,
    /// The folder.
    pub folder: PathBuf,
    /// What is wrong with it: file and reason.
    pub reason: String,
}

/// The newest good checkpoint, and the bad ones that are newer.
#[derive(Debug, Default)]
pub struct Found {
    /// The one to go on from; `None` = the run has none.
    pub good: Option<Good>,
    /// Newer ones that cannot be read, newest first.
    pub bad: Vec<Bad>,
}

/// The newest good checkpoint in `root`. Changes nothing on disk.
///
/// # Errors
/// [`CheckpointError::Io`] if `root` is there and cannot be listed: a run must not begin anew because of that.
pub fn newest_good(root: &Path) -> Result<Found, CheckpointError> {
    newest_good_before(root, u64::MAX)
}

/// The newest good checkpoint in `root` of a step below `end`. Changes nothing on disk.
///
/// # Errors
/// As [`newest_good`].
pub fn newest_good_before(root: &Path, end: u64) -> Result<Found, CheckpointError> {
    let mut found = Found::default();
    for (step, folder) in list(root)?.into_iter().rev().filter(|(step, _)| *step < end) {
        match read(&folder) {
            Ok(good) => {
                found.good = Some(good);
                break;
            }
            Err(e) => found.bad.push(Bad {
                step,
                folder,
                reason: e.to_string(),
            }),
        }
    }
    Ok(found)
}

/// Reads a checkpoint folder without its tensors, of which it reads the heads; every file must have the bytes that were written.
///
/// # Errors
/// [`CheckpointError::Damaged`] naming the file.
pub fn read(folder: &Path) -> Result<Good, CheckpointError> {
    let damaged = |file: &str, detail: String| CheckpointError::Damaged {
        path: folder.to_owned(),
        detail: format!("{file}: {detail}"),
    };
    let text = |file: &str| fs::read_to_string(folder.join(file)).map_err(|e| damaged(file, e.to_string()));
    let sums: BTreeMap<String, String> = serde_json::from_str(&text(COMPLETE)?).map_err(|e| damaged(COMPLETE, e.to_string()))?;
    for file in FILES {
        let want = sums.get(file).ok_or_else(|| damaged(COMPLETE, format!("does not name {file}")))?;
        let have = digest(&folder.join(file)).map_err(|e| damaged(file, e.to_string()))?;
        if &have != want {
            return Err(damaged(file, "checksum differs".into()));
        }
    }
    for file in [MODEL, OPTIMIZER] {
        check_head(&folder.join(file)).map_err(|e| damaged(file, e))?;
    }
    Ok(Good {
        folder: folder.to_owned(),
        progress: serde_json::from_str(&text(PROGRESS)?).map_err(|e| damaged(PROGRESS, e.to_string()))?,
        config_toml: text(CONFIG)?,
    })
}

/// Whether a safetensors file is as long as its head says.
pub(super) fn check_head(path: &Path) -> Result<(), String> {
    let read = |path: &Path| -> std::io::Result<(u64, Vec<u8>)> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut size = [0u8; 8];
        file.read_exact(&mut size)?;
        let mut head = Vec::new();
        file.take(u64::from_le_bytes(size).min(length)).read_to_end(&mut head)?;
        Ok((length, head))
    };
    let (length, head) = read(path).map_err(|e| e.to_string())?;
    let tensors: Metadata = serde_json::from_slice(&head).map_err(|e| format!("no safetensors head: {e}"))?;
    let want = 8 + head.len() as u64 + tensors.data_len() as u64;
    if length == want {
        Ok(())
    } else {
        Err(format!("{length} bytes, its head asks for {want}"))
    }
}

impl Good {
    /// Its parameters, averaged ones among them.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`] naming the file.
    pub fn weights(&self) -> Result<Vec<(String, Tensor)>, CheckpointError> {
        tensors(&self.folder, MODEL)
    }

    /// With its tensors.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`] naming the file.
    pub fn with_tensors(self) -> Result<Snapshot, CheckpointError> {
        Ok(Snapshot {
            model: tensors(&self.folder, MODEL)?,
            optimizer: tensors(&self.folder, OPTIMIZER)?,
            progress: self.progress,
            config_toml: self.config_toml,
        })
    }
}

impl Bad {
    /// Renames the folder to `damaged-…` beside it, so that nobody takes it for a checkpoint again; answers its new place.
    ///
    /// # Errors
    /// [`CheckpointError::Io`].
    pub fn set_aside(&self) -> Result<PathBuf, CheckpointError> {
        let name = self.folder.file_name().unwrap_or_default().to_string_lossy();
        let number = name.strip_prefix(PREFIX).unwrap_or(&name);
        let aside = (0..)
            .map(|n| self.folder.with_file_name(format!("damaged-{number}-{n}")))
            .find(|place| !place.exists())
            .expect("some number is free");
        fs::rename(&self.folder, &aside).map_err(io(&self.folder))?;
        Ok(aside)
    }
}

fn tensors(folder: &Path, file: &str) -> Result<Vec<(String, Tensor)>, CheckpointError> {
    Tensor::read_safetensors(folder.join(file)).map_err(|e| CheckpointError::Damaged {
        path: folder.to_owned(),
        detail: format!("{file}: {e}"),
    })
}

/// Reads a checkpoint folder; every file must have the bytes that were written.
///
/// # Errors
/// [`CheckpointError::Damaged`] naming the file.
pub fn load(folder: &Path) -> Result<Snapshot, CheckpointError> {
    read(folder)?.with_tensors()
}

/// Reads the parameters of a checkpoint folder; every file of it must have the bytes that were written.
///
/// # Errors
/// [`CheckpointError::Damaged`] naming the file.
pub fn load_model(folder: &Path) -> Result<Vec<(String, Tensor)>, CheckpointError> {
    read(folder)?.weights()
}

/// (step, folder) of the checkpoints in `root`, ascending, without looking inside. None if `root` is not there.
///
/// # Errors
/// [`CheckpointError::Io`] if `root` cannot be listed.
pub fn list(root: &Path) -> Result<Vec<(u64, PathBuf)>, CheckpointError> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(io(root)(e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io(root))?;
        let step = entry.file_name().to_str().and_then(step_of);
        found.extend(step.map(|step| (step, entry.path())));
    }
    found.sort();
    Ok(found)
}
