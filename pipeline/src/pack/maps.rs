//! Label maps beside the images: where the map of an image lies, and what its numbers mean.

pub(super) mod counts;
pub(super) mod prepared;
pub(super) mod unused;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::error::PackError;
use super::found::Found;
use crate::decode::MapReading;

/// Extension of the member that holds a map.
pub(super) const MEMBER: &str = "seg.png";

/// Where label maps lie and what their numbers mean.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MapOptions {
    /// Folder with the map of the image `a/b.jpg` at `a/b.png`.
    #[serde(skip)]
    pub folder: PathBuf,
    /// The same for a folder of validation images that is named by itself.
    #[serde(skip)]
    pub val_folder: Option<PathBuf>,
    /// Names of the classes by their numbers; empty = as many as the maps hold, called `class 0` and so on.
    #[serde(skip)]
    pub classes: Vec<String>,
    /// The number that says nothing about its pixel.
    pub ignore: u32,
}

impl MapOptions {
    /// Checks that the folders go with those of the images, and that the names can be used.
    pub(super) fn validate(&self, val: Option<&Path>) -> Result<(), PackError> {
        let bad = |key, value: String, allowed| Err(PackError::BadOption { key, value, allowed });
        match (val, &self.val_folder) {
            (Some(_), None) => {
                return bad(
                    "--val-maps",
                    "none".into(),
                    "the folder of the maps of the validation images that --val names",
                );
            }
            (None, Some(folder)) => {
                return bad(
                    "--val-maps",
                    folder.display().to_string(),
                    "none without --val: the maps of all images are in --maps",
                );
            }
            _ => {}
        }
        if self.ignore > 65_535 {
            return bad("--map-ignore", self.ignore.to_string(), "0 to 65535");
        }
        let mut sorted = self.classes.clone();
        sorted.sort();
        match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(twice) => bad("--map-classes", twice[0].clone(), "names that differ: sets are matched by them"),
            None => Ok(()),
        }
    }

    /// Path of the map of an image; `set` is the folder of its set where the input holds several.
    pub(super) fn path(&self, found: &Found, set: Option<&[u8]>) -> PathBuf {
        let folder = self.val_folder.as_ref().filter(|_| found.val).unwrap_or(&self.folder);
        let folder = set.map_or_else(|| folder.clone(), |set| folder.join(OsStr::from_bytes(set)));
        folder.join(OsStr::from_bytes(&found.relative)).with_extension("png")
    }

    /// The folders that it names.
    pub(super) fn folders(&self) -> impl Iterator<Item = &PathBuf> {
        std::iter::once(&self.folder).chain(&self.val_folder)
    }

    fn reading(&self) -> MapReading {
        MapReading {
            member: MEMBER.into(),
            ignore: self.ignore,
            reduce_zero: false,
        }
    }
}
