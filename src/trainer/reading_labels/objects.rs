//! The classes of the objects that are marked in the training set, for objectives that learn them.

use splitmask_pipeline::metrics::PipelineMetrics;
use splitmask_pipeline::run::{Dataset, Order};

use super::refused::{PROBED, bad_count, place};
use crate::trainer::error::TrainError;
use crate::trainer::labels::TrainingLabels;
use crate::trainer::spec::TrainerSpec;

/// The classes of the objects of `set`, of which the objective wants `wanted`; 0 = those of the manifest.
///
/// # Errors
/// A set without objects, of another number of classes than `objective.classes`, or whose objects are in other members than `data.objects` names;
/// sources of different classes.
pub(super) fn labels_of(spec: &TrainerSpec, set: &Dataset, wanted: u32) -> Result<TrainingLabels, TrainError> {
    let Some(objects) = set.object_classes() else {
        if set.manifest().is_some() {
            return Err(without_objects(spec, "its manifest.json tells of none"));
        }
        if wanted == 0 {
            return Err(bad_count(
                wanted,
                format!("there is no manifest.json in {} that names the classes of objects", place(spec)),
                "set objective.classes to their number (the largest category + 1), or make the shards with `splitmask pack --coco`",
            ));
        }
        for sample in set.samples_with_objects(Order::Sequential)?.take(PROBED) {
            if sample?.objects.is_some() {
                same_in_all_sources(spec, &[])?;
                return Ok(TrainingLabels {
                    names: vec![],
                    counts: vec![0; wanted as usize],
                });
            }
        }
        let found = format!("none of its first {PROBED} samples has a member .{}", spec.data.objects);
        return Err(without_objects(spec, &found));
    };
    if objects.member != spec.data.objects {
        return Err(TrainError::BadSetting {
            key: "data.objects".into(),
            value: format!("{:?}", spec.data.objects),
            detail: format!(
                "manifest.json of {} says that its objects are .{} members",
                place(spec),
                objects.member
            ),
            hint: Some(format!("set data.objects = {:?}", objects.member)),
        });
    }
    if objects.objects.iter().all(|number| *number == 0) {
        return Err(without_objects(spec, "its manifest.json counts no object of any class"));
    }
    let classes = objects.classes.len();
    if wanted != 0 && wanted as usize != classes {
        return Err(bad_count(
            wanted,
            format!("manifest.json of {} names {classes} classes of objects", place(spec)),
            "leave objective.classes out: then it is the number of the manifest's classes",
        ));
    }
    same_in_all_sources(spec, &objects.classes)?;
    Ok(TrainingLabels {
        names: objects.classes.clone(),
        counts: objects.objects.clone(),
    })
}

/// Categories are numbers: those of several sources must mean the same.
fn same_in_all_sources(spec: &TrainerSpec, first: &[String]) -> Result<(), TrainError> {
    for source in spec.data.sources.iter().skip(1) {
        let other = Dataset::open(&source.url, &spec.data, &spec.pipeline, PipelineMetrics::default())?;
        let theirs = other.object_classes().map_or(&[][..], |objects| &objects.classes);
        if theirs != first {
            return Err(TrainError::BadSetting {
                key: "data.sources".into(),
                value: format!("{:?}", source.name),
                detail: format!(
                    "its objects have other classes than those of {}, or the same in another order: the same number would mean two things",
                    place(spec)
                ),
                hint: Some("pack the pictures together into one set, or train on one source".into()),
            });
        }
    }
    Ok(())
}

fn without_objects(spec: &TrainerSpec, found: &str) -> TrainError {
    TrainError::BadSetting {
        key: "data.train".into(),
        value: place(spec),
        detail: format!(
            "has no marked objects, and objective.kind = \"{}\" learns them: {found}",
            spec.objective.kind().name
        ),
        hint: Some("pack them beside the images: splitmask pack IMAGES OUT --coco ANNOTATIONS.json (docs/detect.md)".into()),
    }
}
