//! What is to be packed: the images of the input in the order of packing, each with its class and its set.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::error::PackError;
use super::found::Found;
use super::objects::annotated::Annotations;
use super::options::{ClassFrom, PackOptions};
use super::report::PackProgress;
use super::sets::{self, Resembled, SetFolders};
use super::split;
use super::walk::{ImageFile, Rest, Walk};
use crate::printable::printable;

/// How the images were divided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Division {
    /// By `val_share`; with what the tree would be if its folders were sets.
    Share(Option<SetFolders>),
    /// By `options.val`.
    ValFolder,
    /// By the folders of the input.
    Folders(SetFolders),
}

/// What lies in the input.
pub(super) struct Scan {
    /// Images in the order of packing: by hash, so that shards are mixed.
    pub(super) images: Vec<Found>,
    /// Class names, sorted by their bytes.
    pub(super) classes: Vec<String>,
    /// Classes that are too small.
    pub(super) small_classes: u64,
    /// Images in the root, beside class folders.
    pub(super) in_root: u64,
    pub(super) division: Division,
    /// What the tree looks like, where it was not taken for sets.
    pub(super) resembled: Option<Resembled>,
    /// What is no image to pack.
    pub(super) rest: Rest,
}

/// Two independent numbers from a relative path; the same on every machine.
fn hashes(relative: &[u8]) -> (u64, u64) {
    let digest = Sha256::digest(relative);
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| digest[at + i]));
    (word(0), word(8))
}

/// Class folder of an image at `relative`, if its place gives one.
fn class_of(relative: &[u8], from: ClassFrom) -> Option<&[u8]> {
    let slash = relative.iter().rposition(|b| *b == b'/')?;
    let mut folders = relative[..slash].split(|b| *b == b'/');
    match from {
        ClassFrom::Path => Some(&relative[..slash]),
        ClassFrom::Top => folders.next(),
        ClassFrom::Leaf => folders.next_back(),
        ClassFrom::None => None,
    }
}

/// Searches the input.
///
/// # Errors
/// [`PackError::NoImages`], [`PackError::AllRefused`], [`PackError::NoTraining`], [`PackError::NoValidation`].
pub(super) fn scan(
    options: &PackOptions,
    annotations: Option<&Annotations>,
    progress: &mut dyn FnMut(PackProgress),
) -> Result<Scan, PackError> {
    let mut rest = Rest::default();
    let mut without: Vec<PathBuf> = options.output.canonicalize().into_iter().collect();
    without.extend(options.val.as_ref().and_then(|v| v.canonicalize().ok()));
    let mut walk = |root: &Path, prefix: &str, without: &[PathBuf]| {
        Walk {
            root,
            follow_links: options.follow_links,
            without,
            prefix,
        }
        .run(&mut rest, progress)
    };
    let mut images = walk(&options.input, "", &without);
    let mut of_val = vec![];
    let mut val_prefix = String::new();
    if let Some(val) = &options.val {
        val_prefix = format!("{}/", printable(val.as_os_str().as_encoded_bytes()));
        of_val = walk(val, &val_prefix, &without[..without.len().min(1)]);
    }
    let tree = sets::recognise(images.iter().map(|i| i.relative.as_slice()));
    let division = match (tree, &options.val) {
        (_, Some(_)) => Division::ValFolder,
        (Some(folders), None) if options.recognise_sets && options.val_share == 0.0 => Division::Folders(folders),
        (tree, None) => Division::Share(tree),
    };
    let resembled = match &division {
        Division::Share(None) if options.recognise_sets => sets::resembled(images.iter().map(|i| i.relative.as_slice())),
        _ => None,
    };
    let mut train_prefix = String::new();
    if let Division::Folders(folders) = &division {
        let mut below = |folder: &[u8]| -> Vec<ImageFile> {
            let mut inside = images
                .extract_if(.., |i| sets::cut(&i.relative).is_some_and(|(top, _)| top == folder))
                .collect::<Vec<_>>();
            inside.iter_mut().for_each(|i| drop(i.relative.drain(..=folder.len())));
            inside
        };
        of_val = below(&folders.val);
        let (train, test) = (below(&folders.train), folders.test.as_deref().map(&mut below));
        let test_name = folders.test.as_deref().map(printable).unwrap_or_default();
        for image in test.into_iter().flatten() {
            rest.pass_over("test_set", format!("{test_name}/{}", printable(&image.relative)));
        }
        images = train;
        train_prefix = format!("{}/", printable(&folders.train));
        val_prefix = format!("{}/", printable(&folders.val));
    }
    if let Some(val) = options.val.as_ref().filter(|_| of_val.is_empty()) {
        return Err(PackError::NoValidation { val: val.clone() });
    }
    refuse_nothing(options, &images, &of_val, &rest)?;
    let mut found = ordered(images, &train_prefix, false);
    found.extend(ordered(of_val, &val_prefix, true));
    // By hash, train and val among each other; equal paths in two roots by root.
    found.sort_by(|(a, x), (b, y)| (a, &x.relative, x.val, &x.path).cmp(&(b, &y.relative, y.val, &y.path)));
    let mut images: Vec<Found> = found.into_iter().map(|(_, found)| found).collect();
    rest.refused.sort_by(|(a, _), (b, _)| a.cmp(b));
    let (classes, small_classes) = label(&mut images, options);
    let in_root = images.iter().filter(|i| !i.relative.contains(&b'/')).count() as u64;
    for found in &mut images {
        let set = match &division {
            Division::Folders(sets) if found.val => Some(sets.val.as_slice()),
            Division::Folders(sets) => Some(sets.train.as_slice()),
            Division::Share(_) | Division::ValFolder => None,
        };
        found.map = options.maps.as_ref().map(|maps| maps.path(found, set));
        found.objects = annotations.and_then(|annotations| annotations.of(found, set));
    }
    keep_maps_apart(&images)?;
    if matches!(division, Division::Share(_)) {
        split::by_share(&mut images, options.val_share, classes.len());
    }
    Ok(Scan {
        in_root: if classes.is_empty() { 0 } else { in_root },
        images,
        classes,
        small_classes,
        division,
        resembled,
        rest,
    })
}

