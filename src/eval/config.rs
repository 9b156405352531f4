//! `[eval]`: what is measured during training, and how evaluations are made.

use serde::{Deserialize, Serialize};

use super::patience::Watched;

/// Which weights of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Weights {
    /// Those that are trained.
    #[default]
    Raw,
    /// Their moving average.
    Ema,
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

/// `[eval]`: k-NN accuracy (arXiv 2104.14294 §4.1) or loss on `data.val` during training, and a linear probe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvalConfig {
    /// Steps between evaluations; 0 = only by command.
    pub every_steps: u64,
    /// Neighbours that vote.
    pub k: u32,
    /// Temperature of the votes' weights.
    pub temperature: f64,
    /// Labelled training images that are searched at most, by hash of their key; 0 = all.
    pub max_reference: u32,
    /// Validation images at most; 0 = all.
    pub max_queries: u32,
    /// Share of the resized image's side that the centre crop keeps.
    pub crop_ratio: f64,
    /// Classes with fewer labelled training images are left out.
    pub min_class: u32,
    /// What an evaluation measures.
    pub watch: Watched,
    /// Evaluations without a new best after which the run warns of over-fitting; 0 = never.
    pub patience: u32,
    /// Steps between linear probes; 0 = only by command.
    pub linear_every_steps: u64,
    /// Which layers they report.
    pub probe_layers: ProbeLayers,
    /// Seconds after which a linear probe is given up and training goes on; looked at between batches and between iterations of a fit.
    pub linear_budget_s: f64,
    /// Which weights are evaluated.
    pub weights: Weights,
}

impl Default for EvalConfig {
    fn default() -> Self {
        Self {
            every_steps: 0,
            k: 20,
            temperature: 0.07,
            max_reference: 0,
            max_queries: 0,
            crop_ratio: 0.875,
            min_class: 1,
            watch: Watched::Knn,
            patience: 3,
            linear_every_steps: 0,
            probe_layers: ProbeLayers::Last,
            linear_budget_s: 60.0,
            weights: Weights::Raw,
        }
    }
}
