//! Where a manifest and what is there disagree: noticed at the listing and while shards are read, told once each, by name.

use std::collections::BTreeSet;
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
    classes: Option<usize>,
    metrics: PipelineMetrics,
}

impl Differences {
    /// None so far.
    #[must_use]
    pub fn new(manifest: Option<&Manifest>, metrics: PipelineMetrics) -> Self {
        Self {
            found: Mutex::default(),
            classes: manifest.and_then(Manifest::class_names).map(<[String]>::len),
            metrics,
        }
    }

    /// All so far, by kind and shard.
    #[must_use]
    pub fn all(&self) -> Vec<Difference> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Takes in what a listing showed, and logs it, a line for each kind.
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

    /// A sample of the shard has this label.
    pub fn labelled(&self, shard: &Shard, label: u32) {
        let Some(classes) = self.classes.filter(|n| label as usize >= *n) else {
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
        if let Some(manifest) = shard.sha256.as_ref().filter(|s| s.len() == 64 && ***s != *sha256) {
            self.read(&Difference::Checksum {
                shard: shard.path.to_string(),
                manifest: manifest.to_string(),
                found: sha256.to_owned(),
            });
        }
    }
}
