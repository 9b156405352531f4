//! Label maps beside the images: found by the image's own path, checked against it, changed as it is, counted.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use walkdir::WalkDir;

use super::error::PackError;
use super::found::Found;
use super::options::PackOptions;
use super::report::{EXAMPLES, Refusal};
use crate::bucket::manifest::MapClasses;
use crate::decode::{Header, LabelMap, Limits, MapReading};
use crate::types::UNLABELLED;

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
    /// Checks that folders and names can be used.
    pub(super) fn validate(&self, val: Option<&Path>) -> Result<(), PackError> {
        let bad = |key, value: String, allowed| Err(PackError::BadOption { key, value, allowed });
        for folder in std::iter::once(&self.folder).chain(&self.val_folder) {
            super::check_input(folder)?;
        }
        if val.is_some() != self.val_folder.is_some() {
            let value = self
                .val_folder
                .as_ref()
                .map_or("none".into(), |folder| folder.display().to_string());
            return bad(
                "folder of validation maps",
                value,
                "one where a folder of validation images is named, and only there",
            );
        }
        if self.ignore > 65_535 {
            return bad("ignored number of maps", self.ignore.to_string(), "0 to 65535");
        }
        let mut sorted = self.classes.clone();
        sorted.sort();
        match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(twice) => bad("classes of maps", twice[0].clone(), "names that differ: sets are matched by them"),
            None => Ok(()),
        }
    }

    /// Path of the map of an image; `set` is the folder of its set where the input holds several.
    pub(super) fn path(&self, found: &Found, set: Option<&[u8]>) -> PathBuf {
        let folder = self.val_folder.as_ref().filter(|_| found.val).unwrap_or(&self.folder);
        let folder = set.map_or_else(|| folder.clone(), |set| folder.join(OsStr::from_bytes(set)));
        folder.join(OsStr::from_bytes(&found.relative)).with_extension("png")
    }

    fn reading(&self) -> MapReading {
        MapReading {
            member: MEMBER.into(),
            ignore: self.ignore,
            reduce_zero: false,
        }
    }
}

/// A map ready for the shard.
pub(super) struct PreparedMap {
    pub(super) bytes: Vec<u8>,
    counts: BTreeMap<i16, u64>,
}

/// What became of the picture between its file and the shard.
pub(super) struct Became {
    /// Columns and rows after it was shrunk.
    pub(super) shrunk: (u32, u32),
    /// Side of the square that it was centred on.
    pub(super) square: Option<u32>,
    /// Whether the file's own bytes are packed, which may be turned (EXIF).
    pub(super) as_it_was: bool,
}

/// Reads the map of an image with this header and changes it as the image was.
pub(super) fn prepare(path: &Path, options: &PackOptions, of: &MapOptions, head: &Header, became: &Became) -> Result<PreparedMap, Refusal> {
    let bytes = std::fs::read(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Refusal::NoMap {
            path: path.display().to_string(),
        },
        _ => Refusal::Unreadable {
            detail: format!("{}: {e}", path.display()),
        },
    })?;
    let limits = Limits {
        max_pixels: options.max_pixels,
        max_bytes: options.max_bytes.max(options.max_pixels.saturating_mul(4)),
        ..Limits::default()
    };
    let map = LabelMap::read(&bytes, &of.reading(), limits)?;
    let orientation = map.lies(head)?;
    let map = match became.as_it_was {
        true => map,
        false => {
            let map = resized(&map.upright(orientation), became.shrunk);
            became.square.map(|side| centred(&map, side)).unwrap_or(map)
        }
    };
    let mut counts = BTreeMap::new();
    for class in &map.classes {
        *counts.entry(*class).or_default() += 1;
    }
    Ok(PreparedMap {
        bytes: if became.as_it_was { bytes } else { map.to_png(of.ignore) },
        counts,
    })
}

/// Each pixel by the nearest one, as in a view of the whole picture.
fn resized(map: &LabelMap, (width, height): (u32, u32)) -> LabelMap {
    let nearest = |i: u32, from: u32, to: u32| ((u64::from(2 * i + 1) * u64::from(from) / u64::from(2 * to)) as u32).min(from - 1);
    let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let classes = pixels.map(|(x, y)| {
        let (x, y) = (nearest(x, map.width, width), nearest(y, map.height, height));
        map.classes[(y * map.width + x) as usize]
    });
    LabelMap::new(width, height, classes.collect())
}

