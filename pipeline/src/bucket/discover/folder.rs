//! Shards of a local place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Found, beside, checked, compare, empty, folders, looked_for, of_manifest};
use crate::bucket::differences::Difference;
use crate::bucket::location::{Location, Shape};
use crate::bucket::manifest::{MANIFEST_NAME, Manifest};
use crate::bucket::shard::{Place, Shard};
use crate::error::PipelineError;
use crate::name::shown;

/// Shards of a folder, of a pattern, or of names.
pub(crate) fn in_folder(location: &Location) -> Result<Found, PipelineError> {
    let mut beside = vec![];
    let paths = match &location.shape {
        Shape::Folder(folder) => {
            let folder = Path::new(folder);
            if !folder.is_dir() {
                return Err(empty(location, "no such file or folder"));
            }
            match std::fs::read(folder.join(MANIFEST_NAME)) {
                Ok(text) => {
                    let manifest = Manifest::parse(&text, &format!("{}/{MANIFEST_NAME}", location.shown))?;
                    let mut shards = of_manifest(&manifest, |p| Place::File(folder.join(p)), |p| folder.join(p).display().to_string());
                    let named = folders(&manifest);
                    let (mut there, mut differences) = (BTreeMap::new(), vec![]);
                    for part in &named {
                        // A folder that is not there shows as missing shards.
                        let listing = Listing::of(&folder.join(part)).unwrap_or_default();
                        for path in listing.shards {
                            let bytes = path.metadata().map_or(0, |m| m.len());
                            there.insert(path.display().to_string(), bytes);
                        }
                        let is_named = |d: &Difference| matches!(d, Difference::Folder { folder: f } if named.iter().any(|n| folder.join(n).display().to_string() == *f));
                        differences.extend(listing.beside.into_iter().filter(|d| !is_named(d)));
                    }
                    let differences = compare(&mut shards, there, differences);
                    return checked(location, shards, manifest, differences);
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => {
                    return Err(PipelineError::Io {
                        path: folder.join(MANIFEST_NAME).display().to_string(),
                        source,
                    });
                }
            }
            let listing = Listing::of(folder).map_err(|source| PipelineError::Io {
                path: folder.display().to_string(),
                source,
            })?;
            beside = listing.beside;
            listing.shards
        }
        Shape::Glob(pattern) => {
            let found = glob::glob(pattern.as_str()).map_err(|e| PipelineError::BadUrl {
                url: location.shown.clone(),
                detail: e.to_string(),
            })?;
            let mut paths: Vec<PathBuf> = found.filter_map(Result::ok).filter(|p| is_shard_or_lost(p)).collect();
            paths.sort();
            paths
        }
        Shape::Named(names) => {
            let paths: Vec<PathBuf> = names.iter().map(PathBuf::from).collect();
            if !paths.iter().any(|p| p.is_file()) {
                return Err(empty(location, &format!("none of the {} named files exists", paths.len())));
            }
            paths
        }
    };
    if paths.is_empty() {
        return Err(empty(location, &looked_for(&location.shape, &beside)));
    }
    let shards = paths
        .into_iter()
        .enumerate()
        .map(|(n, path)| Shard {
            index: n as u32,
            path: shown(path.as_os_str().as_encoded_bytes()).into(),
            bytes: path.metadata().ok().map(|m| m.len()),
            samples: None,
            sha256: None,
            replaced: false,
            place: Place::File(path),
        })
        .collect();
    Ok(Found::plain(shards, beside))
}

/// Whether something is a file, or a link to nowhere: that was a file when it was made, and is a shard that is missing now.
fn is_shard_or_lost(path: &Path) -> bool {
    path.is_file() || path.is_symlink() && !path.exists()
}

/// What lies directly in a folder.
#[derive(Default)]
struct Listing {
    /// Sorted.
    shards: Vec<PathBuf>,
    /// What looks like more of them, sorted.
    beside: Vec<Difference>,
}

impl Listing {
    fn of(folder: &Path) -> std::io::Result<Self> {
        let mut listing = Self::default();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            if path.is_dir() {
                // One that cannot be read holds nothing that anybody could mean.
                let mut inside = std::fs::read_dir(&path).into_iter().flatten().flatten();
                if inside.any(|e| beside::makes_a_place(e.file_name().as_encoded_bytes())) {
                    listing.beside.push(Difference::Folder {
                        folder: path.display().to_string(),
                    });
                }
            } else if is_shard_or_lost(&path) {
                listing.beside.extend(beside::compressed(name, || path.display().to_string()));
                if beside::is_shard(name) {
                    listing.shards.push(path);
                }
            }
        }
        listing.shards.sort();
        listing.beside.sort();
        Ok(listing)
    }
}
