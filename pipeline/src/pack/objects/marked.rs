//! What a packing run knows of the objects once the images are found.

use super::annotated::Annotations;
use super::{Dropped, ObjectOptions, ObjectReport};
use crate::coco::Category;
use crate::pack::error::PackError;
use crate::pack::found::Found;
use crate::pack::options::PackOptions;
use crate::pack::shards::SetWriter;

/// Classes, and what of the files belongs to no image.
pub(in crate::pack) struct Marked {
    /// In the order of their ids.
    pub(in crate::pack) classes: Vec<Category>,
    dropped: Dropped,
    missing: (u64, Vec<String>),
    annotations: usize,
}

impl Marked {
    /// Of files whose pictures are these images.
    ///
    /// # Errors
    /// None of them is.
    pub(in crate::pack) fn of(annotations: Annotations, images: &[Found], files: &ObjectOptions) -> Result<Self, PackError> {
        Ok(Self {
            missing: annotations.missing(images, files)?,
            annotations: annotations.number,
            classes: annotations.classes,
            dropped: annotations.dropped,
        })
    }

    /// What became of the annotations, of sets that are written.
    ///
    /// # Errors
    /// No object is left.
    pub(in crate::pack) fn report(&self, sets: [&SetWriter; 2], options: &PackOptions) -> Result<ObjectReport, PackError> {
        let mut report = ObjectReport {
            dropped: self.dropped.clone(),
            missing: self.missing.clone(),
            ..ObjectReport::default()
        };
        sets.iter().for_each(|set| set.objects.tell(&mut report));
        if sets.iter().all(|set| set.objects.finish(&self.classes).number() == 0) {
            let each = report
                .dropped
                .iter()
                .map(|(reason, (number, first))| format!("; {number} {reason}: {first}"));
            return Err(PackError::NoObjects {
                file: options
                    .objects
                    .as_ref()
                    .map_or(String::new(), |files| files.file.display().to_string()),
                annotations: self.annotations,
                reasons: each.collect(),
            });
        }
        Ok(report)
    }
}
