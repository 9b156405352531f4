//! What objectives that predict visual words share: how their numbers are judged.

use super::{Baseline, Better, CollapseRule, Number, Role, Scope, Unit};

/// What the loss of predicted words is judged by (docs/method.md §1).
pub(super) const FREQUENCIES: Baseline = Baseline {
    number: "token_entropy",
    who: "a model that knows only how frequent each word is",
};

/// How evenly the predicted words are used.
pub(super) const PREDICTED_PERPLEXITY: Number = Number {
    name: "predicted_perplexity",
    help: "exp(entropy) of the words predicted in a batch; 1 = always the same word, 0 = no words are predicted.",
    role: Role::Measure,
    unit: Unit::Count,
    better: Better::Neither,
    baseline: None,
};

/// Predicted words, effectively, under which the model says the same whatever it sees: one that knows only frequencies predicts one word.
const FEW_PREDICTED: f64 = 2.0;
/// Target words, effectively, under which few predicted ones say nothing of the model; below it the alert CodebookCollapse speaks.
const FEW_TARGETS: f64 = 8.0;

/// One word for all patches.
pub(super) const INPAINT_COLLAPSED: CollapseRule = CollapseRule {
    name: "inpaint_collapsed",
    help: "the predicted words have a perplexity under 2 while the targets have 8 or more: the commonest word is predicted whatever is seen, and the inpaint loss stands at the marginal token entropy",
    remedy: "a gradient norm near 0; lower `optim.lr`, lengthen `optim.warmup_steps`",
    holds: |at| {
        let few = at.mean("predicted_perplexity").is_some_and(|p| p < FEW_PREDICTED);
        few && at.mean("codebook_perplexity").is_some_and(|p| p >= FEW_TARGETS)
    },
};

/// What guessing among the visual words would score in `inpaint` and `token_accuracy`, where the vocabulary is known.
pub(super) fn chance(number: &str, at: &Scope<'_>) -> Option<f64> {
    let words = (at.words > 0).then_some(at.words as f64)?;
    match number {
        "inpaint" => Some(words.ln()),
        "token_accuracy" => Some(1.0 / words),
        _ => None,
    }
}
