//! `manifest.json`: what a folder of shards holds, written by `pack`, read by the stream. Optional: a bucket without one is listed.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::error::PipelineError;

/// Name of the manifest object inside a dataset's folder.
pub const MANIFEST_NAME: &str = "manifest.json";

/// One tar shard as the manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardEntry {
    /// Path relative to the manifest.
    pub path: String,
    /// Size of the object.
    pub bytes: u64,
    /// Samples in it.
    pub samples: u32,
    /// Hex SHA-256 of the object, or empty where it is not known.
    pub sha256: String,
}

/// Mean and standard deviation of the RGB channels in 0..1, over all pixels of the packed images, and their sizes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct ImageStatistics {
    /// Images counted.
    pub images: u64,
    /// Per-channel mean.
    pub mean: [f64; 3],
    /// Per-channel standard deviation.
    pub std: [f64; 3],
    /// Mean width, pixels.
    pub mean_width: f64,
    /// Mean height, pixels.
    pub mean_height: f64,
}

/// What the label maps of a set hold, in the numbers that stand in them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapClasses {
    /// Extension of the member that holds a sample's map.
    pub member: String,
    /// Class names; a pixel of a map holds an index into this list.
    pub classes: Vec<String>,
    /// Pixels of each class, one number for each of `classes`.
    pub pixels: Vec<u64>,
    /// Pixels about which nothing is said.
    pub ignored: u64,
    /// The number that stands for those.
    pub ignore: u32,
    /// Pixels of numbers beyond the list of classes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub beyond: BTreeMap<String, u64>,
}

impl MapClasses {
    fn check(&self) -> Result<(), String> {
        let (classes, counts) = (self.classes.len(), self.pixels.len());
        if classes != counts {
            return Err(format!("maps: pixels has {counts} numbers for {classes} classes"));
        }
        let mut names = HashSet::new();
        match self.classes.iter().find(|class| !names.insert(class.as_str())) {
            Some(class) => Err(format!(
                "maps: classes: {class:?} stands twice, and sets are matched by the names of their classes"
            )),
            None => Ok(()),
        }
    }

    /// Names and pixel counts of the classes as they are learnt: without the first one where 0 means nothing (`data.map_reduce_zero`).
    #[must_use]
    pub fn learnt(&self, reduce_zero: bool) -> (&[String], &[u64]) {
        let from = usize::from(reduce_zero && !self.classes.is_empty());
        (&self.classes[from..], self.pixels.get(from..).unwrap_or_default())
    }
}

/// The objects that are marked in the images of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectClasses {
    /// Extension of the member that holds the objects of a sample.
    pub member: String,
    /// Class names; a `category` in a member is an index into this list.
    pub classes: Vec<String>,
    /// The number by which the file that the set was packed with called each of `classes`.
    pub ids: Vec<u64>,
    /// Objects of each class, crowds left out.
    pub objects: Vec<u64>,
    /// Annotations of each class that stand for many objects.
    pub crowds: Vec<u64>,
    /// Objects and crowds whose pixels are known.
    pub masks: u64,
    /// Pixels of the boxes around those, together.
    pub mask_pixels: u64,
    /// Images without any object.
    pub negatives: u64,
}

impl ObjectClasses {
    fn check(&self) -> Result<(), String> {
        let classes = self.classes.len();
        for (list, length) in [
            ("ids", self.ids.len()),
            ("objects", self.objects.len()),
            ("crowds", self.crowds.len()),
        ] {
            if length != classes {
                return Err(format!("objects: {list} has {length} numbers for {classes} classes"));
            }
        }
        let (mut names, mut ids) = (HashSet::new(), HashSet::new());
        if let Some(class) = self.classes.iter().find(|class| !names.insert(class.as_str())) {
            return Err(format!(
                "objects: classes: {class:?} stands twice, and sets are matched by the names of their classes"
            ));
        }
        match self.ids.iter().find(|id| !ids.insert(**id)) {
            Some(id) => Err(format!("objects: ids: {id} stands twice, and members may name classes by it")),
            None => Ok(()),
        }
    }

    /// Objects and crowds of all classes.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.objects.iter().chain(&self.crowds).fold(0, |sum, n| sum.saturating_add(*n))
    }
}

/// A dataset: shards in order, classes, counts, statistics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always [`Manifest::FORMAT`].
    pub format: String,
    /// Shards in their unshuffled order; a [`crate::types::SampleId::shard`] indexes this list.
    pub shards: Vec<ShardEntry>,
    /// Class names, as [`crate::printable::printable`] writes names of folders; a `.cls` member holds an index into this list.
    pub classes: Vec<String>,
    /// Samples per class, one number for each of `classes`.
    pub label_counts: Vec<u64>,
    /// What the pixels are like.
    pub statistics: ImageStatistics,
    /// What its label maps hold; none where it has no maps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maps: Option<MapClasses>,
    /// Which objects are marked in it; none where none are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<ObjectClasses>,
    /// Free text: how it was made (tool version and options).
    pub provenance: String,
}

impl Manifest {
    /// Value of `format`; the number is the version.
    pub const FORMAT: &'static str = "splitmask-shards/1";

    /// Samples in all shards.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.shards.iter().map(|s| u64::from(s.samples)).sum()
    }

    /// Class names by label, if the set has classes.
    #[must_use]
    pub fn class_names(&self) -> Option<&[String]> {
        (!self.classes.is_empty()).then_some(self.classes.as_slice())
    }

    /// Bytes of all shards.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|s| s.bytes).sum()
    }
}

