//! What the numbers of `metrics.jsonl` are, for whoever draws them: their names for people and where they belong.

use serde::Serialize;

use crate::eval::EVALUATIONS;
use crate::objective::{Kind, Panel};

/// Where a curve is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Chart {
    /// Losses and entropies.
    Losses,
    /// Shares between 0 and 1 that training measures.
    Accuracies,
    /// Shares between 0 and 1 that evaluations measure.
    Evaluations,
    /// What else evaluations measure: each has an axis of its own.
    OtherEvaluations,
    /// The learning rate.
    LearningRate,
    /// All else: each has an axis of its own.
    Other,
}

/// A number, described.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Described {
    title: String,
    chart: Chart,
    /// Measured now and then by an evaluation: points rather than a line.
    evaluation: bool,
    /// What it is, where the objective says so.
    help: Option<&'static str>,
    /// The number that it is compared with, drawn as a line beside it.
    baseline: Option<&'static str>,
    /// Who scores the baseline: "a model that …".
    baseline_who: Option<&'static str>,
}

/// Of a run that learns this.
pub(super) fn described(name: &str, kind: &Kind) -> Described {
    let plain = |title: &str, chart| Described {
        title: title.to_owned(),
        chart,
        evaluation: false,
        help: None,
        baseline: None,
        baseline_who: None,
    };
    if let Some(number) = kind.numbers.iter().find(|n| n.name == name) {
        let chart = match number.panel() {
            Some(Panel::Losses) => Chart::Losses,
            Some(Panel::Shares) => Chart::Accuracies,
            None => Chart::Other,
        };
        return Described {
            help: Some(number.help),
            baseline: number.baseline.map(|b| b.number),
            baseline_who: number.baseline.map(|b| b.who),
            ..plain(&number.title(), chart)
        };
    }
    if let Some(number) = EVALUATIONS.iter().flat_map(|e| e.numbers()).find(|n| n.name == name) {
        let chart = match number.panel {
            Some(Panel::Losses) => Chart::Losses,
            Some(Panel::Shares) => Chart::Evaluations,
            None => Chart::OtherEvaluations,
        };
        return Described {
            evaluation: true,
            ..plain(&name.replace('_', " "), chart)
        };
    }
    match name {
        "total" => plain("total loss", Chart::Losses),
        "token_entropy" => Described {
            help: Some(
                "Entropy of the target words as they are distributed over all images, in nats: what a model scores that knows only how frequent each word is.",
            ),
            ..plain("marginal entropy of the words", Chart::Losses)
        },
        "learning_rate" => plain("learning rate", Chart::LearningRate),
        "grad_norm" => plain("gradient norm", Chart::Other),
        "images_per_second" => plain("images per second", Chart::Other),
        "data_wait_ratio" => plain("data wait (share of the time)", Chart::Other),
        "codebook_perplexity" => plain("perplexity of the target words", Chart::Other),
        other => plain(&other.replace('_', " "), Chart::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::OBJECTIVES;

    #[test]
    fn every_number_has_a_place_and_a_name_of_its_own() {
        for kind in OBJECTIVES {
            let measured = EVALUATIONS.iter().map(|e| e.number.name);
            let mut titles: Vec<String> = kind
                .numbers
                .iter()
                .map(|n| n.name)
                .chain(measured)
                .chain(["total", "token_entropy", "learning_rate"])
                .map(|name| described(name, kind).title)
                .collect();
            titles.sort();
            assert!(titles.windows(2).all(|w| w[0] != w[1]), "{}: {titles:?}", kind.name);
        }
        let kind = OBJECTIVES.iter().find(|k| k.name == "splitmask").unwrap();
        let inpaint = described("inpaint", kind);
        assert_eq!((inpaint.chart, inpaint.baseline), (Chart::Losses, Some("token_entropy")));
        assert_eq!(described("match_accuracy", kind).chart, Chart::Accuracies);
        assert_eq!(described("knn_accuracy", kind).chart, Chart::Evaluations);
        assert_eq!(described("feature_rank", kind).chart, Chart::OtherEvaluations);
        assert_eq!(
            described("val_loss", kind),
            Described {
                title: "val loss".into(),
                chart: Chart::Losses,
                evaluation: true,
                help: None,
                baseline: None,
                baseline_who: None
            }
        );
        assert_eq!(described("something_new", kind).chart, Chart::Other);
    }
}
