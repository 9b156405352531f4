//! What a packing run did: counts for people and programs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use thiserror::Error;

use super::objects::ObjectReport;
use super::sets::Resembled;
use crate::bucket::manifest::Manifest;
use crate::error::SampleError;

/// Examples that the report keeps per reason.
pub(super) const EXAMPLES: usize = 5;

/// Files that were passed over for one reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PassedOver {
    /// How many.
    pub files: u64,
    /// Paths of the first few, below the input.
    pub examples: Vec<String>,
}

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
    /// An image of a format that is not decoded.
    #[error("unsupported: {name}")]
    Foreign {
        /// Its name, and what to do.
        name: &'static str,
    },
    /// The decoder refused it.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// Its label map is not there, and maps are packed.
    #[error("no label map {path}")]
    NoMap {
        /// Where it would be.
        path: String,
    },
    /// The file of objects names no such picture, and objects are packed.
    #[error("no picture of this path in {file}")]
    NoObjects {
        /// The file.
        file: String,
    },
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
            Self::Foreign { .. } => "unsupported",
            Self::Sample(e) => e.reason(),
            Self::NoMap { .. } => "no_map",
            Self::NoObjects { .. } => "no_objects",
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

/// Where validation images come from.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ValFrom {
    /// This share of all images.
    Share(f64),
    /// The same, of a tree that looks like training and validation images side by side: (train, val), as the folders are called.
    ShareOfSets(f64, String, String),
    /// A folder that the user named.
    Folder,
    /// Folders of the input that were recognised: (train, val).
    Sets(String, String),
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
    /// Where the validation set comes from.
    pub val_from: ValFrom,
    /// Folders that look like a training and a validation set, but were taken for classes.
    pub resembled: Option<Resembled>,
    /// The first label map of each number beyond the list of classes, by that number.
    pub first_beyond: BTreeMap<String, String>,
    /// Label maps that belong to no image: how many, and the paths of the first few.
    pub unused_maps: (u64, Vec<String>),
    /// What became of the annotations, where objects are packed.
    pub objects: ObjectReport,
    /// Image files found.
    pub found: u64,
    /// Bytes of the packed source files.
    pub source_bytes: u64,
    /// Packed images that were shrunk.
    pub resized: u64,
    /// Packed images with pixels that are not opaque.
    pub transparent: u64,
    /// Packed images without a label.
    pub unlabelled: u64,
    /// Refused files by reason.
    pub refused: BTreeMap<&'static str, RefusedCount>,
    /// Files with equal bytes.
    pub duplicates: Duplicates,
    /// Files that were not looked at, by reason: `hidden` (their name begins with a dot), `hidden_folder`, `link` (links are not followed),
    /// `special` (pipes, sockets, devices), `test_set` (test images beside validation images).
    pub passed_over: BTreeMap<&'static str, PassedOver>,
    /// Files that are no images, by extension.
    pub other_files: BTreeMap<String, u64>,
    /// Images in the root of a set, beside class folders; they have no label.
    pub in_root: u64,
    /// Folders whose classes are smaller than the least class size.
    pub small_classes: u64,
    /// Validation images that training was given because no other image of their class, or none at all, could be packed.
    pub moved_to_train: u64,
    /// Wall time.
    pub seconds: f64,
}

impl PackReport {
    /// Images in the shards.
    #[must_use]
    pub fn packed(&self) -> u64 {
        self.train.samples() + self.val.as_ref().map_or(0, Manifest::samples)
    }

    /// What a person should know about the sets, one sentence each.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = vec![];
        let by_sets = |train: &str, val: &str| format!("pack {train}/ with --val {val}/");
        match &self.val_from {
            ValFrom::Sets(train, val) => notes.push(format!(
                "{train}/ and {val}/ share class folders and became the training and the validation set; --class path makes classes of them instead"
            )),
            ValFrom::ShareOfSets(_, train, val) => notes.push(format!(
                "{train}/ and {val}/ look like a training and a validation set, but became classes and were mixed: {}",
                by_sets(train, val)
            )),
            ValFrom::Share(_) | ValFrom::Folder => {}
        }
        if let Some(Resembled { train, val, why }) = &self.resembled {
            notes.push(format!(
                "{train}/ and {val}/ look like a training and a validation set, but {why}, so they became classes and the images of {val}/ are in the training set: {}",
                by_sets(train, val)
            ));
        }
        if self.val.is_none() {
            match self.val_from {
                ValFrom::Share(share) | ValFrom::ShareOfSets(share, ..) if share > 0.0 => notes.push(format!(
                    "no val set: a share of {share} of {} images gave 0 images (training keeps one of each class); raise --val-share, or name a folder of validation images with --val",
                    self.packed()
                )),
                ValFrom::Folder | ValFrom::Sets(..) => {
                    notes.push(format!("no val set: 0 images of its folder could be packed; {} says why", super::REFUSED_NAME));
                }
                _ => {}
            }
        }
        if self.moved_to_train > 0 {
            notes.push(format!(
                "{} images of the share for val went to train: the other images of their class could not be packed",
                self.moved_to_train
            ));
        }
        if let Some(val) = &self.val {
            let classes = self.train.classes.iter().zip(self.train.label_counts.iter().zip(&val.label_counts));
            let untrained: Vec<&str> = classes
                .filter(|(_, (t, v))| **t == 0 && **v > 0)
                .map(|(name, _)| name.as_str())
                .collect();
            if !untrained.is_empty() {
                notes.push(format!(
                    "{} classes are in val but not in train, so that their images cannot be told by name: {}",
                    untrained.len(),
                    shortened(&untrained)
                ));
            }
        }
        if self.in_root > 0 {
            notes.push(format!(
                "{} images lie beside the class folders and have no label; move them into a folder, or pack with --class none",
                self.in_root
            ));
        }
        let of_val = self.val.as_ref().and_then(|val| val.maps.as_ref());
        let of_sets = [self.train.maps.as_ref(), of_val];
        notes.extend(super::maps::counts::notes(of_sets, &self.first_beyond, &self.unused_maps));
        let of_val = self.val.as_ref().and_then(|val| val.objects.as_ref());
        notes.extend(super::objects::notes::notes([self.train.objects.as_ref(), of_val], &self.objects));
        notes
    }

    /// Files refused for any reason.
    #[must_use]
    pub fn refused_files(&self) -> u64 {
        self.refused.values().map(|r| r.files).sum()
    }
}

fn shortened(names: &[&str]) -> String {
    let more = names.len().saturating_sub(EXAMPLES);
    let first = names[..names.len() - more].join(", ");
    if more == 0 { first } else { format!("{first} and {more} more") }
}

/// How far a packing run is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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
