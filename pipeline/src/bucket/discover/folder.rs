//! Shards of a local place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Found, checked, compare, empty, folders, looked_for, of_manifest};
use crate::bucket::location::{Location, Shape};
use crate::bucket::manifest::{MANIFEST_NAME, Manifest};
use crate::bucket::shard::{Place, Shard};
use crate::error::PipelineError;
use crate::name::shown;

/// Shards of a folder, of a pattern, or of names.
pub(crate) fn in_folder(location: &Location) -> Result<Found, PipelineError> {
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
                    let mut beside = BTreeMap::new();
                    for part in folders(&manifest) {
                        // A folder that is not there shows as missing shards.
                        for path in tars(&folder.join(part)).unwrap_or_default() {
                            let bytes = path.metadata().map_or(0, |m| m.len());
                            beside.insert(path.display().to_string(), bytes);
                        }
                    }
                    let differences = compare(&mut shards, beside);
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
            tars(folder).map_err(|source| PipelineError::Io {
                path: folder.display().to_string(),
                source,
            })?
        }
        Shape::Glob(pattern) => {
            let found = glob::glob(pattern.as_str()).map_err(|e| PipelineError::BadUrl {
                url: location.shown.clone(),
                detail: e.to_string(),
            })?;
            let mut paths: Vec<PathBuf> = found.filter_map(Result::ok).filter(|p| p.is_file()).collect();
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
        return Err(empty(location, &looked_for(&location.shape)));
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
    Ok(Found::plain(shards))
}

/// `*.tar` directly in a folder, sorted.
fn tars(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths = vec![];
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "tar") && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}
