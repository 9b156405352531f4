//! How many pixels of each class the maps of a set hold.

use std::collections::BTreeMap;

use super::{MEMBER, MapOptions};
use crate::bucket::manifest::MapClasses;
use crate::types::UNLABELLED;

/// What the maps of a set hold.
#[derive(Debug, Clone, Default)]
pub(in crate::pack) struct MapCounts {
    pixels: BTreeMap<i16, u64>,
}

impl MapCounts {
    /// Takes in the pixels of one map by their classes.
    pub(in crate::pack) fn add(&mut self, map: &BTreeMap<i16, u64>) {
        for (class, pixels) in map {
            *self.pixels.entry(*class).or_default() += pixels;
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

/// What a person should know about the maps of both sets, one sentence each.
pub(in crate::pack) fn notes(maps: [Option<&MapClasses>; 2], unused: &(u64, Vec<String>)) -> Vec<String> {
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
