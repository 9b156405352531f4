//! What the label maps of the samples hold, and what about them does not fit.

use std::collections::BTreeMap;

use splitmask_pipeline::bucket::manifest::MapClasses;
use splitmask_pipeline::decode::{Header, LabelMap, Limits, MapReading};
use splitmask_pipeline::types::{Image, RawSample, UNLABELLED};

use super::extremes::extremes;
use super::reasons::{Reasons, count};
use crate::picture::lay_over;

/// What was read of the maps.
#[derive(Default)]
pub(super) struct Maps {
    pub(super) reading: MapReading,
    /// Samples with a map that fits.
    samples: u64,
    pixels: BTreeMap<i16, u64>,
    /// By class: the maps that hold it, and the place of the first.
    holding: BTreeMap<i16, (u64, String)>,
    /// Samples that a segmentation would drop.
    faults: Reasons,
}

impl Maps {
    /// Nothing yet, of maps that are read so.
    pub(super) fn read_by(reading: MapReading) -> Self {
        Self {
            reading,
            ..Self::default()
        }
    }

    pub(super) fn offer(&mut self, sample: &RawSample, header: &Header) {
        let (shard, key) = (&sample.shard, &sample.key);
        let map = match LabelMap::of_sample(sample, header, &self.reading, Limits::default()) {
            Ok((map, _)) => map,
            Err(error) => return count(&mut self.faults, error.reason(), || format!("{shard}: {key}: {error}")),
        };
        self.samples += 1;
        let mut here = BTreeMap::<i16, u64>::new();
        for class in &map.classes {
            *here.entry(*class).or_default() += 1;
        }
        for (class, pixels) in here {
            *self.pixels.entry(class).or_default() += pixels;
            self.holding.entry(class).or_insert_with(|| (0, format!("{shard}: {key}"))).0 += 1;
        }
    }

    /// Whether the set has maps, by its manifest or by what was read.
    fn there(&self, listed: Option<&MapClasses>) -> bool {
        listed.is_some() || self.samples > 0 || self.faults.keys().any(|reason| *reason != "no_map")
    }

    fn name(listed: Option<&MapClasses>, class: i16) -> String {
        let named = listed.and_then(|maps| maps.classes.get(usize::try_from(class).ok()?));
        named.cloned().unwrap_or_else(|| format!("class {class}"))
    }

    /// (class, pixels, maps that hold it), the largest first.
    fn classes(&self) -> Vec<(i16, u64, u64)> {
        let labelled = self.pixels.iter().filter(|(class, _)| **class != UNLABELLED);
        let mut all: Vec<_> = labelled.map(|(class, pixels)| (*class, *pixels, self.holding[class].0)).collect();
        all.sort_by_key(|(class, pixels, _)| (std::cmp::Reverse(*pixels), *class));
        all
    }

    /// Lines for a terminal; none without maps.
    pub(super) fn describe(&self, listed: Option<&MapClasses>, complete: bool) -> Vec<String> {
        if !self.there(listed) {
            return vec![];
        }
        let all: u64 = self.pixels.values().sum();
        let share = |pixels: u64| 100.0 * pixels as f64 / all.max(1) as f64;
        let nothing = self.pixels.get(&UNLABELLED).copied().unwrap_or(0);
        let mut lines = vec![format!(
            "  label maps ({}): of {} samples; {} classes; nothing is said about {:.1} % of their pixels",
            self.reading.member,
            self.samples,
            self.classes().len(),
            share(nothing)
        )];
        let each =
            |(class, pixels, maps): &(i16, u64, u64)| format!("{} {:.2} % in {maps} maps", Self::name(listed, *class), share(*pixels));
        let classes = self.classes();
        lines.extend(extremes(&classes, each));
        lines.extend(self.beware(listed, complete).into_iter().map(|line| format!("  beware: {line}")));
        lines
    }