impl Manifest {
    /// Parses and checks a manifest; `url` is its place, for messages.
    ///
    /// # Errors
    /// [`PipelineError::BadManifest`]: JSON that does not parse (line and column), another format, no shard, a path that leaves the folder
    /// or stands twice, a checksum that is none, a class that stands twice, counts that do not belong to the classes or exceed the samples.
    pub fn parse(text: &[u8], url: &str) -> Result<Self, PipelineError> {
        let bad = |detail: String| PipelineError::BadManifest {
            url: url.to_owned(),
            detail,
        };
        let manifest: Self = serde_json::from_slice(text).map_err(|e| bad(e.to_string()))?;
        if manifest.format != Self::FORMAT {
            return Err(bad(format!(
                "format = {:?}, this version reads {:?}",
                manifest.format,
                Self::FORMAT
            )));
        }
        if manifest.shards.is_empty() {
            return Err(bad("shards is empty".into()));
        }
        if u32::try_from(manifest.shards.len()).is_err() {
            return Err(bad("more than 2³² shards".into()));
        }
        let mut paths = HashSet::new();
        for entry in &manifest.shards {
            let path = &entry.path;
            if path.is_empty()
                || path.starts_with('/')
                || path.contains('\\')
                || path.split('/').any(|part| matches!(part, "" | "." | ".."))
            {
                return Err(bad(format!("shards: path = {path:?} is not a plain path below the manifest")));
            }
            if !paths.insert(path.as_str()) {
                return Err(bad(format!("shards: path = {path:?} stands twice: its images would count double")));
            }
            let sha256 = &entry.sha256;
            if !sha256.is_empty() && (sha256.len() != 64 || !sha256.bytes().all(|b| b.is_ascii_hexdigit())) {
                return Err(bad(format!(
                    "shards: {path}: sha256 = {sha256:?} is no SHA-256 (64 hexadecimal digits, or empty for none)"
                )));
            }
        }
        let mut names = HashSet::new();
        if let Some(class) = manifest.classes.iter().find(|class| !names.insert(class.as_str())) {
            return Err(bad(format!(
                "classes: {class:?} stands twice, and sets are matched by the names of their classes"
            )));
        }
        let (classes, counts) = (manifest.classes.len(), manifest.label_counts.len());
        if classes != counts {
            return Err(bad(format!("label_counts has {counts} numbers for {classes} classes")));
        }
        let labelled = manifest.label_counts.iter().try_fold(0u64, |sum, n| sum.checked_add(*n));
        if labelled.is_none_or(|labelled| labelled > manifest.samples()) {
            return Err(bad(format!(
                "label_counts together are more than the {} samples of the shards",
                manifest.samples()
            )));
        }
        if let Some(maps) = &manifest.maps {
            maps.check().map_err(bad)?;
        }
        if let Some(objects) = &manifest.objects {
            objects.check().map_err(bad)?;
        }
        drop((paths, names));
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(path: &str, format: &str) -> Vec<u8> {
        let manifest = Manifest {
            format: format.into(),
            shards: vec![ShardEntry {
                path: path.into(),
                bytes: 1024,
                samples: 3,
                sha256: "0f".repeat(32),
            }],
            classes: vec!["cat".into(), "dog".into()],
            label_counts: vec![2, 1],
            statistics: ImageStatistics::default(),
            maps: None,
            objects: None,
            provenance: String::new(),
        };
        serde_json::to_vec(&manifest).unwrap()
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let edited = |edit: &dyn Fn(&mut serde_json::Value)| {
            let mut value = serde_json::from_slice(&manifest("a.tar", Manifest::FORMAT)).unwrap();
            edit(&mut value);
            Manifest::parse(value.to_string().as_bytes(), "m").map_err(|e| e.to_string())
        };
        edited(&|m| m["shards"][0]["sha256"] = "".into()).unwrap();
        let twice = edited(&|m| {
            let shard = m["shards"][0].clone();
            m["shards"].as_array_mut().unwrap().push(shard);
        });
        assert!(twice.unwrap_err().contains("\"a.tar\" stands twice"));
        for sha256 in ["zz", "00", &"0f".repeat(33), &"0g".repeat(32)] {
            let error = edited(&|m| m["shards"][0]["sha256"] = sha256.into()).unwrap_err();
            assert!(error.contains("is no SHA-256"), "{error}");
        }
        let class = edited(&|m| m["classes"] = serde_json::json!(["cat", "cat"])).unwrap_err();
        assert!(class.contains("classes: \"cat\" stands twice"), "{class}");
        let one = edited(&|m| m["label_counts"] = serde_json::json!([3])).unwrap_err();
        assert!(one.contains("label_counts has 1 numbers for 2 classes"), "{one}");
        for counts in [[3, 1], [u64::MAX, 2]] {
            let many = edited(&|m| m["label_counts"] = serde_json::json!(counts)).unwrap_err();
            assert!(many.contains("more than the 3 samples"), "{many}");
        }
    }

    #[test]
    fn a_good_one_is_read_and_bad_ones_are_refused_with_the_reason() {
        let good = Manifest::parse(&manifest("a/b.tar", Manifest::FORMAT), "m").unwrap();
        assert_eq!((good.samples(), good.bytes()), (3, 1024));
        for (text, reason) in [
            (manifest("../b.tar", Manifest::FORMAT), "plain path"),
            (manifest("/b.tar", Manifest::FORMAT), "plain path"),
            (manifest("a//b.tar", Manifest::FORMAT), "plain path"),
            (manifest("a.tar", "other/2"), "this version reads"),
            (b"{".to_vec(), "line 1"),
            (b"{\"format\": \"splitmask-shards/1\"}".to_vec(), "missing field"),
        ] {
            let error = Manifest::parse(&text, "s3://b/manifest.json").unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains("s3://b/manifest.json"), "{error}");
        }
    }
}
