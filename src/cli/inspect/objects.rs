//! Which objects are marked in the samples, and what about them does not fit.

use std::collections::BTreeMap;

use splitmask_pipeline::augment::{CropDraw, object_view};
use splitmask_pipeline::bucket::manifest::ObjectClasses;
use splitmask_pipeline::decode::{Header, ObjectReading, Objects as Marked};
use splitmask_pipeline::types::{Image, Object, RawSample};

use super::extremes::extremes;
use super::reasons::{Reasons, count};
use crate::picture::{frame_object, lay_object};

/// What was read of the objects.
#[derive(Default)]
pub(super) struct Objects {
    pub(super) reading: ObjectReading,
    /// Samples with a member that fits.
    samples: u64,
    /// Those without any object.
    negatives: u64,
    /// By class: objects, crowds, samples that hold one.
    classes: BTreeMap<u32, [u64; 3]>,
    masks: u64,
    /// Samples that a detection would drop.
    faults: Reasons,
    /// Objects that are odd.
    odd: Reasons,
}

impl Objects {
    /// Nothing yet, of members that are read so.
    pub(super) fn read_by(reading: ObjectReading) -> Self {
        Self {
            reading,
            ..Self::default()
        }
    }

    pub(super) fn offer(&mut self, sample: &RawSample, header: &Header) {
        let (shard, key) = (&sample.shard, &sample.key);
        let objects = match Marked::of_sample(sample, header, &self.reading) {
            Ok((objects, _)) => objects,
            Err(error) => return count(&mut self.faults, error.reason(), || format!("{shard}: {key}: {error}")),
        };
        self.samples += 1;
        self.negatives += u64::from(objects.marked.is_empty());
        let mut here = BTreeMap::<u32, [u64; 2]>::new();
        for (n, object) in objects.marked.iter().enumerate() {
            here.entry(object.class).or_default()[usize::from(object.crowd)] += 1;
            let area = object.area;
            let told = || {
                let (x, y, w, h) = (area.x, area.y, area.width, area.height);
                format!("{shard}: {key}: annotations[{n}] with the box [{x}, {y}, {w}, {h}]")
            };
            let within = area.grown(0.0, objects.width, objects.height);
            let seen = within.width > 0.0 && within.height > 0.0;
            if area.width <= 0.0 || area.height <= 0.0 {
                count(&mut self.odd, "boxes without an area", told);
            } else if !seen {
                count(&mut self.odd, "boxes outside of their pictures", told);
            } else if area.width - within.width > 0.01 || area.height - within.height > 0.01 {
                count(&mut self.odd, "boxes that reach beyond their pictures", told);
            }
            if let Some(mask) = &object.mask {
                self.masks += 1;
                let [left, top, width, height] = mask.bounds();
                let beyond = left < area.x.floor()
                    || top < area.y.floor()
                    || left + width > (area.x + area.width).ceil()
                    || top + height > (area.y + area.height).ceil();
                if mask.area() == 0 {
                    count(&mut self.odd, "masks without a pixel", told);
                } else if beyond {
                    count(&mut self.odd, "masks with pixels beyond their boxes", told);
                }
            }
        }
        for (class, [objects, crowds]) in here {
            let all = self.classes.entry(class).or_default();
            all[0] += objects;
            all[1] += crowds;
            all[2] += 1;
        }
    }

    /// Whether the set has objects, by its manifest or by what was read.
    fn there(&self, listed: Option<&ObjectClasses>) -> bool {
        listed.is_some() || self.samples > 0 || self.faults.keys().any(|reason| *reason != "no_objects")
    }

    fn name(listed: Option<&ObjectClasses>, class: u32) -> String {
        let named = listed.and_then(|objects| objects.classes.get(class as usize));
        named.cloned().unwrap_or_else(|| format!("class {class}"))
    }

    /// (class, objects, crowds, samples that hold it), the largest first.
    fn by_size(&self) -> Vec<(u32, [u64; 3])> {
        let mut all: Vec<_> = self.classes.iter().map(|(class, numbers)| (*class, *numbers)).collect();
        all.sort_by_key(|(class, numbers)| (std::cmp::Reverse(numbers[0]), *class));
        all
    }

