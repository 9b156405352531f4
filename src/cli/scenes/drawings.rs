//! The drawings that scenes are made of, by group and set.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use image::RgbaImage;
use sha2::{Digest, Sha256};
use walkdir::WalkDir;

use crate::exit::CliError;

/// The groups of objects; class 0 of the maps is the background.
pub(super) const CLASSES: [&str; 12] = [
    "mammals",
    "birds",
    "bugs",
    "plants",
    "fruit",
    "desserts",
    "beverages",
    "vehicles",
    "hardware",
    "music",
    "sports",
    "buildings",
];

/// Folders of openclipart, and the group of each.
pub(super) const GROUPS: [(&str, usize); 19] = [
    ("animals/mammals", 0),
    ("animals/birds", 1),
    ("animals/bugs", 2),
    ("plants/flowers", 3),
    ("plants/trees", 3),
    ("plants", 3),
    ("food/fruit", 4),
    ("food/vegetables", 4),
    ("food/desserts", 5),
    ("food/breads_and_carbs", 5),
    ("food/beverages", 6),
    ("transportation/vehicles", 7),
    ("transportation/boating", 7),
    ("transportation/aircraft", 7),
    ("computer/hardware", 8),
    ("recreation/music", 9),
    ("recreation/sports", 10),
    ("buildings/homes", 11),
    ("buildings", 11),
];

/// Folders whose drawings look like grounds, patterns or parts of others.
const LEFT_OUT: [&str; 3] = ["shapes/stars", "computer/icons", "signs_and_symbols/flags"];

/// Of so many drawings one is for validation.
const VAL_OF: u64 = 5;
/// Opacity from which a pixel belongs to its drawing.
const OPAQUE: u8 = 128;
/// Least share of its square that a drawing covers: thin lines are no object that a person would outline.
const LEAST_COVER: f64 = 0.06;
/// Largest share of its own rectangle that a drawing fills: what fills more is a picture with a ground of its own.
const MOST_FILLED: f64 = 0.93;
/// Side to which a drawing is reduced when it is opened, pixels.
const SIDE: u32 = 192;

/// Files of drawings; those of a set and group in the order of their contents' checksums.
pub(super) struct Drawings {
    /// By class, then those of no group; of each (training, validation).
    pools: Vec<[Vec<PathBuf>; 2]>,
    found: usize,
    repeated: usize,
}

impl Drawings {
    /// Searches a tree. A file that repeats another one byte by byte is left out, and which set one belongs to is decided by its bytes: no drawing is in both.
    pub(super) fn find(root: &Path) -> Result<Self, CliError> {
        let mut pools: Vec<[Vec<([u8; 32], PathBuf)>; 2]> = vec![<[Vec<_>; 2]>::default(); CLASSES.len() + 1];
        let (mut seen, mut found, mut repeated) = (HashSet::new(), 0, 0);
        for entry in WalkDir::new(root).follow_links(true).sort_by_file_name() {
            let entry = entry.map_err(|e| CliError::usage(format!("{}: {e}", root.display()), None))?;
            let path = entry.path();
            if !entry.file_type().is_file() || path.extension().is_none_or(|e| e != "png") {
                continue;
            }
            let folder = path.strip_prefix(root).unwrap_or(path).parent().unwrap_or(Path::new(""));
            if LEFT_OUT.iter().any(|left_out| folder == Path::new(left_out)) {
                continue;
            }
            let class = GROUPS
                .iter()
                .find(|(name, _)| folder == Path::new(name))
                .map_or(CLASSES.len(), |(_, class)| *class);
            let bytes = std::fs::read(path).map_err(|e| CliError::io(format!("{}: {e}", path.display())))?;
            let digest: [u8; 32] = Sha256::digest(&bytes).into();
            found += 1;
            if !seen.insert(digest) {
                repeated += 1;
                continue;
            }
            let of_set = u64::from_le_bytes(std::array::from_fn(|i| digest[i])).is_multiple_of(VAL_OF);
            pools[class][usize::from(of_set)].push((digest, path.to_owned()));
        }
        let empty = CLASSES.iter().zip(&pools).find(|(_, sets)| sets.iter().any(Vec::is_empty));
        if let Some((class, _)) = empty {
            let folders: Vec<&str> = GROUPS.iter().map(|(name, _)| *name).collect();
            return Err(CliError::usage(
                format!("{}: too few drawings of {class} among its {found} PNG files", root.display()),
                format!(
                    "a tree with openclipart's folders is needed (setup/openclipart.sh fetches one): {}",
                    folders.join(", ")
                ),
            ));
        }
        let ordered = |mut pool: Vec<([u8; 32], PathBuf)>| {
            pool.sort();
            pool.into_iter().map(|(_, path)| path).collect()
        };
        Ok(Self {
            pools: pools.into_iter().map(|sets| sets.map(ordered)).collect(),
            found,
            repeated,
        })
    }

    /// A drawing of a class (`CLASSES.len()` = of no group), the first fit one from place `from` of its pool on, cut to what is opaque; none where the pool
    /// has no fit one.
    pub(super) fn open(&self, class: usize, val: bool, from: usize) -> Option<RgbaImage> {
        let pool = &self.pools[class][usize::from(val)];
        (0..pool.len()).find_map(|n| fit(&pool[(from + n) % pool.len()]))
    }

