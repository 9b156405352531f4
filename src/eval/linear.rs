//! A linear probe of each layer: a linear classifier on frozen features of `data.train`, judged on `data.val`.

use super::classes::match_classes;
use super::data::SetName;
use super::error::EvalError;
use super::evaluation::{EvalNumber, Evaluation, Score, Subject};
use super::extract::extract_layers;
use super::probe::{Probes, probe};
use super::progress::{GoOn, Progress};
use crate::objective::{Better, Panel};
use crate::telemetry::metrics::{EvalTask, SideTask};

/// Probes of the layers `subject.places`. The number is that of the last place, with and without the others, so that its curve means one thing.
pub static LINEAR: Evaluation = Evaluation {
    name: "linear",
    doc: "Accuracy of a linear classifier on frozen features, layer by layer (Figure 5 of arXiv 2112.10740).",
    number: EvalNumber {
        name: "linear_accuracy",
        panel: Some(Panel::Shares),
        gauge: |metrics| metrics.eval.accuracy.of(EvalTask::Linear),
    },
    better: Better::Higher,
    beside: &[],
    task: SideTask::Linear,
    every: |config| config.linear_every_steps,
    budget_s: |config| Some(config.linear_budget_s),
    run: score,
};

fn score(subject: &Subject<'_>, go_on: GoOn<'_>) -> Result<Score, EvalError> {
    let config = subject.eval;
    let references = extract_layers(subject, SetName::Train, config.max_reference, go_on)?;
    let queries = extract_layers(subject, SetName::Val, config.max_queries, go_on)?;
    let matched = match_classes(&references.labels, &queries.labels, config.min_class)?;
    let _guard = tch::no_grad_guard();
    let found = probe(&references, &queries, &matched, |done, of| go_on(Progress::Fits(done, of)))?;
    let value = found.probes.last().map_or(0.0, |probe| probe.top1);
    Ok(Score {
        value,
        line: line(&found, value),
        table: table(&found),
        details: serde_json::json!(found),
        layers: found.probes.iter().map(|p| (p.layer, p.top1)).collect(),
        remarks: found.baseline.remarks,
        ..Score::default()
    })
}

fn line(found: &Probes, value: f64) -> String {
    let (best, layers) = (found.best, found.probes.len());
    let all = (layers > 1).then(|| format!(", best of {layers} layers {:.4} (layer {})", best.top1, best.layer));
    format!(
        "linear probe {value:.4}{} (chance {:.4}, commonest class {:.4})",
        all.unwrap_or_default(),
        found.baseline.chance,
        found.baseline.majority
    )
}

fn table(found: &Probes) -> Vec<String> {
    let mut lines = vec!["layer  pool  weight decay  held out  accuracy".to_owned()];
    lines.extend(found.probes.iter().map(|p| {
        let (layer, pool) = (p.layer, p.pool.name());
        let held_out = if p.held_out.is_nan() {
            "none".to_owned()
        } else {
            format!("{:.4}", p.held_out)
        };
        format!("{layer:>5}  {pool:<4}  {:>12.0e}  {held_out:>8}  {:>8.4}", p.weight_decay, p.top1)
    }));
    let best = found.best;
    let chosen = match best.held_out.is_nan() {
        true => "the first: no class has enough training images to hold one out and choose by it",
        false => "chosen on held-out training images",
    };
    lines.push(format!(
        "best            {:.4}   (layer {}, {}; {chosen}; {} images, {} to learn from)",
        best.top1,
        best.layer,
        best.pool.name(),
        found.baseline.queries,
        found.baseline.references
    ));
    lines.push(format!("commonest class {:.4}", found.baseline.majority));
    lines.push(format!(
        "chance          {:.4}   ({} classes)",
        found.baseline.chance, found.baseline.classes
    ));
    lines
}