/// Refuses maps that would be packed as images as well, with themselves or nothing for their map.
fn keep_maps_apart(images: &[Found]) -> Result<(), PackError> {
    let paths: HashSet<&Path> = images.iter().map(|found| found.path.as_path()).collect();
    let taken_twice = |found: &&Found| found.map.as_deref().is_some_and(|map| paths.contains(map));
    match images.iter().find(taken_twice) {
        Some(found) => Err(PackError::MapIsImage {
            map: found.map.clone().unwrap_or_default(),
            image: found.path.clone(),
        }),
        None => Ok(()),
    }
}

fn refuse_nothing(options: &PackOptions, train: &[ImageFile], val: &[ImageFile], rest: &Rest) -> Result<(), PackError> {
    if !train.is_empty() {
        return Ok(());
    }
    if !val.is_empty() {
        return Err(PackError::NoTraining {
            input: options.input.clone(),
        });
    }
    if let Some((path, refusal)) = rest.refused.first() {
        let mut reasons = BTreeMap::<&str, u64>::new();
        for (_, refusal) in &rest.refused {
            *reasons.entry(refusal.reason()).or_default() += 1;
        }
        return Err(PackError::AllRefused {
            input: options.input.clone(),
            images: rest.refused.len() as u64,
            reasons: reasons.iter().map(|(r, n)| format!("{n} {r}")).collect::<Vec<_>>().join(", "),
            first: format!("{path}: {refusal}"),
        });
    }
    let passed = rest.passed_over.iter().map(|(reason, p)| format!("{} {reason}", p.files));
    let other = rest.other_files.iter().map(|(e, n)| format!("{n} {e}"));
    let seen = passed.chain(other).collect::<Vec<_>>().join(", ");
    Err(PackError::NoImages {
        input: options.input.clone(),
        files: rest.files,
        seen: (!seen.is_empty()).then_some(seen),
    })
}

/// With their place in the order.
fn ordered(files: Vec<ImageFile>, prefix: &str, val: bool) -> Vec<(u64, Found)> {
    let prefix: Arc<str> = prefix.into();
    let found = |file: ImageFile| {
        let (split, order) = hashes(&file.relative);
        let found = Found {
            path: file.path,
            relative: file.relative,
            prefix: Arc::clone(&prefix),
            bytes: file.bytes,
            split,
            class: None,
            map: None,
            objects: None,
            val,
        };
        (order, found)
    };
    files.into_iter().map(found).collect()
}

/// Gives each image its class index; answers the class names and how many classes are too small.
fn label(images: &mut [Found], options: &PackOptions) -> (Vec<String>, u64) {
    let mut counts = BTreeMap::<&[u8], u64>::new();
    for class in images.iter().filter_map(|f| class_of(&f.relative, options.class)) {
        *counts.entry(class).or_default() += 1;
    }
    let all = counts.len();
    let kept: Vec<Vec<u8>> = counts
        .into_iter()
        .filter(|&(_, n)| n >= options.min_class)
        .map(|(class, _)| class.to_owned())
        .collect();
    for found in images {
        let index = class_of(&found.relative, options.class).and_then(|c| kept.binary_search_by(|k| k.as_slice().cmp(c)).ok());
        found.class = index.map(|i| i as u32);
    }
    let small = (all - kept.len()) as u64;
    (kept.iter().map(|k| printable(k)).collect(), small)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_come_from_the_chosen_part_of_the_path() {
        let at = b"animals/birds/owl.png";
        assert_eq!(class_of(at, ClassFrom::Path), Some(&b"animals/birds"[..]));
        assert_eq!(class_of(at, ClassFrom::Top), Some(&b"animals"[..]));
        assert_eq!(class_of(at, ClassFrom::Leaf), Some(&b"birds"[..]));
        assert_eq!(class_of(at, ClassFrom::None), None);
        assert_eq!(class_of(b"owl.png", ClassFrom::Path), None);
    }

    /// Split and order must never change between versions or machines: numbers by Python's hashlib.
    #[test]
    fn hashes_are_those_of_sha256() {
        assert_eq!(
            hashes(b"animals/birds/owl.png"),
            (3_181_309_110_502_554_231, 463_961_126_686_111_990)
        );
    }
}
