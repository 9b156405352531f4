//! How often a run that learns classes names the right one, on `data.val`: the likeliest class, the five likeliest, class by class.

mod accuracy;

use tch::Tensor;
use torch_ext::Autocast;

pub use self::accuracy::{Accuracy, Confused, OfClass};
use self::accuracy::{TOP, Tally, table};
use super::config::Watched;
use super::error::EvalError;
use super::evaluation::{EvalNumber, Evaluation, Score, Subject};
use super::marks::Marks;
use super::progress::{GoOn, Progress};
use crate::objective::{Better, Panel};
use crate::picture;
use crate::telemetry::metrics::{EvalTask, SideTask};
use crate::tensor::step_input;

/// The picture of the confusions in the run folder, without `.png`.
pub const PICTURE: &str = "confusion";

/// Accuracy of the classes that the objective learns, on centre crops, classes of the set matched by name.
pub static CLASSIFY: Evaluation = Evaluation {
    name: "classify",
    doc: "Accuracy of the classes that a run learnt (classify, supervised): the likeliest, the five likeliest, class by class.",
    number: EvalNumber {
        name: "top1_accuracy",
        panel: Some(Panel::Shares),
        gauge: |metrics| metrics.eval.accuracy.of(EvalTask::Classify),
    },
    better: Better::Higher,
    beside: &[
        EvalNumber {
            name: "top5_accuracy",
            panel: Some(Panel::Shares),
            gauge: |metrics| metrics.eval.accuracy.of(EvalTask::ClassifyTop5),
        },
        EvalNumber {
            name: "class_mean_accuracy",
            panel: None,
            gauge: |metrics| metrics.eval.accuracy.of(EvalTask::ClassifyByClass),
        },
    ],
    task: SideTask::Classify,
    every: |config| config.every_steps_of(Watched::Classify),
    budget_s: |_| None,
    run: score,
};

fn score(subject: &Subject<'_>, go_on: GoOn<'_>) -> Result<Score, EvalError> {
    let found = measure(subject, go_on)?;
    let (top1, top5, mean) = (found.top1, found.top5, found.class_mean);
    Ok(Score {
        value: top1,
        line: format!(
            "top-1 {top1:.4}, top-5 {top5:.4}, mean over classes {mean:.4} (chance {:.4}, commonest class {:.4})",
            found.chance, found.majority
        ),
        table: table(&found),
        details: serde_json::json!(found),
        beside: vec![top5, mean],
        picture: Some((PICTURE, picture::confusion(&found.names, &found.pairs))),
        remarks: found.remarks,
        ..Score::default()
    })
}

/// What the network says of some images: (its likeliest class, whether `class` is among the five likeliest) for each.
fn judged(logits: &Tensor, classes: &[i64]) -> Result<Vec<(usize, bool)>, EvalError> {
    if logits.isfinite().all().int64_value(&[]) == 0 {
        return Err(EvalError::BrokenWeights);
    }
    let most = TOP.min(logits.size()[1]);
    let (_, likeliest) = logits.f_topk(most, 1, true, true)?;
    let rows = Vec::<i64>::try_from(likeliest.contiguous().view([-1]))?;
    let each = rows.chunks_exact(most as usize).zip(classes);
    Ok(each.map(|(row, class)| (row[0] as usize, row.contains(class))).collect())
}

/// Accuracy on `data.val`, of `eval.max_queries` images at most.
///
/// # Errors
/// [`EvalError::NoClasses`], [`EvalError::NoLabels`], [`EvalError::NoneLearnt`], the stream's error, [`EvalError::OutOfTime`] or libtorch's.
pub fn measure(subject: &Subject<'_>, go_on: GoOn<'_>) -> Result<Accuracy, EvalError> {
    let _guard = tch::no_grad_guard();
    let _autocast = subject.bf16.then(|| Autocast::bf16(subject.device)).transpose()?;
    let learnt = subject.training.classes.ok_or(EvalError::NoClasses)?;
    let mut set = subject.sets.val()?;
    let place = set.place.clone();
    let marks = Marks {
        place: &place,
        theirs: set.names.clone(),
        learnt,
    };
    let map = marks.by_name();
    let mut tally = Tally::default();
    let (mut seen, most) = (0, subject.eval.max_queries as usize);
    while let Some(batch) = set.next(go_on)? {
        let wanted = if most == 0 { batch.len } else { batch.len.min(most - seen) };
        let input = step_input(&batch, 0..batch.len, subject.device, &subject.normalise)?;
        let logits = subject.objective.class_logits(&input.views[0].pixels).ok_or(EvalError::NoClasses)?;
        tally.outputs = logits.size()[1] as usize;
        let classes: Vec<i64> = batch.labels.iter().map(|label| map.label(*label)).collect();
        let said = judged(&logits.narrow(0, 0, wanted as i64), &classes[..wanted])?;
        for ((label, class), said) in batch.labels.iter().zip(classes).zip(said) {
            tally.count(*label, class, said);
        }
        seen += wanted;
        set.recycle(batch);
        if !go_on(Progress::Images(set.name, seen)) {
            return Err(EvalError::OutOfTime);
        }
        if most > 0 && seen >= most {
            break;
        }
    }
    tally.answer(&marks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_five_likeliest_count_and_few_classes_make_it_one() {
        let logits = Tensor::from_slice2(&[[9f32, 8.0, 7.0, 6.0, 5.0, 4.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]);
        assert_eq!(judged(&logits, &[4, 0]).unwrap(), [(0, true), (5, false)]);
        let two = Tensor::from_slice2(&[[1f32, 2.0]]);
        assert_eq!(judged(&two, &[0]).unwrap(), [(1, true)]);
        let broken = Tensor::from_slice2(&[[f32::NAN, 2.0]]);
        assert!(judged(&broken, &[0]).unwrap_err().to_string().contains("not finite"));
    }
}
