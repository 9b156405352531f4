//! The classes of the training set, for objectives that learn labels: read at a start and at a rebuild, and refused where there is nothing to learn.

mod objects;
mod pixels;
mod refused;

use splitmask_pipeline::metrics::PipelineMetrics;
use splitmask_pipeline::run::{Dataset, Order};

use self::refused::{PROBED, bad_count, place};
use super::error::TrainError;
use super::feed::Supply;
use super::labels::TrainingLabels;
use super::spec::TrainerSpec;
use crate::objective::ClassesOf;

/// The classes of the training set, if the objective of `spec` learns labels. Batches that were made before bring none.
///
/// # Errors
/// A set without labels or of one class, sources of different classes, another number of classes than `objective.classes`; or the place cannot be read.
pub(super) fn labels_of(spec: &TrainerSpec, supply: &Supply) -> Result<TrainingLabels, TrainError> {
    let (Some(wanted), Supply::Bucket) = (spec.objective.classes(), supply) else {
        return Ok(TrainingLabels::default());
    };
    let set = Dataset::open_training(&spec.data, &spec.pipeline, &PipelineMetrics::default())?;
    let place = place(spec);
    let bad_count = |detail: String, hint: &str| bad_count(wanted, detail, hint);
    match spec.objective.classes_of() {
        ClassesOf::Pixels => return pixels::labels_of(spec, &set, wanted),
        ClassesOf::Objects => return objects::labels_of(spec, &set, wanted),
        ClassesOf::Images => {}
    }
    let Some(manifest) = set.manifest() else {
        if wanted == 0 {
            return Err(bad_count(
                format!("there is no manifest.json in {place} that names the classes"),
                "set objective.classes to their number (the largest label + 1), or make the shards with `splitmask pack`",
            ));
        }
        match largest_label(&set)? {
            None => {
                let found = format!("none of its first {PROBED} samples has a label (a .cls member)");
                return Err(without_labels(spec, &found));
            }
            Some(label) if label >= u64::from(wanted) => {
                return Err(bad_count(
                    format!(
                        "a sample of {place} has label {label}, and {wanted} classes have labels 0 to {}",
                        wanted - 1
                    ),
                    "set objective.classes to the largest label + 1",
                ));
            }
            Some(_) => {}
        }
        same_in_all_sources(spec, &[])?;
        return Ok(TrainingLabels {
            names: vec![],
            counts: vec![0; wanted as usize],
        });
    };
    if manifest.label_counts.iter().all(|images| *images == 0) {
        return Err(without_labels(spec, "its manifest.json names no class with an image"));
    }
    let classes = manifest.classes.len();
    if classes < 2 {
        return Err(bad_count(
            format!("{place} has one class, {:?}: there is nothing to tell apart", manifest.classes[0]),
            "pack a folder whose sub-folders are the classes",
        ));
    }
    if wanted != 0 && wanted as usize != classes {
        return Err(bad_count(
            format!("manifest.json of {place} names {classes} classes"),
            "leave objective.classes out: then it is the number of the manifest's classes",
        ));
    }
    same_in_all_sources(spec, &manifest.classes)?;
    Ok(TrainingLabels {
        names: manifest.classes.clone(),
        counts: manifest.label_counts.clone(),
    })
}

/// `learnt`, if `spec` still trains on those classes.
///
/// # Errors
/// As [`labels_of`]; other classes than those that the head tells apart.
pub(super) fn still_labels_of(spec: &TrainerSpec, learnt: &TrainingLabels, supply: &Supply) -> Result<TrainingLabels, TrainError> {
    let now = labels_of(spec, supply)?;
    let (was, is) = (learnt.counts.len(), now.counts.len());
    if now.names == learnt.names && is == was {
        return Ok(learnt.clone());
    }
    Err(TrainError::BadSetting {
        key: "data.train".into(),
        value: place(spec),
        detail: format!("has other classes ({is}) than those that the run learns ({was}), or the same in another order"),
        hint: Some("keep to sets of the same classes, or start another run (another run.dir) from these weights: run.init_from".into()),
    })
}

/// Labels are numbers: those of several sources must mean the same.
fn same_in_all_sources(spec: &TrainerSpec, first: &[String]) -> Result<(), TrainError> {
    for source in spec.data.sources.iter().skip(1) {
        let other = Dataset::open(&source.url, &spec.data, &spec.pipeline, PipelineMetrics::default())?;
        if other.class_names().unwrap_or_default() != first {
            return Err(TrainError::BadSetting {
                key: "data.sources".into(),
                value: format!("{:?}", source.name),
                detail: format!(
                    "has other classes than {}, or the same in another order: the same label would mean two things",
                    place(spec)
                ),
                hint: Some("pack the folders together into one set, or train on one source".into()),
            });
        }
    }
    Ok(())
}

/// The largest label of the first samples of a set; none where they have none.
fn largest_label(set: &Dataset) -> Result<Option<u64>, TrainError> {
    let mut largest = None;
    for sample in set.samples(Order::Sequential)?.take(PROBED) {
        largest = largest.max(sample?.label.map(u64::from));
    }
    Ok(largest)
}

fn without_labels(spec: &TrainerSpec, found: &str) -> TrainError {
    TrainError::BadSetting {
        key: "data.train".into(),
        value: place(spec),
        detail: format!("has no labels, and objective.kind = \"{}\" learns them: {found}", spec.objective.kind().name),
        hint: Some(
            "pack a folder whose sub-folders are the classes (`splitmask pack`), or take an objective that needs no labels, such as objective.kind = \"splitmask\"".into(),
        ),
    }
}
