//! `[eval]`: what is measured during training, and how evaluations are made.

use serde::{Deserialize, Serialize};

use super::pool::Pool;
use crate::optim::Weights;
use crate::setting::{Findings, settings};

/// What an evaluation during training measures; its best is what [`super::patience::Patience`] waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Watched {
    /// k-NN accuracy on `data.val`, which must have labels.
    #[default]
    Knn,
    /// The objective's loss on `data.val`: centre crops, or the views that it compares; the same crops and masks each time. Needs the labels that it learns, if any.
    Loss,
    /// Accuracy of the classes that the objective learns, on `data.val`.
    Classify,
    /// Mean intersection over union of the classes of pixels that the objective learns, on the label maps of `data.val`.
    Segment,
    /// COCO's average precision of the objects that the objective finds, on those of `data.val`.
    Detect,
}

/// Which layers a linear probe during training reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeLayers {
    /// The last one, after the final norm.
    #[default]
    Last,
    /// Each of them (arXiv 2112.10740 Fig. 5): one pass over the images, but as many fits.
    All,
}

settings! {
    /// `[eval]`: k-NN accuracy (arXiv 2104.14294 §4.1), loss or accuracy of the learnt classes on `data.val` during training, the spread of its features, and a linear probe.
    pub struct EvalConfig in "eval" {
        /// Steps between evaluations of what eval.watch names; 0 = only by command.
        Live every_steps: u64 = 0,
        /// Neighbours that vote.
        Live k: u32 = 20,
        /// Temperature of the votes' weights.
        Live temperature: f64 = 0.07,
        /// Labelled training images searched at most; 0 = all.
        Live max_reference: u32 = 0,
        /// Validation images at most; 0 = all.
        Live max_queries: u32 = 0,
        /// Share of the image's side that the centre crop keeps.
        Live crop_ratio: f64 = 0.875,
        /// Classes with fewer labelled training images are left out.
        Live min_class: u32 = 1,
        /// What an evaluation measures: `knn` (accuracy of the features, needs labels), `loss` (of the objective on data.val; not of dino, whose teacher moves), `classify` (accuracy of the classes that it learns), `segment` (mean IoU of the classes of pixels that it learns) or `detect` (average precision of the objects that it finds).
        Live watch: Watched = Watched::Knn,
        /// Evaluations without a new best before the warning of over-fitting; 0 = never.
        Live patience: u32 = 3,
        /// Steps between linear probes; 0 = only by command.
        Live linear_every_steps: u64 = 0,
        /// Layers that they report: `last`, or `all`, which takes as many fits and as much memory for features.
        Live probe_layers: ProbeLayers = ProbeLayers::Last,
        /// Steps between measurements of the features' spread on data.val (effective rank, cosine, deviation; no labels); 0 = with each by eval.every_steps.
        Live spread_every_steps: u64 = 0,
        /// Seconds after which a linear probe is given up and training goes on.
        Live linear_budget_s: f64 = 60.0,
        /// What evaluations of features, and the picture of neighbours, see of an image: the `mean` of its patch tokens, its `cls` token, or `both`; where it is left out, what the objective learns by.
        Live pool: Pool = Pool::Mean,
        /// Whether a segmentation sees an image by windows of the model's size, its shorter side resized to it, instead of squeezed into one square.
        Live slide: bool = false,
        /// Pixels from one such window to the next; 0 = two thirds of it.
        Live slide_stride: u32 = 0,
        /// Which weights are evaluated: `raw` or `ema`.
        Live weights: Weights = Weights::Raw,
    }
}

impl EvalConfig {
    /// Steps between two evaluations of that kind; 0 where another one is watched.
    #[must_use]
    pub fn every_steps_of(&self, watched: Watched) -> u64 {
        if self.watch == watched { self.every_steps } else { 0 }
    }

    /// What is wrong with the stride of windows that are `side` pixels wide, if anything is.
    #[must_use]
    pub fn wrong_stride(&self, side: u32) -> Option<String> {
        let told =
            || format!("at most the window, model.image = {side} (0 = two thirds of it): what lies between two windows would not be seen");
        (self.slide_stride > side).then(told)
    }

    /// Checks ranges.
    pub fn check(&self, found: &mut Findings) {
        found.need(
            self.patience <= 1000,
            "eval.patience",
            self.patience,
            "0 (never) to 1000 evaluations",
        );
        found.need(
            self.linear_budget_s > 0.0 && self.linear_budget_s <= 86_400.0,
            "eval.linear_budget_s",
            self.linear_budget_s,
            "above 0, at most 86400 seconds",
        );
        found.need(self.k >= 1, "eval.k", self.k, "at least 1 neighbour");
        found.need(self.temperature > 0.0, "eval.temperature", self.temperature, "above 0");
        found.need(
            self.crop_ratio > 0.0 && self.crop_ratio <= 1.0,
            "eval.crop_ratio",
            self.crop_ratio,
            "above 0, at most 1",
        );
    }
}
