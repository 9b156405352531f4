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
//! checkpoint is there whole or not at all. On start the newest one whose checksums hold is taken; a damaged one is set aside.

mod retention;
mod stability;
mod store;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use splitmask_pipeline::cursor::Cursor;
use tch::Tensor;
use thiserror::Error;

use crate::eval::watch::Watch;

pub use retention::surplus;
pub use stability::{Rollback, Stability};
pub use store::{Found, folder_of, list, load, load_model, mark_best, newest, save, steps};

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
    /// All values of [`CheckpointError::reason`].
    pub const REASONS: [&'static str; 4] = ["no_space", "io", "damaged", "mismatch"];

    /// Closed label for metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => "no_space",
            Self::Io { .. } | Self::Torch { .. } => "io",
            Self::Damaged { .. } => "damaged",
            Self::Mismatch { .. } => "mismatch",
        }
    }
}

/// The part of a checkpoint that is not tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Optimizer steps done.
    pub step: u64,
    /// Where the data stream goes on.
    pub cursor: Cursor,
    /// Cumulative metrics counters by name, so that rates stay honest over a restart.
    pub counters: BTreeMap<String, f64>,
    /// Sums of the running log interval by name, so that a resumed log line equals the undisturbed one.
    pub meter: BTreeMap<String, f64>,
    /// Counts of the running window of visual words.
    pub word_counts: Vec<u64>,
    /// Entropy of the last full window, nats; 0 before the first.
    pub token_entropy: f64,
    /// Words in use in that window, as perplexity; 0 before the first.
    pub codebook_perplexity: f64,
    /// Identity of the codebook (hex SHA-256).
    pub codebook: String,
    /// The best evaluation so far; a checkpoint of an older version has none.
    #[serde(default)]
    pub watch: Watch,
    /// Recent steps and rollbacks.
    #[serde(default)]
    pub stability: Stability,
    /// Parts that a batch is processed in, as found by `train.accumulate = 0` or after a lack of memory; 0 = as the config says.
    #[serde(default)]
    pub parts: u32,
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
