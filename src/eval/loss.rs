//! The objective's own loss on `data.val`: needs no labels unless the objective learns them, and rises where a run learns its images by heart.

mod marked;

use std::ops::Range;

use splitmask_pipeline::types::Batch;
use tch::Tensor;
use torch_ext::Autocast;

use self::marked::Marked;
use super::classes::Remarks;
use super::config::Watched;
use super::error::EvalError;
use super::evaluation::{EvalNumber, Evaluation, Score, Subject};
use super::progress::{GoOn, Progress};
use crate::model::BatchRows;
use crate::objective::{Better, Panel, StepContext};
use crate::telemetry::metrics::SideTask;

/// Mean total loss over `data.val`: centre crops (of an objective that compares several views, views drawn as in training, the same each time), no drop path,
/// classes matched by name where an objective learns them, masks that depend on the sample alone, in batches as large as those of training, for a loss between
/// images depends on their number. A rest that fills no batch is left out, unless there is nothing else. Where classes of images are learnt, a batch counts by
/// how many of its images have one, for its loss is their mean.
pub static VALIDATION_LOSS: Evaluation = Evaluation {
    name: "loss",
    doc: "Loss of the objective on data.val, without drop path, on centre crops, or on the views it compares: needs the labels that it learns, if any.",
    number: EvalNumber {
        name: "val_loss",
        panel: Some(Panel::Losses),
        gauge: |metrics| &metrics.eval.loss,
    },
    better: Better::Lower,
    beside: &[],
    task: SideTask::Loss,
    every: |config| config.every_steps_of(Watched::Loss),
    budget_s: |_| None,
    run: score,
};

fn score(subject: &Subject<'_>, go_on: GoOn<'_>) -> Result<Score, EvalError> {
    let size = subject.training.batch;
    let most = match subject.eval.max_queries {
        0 => usize::MAX,
        n => (n as usize / size).max(1),
    };
    let mut set = subject
        .sets
        .val_as(subject.training.request, subject.training.words.tokenizer(), size)?;
    let mut marked = Marked::of(subject, &set)?;
    let (mut sum, mut batches, mut images, mut warning) = (0.0, 0usize, 0usize, None);
    let (mut weight, mut left) = (0usize, String::new());
    while batches < most {
        let Some(mut batch) = set.next(go_on)? else { break };
        if batch.len < size {
            if batches > 0 {
                left = format!("; the last {} make no whole batch and were left out", batch.len);
                break;
            }
            warning = Some(format!(
                "{} has {} images, fewer than train.batch = {size}: what the loss compares between images, if anything, is that of a smaller batch",
                set.place, batch.len
            ));
        }
        let counts = marked.as_mut().map_or(1, |marked| marked.in_numbers_of_the_run(&mut batch));
        if counts > 0 {
            sum += batch_loss(subject, &batch)? * counts as f64;
        }
        weight += counts;
        batches += 1;
        images += batch.len;
        set.recycle(batch);
        if !go_on(Progress::Images("val", images)) {
            return Err(EvalError::OutOfTime);
        }
    }
    if batches == 0 {
        return Err(EvalError::Empty { place: set.place });
    }
    if weight == 0 {
        return Err(match marked {
            Some(marked) => marked.nothing(),
            None => EvalError::Empty { place: set.place },
        });
    }
    let unlabelled = marked.as_ref().map_or(0, |marked| marked.unlabelled);
    if unlabelled > 0 {
        left.push_str(&format!("; {unlabelled} images have no label and do not count"));
    }
    let asked = subject.eval.max_queries;
    if asked > 0 && batches == most && images != asked as usize {
        left.push_str(&format!("; eval.max_queries = {asked} in whole batches"));
    }
    let value = sum / weight as f64;
    let remarks = marked.map_or_else(Remarks::default, Marked::remarks);
    let warnings: Vec<String> = warning.into_iter().chain(remarks.warning).collect();
    let remarks = Remarks {
        warning: (!warnings.is_empty()).then(|| warnings.join("; ")),
        ..remarks
    };
    Ok(Score {
        value,
        line: format!("validation loss {value:.4} ({images} images{left})"),
        table: vec![format!(
            "validation loss {value:.4}   ({images} images, in batches of {size}{left})"
        )],
        details: serde_json::json!({ "total": value, "images": images, "unlabelled": unlabelled, "batch": size, "left_out": remarks.left_out, "warning": remarks.warning }),
        remarks,
        ..Score::default()
    })
}

/// Total loss of a batch of at most `training.batch` images as training would couple them, however many micro-batches it takes: without gradient, drop
/// path or injected faults. The host waits for it.
///
/// # Errors
/// The batch does not fit the objective, or what libtorch said.
pub(super) fn batch_loss(subject: &Subject<'_>, batch: &Batch) -> Result<f64, EvalError> {
    let _guard = tch::no_grad_guard();
    let (objective, training) = (subject.objective, &subject.training);
    let autocast = || subject.bf16.then(|| Autocast::bf16(subject.device)).transpose();
    let size = (training.batch / training.micro_batches).max(1);
    let between = objective.between_images().filter(|_| size < batch.len);
    let labels = Tensor::from_slice(&batch.labels).to_device(subject.device);
    let parts = || (0..batch.len).step_by(size).map(|start| start..batch.len.min(start + size));
    let part = |range: Range<usize>| -> Result<_, EvalError> {
        let input = training.words.send(batch, range.clone(), subject.device, &subject.normalise)?;
        let mut ctx = StepContext::evaluation(training.step, training.total_steps, input.len);
        ctx.rows = BatchRows {
            start: range.start as i64,
            total: batch.len as i64,
            ..ctx.rows
        };
        Ok((input, ctx))
    };
    let mut total = 0.0;
    if let Some(between) = between {
        let mut described = Vec::new();
        for range in parts() {
            let (input, ctx) = part(range)?;
            let _autocast = autocast()?;
            described.push(between.descriptors(&input, &ctx)?);
        }
        let ctx = StepContext::evaluation(training.step, training.total_steps, batch.len as i64);
        total += between.compare(&Tensor::f_cat(&described, 1)?, &ctx)?.total.double_value(&[]);
    }
    for range in parts() {
        let share = range.len() as f64 / batch.len as f64;
        let (input, ctx) = part(range)?;
        let _autocast = autocast()?;
        let losses = match between {
            Some(between) => between.describe(&input, &ctx)?.0,
            // Of the labels of the whole batch, so that parts with fewer labels count less. No image is mixed here: each stands for its partner.
            None => match objective.mixed_images() {
                Some(mixed) => mixed.forward_part(&input, &input, &labels, &ctx)?,
                None => objective.forward(&input, &ctx)?,
            },
        };
        total += share * losses.total.double_value(&[]);
    }
    Ok(total)
}

#[cfg(test)]
mod tests;
