//! `manifest.json`: what a folder of shards holds, written by `pack`, read by the stream. Optional: a bucket without one is listed.

use serde::{Deserialize, Serialize};

/// Name of the manifest object inside a dataset's folder.
pub const MANIFEST_NAME: &str = "manifest.json";

/// One tar shard as the manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardEntry {
    /// Path relative to the manifest.
    pub path: String,
    /// Size of the object.
    pub bytes: u64,
    /// Samples in it.
    pub samples: u32,
    /// Hex SHA-256 of the object.
    pub sha256: String,
}

/// Mean and standard deviation of the RGB channels in 0..1, over all pixels of the packed images, and their sizes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct ImageStatistics {
    /// Images counted.
    pub images: u64,
    /// Per-channel mean.
    pub mean: [f64; 3],
    /// Per-channel standard deviation.
    pub std: [f64; 3],
    /// Mean width, pixels.
    pub mean_width: f64,
    /// Mean height, pixels.
    pub mean_height: f64,
}

/// A dataset: shards in order, classes, counts, statistics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always [`Manifest::FORMAT`].
    pub format: String,
    /// Shards in their unshuffled order; a [`crate::types::SampleId::shard`] indexes this list.
    pub shards: Vec<ShardEntry>,
    /// Class names; a `.cls` member holds an index into this list.
    pub classes: Vec<String>,
    /// Samples per class.
    pub label_counts: Vec<u64>,
    /// What the pixels are like.
    pub statistics: ImageStatistics,
    /// Free text: how it was made (tool version and options).
    pub provenance: String,
}

impl Manifest {
    /// Value of `format`; the number is the version.
    pub const FORMAT: &'static str = "splitmask-shards/1";

    /// Samples in all shards.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.shards.iter().map(|s| u64::from(s.samples)).sum()
    }

    /// Bytes of all shards.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|s| s.bytes).sum()
    }
}
