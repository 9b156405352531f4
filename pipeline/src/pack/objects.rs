//! Objects beside the images, from files in COCO's form: which picture of the file an image is, and what is packed of its annotations.

pub(super) mod annotated;
pub(super) mod counts;
pub(super) mod marked;
pub(super) mod notes;
pub(super) mod picture;
pub(super) mod prepared;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::error::PackError;

/// Extension of the member that holds objects. `json` alone may be anything: what `splitmask pack` knows of a sample, or what other programs do.
pub(super) const MEMBER: &str = "objects.json";

/// Files with the objects of the images.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ObjectOptions {
    /// A file in COCO's form, whose `file_name`s are paths below the folder of the images.
    #[serde(skip)]
    pub file: PathBuf,
    /// The same for a folder of validation images that is named by itself.
    #[serde(skip)]
    pub val_file: Option<PathBuf>,
}

impl ObjectOptions {
    /// The file that images of a set are looked up in.
    pub(super) fn file_of(&self, val: bool) -> &Path {
        self.val_file.as_deref().filter(|_| val).unwrap_or(&self.file)
    }

    /// Checks that the files go with the folders of the images.
    pub(super) fn validate(&self, val: Option<&Path>) -> Result<(), PackError> {
        let (value, allowed) = match (val, &self.val_file) {
            (Some(_), None) => ("none".into(), "the file of the objects in the validation images that --val names"),
            (None, Some(file)) => (
                file.display().to_string(),
                "none without --val: the objects of all images are in --coco",
            ),
            _ => return Ok(()),
        };
        Err(PackError::BadOption {
            key: "--val-coco",
            value,
            allowed,
        })
    }
}

/// Annotations that are not packed, by reason: how many, and what the first was.
pub(super) type Dropped = BTreeMap<&'static str, (u64, String)>;

/// Counts one more annotation of a reason; `example` describes the first.
pub(super) fn drop_one(dropped: &mut Dropped, reason: &'static str, example: impl FnOnce() -> String) {
    dropped.entry(reason).or_insert_with(|| (0, example())).0 += 1;
}

/// Takes in what was dropped elsewhere.
pub(super) fn drop_more(dropped: &mut Dropped, more: &Dropped) {
    for (reason, (number, example)) in more {
        dropped.entry(reason).or_insert_with(|| (0, example.clone())).0 += number;
    }
}

/// What became of the annotations of the files.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ObjectReport {
    /// Annotations that were left out, by reason, each with the first: `unknown_category`, `unknown_picture` (ids that the file does not list), `bad_box`,
    /// `bad_mask`, `bad_crowd` (values that are none), `zero_area`, `outside` (of its picture), `empty_mask` (no pixel of it in its box).
    pub dropped: BTreeMap<&'static str, (u64, String)>,
    /// Objects whose boxes reach beyond their pictures and were cut.
    pub clipped: u64,
    /// Objects whose masks have pixels beyond their boxes, which were cut.
    pub masks_cut: u64,
    /// Images all of whose annotations were left out.
    pub emptied: u64,
    /// Pictures of the files that are not among the images: how many, and the first few.
    pub missing: (u64, Vec<String>),
}
