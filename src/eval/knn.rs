//! Weighted k-nearest-neighbour classification of frozen features (DINO, arXiv 2104.14294 §4.1).

use std::collections::BTreeMap;

use tch::Tensor;

use super::baseline::Baseline;
use super::classes::{Matched, match_classes};
use super::config::Watched;
use super::data::SetName;
use super::error::EvalError;
use super::evaluation::{EvalNumber, Evaluation, Score, Subject};
use super::extract::{extract, of_val};
use super::features::Features;
use super::progress::GoOn;
use super::sharing::Which;
use crate::objective::{Better, Panel};
use crate::telemetry::metrics::{EvalTask, SideTask};

/// Each image of `data.val` is classified by the `eval.k` most similar images of `data.train`; nothing is learnt.
pub static KNN: Evaluation = Evaluation {
    name: "knn",
    doc: "k-nearest-neighbour accuracy of frozen features: no training, a minute on a CPU (DINO's protocol, arXiv 2104.14294).",
    number: EvalNumber {
        name: "knn_accuracy",
        panel: Some(Panel::Shares),
        gauge: |metrics| metrics.eval.accuracy.of(EvalTask::Knn),
    },
    better: Better::Higher,
    beside: &[],
    task: SideTask::Knn,
    every: |config| config.every_steps_of(Watched::Knn),
    budget_s: |_| None,
    run: score,
};

fn score(subject: &Subject<'_>, go_on: GoOn<'_>) -> Result<Score, EvalError> {
    let found = measure(subject, go_on)?;
    let (top1, baseline) = (found.top1, &found.baseline);
    let (majority, chance) = (baseline.majority, baseline.chance);
    Ok(Score {
        value: top1,
        line: format!("k-NN {top1:.4} (chance {chance:.4}, commonest class {majority:.4})"),
        table: vec![
            format!(
                "k-NN accuracy   {top1:.4}   (k = {}, {} images among {})",
                subject.eval.k, baseline.queries, baseline.references
            ),
            format!("features        {} of the last layer", subject.eval.pool.words()),
            format!("commonest class {majority:.4}"),
            format!("chance          {chance:.4}   ({} classes)", baseline.classes),
        ],
        details: serde_json::json!(found),
        remarks: found.baseline.remarks,
        ..Score::default()
    })
}

/// k-NN accuracy on `data.val`, searched in `data.train`.
///
/// # Errors
/// As [`Evaluation::run`].
pub fn measure(subject: &Subject<'_>, go_on: GoOn<'_>) -> Result<Accuracy, EvalError> {
    let config = subject.eval;
    let references = extract(subject, SetName::Train, Which::Labelled, config.max_reference, go_on)?.labelled()?;
    let queries = of_val(subject, go_on)?.labelled()?;
    let matched = match_classes(&references.labels, &queries.labels, config.min_class)?;
    let vote = Vote {
        k: i64::from(config.k),
        temperature: config.temperature,
    };
    classify(&references, &queries, &matched, vote)
}

/// Settings of the vote.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Vote {
    /// Neighbours that vote.
    pub k: i64,
    /// Votes weigh exp(similarity ÷ temperature).
    pub temperature: f64,
}

/// Outcome of a k-NN evaluation.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Accuracy {
    /// Share of the queries whose class won the vote.
    pub top1: f64,
    /// What it is held against.
    #[serde(flatten)]
    pub baseline: Baseline,
}

