//! What a person should know about the objects that were packed.

use super::ObjectReport;
use crate::bucket::manifest::ObjectClasses;

/// What a person should know about the objects of both sets, one sentence each.
pub(in crate::pack) fn notes(sets: [Option<&ObjectClasses>; 2], report: &ObjectReport) -> Vec<String> {
    let mut notes = vec![];
    for (reason, (number, example)) in &report.dropped {
        notes.push(format!("{number} annotations left out, {reason}: such as {example}"));
    }
    if report.clipped > 0 {
        notes.push(format!("{} boxes reach beyond their pictures and were cut", report.clipped));
    }
    if report.masks_cut > 0 {
        notes.push(format!(
            "{} masks have pixels beyond their boxes, which were cut: bbox and segmentation do not belong together, or are rounded",
            report.masks_cut
        ));
    }
    if report.emptied > 0 {
        notes.push(format!(
            "{} images lost all of their annotations and count as images without objects",
            report.emptied
        ));
    }
    let (missing, first) = &report.missing;
    if *missing > 0 {
        notes.push(format!(
            "{missing} pictures of the objects' file are no images here, such as {}",
            first.join(", ")
        ));
    }
    let [train, val] = sets;
    if let Some(train) = train {
        let none: Vec<&str> = train
            .classes
            .iter()
            .zip(&train.objects)
            .filter(|(_, objects)| **objects == 0)
            .map(|(class, _)| class.as_str())
            .collect();
        if !none.is_empty() {
            notes.push(format!("classes of which train has no object: {}", none.join(", ")));
        }
        if train.masks < train.number() {
            notes.push(format!(
                "{} of {} objects of train have a box alone, no mask",
                train.number() - train.masks,
                train.number()
            ));
        }
    }
    if val.is_some_and(|val| val.number() == 0) {
        notes.push("val has no object".into());
    }
    notes
}
