//! What the user can ask of a packing run.

use std::path::PathBuf;

use serde::Serialize;

use super::{MapOptions, ObjectOptions, PackError};
use crate::decode::Background;

/// Which part of an image's folder path is its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClassFrom {
    /// The whole folder path below the input: `animals/birds`.
    #[default]
    Path,
    /// Its first folder: `animals`.
    Top,
    /// Its last folder: `birds`; merges folders of one name (`train/cat` and `test/cat`).
    Leaf,
    /// No labels.
    None,
}

/// How images are stored in the shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// The file's own bytes where the pixels need not change; a changed JPEG becomes a JPEG of quality 92, anything else a PNG.
    #[default]
    Keep,
    /// JPEG of this quality, 1 to 100; 4:2:0 chroma below 90, 4:4:4 from there on.
    Jpeg(u8),
    /// PNG.
    Png,
    /// Lossless WebP.
    Webp,
}

/// What to pack, where, and how. [`PackOptions::new`] gives the defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct PackOptions {
    /// Folder that is searched for images.
    pub input: PathBuf,
    /// Folder that gets `train/`, `val/` and `refused.tsv`; must be absent or empty.
    pub output: PathBuf,
    /// Replace an output that an earlier packing run made.
    pub force: bool,
    /// Size of a shard, bytes; a larger single sample gets a shard of its own.
    pub shard_bytes: u64,
    /// Shrink images whose longer side exceeds this many pixels; never enlarges.
    pub longest_side: Option<u32>,
    /// Centre each image on a white square, so that later crops see elongated pictures whole.
    pub square: bool,
    /// Colour that transparent pixels show; `None` shows the colours beneath, as training does with images that are packed as they are.
    pub background: Background,
    /// How images are stored.
    pub encode: Encoding,
    /// Share of the images that goes to `val/`, 0 to below 1, by hash of the relative path; training keeps one image of each class.
    pub val_share: f64,
    /// Folder whose images are the validation set; its classes are matched with those of `input` by name. Instead of a share.
    pub val: Option<PathBuf>,
    /// Take an input that holds `train/` and `val/` with the same classes for what it is, instead of classes `train/…` and `val/…`.
    pub recognise_sets: bool,
    /// Where label maps lie, if they are packed too.
    pub maps: Option<MapOptions>,
    /// Files with objects, if they are packed too.
    pub objects: Option<ObjectOptions>,
    /// Where labels come from.
    pub class: ClassFrom,
    /// Classes with fewer image files keep their images but give no label.
    pub min_class: u64,
    /// Pixels (width × height) above which a file is refused from its header.
    pub max_pixels: u64,
    /// Bytes above which a file is refused unread.
    pub max_bytes: u64,
    /// Drop files whose bytes equal those of an earlier one.
    pub drop_duplicates: bool,
    /// Follow symbolic links (loops are noticed and skipped).
    pub follow_links: bool,
    /// Threads that decode and encode; 0 = one per core. Changes nothing in the output.
    pub threads: usize,
}

impl PackOptions {
    /// Defaults: 64 MiB shards, images as they are, all in `train/`, class = folder path, 64 megapixels and 256 MiB a file at most.
    #[must_use]
    pub fn new(input: impl Into<PathBuf>, output: impl Into<PathBuf>) -> Self {
        Self {
            input: input.into(),
            output: output.into(),
            force: false,
            shard_bytes: 64 << 20,
            longest_side: None,
            square: false,
            background: None,
            encode: Encoding::default(),
            val_share: 0.0,
            val: None,
            recognise_sets: true,
            maps: None,
            objects: None,
            class: ClassFrom::default(),
            min_class: 1,
            max_pixels: 64_000_000,
            max_bytes: 256 << 20,
            drop_duplicates: false,
            follow_links: true,
            threads: 0,
        }
    }

    /// Checks ranges.
    pub(super) fn validate(&self) -> Result<(), PackError> {
        let check = |key: &'static str, value: String, ok: bool, allowed: &'static str| match ok {
            true => Ok(()),
            false => Err(PackError::BadOption { key, value, allowed }),
        };
        check(
            "shard size",
            self.shard_bytes.to_string(),
            (4096..=1 << 40).contains(&self.shard_bytes),
            "4 KiB to 1 TiB",
        )?;
        if let Some(side) = self.longest_side {
            check("longest side", side.to_string(), (8..=65_535).contains(&side), "8 to 65535 pixels")?;
        }
        if let Encoding::Jpeg(quality) = self.encode {
            check("JPEG quality", quality.to_string(), (1..=100).contains(&quality), "1 to 100")?;
        }
        check(
            "share of val",
            self.val_share.to_string(),
            (0.0..1.0).contains(&self.val_share),
            "0 to below 1",
        )?;
        if self.val.is_some() && self.val_share > 0.0 {
            check(
                "share of val",
                self.val_share.to_string(),
                false,
                "0 where a folder of validation images is named: one or the other",
            )?;
        }
        if let Some(maps) = &self.maps {
            maps.validate(self.val.as_deref())?;
        }
        if let Some(objects) = &self.objects {
            objects.validate(self.val.as_deref())?;
        }
        check(
            "max pixels",
            self.max_pixels.to_string(),
            (1..=4_000_000_000).contains(&self.max_pixels),
            "1 to 4000000000",
        )?;
        check(
            "max bytes",
            self.max_bytes.to_string(),
            (1..=16 << 30).contains(&self.max_bytes),
            "1 to 16 GiB",
        )?;
        check(
            "threads",
            self.threads.to_string(),
            self.threads <= 1024,
            "0 (one per core) to 1024",
        )
    }

    /// The options that decide the output, for the manifest. Names no folder of this machine. `by_folders`: train and val are two folders.
    pub(super) fn provenance(&self, by_folders: bool) -> String {
        let Self {
            shard_bytes,
            longest_side,
            square,
            background,
            encode,
            val_share,
            class,
            min_class,
            ..
        } = self;
        let Self {
            max_pixels,
            max_bytes,
            drop_duplicates,
            follow_links,
            ..
        } = self;
        let mut options = serde_json::json!({
            "shard_bytes": shard_bytes, "longest_side": longest_side, "square": square, "background": background,
            "encode": encode, "val_share": val_share,
            "class": class, "min_class": min_class, "max_pixels": max_pixels, "max_bytes": max_bytes,
            "drop_duplicates": drop_duplicates, "follow_links": follow_links,
        });
        if let Some(maps) = &self.maps {
            options["maps"] = serde_json::json!(maps);
        }
        if self.objects.is_some() {
            options["objects"] = "coco".into();
        }
        if by_folders {
            options["sets"] = "folders".into();
        }
        format!("splitmask {} pack {options}", env!("CARGO_PKG_VERSION"))
    }

    /// Threads in number.
    pub(super) fn workers(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        }
    }
}