    /// How many drawings of a class there are.
    pub(super) fn len(&self, class: usize, val: bool) -> usize {
        self.pools[class][usize::from(val)].len()
    }

    /// What was found, for people.
    pub(super) fn told(&self) -> Vec<String> {
        let each = CLASSES.iter().zip(&self.pools);
        let each: Vec<String> = each
            .map(|(name, [train, val])| format!("{name} {} + {}", train.len(), val.len()))
            .collect();
        vec![
            format!(
                "{} drawings, {} of them repeat another one and were left out; which ones are opaque rectangles or thin lines is seen when they are opened",
                self.found, self.repeated
            ),
            format!("drawings to train + validate on: {}", each.join(", ")),
        ]
    }
}

/// A drawing cut to what is opaque, if it can be opened and is one object by its outline.
fn fit(path: &Path) -> Option<RgbaImage> {
    let picture = image::open(path).ok()?.to_rgba8();
    let (width, height) = picture.dimensions();
    let opaque = |pixel: &image::Rgba<u8>| pixel.0[3] >= OPAQUE;
    let (mut left, mut top, mut right, mut bottom, mut covered) = (width, height, 0, 0, 0u64);
    for (x, y, _) in picture.enumerate_pixels().filter(|(_, _, pixel)| opaque(pixel)) {
        (left, top) = (left.min(x), top.min(y));
        (right, bottom) = (right.max(x + 1), bottom.max(y + 1));
        covered += 1;
    }
    let covered = covered as f64;
    let cover = covered / f64::from(width.max(height)).powi(2);
    let filled = covered / (f64::from(width) * f64::from(height));
    if cover <= LEAST_COVER || filled >= MOST_FILLED {
        return None;
    }
    let cut = image::imageops::crop_imm(&picture, left, top, right - left, bottom - top).to_image();
    Some(resized(&cut, SIDE))
}

/// Reduced so that the longer side has `side` pixels (never enlarged beyond its own), transparent pixels without a say in the colours.
pub(super) fn resized(drawing: &RgbaImage, side: u32) -> RgbaImage {
    let (width, height) = drawing.dimensions();
    let longer = width.max(height);
    if longer <= side {
        return drawing.clone();
    }
    let scaled = |length: u32| (u64::from(length) * u64::from(side)).div_ceil(u64::from(longer)).max(2) as u32;
    let weighted = image::ImageBuffer::from_fn(width, height, |x, y| {
        // The crate's resize takes floats for shares and cuts them at 1.
        let [r, g, b, a] = drawing.get_pixel(x, y).0.map(|value| f32::from(value) / 255.0);
        image::Rgba([r * a, g * a, b * a, a])
    });
    let small: image::ImageBuffer<image::Rgba<f32>, Vec<f32>> =
        image::imageops::resize(&weighted, scaled(width), scaled(height), image::imageops::FilterType::Triangle);
    RgbaImage::from_fn(small.width(), small.height(), |x, y| {
        let [r, g, b, a] = small.get_pixel(x, y).0;
        let byte = |share: f32| (share * 255.0).round().clamp(0.0, 255.0) as u8;
        let [red, green, blue] = [r, g, b].map(|value| byte(value / a.max(1e-3)));
        image::Rgba([red, green, blue, byte(a)])
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_class_has_drawings_of_both_sets_and_no_drawing_is_in_both() {
        let tree = tempfile::tempdir().unwrap();
        let write = |folder: &str, name: String, content: String| {
            let folder = tree.path().join(folder);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(name), content).unwrap();
        };
        for ((folder, _), n) in GROUPS.iter().flat_map(|group| (0..40).map(move |n| (group, n))) {
            write(folder, format!("{n}.png"), format!("{folder} {n}"));
        }
        // The mammals once more, under other names and in folders of another group and of none.
        for n in 0..40 {
            write("buildings", format!("again-{n}.png"), format!("animals/mammals {n}"));
            write("people", format!("again-{n}.png"), format!("animals/mammals {n}"));
        }
        let drawings = Drawings::find(tree.path()).unwrap();
        for class in 0..CLASSES.len() {
            let sizes = [false, true].map(|val| drawings.len(class, val));
            assert!(sizes.iter().all(|size| *size > 0), "{}: {sizes:?}", CLASSES[class]);
        }
        let content = |val: usize| -> BTreeSet<Vec<u8>> {
            let files = drawings.pools.iter().flat_map(|sets| &sets[val]);
            files.map(|file| std::fs::read(file).unwrap()).collect()
        };
        let (train, val) = (content(0), content(1));
        assert!(train.is_disjoint(&val));
        let drawn = 40 * GROUPS.len();
        assert_eq!(
            (train.len() + val.len(), drawings.found, drawings.repeated),
            (drawn, drawn + 80, 80)
        );
        let files: usize = drawings.pools.iter().flatten().map(Vec::len).sum();
        assert_eq!(files, drawn, "no drawing stands twice in a set");
        let share = val.len() as f64 / drawn as f64;
        assert!(
            (share * VAL_OF as f64 - 1.0).abs() < 0.25,
            "{share} of the drawings are for validation"
        );
    }
}
