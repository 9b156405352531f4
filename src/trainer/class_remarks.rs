//! What is odd about the classes of the sets, told at the start of a run that learns them, by name.

use splitmask_pipeline::bucket::classes::ClassMap;
use splitmask_pipeline::bucket::location::redact;
use splitmask_pipeline::run::Dataset;

use super::error::TrainError;
use super::labels::TrainingLabels;
use super::spec::TrainerSpec;
use crate::eval::config::Watched;
use crate::objective::ClassesOf;

/// Classes named in one line at most.
const LISTED: usize = 6;

fn listed<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.map(String::as_str).collect();
    let shown = names[..LISTED.min(names.len())].join(", ");
    match names.len().saturating_sub(LISTED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Classes of the training set from which hardly anything can be learnt, as sentences.
pub(super) fn of_training(labels: &TrainingLabels, of: ClassesOf) -> Vec<String> {
    let with = |images: u64| {
        let classes = labels.names.iter().zip(&labels.counts);
        classes.filter(move |(_, count)| **count == images).map(|(name, _)| name)
    };
    let told = |images: u64, what: &str| {
        let number = with(images).count();
        let of = labels.names.len();
        (number > 0).then(|| format!("{number} of its {of} classes have {what}: {}", listed(with(images))))
    };
    match of {
        // Without a manifest nobody has counted pixels.
        ClassesOf::Pixels => vec![told(0, "no pixel, and cannot be learnt").filter(|_| !labels.names.is_empty())],
        // Nor objects.
        ClassesOf::Objects => vec![told(0, "no object, and cannot be learnt").filter(|_| !labels.names.is_empty())],
        ClassesOf::Images => vec![
            told(0, "no image, and cannot be learnt"),
            told(1, "a single image, and will hardly be learnt"),
        ],
    }
    .into_iter()
    .flatten()
    .collect()
}

/// What of `data.val`, opened as `val`, cannot be judged by the classes that a run learns, as sentences.
///
/// # Errors
/// [`TrainError::BadSetting`] where nothing can be and the run is to be judged by it (`eval.watch = "classify"`).
pub(super) fn of_validation(spec: &TrainerSpec, val: &Dataset) -> Result<Vec<String>, TrainError> {
    if let (Some(why), Watched::Loss, 1..) = (spec.objective.incomparable(), spec.eval.watch, spec.eval.every_steps) {
        return Err(TrainError::BadSetting {
            key: "eval.watch".into(),
            value: "\"loss\"".into(),
            detail: format!(
                "the loss of objective.kind = \"{}\" at different steps does not compare, because {why}",
                spec.objective.kind().name
            ),
            hint: Some(
                "set eval.watch = \"knn\" where data.val has labels; without labels set eval.every_steps = 0 and eval.spread_every_steps, and look at effective rank and pictures".into(),
            ),
        });
    }
    let Some(manifest) = val.manifest() else { return Ok(vec![]) };
    let unlabelled = manifest.label_counts.iter().all(|images| *images == 0);
    let neighbours = spec.eval.every_steps > 0 && spec.eval.watch == Watched::Knn;
    let failing = match (neighbours, spec.eval.linear_every_steps > 0) {
        (true, _) if spec.objective.incomparable().is_some() => Some((
            "eval.watch = \"knn\"",
            "set eval.every_steps = 0, and eval.spread_every_steps, which needs no labels",
        )),
        (true, _) => Some(("eval.watch = \"knn\"", "set eval.watch = \"loss\", or eval.every_steps = 0")),
        (false, true) => Some(("eval.linear_every_steps", "set it to 0")),
        (false, false) => None,
    };
    let features = failing
        .filter(|_| unlabelled)
        .map(|(key, hint)| format!("has no labels, by which {key} judges, so that each such evaluation will fail: {hint}"));
    if spec.objective.classes().is_none() {
        return Ok(features.into_iter().collect());
    }
    let of = spec.objective.classes_of();
    let (watched, counted, (classes, counts)) = match of {
        ClassesOf::Images => (Watched::Classify, "images", (&*manifest.classes, &*manifest.label_counts)),
        ClassesOf::Pixels => {
            let maps = manifest.maps.as_ref();
            let learnt = maps.map(|maps| maps.learnt(spec.data.map_reduce_zero));
            (Watched::Segment, "pixels", learnt.unwrap_or_default())
        }
        ClassesOf::Objects => {
            let objects = manifest.objects.as_ref();
            let learnt = objects.map(|objects| (&*objects.classes, &*objects.objects));
            (Watched::Detect, "objects", learnt.unwrap_or_default())
        }
    };
    let judged_by_it = spec.eval.watch == watched && spec.eval.every_steps > 0;
    let nothing = |detail: String| {
        match judged_by_it {
        true => Err(TrainError::BadSetting {
            key: "data.val".into(),
            value: redact(&spec.data.val),
            detail: format!("{detail}, and eval.watch = \"{}\" judges by it", watched.evaluation().name),
            hint: Some(match of {
                ClassesOf::Images => {
                    "classes are matched by folder name: pack one tree with --val-share, or two with the same folder names; or set eval.watch = \"loss\"".into()
                }
                ClassesOf::Objects => {
                    "classes of objects are matched by name: pack both sets with --coco files of the same categories (docs/detect.md); or set eval.watch = \"loss\"".into()
                }
                ClassesOf::Pixels => {
                    "classes of label maps are matched by name: pack both sets with --maps and the same --map-classes (docs/segment.md); or set eval.watch = \"loss\"".into()
                }
            }),
        }),
        false => Ok(vec![detail]),
    }
    };
    if counts.iter().all(|images| *images == 0) {
        if let (false, ClassesOf::Images, Some(told)) = (judged_by_it, of, &features) {
            return Ok(vec![told.clone()]);
        }
        return nothing(match of {
            ClassesOf::Images => "has no labels".into(),
            ClassesOf::Pixels => "has no label maps, or none with a class".into(),
            ClassesOf::Objects => "has no marked objects".into(),
        });
    }
    let map = ClassMap::new(classes, &spec.labels.names);
    if !map.is_by_name() {
        return Ok(vec![]);
    }
    let with_images = |name: &&String| {
        let mut of = classes.iter().zip(counts);
        of.any(|(class, images)| class == *name && *images > 0)
    };
    // A class without a training image has an output that nothing teaches.
    let taught: Vec<&String> = {
        let classes = spec.labels.names.iter().zip(&spec.labels.counts);
        classes.filter(|(_, count)| **count > 0).map(|(name, _)| name).collect()
    };
    let learnt_and_there = taught.iter().copied().filter(with_images).count();
    let strange: Vec<&String> = map.left_out().iter().filter(with_images).collect();
    if learnt_and_there == 0 {
        let there = classes.iter().filter(with_images);
        return nothing(format!(
            "has no {counted} of a class that data.train has some of: it has {}, that has {}",
            listed(there),
            listed(taught.into_iter())
        ));
    }
    let mut told: Vec<String> = features.into_iter().collect();
    if !strange.is_empty() {
        let number = strange.len();
        told.push(format!(
            "{number} of its classes are not in data.train, and their {counted} are not judged: {}",
            listed(strange.into_iter())
        ));
    }
    let missing = spec.labels.names.iter().filter(|name| !with_images(name));
    let number = missing.clone().count();
    if number > 0 {
        told.push(format!(
            "it has no {counted} of {number} classes that are learnt: {}",
            listed(missing)
        ));
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_with_one_image_or_none_are_named() {
        let labels = |counts: &[u64]| TrainingLabels {
            names: (0..counts.len()).map(|n| format!("class{n}")).collect(),
            counts: counts.to_vec(),
        };
        assert_eq!(of_training(&labels(&[5, 2]), ClassesOf::Images), [""; 0]);
        let told = of_training(&labels(&[5, 1, 0, 1]), ClassesOf::Images);
        assert_eq!(
            told,
            [
                "1 of its 4 classes have no image, and cannot be learnt: class2",
                "2 of its 4 classes have a single image, and will hardly be learnt: class1, class3"
            ]
        );
        let many = of_training(&labels(&[1; 9]), ClassesOf::Images);
        assert!(many[0].ends_with("class4, class5 and 3 more"), "{many:?}");
    }
}
