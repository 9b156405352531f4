//! The files of a checkpoint, by name and checksum.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::CheckpointError;

pub(super) const MODEL: &str = "model.safetensors";
pub(super) const OPTIMIZER: &str = "optimizer.safetensors";
pub(super) const PROGRESS: &str = "progress.json";
pub(super) const CONFIG: &str = "config.toml";
/// The files whose checksums [`COMPLETE`] holds.
pub const FILES: [&str; 4] = [MODEL, OPTIMIZER, PROGRESS, CONFIG];
/// File with their SHA-256 by name, written last.
pub const COMPLETE: &str = "complete.json";
pub(super) const PREFIX: &str = "step-";

/// Name of the folder of a step.
#[must_use]
pub fn name_of(step: u64) -> String {
    format!("{PREFIX}{step:08}")
}

/// The step of a folder of this name, if it is a checkpoint's.
#[must_use]
pub fn step_of(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

/// A failure of the file system at `path`.
pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> CheckpointError + '_ {
    move |source| CheckpointError::Io {
        path: path.to_owned(),
        source,
    }
}

/// SHA-256 of a file, in hex.
pub(super) fn digest(path: &Path) -> std::io::Result<String> {
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
