//! What it takes to measure an encoder, and what comes out.

use image::RgbImage;
use prometheus::Gauge;
use tch::Device;

use super::classes::Remarks;
use super::config::EvalConfig;
use super::data::{Sets, TrainingPass};
use super::error::EvalError;
use super::features::ValFeatures;
use super::pool::Pool;
use super::progress::GoOn;
use super::sharing::Helpers;
use crate::objective::{Better, Objective, Panel};
use crate::telemetry::metrics::{SideTask, TrainMetrics};
use crate::tensor::Normalise;

/// An encoder to measure, and what evaluations need beside it.
pub struct Subject<'a> {
    /// Its encoder is measured, or its loss.
    pub objective: &'a dyn Objective,
    /// Where its weights are.
    pub device: Device,
    /// Whether it runs under bf16 autocast.
    pub bf16: bool,
    /// How pixels are normalised.
    pub normalise: Normalise,
    /// `[eval]`.
    pub eval: &'a EvalConfig,
    /// The labelled sets.
    pub sets: Sets<'a>,
    /// How training passes a batch through the objective, which a loss is measured by.
    pub training: TrainingPass<'a>,
    /// Features that a probe learns from: (layer from 1, what of its tokens).
    pub places: Vec<(usize, Pool)>,
    /// Those of `data.val`, shared by the evaluations of this encoder with these weights.
    pub val_features: &'a ValFeatures,
    /// Who makes features with this process, if anybody does.
    pub helpers: Option<&'a dyn Helpers>,
}

/// What an evaluation came to.
#[derive(Debug, Clone, Default)]
pub struct Score {
    /// The number that a run keeps, as [`Evaluation::number`] names it.
    pub value: f64,
    /// In one line, for a log.
    pub line: String,
    /// In some lines, for a terminal; without the remarks.
    pub table: Vec<String>,
    /// Everything, for programs.
    pub details: serde_json::Value,
    /// (layer from 1, accuracy), where layers were measured one by one.
    pub layers: Vec<(usize, f64)>,
    /// Values of [`Evaluation::beside`], in its order.
    pub beside: Vec<f64>,
    /// What a reader of the number must know about the sets.
    pub remarks: Remarks,
    /// A picture and its name among those of a run, where it has one.
    pub picture: Option<(&'static str, RgbImage)>,
}

/// A number that an evaluation tells.
pub struct EvalNumber {
    /// What it is called in `metrics.jsonl` and the curves; snake_case.
    pub name: &'static str,
    /// Where its curve is drawn; `None` = it has none.
    pub panel: Option<Panel>,
    /// The gauge that shows it.
    pub gauge: fn(&TrainMetrics) -> &Gauge,
}

/// One way to measure.
pub struct Evaluation {
    /// The verb `splitmask eval NAME`, what the status board calls it and the label of its failures.
    pub name: &'static str,
    /// One line.
    pub doc: &'static str,
    /// What [`Score::value`] is.
    pub number: EvalNumber,
    /// Which way the number should go.
    pub better: Better,
    /// What it tells beside the number.
    pub beside: &'static [EvalNumber],
    /// Under what its failures are counted.
    pub task: SideTask,
    /// Steps between two of it during training; 0 = none.
    pub every: fn(&EvalConfig) -> u64,
    /// Seconds after which it is given up during training; `None` = it has all the time it takes.
    pub budget_s: fn(&EvalConfig) -> Option<f64>,
    /// Measures. Errors: unreadable sets, sets that hold nothing to measure, [`EvalError::OutOfTime`] once `go_on` says no, or what libtorch said.
    pub run: fn(subject: &Subject<'_>, go_on: GoOn<'_>) -> Result<Score, EvalError>,
}

impl Evaluation {
    /// Its numbers, its own first.
    pub fn numbers(&self) -> impl Iterator<Item = &EvalNumber> {
        std::iter::once(&self.number).chain(self.beside)
    }
}
