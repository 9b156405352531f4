//! How many objects of each class a set holds.

use super::prepared::PreparedObjects;
use super::{Dropped, MEMBER, ObjectReport, drop_more};
use crate::bucket::manifest::ObjectClasses;
use crate::coco::Category;

/// What a set holds.
#[derive(Debug, Clone, Default)]
pub(in crate::pack) struct ObjectCounts {
    classes: Vec<[u64; 2]>,
    masks: u64,
    mask_pixels: u64,
    negatives: u64,
    emptied: u64,
    clipped: u64,
    masks_cut: u64,
    dropped: Dropped,
}

impl ObjectCounts {
    /// Takes in the objects of one image.
    pub(in crate::pack) fn add(&mut self, objects: &PreparedObjects) {
        for (class, [number, crowds]) in &objects.classes {
            let class = *class as usize;
            if self.classes.len() <= class {
                self.classes.resize(class + 1, [0; 2]);
            }
            self.classes[class][0] += number;
            self.classes[class][1] += crowds;
        }
        self.masks += objects.masks;
        self.mask_pixels += objects.mask_pixels;
        self.negatives += u64::from(objects.is_empty());
        self.emptied += u64::from(objects.is_empty() && (objects.lost > 0 || !objects.dropped.is_empty()));
        self.clipped += objects.clipped;
        self.masks_cut += objects.masks_cut;
        drop_more(&mut self.dropped, &objects.dropped);
    }

    /// For the manifest.
    pub(in crate::pack) fn finish(&self, classes: &[Category]) -> ObjectClasses {
        let of = |which: usize| {
            (0..classes.len())
                .map(|class| self.classes.get(class).map_or(0, |numbers| numbers[which]))
                .collect()
        };
        ObjectClasses {
            member: MEMBER.into(),
            classes: classes.iter().map(|class| class.name.clone()).collect(),
            ids: classes.iter().map(|class| class.id).collect(),
            objects: of(0),
            crowds: of(1),
            masks: self.masks,
            mask_pixels: self.mask_pixels,
            negatives: self.negatives,
        }
    }

    /// For the report.
    pub(in crate::pack) fn tell(&self, report: &mut ObjectReport) {
        drop_more(&mut report.dropped, &self.dropped);
        report.clipped += self.clipped;
        report.masks_cut += self.masks_cut;
        report.emptied += self.emptied;
    }
}