    /// Lines for a terminal; none without objects.
    pub(super) fn describe(&self, listed: Option<&ObjectClasses>, complete: bool) -> Vec<String> {
        if !self.there(listed) {
            return vec![];
        }
        let sum = |which: usize| self.classes.values().map(|numbers| numbers[which]).sum::<u64>();
        let mut lines = vec![format!(
            "  objects ({}): {} and {} crowds, {} with masks, in {} samples, {} of them without any; {} classes",
            self.reading.member,
            sum(0),
            sum(1),
            self.masks,
            self.samples,
            self.negatives,
            self.classes.len()
        )];
        let each =
            |(class, [objects, _, samples]): &(u32, [u64; 3])| format!("{} {objects} in {samples} samples", Self::name(listed, *class));
        let classes = self.by_size();
        lines.extend(extremes(&classes, each));
        lines.extend(self.beware(listed, complete).into_iter().map(|line| format!("  beware: {line}")));
        lines
    }

    fn beware(&self, listed: Option<&ObjectClasses>, complete: bool) -> Vec<String> {
        let mut told = vec![];
        for (reason, (number, example)) in &self.faults {
            told.push(format!("{number} samples cannot be learnt from by a detector, {reason}: {example}"));
        }
        for (what, (number, example)) in &self.odd {
            told.push(format!("{number} {what}: {example}"));
        }
        let Some(listed) = listed else { return told };
        if complete && self.faults.is_empty() {
            for (class, (name, promised)) in (0u32..).zip(listed.classes.iter().zip(&listed.objects)) {
                let found = self.classes.get(&class).map_or(0, |numbers| numbers[0]);
                if found != *promised {
                    told.push(format!(
                        "manifest.json counts {promised} objects of {name}, the members hold {found}"
                    ));
                }
            }
            if listed.negatives != self.negatives {
                told.push(format!(
                    "manifest.json counts {} images without objects, there are {}",
                    listed.negatives, self.negatives
                ));
            }
        }
        let missing: Vec<&str> = listed
            .classes
            .iter()
            .zip(&listed.objects)
            .filter(|(_, objects)| **objects == 0)
            .map(|(name, _)| name.as_str())
            .collect();
        if !missing.is_empty() {
            told.push(format!("classes without an object: {}", missing.join(", ")));
        }
        told
    }

    /// The same for programs; null without objects.
    pub(super) fn json(&self, listed: Option<&ObjectClasses>, complete: bool) -> serde_json::Value {
        if !self.there(listed) {
            return serde_json::Value::Null;
        }
        let class = |(class, [objects, crowds, samples]): (u32, [u64; 3])| serde_json::json!({"class": Self::name(listed, class), "number": class, "objects": objects, "crowds": crowds, "samples": samples});
        let counts = |reasons: &Reasons| {
            let numbers = reasons.iter().map(|(reason, (number, _))| ((*reason).to_owned(), (*number).into()));
            numbers.collect::<serde_json::Map<_, _>>()
        };
        serde_json::json!({
            "member": *self.reading.member,
            "samples": self.samples,
            "negatives": self.negatives,
            "masks": self.masks,
            "classes": self.by_size().into_iter().map(class).collect::<Vec<_>>(),
            "left_out": counts(&self.faults),
            "odd": counts(&self.odd),
            "beware": self.beware(listed, complete),
        })
    }
}

/// A decoded picture with its objects drawn on it, each in the colour of its class: boxes, and masks laid over.
pub(super) fn drawn(mut picture: Image, sample: &RawSample, header: &Header, reading: &ObjectReading) -> Image {
    if let Ok((marked, orientation)) = Marked::of_sample(sample, header, reading) {
        // The whole picture as a view of its own size, on a square.
        let side = picture.width.max(picture.height);
        let draw = CropDraw::whole(picture.width, picture.height, side, [0; 3]);
        let mut objects: Vec<Object> = vec![];
        object_view(&marked, orientation, &draw, side, &mut objects);
        objects.iter().for_each(|object| lay_object(&mut picture, object));
        objects.iter().for_each(|object| frame_object(&mut picture, object));
    }
    picture
}
