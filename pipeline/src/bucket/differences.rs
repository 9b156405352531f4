//! Where a manifest and what is there disagree, and what lies beside shards, looks like more of them and is not read: noticed at the listing and while shards are read, told once each, by name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use super::manifest::Manifest;
use super::shard::Shard;
use crate::metrics::{ManifestDifference, PipelineMetrics};

/// Names of one kind that a message lists; the rest is a number.
const NAMED: usize = 3;

/// One disagreement. What follows from each is said by [`Difference::consequence`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Difference {
    /// The manifest names a shard that is not there.
    Missing {
        /// Its path.
        shard: String,
    },
    /// A `*.tar` beside the manifest that it does not name.
    Unknown {
        /// Its path.
        shard: String,
    },
    /// A shard of another size: it was replaced, or was not copied whole.
    Size {
        /// Its path.
        shard: String,
        /// Bytes by the manifest.
        manifest: u64,
        /// Bytes there.
        found: u64,
    },
    /// A shard that was read to its end and holds another number of samples.
    Samples {
        /// Its path.
        shard: String,
        /// Samples by the manifest.
        manifest: u32,
        /// Samples read.
        found: u32,
    },
    /// A label that is no index into the manifest's list of classes.
    Label {
        /// Its shard's path.
        shard: String,
        /// Classes by the manifest: labels lie below this number.
        manifest: usize,
        /// The first such label of the shard.
        found: u32,
    },
    /// A shard whose bytes are others than those that the manifest was made of.
    Checksum {
        /// Its path.
        shard: String,
        /// SHA-256 by the manifest.
        manifest: String,
        /// SHA-256 of what is there.
        found: String,
    },
    /// All shards were read, and they hold another number of samples of a class.
    LabelCount {
        /// The class's name.
        class: String,
        /// Samples by the manifest.
        manifest: u64,
        /// Samples read.
        found: u64,
    },
    /// A compressed archive beside the shards.
    Compressed {
        /// Its path.
        file: String,
    },
    /// A folder beside the shards that holds shards too.
    Folder {
        /// Its path.
        folder: String,
    },
}

impl Difference {
    fn kind(&self) -> ManifestDifference {
        match self {
            Self::Missing { .. } => ManifestDifference::Missing,
            Self::Unknown { .. } => ManifestDifference::Unknown,
            Self::Size { .. } => ManifestDifference::Size,
            Self::Samples { .. } => ManifestDifference::Samples,
            Self::Label { .. } => ManifestDifference::Label,
            Self::Checksum { .. } => ManifestDifference::Checksum,
            Self::LabelCount { .. } => ManifestDifference::LabelCount,
            Self::Compressed { .. } => ManifestDifference::Compressed,
            Self::Folder { .. } => ManifestDifference::Folder,
        }
    }

    /// What is done about it, and what would mend it.
    #[must_use]
    pub fn consequence(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "each read of it fails, by data.on_shard_error; copy it again, or pack again",
            Self::Unknown { .. } => {
                "it is left out, for its labels may be of other classes; pack again, or delete manifest.json to read every *.tar"
            }
            Self::Size { .. } => {
                "its images are read, its labels are not, for they may be of other classes; copy the shard again, or pack again"
            }
            Self::Samples { .. } | Self::Checksum { .. } => {
                "it is another shard than the one that was packed, and its labels may be of other classes; copy it again, or pack again"
            }
            Self::Label { .. } => "such labels have no name and count as no label where classes are matched by name; pack again",
            Self::LabelCount { .. } => "data.fraction takes its shares of classes from the manifest; pack again",
            Self::Compressed { .. } => "only tars as they are can be read from any place in them; decompress it, or move it away",
            Self::Folder { .. } => {
                "only the shards directly in a place are read; a pattern such as FOLDER/**/*.tar takes those of its folders too"
            }
        }
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing { shard } => write!(f, "{shard}: named by manifest.json, but not there"),
            Self::Unknown { shard } => write!(f, "{shard}: there, but not named by manifest.json"),
            Self::Size { shard, manifest, found } => write!(f, "{shard}: manifest.json says {manifest} bytes, it has {found}"),
            Self::Samples { shard, manifest, found } => write!(f, "{shard}: manifest.json says {manifest} samples, it has {found}"),
            Self::Label { shard, manifest, found } => {
                write!(f, "{shard}: manifest.json says {manifest} classes, it has the label {found}")
            }
            Self::Checksum { shard, manifest, found } => {
                write!(f, "{shard}: its SHA-256 differs: manifest.json says {manifest}, it has {found}")
            }
            Self::LabelCount { class, manifest, found } => {
                write!(f, "class {class}: manifest.json says {manifest} samples, the shards hold {found}")
            }
            Self::Compressed { file } => write!(f, "{file}: there, but not read: it is compressed"),
            Self::Folder { folder } => write!(f, "{folder}: holds shards, but they are not read"),
        }
    }
}

