//! How well a run that learns classes of pixels tells them, on the label maps of `data.val`: intersection over union, class by class, at the maps' own size.

mod inference;
mod overlap;

use splitmask_pipeline::decode::{Decoder, LabelMap, Limits, MapReading};
use splitmask_pipeline::error::SampleError;
use splitmask_pipeline::types::{Image, RawSample, UNLABELLED};
use tch::{Kind, Tensor};
use torch_ext::Autocast;

pub use self::inference::{Seer, Windows, stitched};
pub use self::overlap::{OfClass, Overlap};
use self::overlap::{Tally, table};
use super::config::Watched;
use super::error::EvalError;
use super::evaluation::{EvalNumber, Evaluation, Score, Subject};
use super::marks::{Dropped, Marks};
use super::progress::{GoOn, Progress};
use crate::objective::{Better, Panel};
use crate::telemetry::metrics::{EvalTask, SideTask};

/// Mean intersection over union of the classes of pixels that the objective learns, classes of the set matched by name.
pub static SEGMENT: Evaluation = Evaluation {
    name: "segment",
    doc: "Intersection over union of the classes of pixels that a run learnt (segment), class by class, on the label maps of data.val.",
    number: EvalNumber {
        name: "mean_iou",
        panel: Some(Panel::Shares),
        gauge: |metrics| metrics.eval.accuracy.of(EvalTask::Segment),
    },
    better: Better::Higher,
    beside: &[
        EvalNumber {
            name: "object_mean_iou",
            panel: Some(Panel::Shares),
            gauge: |metrics| metrics.eval.accuracy.of(EvalTask::SegmentObjects),
        },
        EvalNumber {
            name: "val_pixel_accuracy",
            panel: None,
            gauge: |metrics| metrics.eval.accuracy.of(EvalTask::SegmentPixels),
        },
    ],
    task: SideTask::Segment,
    every: |config| config.every_steps_of(Watched::Segment),
    budget_s: |_| None,
    run: score,
};

fn score(subject: &Subject<'_>, go_on: GoOn<'_>) -> Result<Score, EvalError> {
    let found = measure(subject, go_on)?;
    Ok(Score {
        value: found.mean_iou,
        line: format!(
            "mean IoU {:.4} (always the commonest class: {:.4}), without the first class {:.4}, pixel accuracy {:.4}",
            found.mean_iou, found.chance, found.object_mean_iou, found.pixel_accuracy
        ),
        table: table(&found),
        details: serde_json::json!(found),
        beside: vec![found.object_mean_iou, found.pixel_accuracy],
        remarks: found.remarks,
        ..Score::default()
    })
}

/// A sample's picture and the learnt class of each of its pixels, both upright.
fn opened(raw: &RawSample, reading: &MapReading, decoder: &mut Decoder, limits: Limits) -> Result<(Image, LabelMap), SampleError> {
    let header = decoder.header(&raw.image)?;
    let (map, orientation) = LabelMap::of_sample(raw, &header, reading, limits)?;
    let mut picture = Image::default();
    decoder.decode(&raw.image, &mut picture)?;
    Ok((picture, map.upright(orientation)))
}

/// Overlap on `data.val`, of `eval.max_queries` images at most. Images are decoded one after the other on this thread.
///
/// # Errors
/// [`EvalError::NoClasses`], [`EvalError::NoMaps`], [`EvalError::NoneLearnt`], the stream's error, [`EvalError::OutOfTime`] or libtorch's.
pub fn measure(subject: &Subject<'_>, go_on: GoOn<'_>) -> Result<Overlap, EvalError> {
    let _guard = tch::no_grad_guard();
    let _autocast = subject.bf16.then(|| Autocast::bf16(subject.device)).transpose()?;
    let learnt = subject.training.classes.ok_or(EvalError::NoClasses)?;
    let data = subject.sets.data;
    let set = subject.sets.val_set()?;
    let marks = Marks {
        place: &data.val,
        theirs: set
            .map_classes()
            .map(|maps| maps.learnt(data.map_reduce_zero).0.to_vec())
            .unwrap_or_default(),
        learnt,
    };
    let by_name = marks.by_name();
    let limits = Limits {
        max_pixels: data.max_pixels,
        max_bytes: data.max_member_bytes,
        ..Limits::default()
    };
    let reading = set.map_reading();
    let mut decoder = Decoder::new(limits);
    let mut seer = Seer::new(
        subject.objective,
        subject.device,
        subject.normalise,
        subject.sets.image,
        Windows::of(subject.eval),
    );
    let mut tally = Tally::default();
    let mut dropped = Dropped::default();
    let most = subject.eval.max_queries as usize;
    for raw in set.samples_with_maps(splitmask_pipeline::run::Order::Sequential)? {
        let raw = raw?;
        let (picture, map) = match opened(&raw, &reading, &mut decoder, limits) {
            Ok(opened) => opened,
            Err(error) => {
                dropped.add(&raw, &error);
                continue;
            }
        };
        let logits = seer.see(&picture)?.ok_or(EvalError::NoClasses)?;
        if logits.isfinite().all().int64_value(&[]) == 0 {
            return Err(EvalError::BrokenWeights);
        }
        let classes = logits.size()[0];
        tally.outputs = classes as usize;
        let truth: Vec<i64> = map
            .classes
            .iter()
            .map(|class| match by_name.label((*class).into()) {
                known if (0..classes).contains(&known) => known,
                _ => {
                    tally.left_out(*class);
                    UNLABELLED.into()
                }
            })
            .collect();
        let truth = Tensor::from_slice(&truth).to_device(subject.device);
        let said = logits.argmax(0, false).flatten(0, -1);
        let pairs = (&truth * classes + said).masked_select(&truth.ge(0));
        let counts = pairs.bincount::<Tensor>(None, classes * classes).to_kind(Kind::Int64);
        tally.add(&Vec::<i64>::try_from(counts)?);
        if !go_on(Progress::Images("val", tally.images)) {
            return Err(EvalError::OutOfTime);
        }
        if most > 0 && tally.images >= most {
            break;
        }
    }
    tally.answer(&marks, dropped)
}
