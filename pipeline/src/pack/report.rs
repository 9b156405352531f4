//! What a packing run did: counts for people and programs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use thiserror::Error;

use crate::bucket::manifest::Manifest;
use crate::error::SampleError;

/// Why one file is not in the shards.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The file or folder cannot be read.
    #[error("unreadable: {detail}")]
    Unreadable {
        /// The system's words.
        detail: String,
    },
    /// Zero bytes.
    #[error("empty file")]
    Empty,
    /// More bytes than the limit.
    #[error("{bytes} bytes exceed the limit of {limit}")]
    TooManyBytes {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The decoder refused it.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// The encoder cannot hold it.
    #[error("cannot be stored: {detail}")]
    Encode {
        /// The encoder's words.
        detail: String,
    },
    /// Same bytes as another file, and duplicates are dropped.
    #[error("same bytes as {of}")]
    Duplicate {
        /// The file that was kept.
        of: String,
    },
}

impl Refusal {
    /// Closed label, the first column of `refused.tsv`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "unreadable",
            Self::Empty => "empty",
            Self::TooManyBytes { .. } => "too_large",
            Self::Sample(e) => e.reason(),
            Self::Encode { .. } => "not_encodable",
            Self::Duplicate { .. } => "duplicate",
        }
    }
}

/// Refused files of one reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RefusedCount {
    /// Files.
    pub files: u64,
    /// Path and message of the first few.
    pub examples: Vec<(String, String)>,
}

/// Files with equal bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Duplicates {
    /// Files that repeat an earlier one.
    pub files: u64,
    /// Those whose first copy went to the other of train and val: such a pair makes an evaluation look better than it is.
    pub across_sets: u64,
    /// Those whose first copy has another label.
    pub label_conflicts: u64,
}

/// What a packing run did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PackReport {
    /// Where it is.
    pub output: PathBuf,
    /// The training set.
    pub train: Manifest,
    /// The validation set, if the share asked for one and it is not empty.
    pub val: Option<Manifest>,
    /// Image files found.
    pub found: u64,
    /// Bytes of the packed source files.
    pub source_bytes: u64,
    /// Packed images that were shrunk.
    pub resized: u64,
    /// Packed images without a label.
    pub unlabelled: u64,
    /// Refused files by reason.
    pub refused: BTreeMap<&'static str, RefusedCount>,
    /// Files with equal bytes.
    pub duplicates: Duplicates,
    /// Files that are no images, by extension; hidden ones as `hidden`.
    pub other_files: BTreeMap<String, u64>,
    /// Folders whose classes are smaller than the least class size.
    pub small_classes: u64,
    /// Wall time.
    pub seconds: f64,
}

impl PackReport {
    /// Images in the shards.
    #[must_use]
    pub fn packed(&self) -> u64 {
        self.train.samples() + self.val.as_ref().map_or(0, Manifest::samples)
    }

    /// Files refused for any reason.
    #[must_use]
    pub fn refused_files(&self) -> u64 {
        self.refused.values().map(|r| r.files).sum()
    }
}

/// How far a packing run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackProgress {
    /// Files dealt with.
    pub done: u64,
    /// Files in all; 0 while the folders are searched.
    pub total: u64,
    /// Files refused.
    pub refused: u64,
    /// Bytes written.
    pub written: u64,
}
