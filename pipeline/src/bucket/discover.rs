//! Which shards a place holds: its manifest, a listing, or the names that the user wrote. Folders are read by `folder`, stores asked by `store`;
//! `beside` knows the names.

mod beside;
mod folder;
mod store;

use std::collections::{BTreeMap, BTreeSet};

use super::differences::Difference;
use super::location::{Location, Shape};
use super::manifest::{MANIFEST_NAME, Manifest};
use super::shard::{Place, Shard};
use crate::error::PipelineError;

pub(super) use folder::in_folder;
pub(super) use store::Asker;

/// What a place holds.
pub(super) struct Found {
    /// In their unshuffled order.
    pub(super) shards: Vec<Shard>,
    pub(super) manifest: Option<Manifest>,
    /// Where the manifest and what is there disagree, and what else there looks like shards.
    pub(super) differences: Vec<Difference>,
}

impl Found {
    fn plain(shards: Vec<Shard>, differences: Vec<Difference>) -> Self {
        Self {
            shards,
            manifest: None,
            differences,
        }
    }
}

fn of_manifest(manifest: &Manifest, place: impl Fn(&str) -> Place, named: impl Fn(&str) -> String) -> Vec<Shard> {
    let entries = manifest.shards.iter().enumerate();
    entries
        .map(|(n, entry)| Shard {
            index: n as u32,
            path: named(&entry.path).into(),
            bytes: Some(entry.bytes),
            samples: Some(entry.samples),
            sha256: Some(entry.sha256.to_ascii_lowercase().into()),
            replaced: false,
            place: place(&entry.path),
        })
        .collect()
}

/// Folders, below that of the manifest, in which it names shards.
fn folders(manifest: &Manifest) -> BTreeSet<&str> {
    let paths = manifest.shards.iter().map(|s| s.path.as_str());
    paths.map(|p| p.rsplit_once('/').map_or("", |(folder, _)| folder)).collect()
}

/// Compares shards of a manifest with everything that is there, size by path, and adds to `found`. Those of another size are marked as replaced.
fn compare(shards: &mut [Shard], mut there: BTreeMap<String, u64>, mut found: Vec<Difference>) -> Vec<Difference> {
    for shard in shards {
        let name = match &shard.place {
            Place::File(path) => path.display().to_string(),
            Place::Object(key) => key.to_string(),
        };
        match there.remove(&name) {
            None => found.push(Difference::Missing {
                shard: shard.path.to_string(),
            }),
            Some(bytes) => found.extend(resized(shard, bytes)),
        }
    }
    found.extend(there.into_keys().map(|shard| Difference::Unknown { shard }));
    found.sort();
    found
}

/// Takes note of a shard's real size; answers the difference if its manifest says another one.
fn resized(shard: &mut Shard, found: u64) -> Option<Difference> {
    let manifest = shard.bytes.filter(|bytes| *bytes != found)?;
    (shard.bytes, shard.samples, shard.sha256, shard.replaced) = (Some(found), None, None, true);
    Some(Difference::Size {
        shard: shard.path.to_string(),
        manifest,
        found,
    })
}

/// A manifest none of whose shards is there describes something else.
fn checked(location: &Location, shards: Vec<Shard>, manifest: Manifest, differences: Vec<Difference>) -> Result<Found, PipelineError> {
    let missing = differences.iter().filter(|d| matches!(d, Difference::Missing { .. })).count();
    if missing == shards.len() {
        let detail = format!(
            "none of the {missing} shards that {MANIFEST_NAME} names is there, for example {}",
            shards[0].path
        );
        return Err(empty(location, &detail));
    }
    Ok(Found {
        shards,
        manifest: Some(manifest),
        differences,
    })
}

fn empty(location: &Location, detail: &str) -> PipelineError {
    PipelineError::Empty {
        url: location.shown.clone(),
        detail: detail.to_owned(),
    }
}

fn looked_for(shape: &Shape, differences: &[Difference]) -> String {
    match shape {
        Shape::Folder(_) => format!("neither {MANIFEST_NAME} nor *.tar directly in it{}", beside::instead(differences)),
        Shape::Glob(pattern) => format!("nothing matches {pattern}"),
        Shape::Named(names) => format!("looked for {}", names.join(", ")),
    }
}
