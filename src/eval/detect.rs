//! How well a run that learns to find objects does so, on the objects of `data.val`: COCO's average precision of boxes and masks, in the pictures' own size.

mod finder;
mod precision;
mod truth;

use splitmask_pipeline::decode::{Decoder, Limits, ObjectReading, Objects, Orientation};
use splitmask_pipeline::error::SampleError;
use splitmask_pipeline::types::{Image, RawSample};
use torch_ext::Autocast;

pub use self::finder::{Finder, Sure};
pub use self::precision::Precision;
use self::truth::Judged;
use super::config::Watched;
use super::error::EvalError;
use super::evaluation::{EvalNumber, Evaluation, Score, Subject};
use super::marks::{Dropped, Marks};
use super::progress::{GoOn, Progress};
use crate::objective::{Better, Panel};
use crate::telemetry::metrics::{EvalTask, SideTask};

/// Pictures that go through the network at once.
const AT_ONCE: usize = 8;

/// Average precision of the objects that the objective finds, classes of the set matched by name.
pub static DETECT: Evaluation = Evaluation {
    name: "detect",
    doc: "COCO's average precision of the objects that a run learnt to find (detect), boxes and masks, on the objects of data.val.",
    number: EvalNumber {
        name: "box_average_precision",
        panel: Some(Panel::Shares),
        gauge: |metrics| metrics.eval.accuracy.of(EvalTask::Detect),
    },
    better: Better::Higher,
    beside: &[
        EvalNumber {
            name: "mask_average_precision",
            panel: Some(Panel::Shares),
            gauge: |metrics| metrics.eval.accuracy.of(EvalTask::DetectMasks),
        },
        EvalNumber {
            name: "box_average_precision_50",
            panel: None,
            gauge: |metrics| metrics.eval.accuracy.of(EvalTask::DetectHalf),
        },
    ],
    task: SideTask::Detect,
    every: |config| config.every_steps_of(Watched::Detect),
    budget_s: |_| None,
    run: score,
};

fn score(subject: &Subject<'_>, go_on: GoOn<'_>) -> Result<Score, EvalError> {
    let found = measure(subject, go_on)?;
    let share = |share: Option<f64>| share.map_or_else(|| "none".to_owned(), |share| format!("{share:.4}"));
    let masks = found.masks.as_ref();
    Ok(Score {
        value: found.boxes.precision.unwrap_or(0.0),
        line: format!(
            "average precision of boxes {}, of masks {}, of boxes at an overlap of a half {}",
            share(found.boxes.precision),
            share(masks.and_then(|masks| masks.precision)),
            share(found.boxes.precision_50)
        ),
        table: found.table(),
        details: serde_json::json!(found),
        // Objects without masks have no precision of masks: that is no number, not 0.
        beside: vec![
            masks.and_then(|masks| masks.precision).unwrap_or(f64::NAN),
            found.boxes.precision_50.unwrap_or(0.0),
        ],
        remarks: found.remarks,
        ..Score::default()
    })
}

/// A sample's picture, upright, its objects, and how they are turned to lie on it.
fn opened(raw: &RawSample, reading: &ObjectReading, decoder: &mut Decoder) -> Result<(Image, Objects, Orientation), SampleError> {
    let header = decoder.header(&raw.image)?;
    let (objects, orientation) = Objects::of_sample(raw, &header, reading)?;
    let mut picture = Image::default();
    decoder.decode(&raw.image, &mut picture)?;
    Ok((picture, objects, orientation))
}

/// Average precision on `data.val`, of `eval.max_queries` pictures at most. Pictures are decoded one after the other on this thread.
///
/// # Errors
/// [`EvalError::NoClasses`], [`EvalError::NoObjects`], [`EvalError::NoneLearnt`], the stream's error, [`EvalError::OutOfTime`] or libtorch's.
pub fn measure(subject: &Subject<'_>, go_on: GoOn<'_>) -> Result<Precision, EvalError> {
    let _guard = tch::no_grad_guard();
    let _autocast = subject.bf16.then(|| Autocast::bf16(subject.device)).transpose()?;
    let learnt = subject.training.classes.ok_or(EvalError::NoClasses)?;
    let data = subject.sets.data;
    let set = subject.sets.val_set()?;
    let marks = Marks {
        place: &data.val,
        theirs: set.object_classes().map(|objects| objects.classes.clone()).unwrap_or_default(),
        learnt,
    };
    let mut decoder = Decoder::new(Limits {
        max_pixels: data.max_pixels,
        max_bytes: data.max_member_bytes,
        ..Limits::default()
    });
    let reading = set.object_reading();
    let mut finder = Finder::new(subject.objective, subject.device, subject.normalise, subject.sets.image);
    let mut judged = Judged::new(marks.by_name());
    let mut dropped = Dropped::default();
    let most = match subject.eval.max_queries {
        0 => usize::MAX,
        most => most as usize,
    };
    let mut pictures = Vec::with_capacity(AT_ONCE);
    let mut see = |pictures: &mut Vec<Image>, judged: &mut Judged| -> Result<(), EvalError> {
        if !pictures.is_empty() {
            let found = finder.find(pictures)?.ok_or(EvalError::NoClasses)?;
            judged.found(&found, pictures);
            pictures.clear();
        }
        Ok(())
    };
    for raw in set.samples_with_objects(splitmask_pipeline::run::Order::Sequential)? {
        let raw = raw?;
        match opened(&raw, &reading, &mut decoder) {
            Ok((picture, objects, orientation)) => {
                judged.marked(&objects, orientation, &picture);
                pictures.push(picture);
            }
            Err(error) => {
                dropped.add(&raw, &error);
                continue;
            }
        }
        let done = judged.images() >= most;
        if pictures.len() == AT_ONCE || done {
            see(&mut pictures, &mut judged)?;
            if !go_on(Progress::Images("val", judged.images())) {
                return Err(EvalError::OutOfTime);
            }
        }
        if done {
            break;
        }
    }
    see(&mut pictures, &mut judged)?;
    judged.answer(&marks, dropped)
}
