//! Why a packing run as a whole fails. A bad image never does that: it is refused and reported.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::coco::CocoError;
use crate::error::PipelineError;

/// Why nothing was packed. The output is left as it was.
#[derive(Debug, Error)]
pub enum PackError {
    /// The input is absent or no folder.
    #[error("{}: {detail}", input.display())]
    BadInput {
        /// As given.
        input: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// No file in the input is an image.
    #[error("{}: no images found among {files} files{}", input.display(), seen.as_ref().map_or(String::new(), |s| format!(" ({s})")))]
    NoImages {
        /// As given.
        input: PathBuf,
        /// Files that were looked at.
        files: u64,
        /// What they were, by extension.
        seen: Option<String>,
    },
    /// There are validation images only.
    #[error("{}: no training images found, only validation images", input.display())]
    NoTraining {
        /// As given.
        input: PathBuf,
    },
    /// The folder of validation images has none.
    #[error("{}: no validation images found", val.display())]
    NoValidation {
        /// As given.
        val: PathBuf,
    },
    /// Each image was refused.
    #[error("{}: all {images} images were refused ({reasons}); the first: {first}", input.display())]
    AllRefused {
        /// As given.
        input: PathBuf,
        /// Image files found.
        images: u64,
        /// Counts by reason.
        reasons: String,
        /// Path and reason of the first.
        first: String,
    },
    /// The output holds something.
    #[error("{}: not empty", output.display())]
    OutputNotEmpty {
        /// As given.
        output: PathBuf,
    },
    /// The output holds something that no packing run made, so even `--force` leaves it alone.
    #[error("{}: holds {found:?}, which `splitmask pack` did not write", output.display())]
    OutputForeign {
        /// As given.
        output: PathBuf,
        /// The file in question.
        found: String,
    },
    /// The output is a link to a place that is not there.
    #[error("{}: is a link to a place that does not exist", output.display())]
    OutputDangling {
        /// As given.
        output: PathBuf,
    },
    /// The output is the root of a disk, to which a finished folder cannot be renamed.
    #[error("{}: is the root of a disk, which cannot be put in place as a whole", output.display())]
    OutputMounted {
        /// As given.
        output: PathBuf,
    },
    /// The input lies in the output, which would be replaced.
    #[error("{}: lies inside the output {}", input.display(), output.display())]
    InputInOutput {
        /// As given.
        input: PathBuf,
        /// As given.
        output: PathBuf,
    },
    /// A label map of one image is itself among the images.
    #[error("{}: is the label map of {}, and among the images to pack", map.display(), image.display())]
    MapIsImage {
        /// The map.
        map: PathBuf,
        /// The image that it belongs to; it may be the map itself.
        image: PathBuf,
    },
    /// Another process packs to the same place.
    #[error("{}: another `splitmask pack` is writing there", output.display())]
    Busy {
        /// As given.
        output: PathBuf,
    },
    /// A file of objects cannot be used.
    #[error(transparent)]
    Objects(#[from] CocoError),
    /// No object is left.
    #[error("{file}: annotations: none of its {annotations} can be packed{reasons}")]
    NoObjects {
        /// The file.
        file: String,
        /// Annotations in it.
        annotations: usize,
        /// Counts by reason, with the first of each; or nothing.
        reasons: String,
    },
    /// A value out of range.
    #[error("{key} = {value}: allowed is {allowed}")]
    BadOption {
        /// Name of the option.
        key: &'static str,
        /// As given.
        value: String,
        /// Range.
        allowed: &'static str,
    },
    /// A file operation outside the input failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// File.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// A worker thread cannot be started, or panicked.
    #[error(transparent)]
    Worker(#[from] PipelineError),
}

impl PackError {
    /// Wraps an I/O error with the path it concerns; for `map_err`.
    pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io {
            path: path.to_path_buf(),
            source,
        }
    }

    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::BadInput { .. } => Some(
                "give the folder that holds your images; its sub-folders become the classes (of --maps and --val-maps: the folder of label maps in the same order)",
            ),
            Self::NoImages { .. } => Some(
                "PNG, JPEG, WebP, GIF, BMP and TIFF are read; convert others first (for SVG: rsvg-convert); hidden files and folders are not looked into",
            ),
            Self::NoTraining { .. } => Some("the first folder holds the training images, --val names the one of the validation images"),
            Self::NoValidation { .. } => Some("name a folder of images, or leave --val out"),
            Self::AllRefused { .. } => {
                Some("`too_large` can be raised with --max-pixels and --max-bytes; what is `unsupported` is converted to PNG or JPEG first")
            }
            Self::Objects(_) => Some(
                "the file is COCO's: images with id, file_name, width, height; annotations with image_id, category_id, bbox; categories with id, name",
            ),
            Self::NoObjects { .. } => Some("put the annotations right, or pack without --coco"),
            Self::OutputNotEmpty { .. } => Some("choose another folder, or replace an earlier pack with --force"),
            Self::OutputForeign { .. } => Some("choose another folder; --force only replaces what an earlier pack wrote"),
            Self::OutputDangling { .. } => Some("is its disk mounted? make the folder that it leads to, or choose another output"),
            Self::OutputMounted { .. } => Some("choose a folder in it"),
            Self::InputInOutput { .. } => Some("put the shards beside the images, not around them"),
            Self::MapIsImage { .. } => {
                Some("keep the maps in a folder that holds none of the images: the map of IMAGES/a/b.jpg is MAPS/a/b.png")
            }
            Self::Busy { .. } => Some("wait for it, or choose another output"),
            Self::BadOption { .. } | Self::Worker(_) => None,
            Self::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::StorageFull => Some("the disk is full; --longest-side and --encode jpeg make smaller shards"),
                std::io::ErrorKind::PermissionDenied => Some("choose an output folder that you may write to"),
                _ => None,
            },
        }
    }
}
