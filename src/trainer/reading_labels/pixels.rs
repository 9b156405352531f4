//! The classes of the label maps of the training set, for objectives that learn them.

use splitmask_pipeline::bucket::manifest::MapClasses;
use splitmask_pipeline::metrics::PipelineMetrics;
use splitmask_pipeline::run::{Dataset, Order};

use super::refused::{PROBED, bad_count, place};
use crate::trainer::error::TrainError;
use crate::trainer::labels::TrainingLabels;
use crate::trainer::spec::TrainerSpec;

/// The classes of the maps of `set`, of which the objective wants `wanted`; 0 = those of the manifest.
///
/// # Errors
/// A set without maps, of one class, of another number of classes than `objective.classes`, or with another number that stands for nothing than
/// `data.map_ignore`; sources of different classes.
pub(super) fn labels_of(spec: &TrainerSpec, set: &Dataset, wanted: u32) -> Result<TrainingLabels, TrainError> {
    let Some(maps) = set.map_classes() else {
        if set.manifest().is_some() {
            return Err(without_maps(spec, "its manifest.json tells of none"));
        }
        if wanted == 0 {
            return Err(bad_count(
                wanted,
                format!(
                    "there is no manifest.json in {} that names the classes of the label maps",
                    place(spec)
                ),
                "set objective.classes to their number (the largest number in a map + 1), or make the shards with `splitmask pack --maps`",
            ));
        }
        for sample in set.samples_with_maps(Order::Sequential)?.take(PROBED) {
            if sample?.map.is_some() {
                same_in_all_sources(spec, &[])?;
                return Ok(TrainingLabels {
                    names: vec![],
                    counts: vec![0; wanted as usize],
                });
            }
        }
        let found = format!("none of its first {PROBED} samples has a member .{}", spec.data.map);
        return Err(without_maps(spec, &found));
    };
    let (names, counts) = learnt(spec, maps)?;
    let classes = names.len();
    if classes < 2 {
        let only = names.first().map_or_else(|| "none".to_owned(), |name| format!("{name:?} alone"));
        return Err(bad_count(
            wanted,
            format!("the label maps of {} have {only}: there is nothing to tell apart", place(spec)),
            "look at the maps: splitmask inspect URL --contact-sheet sheet.png",
        ));
    }
    if wanted != 0 && wanted as usize != classes {
        return Err(bad_count(
            wanted,
            format!("manifest.json of {} names {classes} classes of label maps", place(spec)),
            "leave objective.classes out: then it is the number of the manifest's classes",
        ));
    }
    if counts.iter().all(|pixels| *pixels == 0) {
        return Err(without_maps(spec, "its manifest.json counts no pixel of any class"));
    }
    same_in_all_sources(spec, names)?;
    Ok(TrainingLabels {
        names: names.to_vec(),
        counts: counts.to_vec(),
    })
}

/// Maps hold numbers: those of several sources must mean the same.
fn same_in_all_sources(spec: &TrainerSpec, first: &[String]) -> Result<(), TrainError> {
    for source in spec.data.sources.iter().skip(1) {
        let other = Dataset::open(&source.url, &spec.data, &spec.pipeline, PipelineMetrics::default())?;
        let theirs = other.map_classes().map(|maps| learnt(spec, maps)).transpose()?;
        if theirs.map_or(&[][..], |(theirs, _)| theirs) != first {
            return Err(TrainError::BadSetting {
                key: "data.sources".into(),
                value: format!("{:?}", source.name),
                detail: format!(
                    "its label maps have other classes than those of {}, or the same in another order: the same number would mean two things",
                    place(spec)
                ),
                hint: Some("pack the folders together into one set, or train on one source".into()),
            });
        }
    }
    Ok(())
}

/// Names and pixels of the classes of maps as `[data]` reads them.
fn learnt<'a>(spec: &TrainerSpec, maps: &'a MapClasses) -> Result<(&'a [String], &'a [u64]), TrainError> {
    if maps.ignore != spec.data.map_ignore {
        return Err(TrainError::BadSetting {
            key: "data.map_ignore".into(),
            value: spec.data.map_ignore.to_string(),
            detail: format!(
                "manifest.json of {} says that {} stands for nothing in its label maps",
                place(spec),
                maps.ignore
            ),
            hint: Some(format!("set data.map_ignore = {}", maps.ignore)),
        });
    }
    if maps.member != spec.data.map {
        return Err(TrainError::BadSetting {
            key: "data.map".into(),
            value: format!("{:?}", spec.data.map),
            detail: format!(
                "manifest.json of {} says that its label maps are .{} members",
                place(spec),
                maps.member
            ),
            hint: Some(format!("set data.map = {:?}", maps.member)),
        });
    }
    Ok(maps.learnt(spec.data.map_reduce_zero))
}

fn without_maps(spec: &TrainerSpec, found: &str) -> TrainError {
    TrainError::BadSetting {
        key: "data.train".into(),
        value: place(spec),
        detail: format!(
            "has no label maps, and objective.kind = \"{}\" learns them: {found}",
            spec.objective.kind().name
        ),
        hint: Some("pack them beside the images: splitmask pack IMAGES OUT --maps MAPS (docs/segment.md)".into()),
    }
}
