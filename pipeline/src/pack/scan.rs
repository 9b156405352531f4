//! Finds the image files of a folder tree and their classes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use walkdir::WalkDir;

use super::options::{ClassFrom, PackOptions};
use super::report::Refusal;
use super::{PackError, PackProgress};

/// File name endings that are taken for images unseen; other files are looked into.
const IMAGE_EXTENSIONS: [&str; 12] = [
    "png", "jpg", "jpeg", "jpe", "jfif", "webp", "gif", "bmp", "dib", "tif", "tiff", "apng",
];

/// One image file.
pub(super) struct Found {
    /// Where it is.
    pub(super) path: PathBuf,
    /// Path below the input, `/` between folders; names that are no UTF-8 are shown with replacement characters.
    pub(super) relative: String,
    /// Size on disk.
    pub(super) bytes: u64,
    /// Index into [`Scan::classes`].
    pub(super) class: Option<u32>,
    /// Whether it goes to the validation set.
    pub(super) val: bool,
}

/// What lies in the input.
pub(super) struct Scan {
    /// Images in the order of packing: by hash, so that shards are mixed.
    pub(super) images: Vec<Found>,
    /// Class names, sorted.
    pub(super) classes: Vec<String>,
    /// Classes that are too small.
    pub(super) small_classes: u64,
    /// Files that are no images, by extension.
    pub(super) other_files: BTreeMap<String, u64>,
    /// Folders and files that cannot be read, and link loops.
    pub(super) unreadable: Vec<(String, Refusal)>,
}

/// Two independent numbers from a relative path; the same on every machine.
fn hashes(relative: &str) -> (u64, u64) {
    let digest = Sha256::digest(relative.as_bytes());
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| digest[at + i]));
    (word(0), word(8))
}

/// Class name of an image at `relative`, if its place gives one.
fn class_of(relative: &str, from: ClassFrom) -> Option<&str> {
    let (folder, _) = relative.rsplit_once('/')?;
    match from {
        ClassFrom::Path => Some(folder),
        ClassFrom::Top => folder.split('/').next(),
        ClassFrom::Leaf => folder.rsplit('/').next(),
        ClassFrom::None => None,
    }
}

/// Whether the first bytes are those of a format that the decoder reads.
fn looks_like_an_image(path: &Path) -> bool {
    let mut start = [0u8; 32];
    let read = File::open(path).and_then(|mut f| f.read(&mut start)).unwrap_or(0);
    let readable = |f: &image::ImageFormat| f.reading_enabled();
    image::guess_format(&start[..read]).is_ok_and(|f| readable(&f))
}

/// Path below the root as text with `/`.
fn relative(root: &Path, path: &Path) -> String {
    let parts = path.strip_prefix(root).unwrap_or(path).components();
    parts.map(|c| c.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// Searches the input.
///
/// # Errors
/// [`PackError::NoImages`].
pub(super) fn scan(options: &PackOptions, progress: &mut dyn FnMut(PackProgress)) -> Result<Scan, PackError> {
    let root = &options.input;
    let output = options.output.canonicalize().ok();
    let threshold = options.val_share * 2f64.powi(64);
    let (mut images, mut unreadable, mut other_files, mut files) = (Vec::new(), Vec::new(), BTreeMap::<String, u64>::new(), 0u64);
    let hidden = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b".");
    let walk = WalkDir::new(root).follow_links(options.follow_links).into_iter();
    let inside = |e: &walkdir::DirEntry| {
        let folder = e.file_type().is_dir();
        e.depth() == 0 || !folder || !(hidden(e.file_name()) || output.is_some() && e.path().canonicalize().ok() == output)
    };
    for entry in walk.filter_entry(inside) {
        let entry = match entry {
            Ok(entry) => entry,
            Err(e) => {
                let at = relative(root, e.path().unwrap_or(root));
                let detail = match e.loop_ancestor() {
                    Some(up) => format!("symbolic link back to its own folder {:?}", relative(root, up)),
                    None => e.into_io_error().map_or_else(|| "not readable".into(), |e| e.to_string()),
                };
                unreadable.push((at, Refusal::Unreadable { detail }));
                continue;
            }
        };
        if !entry.file_type().is_file() {
            continue; // folders are entered; sockets, pipes and devices would block a reader
        }
        files += 1;
        if files.is_multiple_of(1024) {
            progress(PackProgress {
                done: files,
                total: 0,
                refused: 0,
                written: 0,
            });
        }
        let extension = entry
            .path()
            .extension()
            .map(|e| e.to_string_lossy().to_ascii_lowercase())
            .unwrap_or_default();
        if hidden(entry.file_name()) {
            *other_files.entry("hidden".into()).or_default() += 1;
            continue;
        }
        if !IMAGE_EXTENSIONS.contains(&extension.as_str()) && !looks_like_an_image(entry.path()) {
            let label = if extension.is_empty() { "no extension".into() } else { extension };
            *other_files.entry(label).or_default() += 1;
            continue;
        }
        let relative = relative(root, entry.path());
        let bytes = entry.metadata().map_or(0, |m| m.len());
        let (split, order) = hashes(&relative);
        let found = Found {
            path: entry.into_path(),
            val: (split as f64) < threshold,
            class: None,
            bytes,
            relative,
        };
        images.push((order, found));
    }
    if images.is_empty() {
        let seen = other_files.iter().map(|(e, n)| format!("{n} {e}")).collect::<Vec<_>>().join(", ");
        return Err(PackError::NoImages {
            input: root.clone(),
            files,
            seen: (!seen.is_empty()).then_some(seen),
        });
    }
    images.sort_unstable_by(|(a, x), (b, y)| (a, &x.relative, &x.path).cmp(&(b, &y.relative, &y.path)));
    unreadable.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut images: Vec<Found> = images.into_iter().map(|(_, found)| found).collect();
    let (classes, small_classes) = label(&mut images, options);
    Ok(Scan {
        images,
        classes,
        small_classes,
        other_files,
        unreadable,
    })
}

/// Gives each image its class index; answers the class names and how many classes are too small.
fn label(images: &mut [Found], options: &PackOptions) -> (Vec<String>, u64) {
    let mut counts = BTreeMap::<&str, u64>::new();
    for class in images.iter().filter_map(|f| class_of(&f.relative, options.class)) {
        *counts.entry(class).or_default() += 1;
    }
    let all = counts.len();
    let kept: Vec<String> = counts
        .into_iter()
        .filter(|&(_, n)| n >= options.min_class)
        .map(|(class, _)| class.to_owned())
        .collect();
    for found in images {
        let index = class_of(&found.relative, options.class).and_then(|c| kept.binary_search_by(|k| k.as_str().cmp(c)).ok());
        found.class = index.map(|i| i as u32);
    }
    let small = (all - kept.len()) as u64;
    (kept, small)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_come_from_the_chosen_part_of_the_path() {
        let at = "animals/birds/owl.png";
        assert_eq!(class_of(at, ClassFrom::Path), Some("animals/birds"));
        assert_eq!(class_of(at, ClassFrom::Top), Some("animals"));
        assert_eq!(class_of(at, ClassFrom::Leaf), Some("birds"));
        assert_eq!(class_of(at, ClassFrom::None), None);
        assert_eq!(class_of("owl.png", ClassFrom::Path), None);
    }

    /// Split and order must never change between versions or machines: numbers by Python's hashlib.
    #[test]
    fn hashes_are_those_of_sha256() {
        assert_eq!(
            hashes("animals/birds/owl.png"),
            (3_181_309_110_502_554_231, 463_961_126_686_111_990)
        );
    }
}
