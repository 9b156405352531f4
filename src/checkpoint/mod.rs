//! Checkpoints: everything a run needs to go on exactly where it was.
//!
//! One folder per checkpoint, `RUN/checkpoints/step-00001000/`:
//!
//! | file | what |
//! | --- | --- |
//! | `model.safetensors` | parameters, f32, names of timm's state dict under the objective's prefix |
//! | `optimizer.safetensors` | both moments and the step of each parameter |
//! | `progress.json` | step, cursor, counters, meters, geometry |
//! | `config.toml` | the effective config |
//! | `complete.json` | SHA-256 of the others; written last |
//!
//! It is written into a temporary folder beside its place, each file and the folder are fsynced, then the folder is renamed: a
//! checkpoint is there whole or not at all. On start the newest *good* one is taken ([`newest_good`]: every file has the bytes that were
//! written and can be read); a damaged newer one is set aside. Numbers in `progress.json` are written as [`crate::exact`] says: all of them
//! come back bit for bit, NaN and infinity too.

mod config;
mod files;
mod find;
mod parameters;
mod retention;
mod stability;
mod store;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use splitmask_pipeline::cursor::Cursor;
use tch::Tensor;
use thiserror::Error;

use crate::eval::patience::Patience;
use crate::exit::{CliError, ExitCode};
use crate::held_lock::FolderLost;
use crate::telemetry::metrics::CheckpointFailure;

pub use config::CheckpointConfig;
pub use files::{COMPLETE, FILES, name_of, step_of};
pub use find::{Bad, Found, Good, list, load, load_model, newest_good, newest_good_before, read};
pub use parameters::put_weights;
pub use retention::{Policy, prune, surplus};
pub use stability::{Rollback, Stability};
pub use store::{best, delete, folder_of, mark_best, save, steps, sweep, temporary};

/// Why a checkpoint could not be written or read.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The file system said no; the previous checkpoint is untouched.
    #[error("{path}: {source}")]
    Io {
        /// File or folder.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// A file that is missing, truncated or altered.
    #[error("checkpoint {path}: {detail}")]
    Damaged {
        /// Folder.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// Tensors of another model.
    #[error("checkpoint {path}: {detail}")]
    Mismatch {
        /// Folder.
        path: PathBuf,
        /// What differs.
        detail: String,
    },
    /// The run folder is no longer the one that this process locked; nothing was written.
    #[error(transparent)]
    FolderLost(#[from] FolderLost),
    /// A bug: the thread that writes it panicked.
    #[error("checkpoint {path}: writing it panicked, which is a bug: {detail}")]
    Panicked {
        /// Folder of the checkpoints.
        path: PathBuf,
        /// The panic's words.
        detail: String,
    },
    /// libtorch could not serialise.
    #[error("checkpoint {path}: {source}")]
    Torch {
        /// Folder.
        path: PathBuf,
        /// Cause.
        source: tch::TchError,
    },
}

impl CheckpointError {
    /// Exit code of a process that ends with it.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Mismatch { .. } => ExitCode::Usage,
            Self::Panicked { .. } => ExitCode::Internal,
            _ => ExitCode::Io,
        }
    }

    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Mismatch { .. } => {
                Some("a run keeps its network, its classes and its words: put back what was changed, or take another run.dir and start from the weights with run.init_from".into())
            }
            _ => None,
        }
    }

    /// Whether the same write may succeed later: the disk refused it, and the folder is still the run's.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Io { .. } | Self::Damaged { .. } | Self::Torch { .. } => true,
            Self::Mismatch { .. } | Self::FolderLost(_) | Self::Panicked { .. } => false,
        }
    }

    /// Whether the disk has no room.
    #[must_use]
    pub fn no_space(&self) -> bool {
        self.failure() == CheckpointFailure::NoSpace
    }

    /// Why a write failed, in one word.
    #[must_use]
    pub fn failure(&self) -> CheckpointFailure {
        match self {
            Self::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::StorageFull => CheckpointFailure::NoSpace,
                std::io::ErrorKind::ReadOnlyFilesystem => CheckpointFailure::ReadOnly,
                _ => CheckpointFailure::Io,
            },
            // The writer of tensors passes the system's words on, and nothing else.
            Self::Torch { source, .. } => match source.to_string() {
                words if words.contains("os error 28)") => CheckpointFailure::NoSpace,
                words if words.contains("os error 30)") => CheckpointFailure::ReadOnly,
                _ => CheckpointFailure::Io,
            },
            Self::Damaged { .. } => CheckpointFailure::Io,
            Self::Mismatch { .. } | Self::FolderLost(_) | Self::Panicked { .. } => CheckpointFailure::Other,
        }
    }
}

impl From<CheckpointError> for CliError {
    fn from(e: CheckpointError) -> Self {
        Self {
            code: e.exit_code(),
            hint: e.hint(),
            message: e.to_string(),
        }
    }
}

/// The part of a checkpoint that is not tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Optimizer steps done.
    pub step: u64,
    /// Where the data stream goes on; of several ranks the lowest place.
    pub cursor: Cursor,
    /// Where it goes on for each rank, if several wrote it: one that passed over damaged samples is ahead of the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cursors: Vec<Cursor>,
    /// Cumulative metrics counters by name, so that rates stay honest over a restart.
    #[serde(with = "crate::exact")]
    pub counters: BTreeMap<String, f64>,
    /// Sums of the running log interval by name, so that a resumed log line equals the undisturbed one.
    #[serde(with = "crate::exact")]
    pub meter: BTreeMap<String, f64>,
    /// Counts of the running window of visual words.
    pub word_counts: Vec<u64>,
    /// Entropy of the last full window, nats; 0 before the first.
    #[serde(with = "crate::exact")]
    pub token_entropy: f64,
    /// Words in use in that window, as perplexity; 0 before the first.
    #[serde(with = "crate::exact")]
    pub codebook_perplexity: f64,
    /// Identity of the codebook (hex SHA-256).
    pub codebook: String,
    /// Names of the classes that are learnt, by label; empty where no labels are learnt, or no manifest names them.
    #[serde(default)]
    pub classes: Vec<String>,
    /// The best evaluation so far; a checkpoint of an older version has none.
    #[serde(default, rename = "watch")]
    pub patience: Patience,
    /// Tells apart lists of shards: names, sizes and numbers of samples of those that were read; a checkpoint of an older version has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub shards: String,
    /// Log intervals in a row in which the model learnt nothing, by the name of the rule that says so.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub collapsed: BTreeMap<String, u64>,
    /// Recent steps and rollbacks.
    #[serde(default)]
    pub stability: Stability,
    /// Micro-batches that a batch is processed in, as found by `train.accumulate = 0` or after a lack of memory; 0 = as the config says.
    #[serde(default, rename = "parts")]
    pub micro_batches: u32,
}

/// A whole checkpoint in memory.
#[derive(Debug)]
pub struct Snapshot {
    /// Parameters by name, on the CPU.
    pub model: Vec<(String, Tensor)>,
    /// Optimizer state by name, on the CPU.
    pub optimizer: Vec<(String, Tensor)>,
    /// Everything else.
    pub progress: Progress,
    /// The effective config.
    pub config_toml: String,
}