/// In the middle of a square about which nothing is said.
fn centred(map: &LabelMap, side: u32) -> LabelMap {
    let mut classes = vec![UNLABELLED; (side * side) as usize];
    let (left, top) = ((side - map.width) / 2, (side - map.height) / 2);
    for (y, row) in map.classes.chunks_exact(map.width as usize).enumerate() {
        let at = ((top + y as u32) * side + left) as usize;
        classes[at..at + row.len()].copy_from_slice(row);
    }
    LabelMap::new(side, side, classes)
}

/// What the maps of a set hold.
#[derive(Debug, Clone, Default)]
pub(super) struct MapCounts {
    pixels: BTreeMap<i16, u64>,
}

impl MapCounts {
    pub(super) fn add(&mut self, map: &PreparedMap) {
        for (class, pixels) in &map.counts {
            *self.pixels.entry(*class).or_default() += pixels;
        }
    }

    /// One more than the largest class.
    pub(super) fn classes(&self) -> usize {
        self.pixels.keys().next_back().map_or(0, |largest| (*largest + 1) as usize)
    }

    /// For the manifest, of sets that hold classes up to `classes` of them.
    pub(super) fn finish(&self, of: &MapOptions, classes: usize) -> MapClasses {
        let names: Vec<String> = match of.classes.as_slice() {
            [] => (0..classes).map(|class| format!("class {class}")).collect(),
            names => names.to_vec(),
        };
        let count = |class: usize| {
            i16::try_from(class)
                .ok()
                .and_then(|class| self.pixels.get(&class))
                .copied()
                .unwrap_or(0)
        };
        MapClasses {
            member: MEMBER.into(),
            pixels: (0..names.len()).map(count).collect(),
            ignored: self.pixels.get(&UNLABELLED).copied().unwrap_or(0),
            ignore: of.ignore,
            beyond: self
                .pixels
                .iter()
                .filter(|(class, _)| usize::try_from(**class).is_ok_and(|class| class >= names.len()))
                .map(|(class, pixels)| (class.to_string(), *pixels))
                .collect(),
            classes: names,
        }
    }
}

/// Maps that no image asked for: how many, and the paths of the first few.
pub(super) fn without_image(options: &MapOptions, images: &[Found]) -> (u64, Vec<String>) {
    let used: std::collections::HashSet<&Path> = images.iter().filter_map(|found| found.map.as_deref()).collect();
    let folders = std::iter::once(&options.folder).chain(&options.val_folder);
    let files = folders
        .flat_map(|folder| WalkDir::new(folder).follow_links(true).sort_by_file_name())
        .flatten();
    let is_map = |path: &Path| path.extension().is_some_and(|e| e == "png") && !used.contains(path);
    let (mut number, mut first) = (0, vec![]);
    for file in files.filter(|file| file.file_type().is_file() && is_map(file.path())) {
        number += 1;
        if first.len() < EXAMPLES {
            first.push(file.path().display().to_string());
        }
    }
    (number, first)
}

/// What a person should know about the maps of both sets, one sentence each.
pub(super) fn notes(maps: [Option<&MapClasses>; 2], unused: &(u64, Vec<String>)) -> Vec<String> {
    let mut notes = vec![];
    let sets = maps.into_iter().flatten();
    let mut beyond = BTreeMap::<&str, u64>::new();
    for (class, pixels) in sets.clone().flat_map(|maps| &maps.beyond) {
        *beyond.entry(class).or_default() += pixels;
    }
    if !beyond.is_empty() {
        let listed: Vec<String> = beyond
            .iter()
            .take(12)
            .map(|(class, pixels)| format!("{class} ({pixels} pixels)"))
            .collect();
        notes.push(format!(
            "label maps hold numbers beyond the list of classes, and nothing is learnt from those pixels: {}",
            listed.join(", ")
        ));
    }
    if let [Some(train), Some(val)] = maps {
        let untrained: Vec<&str> = train
            .classes
            .iter()
            .zip(train.pixels.iter().zip(&val.pixels))
            .filter(|(_, (trained, judged))| **trained == 0 && **judged > 0)
            .map(|(name, _)| name.as_str())
            .collect();
        if !untrained.is_empty() {
            notes.push(format!(
                "classes of the maps of val that no map of train holds: {}",
                untrained.join(", ")
            ));
        }
    }
    if unused.0 > 0 {
        notes.push(format!(
            "{} maps belong to no image that was found, such as {}",
            unused.0,
            unused.1.join(", ")
        ));
    }
    notes
}