/// Classifies the queries by their nearest references, among the classes that count; both as [`Features::labelled`] answers them.
///
/// Similarities are computed 1,024 queries at a time, so memory stays at 1,024 × R floats, however many classes there are.
///
/// # Errors
/// What libtorch said.
pub fn classify(references: &Features, queries: &Features, matched: &Matched, vote: Vote) -> Result<Accuracy, EvalError> {
    let _guard = tch::no_grad_guard();
    let part = |set: &Features, rows: &[(i64, i64)]| {
        let index: Vec<i64> = rows.iter().map(|(row, _)| *row).collect();
        set.vectors.f_index_select(0, &Tensor::from_slice(&index))
    };
    let transposed = part(references, &matched.references)?.f_tr()?;
    let queries_qd = part(queries, &matched.queries)?;
    let k = vote.k.min(matched.references.len() as i64);
    let mut right = 0usize;
    for (chunk, start) in matched.queries.chunks(CHUNK).zip((0..).step_by(CHUNK)) {
        let similarity = queries_qd.f_narrow(0, start, chunk.len() as i64)?.f_matmul(&transposed)?;
        let (similarity, index) = similarity.f_topk(k, 1, true, true)?;
        let (near, rows) = (
            Vec::<f32>::try_from(similarity.flatten(0, -1))?,
            Vec::<i64>::try_from(index.flatten(0, -1))?,
        );
        let neighbours = near.chunks_exact(k as usize).zip(rows.chunks_exact(k as usize));
        right += chunk
            .iter()
            .zip(neighbours)
            .filter(|((_, class), (near, rows))| {
                let classes = rows.iter().map(|row| matched.references[*row as usize].1);
                winner(near, classes, vote.temperature) == *class
            })
            .count();
    }
    Ok(Accuracy {
        top1: right as f64 / matched.queries.len() as f64,
        baseline: Baseline::of(matched),
    })
}

/// Queries whose similarities are computed at once.
const CHUNK: usize = 1024;

/// The class with the largest vote among neighbours of similarities `near`, the nearest first; the lower class if two are equal.
fn winner(near: &[f32], classes: impl Iterator<Item = i64>, temperature: f64) -> i64 {
    let nearest = near.first().copied().unwrap_or_default();
    let mut votes = BTreeMap::<i64, f64>::new();
    for (similarity, class) in near.iter().zip(classes) {
        // Relative to the nearest, so that no temperature is too low for exp.
        *votes.entry(class).or_default() += (f64::from(similarity - nearest) / temperature).exp();
    }
    let mut best = (i64::MIN, f64::NEG_INFINITY);
    for (class, vote) in votes {
        if vote > best.1 {
            best = (class, vote);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::classes::Labels;

    fn unit(rows: &[[f32; 2]]) -> Tensor {
        let t = Tensor::from_slice2(rows);
        &t / t.norm_scalaropt_dim(2, [1], true)
    }

    fn measure(references: &[[f32; 2]], labels: &[i64], queries: &[[f32; 2]], query_labels: &[i64], vote: Vote) -> Accuracy {
        let set = |rows, of: &[i64]| Features {
            vectors: unit(rows),
            labels: Labels {
                of: of.to_vec(),
                ..Labels::default()
            },
        };
        let (references, queries) = (set(references, labels), set(queries, query_labels));
        let matched = match_classes(&references.labels, &queries.labels, 1).unwrap();
        classify(&references, &queries, &matched, vote).unwrap()
    }

    #[test]
    fn votes_are_weighted_by_similarity() {
        // Two weak votes for class 1 against one near-identical vote for class 0.
        let references = [[1.0, 0.0], [0.0, 1.0], [0.05, 1.0]];
        let of = |temperature| measure(&references, &[0, 1, 1], &[[1.0, 0.05]], &[0], Vote { k: 3, temperature }).top1;
        assert_eq!(of(0.07), 1.0);
        // At a huge temperature every neighbour counts the same and class 1 wins; a tiny one leaves the nearest alone.
        assert_eq!((of(1e6), of(1e-9)), (0.0, 1.0));
    }

    #[test]
    fn counts_are_reported_and_a_label_of_four_thousand_million_is_a_class_like_any_other() {
        let huge = 4_000_000_000;
        let got = measure(
            &[[1.0, 0.0], [0.0, 1.0]],
            &[0, huge],
            &[[1.0, 0.1], [0.1, 1.0], [0.2, 1.0]],
            &[0, huge, huge],
            Vote { k: 20, temperature: 0.07 },
        );
        let Accuracy { top1, baseline: got } = got;
        assert_eq!((got.references, got.queries, got.classes), (2, 3, 2));
        assert!((got.majority - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!((got.chance, top1), (0.5, 1.0));
    }
}