/// Sentences for people: one for the first few of a kind and one for how many more there are, each with what follows.
#[must_use]
pub fn sentences(differences: &[Difference]) -> Vec<String> {
    let mut lines = vec![];
    for group in differences.chunk_by(|a, b| a.kind() == b.kind()) {
        let named: Vec<String> = group.iter().take(NAMED).map(ToString::to_string).collect();
        let more = group.len() - named.len();
        let more = if more > 0 {
            format!("; and {more} more like it")
        } else {
            String::new()
        };
        lines.push(format!("{}{more} ({})", named.join("; "), group[0].consequence()));
    }
    lines
}

/// The disagreements of one place that were noticed so far.
#[derive(Debug)]
pub struct Differences {
    found: Mutex<BTreeSet<Difference>>,
    /// Class names and their counts, if a manifest has them, and what was counted so far.
    classes: Option<Vec<(String, u64)>>,
    counted: Mutex<Counted>,
    metrics: PipelineMetrics,
}

/// Labels of the shards that were read from their first sample to their last.
#[derive(Debug, Default)]
struct Counted {
    /// The shards still to be read.
    left: BTreeSet<u32>,
    /// By class.
    labels: Vec<u64>,
}

impl Differences {
    /// None so far.
    #[must_use]
    pub fn new(manifest: Option<&Manifest>, metrics: PipelineMetrics) -> Self {
        let counts = |m: &Manifest| m.classes.iter().cloned().zip(m.label_counts.iter().copied()).collect();
        let classes: Option<Vec<(String, u64)>> = manifest.filter(|m| m.class_names().is_some()).map(counts);
        let counted = Counted {
            left: manifest.map_or_else(BTreeSet::new, |m| (0..m.shards.len() as u32).collect()),
            labels: vec![0; classes.as_ref().map_or(0, Vec::len)],
        };
        Self {
            found: Mutex::default(),
            classes,
            counted: Mutex::new(counted),
            metrics,
        }
    }

    /// All so far, by kind and shard.
    #[must_use]
    pub fn all(&self) -> Vec<Difference> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Takes in what a listing or a whole reading showed, and logs it, a line for each kind.
    pub(super) fn listed(&self, differences: Vec<Difference>) {
        for line in sentences(&differences) {
            tracing::warn!("{}", line.escape_debug());
        }
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        for difference in differences {
            self.metrics.manifest_differences.of(difference.kind()).inc();
            found.insert(difference);
        }
    }

    /// Takes in what reading a shard showed; logs it the first time.
    fn read(&self, difference: &Difference) {
        let new = self.found.lock().unwrap_or_else(PoisonError::into_inner).insert(difference.clone());
        if new {
            self.metrics.manifest_differences.of(difference.kind()).inc();
            let text = format!("{difference} ({})", difference.consequence());
            tracing::warn!("{}", text.escape_debug());
        }
    }

    /// A shard was read to its end and holds so many samples.
    pub fn shard_ended(&self, shard: &Shard, samples: u32) {
        if let Some(manifest) = shard.samples.filter(|n| *n != samples) {
            self.read(&Difference::Samples {
                shard: shard.path.to_string(),
                manifest,
                found: samples,
            });
        }
    }

    /// A shard was read from its first sample to its last, and so many of them have each label. Once this is known of all shards, the counts of
    /// the manifest are compared.
    pub fn counted(&self, shard: &Shard, labels: &BTreeMap<u32, u64>) {
        let Some(classes) = &self.classes else {
            return;
        };
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if !counted.left.remove(&shard.index) {
            return;
        }
        for (label, samples) in labels {
            if let Some(count) = counted.labels.get_mut(*label as usize) {
                *count += samples;
            }
        }
        if !counted.left.is_empty() {
            return;
        }
        let wrong = classes
            .iter()
            .zip(&counted.labels)
            .filter(|((_, manifest), found)| manifest != *found);
        let wrong = wrong.map(|((class, manifest), found)| Difference::LabelCount {
            class: class.clone(),
            manifest: *manifest,
            found: *found,
        });
        self.listed(wrong.collect());
    }

    /// A sample of the shard has this label.
    pub fn labelled(&self, shard: &Shard, label: u32) {
        let Some(classes) = self.classes.as_ref().map(Vec::len).filter(|n| label as usize >= *n) else {
            return;
        };
        let known = |d: &Difference| matches!(d, Difference::Label { shard: s, .. } if **s == *shard.path);
        if !self.found.lock().unwrap_or_else(PoisonError::into_inner).iter().any(known) {
            self.read(&Difference::Label {
                shard: shard.path.to_string(),
                manifest: classes,
                found: label,
            });
        }
    }

    /// The bytes of a shard were read to the last one and have this SHA-256.
    pub fn hashed(&self, shard: &Shard, sha256: &str) {
        if let Some(manifest) = shard.sha256.as_ref().filter(|s| ***s != *sha256) {
            self.read(&Difference::Checksum {
                shard: shard.path.to_string(),
                manifest: manifest.to_string(),
                found: sha256.to_owned(),
            });
        }
    }
}
