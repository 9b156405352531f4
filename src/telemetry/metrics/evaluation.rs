//! What evaluations measured, as metrics.

use prometheus::{Gauge, GaugeVec, IntCounter, Opts, Registry};

use crate::telemetry::labels::{EvalTask, PerLabel, SideTask};
use crate::telemetry::register::{count_per, gauge, gauge_per, register};

/// Layers that have a series, at most: of the deepest vision transformer in use (arXiv 2106.04560).
pub(super) const MOST_LAYERS: usize = 48;

/// Metrics of evaluations, and of work beside training.
#[derive(Clone)]
pub struct EvalMetrics {
    /// `splitmask_eval_accuracy_ratio`.
    pub accuracy: PerLabel<EvalTask, Gauge>,
    layers: GaugeVec,
    /// `splitmask_eval_failures_total`.
    pub failures: PerLabel<SideTask, IntCounter>,
    /// `splitmask_eval_loss`.
    pub loss: Gauge,
    /// `splitmask_eval_feature_rank`.
    pub feature_rank: Gauge,
    /// `splitmask_eval_feature_cosine_ratio`.
    pub feature_cosine: Gauge,
    /// `splitmask_eval_feature_deviation_ratio`.
    pub feature_deviation: Gauge,
    /// `splitmask_eval_best_step`.
    pub best_step: Gauge,
    /// `splitmask_eval_since_best`.
    pub since_best: Gauge,
    /// `splitmask_eval_overfitting`.
    pub overfitting: Gauge,
}

impl EvalMetrics {
    pub(super) fn new(r: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            accuracy: gauge_per(
                r,
                "splitmask_eval_accuracy_ratio",
                "Accuracy on the validation set at the last evaluation, 0 to 1: of the frozen encoder (knn, linear), or of the classes that the run learns; for segment and segment_objects the mean intersection over union, for detect, detect_masks and detect_half COCO's average precision.",
            )?,
            layers: register(
                r,
                GaugeVec::new(
                    Opts::new(
                        "splitmask_eval_layer_accuracy_ratio",
                        "Accuracy of a linear probe by layer at the last evaluation, 0 to 1; all layers with eval.probe_layers = all, else the last.",
                    ),
                    &["layer"],
                )?,
            )?,
            failures: count_per(
                r,
                "splitmask_eval_failures_total",
                "Evaluations and pictures that failed; training went on.",
            )?,
            loss: gauge(
                r,
                "splitmask_eval_loss",
                "Loss on the validation set at the last evaluation with eval.watch = loss; 0 = not measured.",
            )?,
            feature_rank: gauge(
                r,
                "splitmask_eval_feature_rank",
                "Dimensions that the features of the validation set use, effectively (RankMe), at the last evaluation; 0 = not measured.",
            )?,
            feature_cosine: gauge(
                r,
                "splitmask_eval_feature_cosine_ratio",
                "Mean cosine of the features of two images of the validation set; 1 = all alike.",
            )?,
            feature_deviation: gauge(
                r,
                "splitmask_eval_feature_deviation_ratio",
                "Mean standard deviation of a dimension of the normalised features, times the root of their number; 0 = all alike, 1 = every direction.",
            )?,
            best_step: gauge(
                r,
                "splitmask_eval_best_step",
                "Step of the best evaluation so far, whose checkpoint is kept; 0 = none.",
            )?,
            since_best: gauge(r, "splitmask_eval_since_best", "Evaluations since the best one.")?,
            overfitting: gauge(
                r,
                "splitmask_eval_overfitting",
                "1 if eval.patience evaluations have passed without a new best, else 0.",
            )?,
        })
    }

    /// Makes the series of `splitmask_eval_layer_accuracy_ratio` for an encoder of so many layers: their number is known from the start, though not
    /// at compile time. Of a deeper one than [`MOST_LAYERS`] the rest is in the journal only.
    pub fn set_layers(&self, depth: usize) {
        for layer in 1..=depth.min(MOST_LAYERS) {
            let _ = self.layers.with_label_values(&[layer.to_string()]);
        }
    }

    /// Accuracy of a layer, from 1.
    pub fn set_layer_accuracy(&self, layer: usize, accuracy: f64) {
        if layer <= MOST_LAYERS {
            self.layers.with_label_values(&[layer.to_string()]).set(accuracy);
        }
    }
}
