//! How many pixels of each class the maps of a set hold.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{MEMBER, MapOptions};
use crate::bucket::manifest::MapClasses;
use crate::types::UNLABELLED;

/// What the maps of a set hold.
#[derive(Debug, Clone, Default)]
pub(in crate::pack) struct MapCounts {
    pixels: BTreeMap<i16, u64>,
    /// The first file that holds each class, in the order of packing.
    first: BTreeMap<i16, PathBuf>,
}

impl MapCounts {
    /// Takes in the pixels of one map by their classes; `file` is where it was read.
    pub(in crate::pack) fn add(&mut self, map: &BTreeMap<i16, u64>, file: &Path) {
        for (class, pixels) in map {
            *self.pixels.entry(*class).or_default() += pixels;
            self.first.entry(*class).or_insert_with(|| file.to_owned());
        }
    }

    /// One more than the largest class.
    pub(in crate::pack) fn classes(&self) -> usize {
        self.pixels.keys().next_back().map_or(0, |largest| (*largest + 1) as usize)
    }

    /// For the manifest, of sets that hold classes up to `classes` of them.
    pub(in crate::pack) fn finish(&self, of: &MapOptions, classes: usize) -> MapClasses {
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

/// The first map of each number beyond the list of classes, that of training before that of validation; none where no list was given.
pub(in crate::pack) fn first_beyond(of: &MapOptions, sets: [&MapCounts; 2]) -> BTreeMap<String, String> {
    let mut first = BTreeMap::new();
    for (class, file) in sets.into_iter().flat_map(|set| &set.first) {
        if !of.classes.is_empty() && usize::try_from(*class).is_ok_and(|class| class >= of.classes.len()) {
            first.entry(class.to_string()).or_insert_with(|| file.display().to_string());
        }
    }
    first
}

/// What a person should know about the maps of both sets, one sentence each; `first` is that of [`first_beyond`].
pub(in crate::pack) fn notes(maps: [Option<&MapClasses>; 2], first: &BTreeMap<String, String>, unused: &(u64, Vec<String>)) -> Vec<String> {
    let mut notes = vec![];
    let sets = maps.into_iter().flatten();
    let mut beyond = BTreeMap::<&str, u64>::new();
    for (class, pixels) in sets.clone().flat_map(|maps| &maps.beyond) {
        *beyond.entry(class).or_default() += pixels;
    }
    if !beyond.is_empty() {
        let place = |class: &str| first.get(class).map_or_else(String::new, |file| format!(", first in {file}"));
        let listed: Vec<String> = beyond
            .iter()
            .take(12)
            .map(|(class, pixels)| format!("{class} ({pixels} pixels{})", place(class)))
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