    fn beware(&self, listed: Option<&MapClasses>, complete: bool) -> Vec<String> {
        let mut told = vec![];
        for (reason, (number, example)) in &self.faults {
            told.push(format!("{number} samples cannot be segmented, {reason}: {example}"));
        }
        let Some(listed) = listed else { return told };
        let beyond = self
            .classes()
            .into_iter()
            .filter(|(class, ..)| *class as usize >= listed.classes.len());
        let beyond: Vec<String> = beyond
            .map(|(class, pixels, maps)| format!("{class} ({pixels} pixels in {maps} maps, first in {})", self.holding[&class].1))
            .collect();
        if !beyond.is_empty() {
            told.push(format!(
                "numbers beyond the {} classes that manifest.json names: {}",
                listed.classes.len(),
                beyond.join(", ")
            ));
        }
        if complete && self.faults.is_empty() {
            let named = listed.classes.iter().zip(&listed.pixels).enumerate();
            for (class, (name, promised)) in named {
                let found = self.pixels.get(&(class as i16)).copied().unwrap_or(0);
                if found != *promised {
                    told.push(format!("manifest.json counts {promised} pixels of {name}, the maps hold {found}"));
                }
            }
        }
        let missing: Vec<&str> = listed
            .classes
            .iter()
            .zip(&listed.pixels)
            .filter(|(_, pixels)| **pixels == 0)
            .map(|(name, _)| name.as_str())
            .collect();
        if !missing.is_empty() {
            told.push(format!("classes without a pixel: {}", missing.join(", ")));
        }
        told
    }

    /// The same for programs; null without maps.
    pub(super) fn json(&self, listed: Option<&MapClasses>, complete: bool) -> serde_json::Value {
        if !self.there(listed) {
            return serde_json::Value::Null;
        }
        let class = |(class, pixels, maps): (i16, u64, u64)| serde_json::json!({"class": Self::name(listed, class), "number": class, "pixels": pixels, "maps": maps});
        serde_json::json!({
            "member": *self.reading.member,
            "samples": self.samples,
            "unlabelled_pixels": self.pixels.get(&UNLABELLED).copied().unwrap_or(0),
            "classes": self.classes().into_iter().map(class).collect::<Vec<_>>(),
            "left_out": self.faults.iter().map(|(reason, (number, _))| ((*reason).to_owned(), (*number).into())).collect::<serde_json::Map<_, _>>(),
            "beware": self.beware(listed, complete),
        })
    }
}

/// A decoded picture with its map laid over it, where it has one that fits.
pub(super) fn drawn(mut picture: Image, sample: &RawSample, header: &Header, reading: &MapReading) -> Image {
    if let Ok((map, orientation)) = LabelMap::of_sample(sample, header, reading, Limits::default()) {
        lay_over(&mut picture, &map.upright(orientation).classes);
    }
    picture
}

#[cfg(test)]
mod tests {
    use splitmask_pipeline::decode::header;
    use splitmask_pipeline::types::SampleId;

    use super::*;

    /// A sample of 2 × 1 pixels.
    fn sample(key: &str, classes: [i16; 2]) -> RawSample {
        let mut png = std::io::Cursor::new(vec![]);
        image::RgbImage::new(2, 1).write_to(&mut png, image::ImageFormat::Png).unwrap();
        RawSample {
            id: SampleId {
                epoch: 0,
                shard: 0,
                member: 0,
            },
            shard: "000003.tar".into(),
            key: key.into(),
            image: png.into_inner().into(),
            extension: "png".into(),
            label: None,
            map: Some(LabelMap::new(2, 1, classes.to_vec()).to_png(255).into()),
            objects: None,
        }
    }

    #[test]
    fn numbers_beyond_the_classes_are_told_with_the_first_map_that_holds_them() {
        let mut maps = Maps::default();
        for (key, classes) in [("a", [0, 1]), ("b", [7, 7]), ("c", [1, 7]), ("d", [9, 0])] {
            let sample = sample(key, classes);
            maps.offer(&sample, &header(&sample.image).unwrap());
        }
        let listed = MapClasses {
            member: "seg.png".into(),
            classes: vec!["ground".into(), "thing".into()],
            pixels: vec![2, 2],
            ignored: 0,
            ignore: 255,
            beyond: BTreeMap::new(),
        };
        assert_eq!(
            maps.beware(Some(&listed), true),
            [
                "numbers beyond the 2 classes that manifest.json names: 7 (3 pixels in 2 maps, first in 000003.tar: b), 9 (1 pixels in 1 maps, first in 000003.tar: d)"
            ]
        );
    }
}
