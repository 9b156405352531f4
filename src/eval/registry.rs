//! What can be measured of an encoder. An evaluation is one file of this folder and one row in [`EVALUATIONS`]; the trainer's hook, the verbs of
//! `splitmask eval` and the curves go through the rows and name none of them.

use prometheus::Gauge;
use tch::Device;

use super::config::EvalConfig;
use super::data::{Sets, TrainingPass};
use super::error::EvalError;
use super::features::Pool;
use super::knn::Knn;
use super::linear::Linear;
use super::loss::ValidationLoss;
use crate::eval::classes::Remarks;
use crate::objective::{Better, Objective};
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
}

/// How far an evaluation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// No images have come for a while.
    Waiting,
    /// So many images of the set of that name, `train` or `val`, are through.
    Images(&'static str, usize),
    /// Probes done, of how many.
    Fits(usize, usize),
}

/// What an evaluation hears between its parts; it ends with [`EvalError::OutOfTime`] once that answers `false`.
pub type GoOn<'a> = &'a mut dyn FnMut(Progress) -> bool;

/// What an evaluation came to.
#[derive(Debug, Clone)]
pub struct Score {
    /// The number that a run keeps, in the unit of [`Evaluation::number`].
    pub value: f64,
    /// In one line, for a log.
    pub line: String,
    /// In some lines, for a terminal; without the remarks.
    pub table: Vec<String>,
    /// Everything, for programs.
    pub details: serde_json::Value,
    /// (layer from 1, accuracy), where layers were measured one by one.
    pub layers: Vec<(usize, f64)>,
    /// What a reader of the number must know about the sets.
    pub remarks: Remarks,
}

/// One way to measure.
pub trait Evaluation: Sync {
    /// Its name: the verb `splitmask eval NAME`, and what the status board calls it.
    fn name(&self) -> &'static str;

    /// One line.
    fn doc(&self) -> &'static str;

    /// What [`Score::value`] is called in `metrics.jsonl`, the status board's history and the curves; snake_case.
    fn number(&self) -> &'static str;

    /// Which way the number should go.
    fn better(&self) -> Better;

    /// Label of its failures.
    fn task(&self) -> SideTask;

    /// The gauge that shows the number.
    fn gauge<'m>(&self, metrics: &'m TrainMetrics) -> &'m Gauge;

    /// Steps between two of it during training; 0 = none.
    fn every(&self, config: &EvalConfig) -> u64;

    /// Seconds after which it is given up during training.
    fn budget_s(&self, config: &EvalConfig) -> Option<f64> {
        let _ = config;
        None
    }

    /// Measures.
    ///
    /// # Errors
    /// Unreadable sets, sets that hold nothing to measure, [`EvalError::OutOfTime`] once `go_on` says no, or what libtorch said.
    fn run(&self, subject: &Subject<'_>, go_on: GoOn<'_>) -> Result<Score, EvalError>;
}

/// All evaluations, in the order in which those that are due at one step are made.
pub static EVALUATIONS: &[&dyn Evaluation] = &[&Knn, &ValidationLoss, &Linear];

/// The evaluation of a name.
#[must_use]
pub fn evaluation(name: &str) -> Option<&'static dyn Evaluation> {
    EVALUATIONS.iter().copied().find(|e| e.name() == name)
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;
    use crate::eval::patience::Watched;

    #[test]
    fn rows_are_told_apart_by_everything_that_names_them() {
        let metrics = TrainMetrics::new(&Registry::new()).unwrap();
        for (n, e) in EVALUATIONS.iter().enumerate() {
            assert_eq!(evaluation(e.name()).unwrap().number(), e.number());
            assert_eq!(e.task().label(), e.name(), "failures are counted under its name");
            assert!(e.better() != Better::Neither, "{}: the best one could not be told", e.name());
            assert!(e.doc().ends_with('.'), "{}", e.doc());
            for other in &EVALUATIONS[..n] {
                assert!(other.name() != e.name() && other.number() != e.number());
                other.gauge(&metrics).set(0.0);
                e.gauge(&metrics).set(1.0);
                assert_eq!(other.gauge(&metrics).get(), 0.0, "{} and {} share a gauge", other.name(), e.name());
            }
        }
        assert!(evaluation("dice").is_none());
    }

    #[test]
    fn one_evaluation_is_watched_at_a_time_and_none_without_an_interval() {
        for watched in [Watched::Knn, Watched::Loss] {
            let config = EvalConfig {
                every_steps: 7,
                watch: watched,
                ..EvalConfig::default()
            };
            let due: Vec<&str> = EVALUATIONS.iter().filter(|e| e.every(&config) == 7).map(|e| e.name()).collect();
            assert_eq!(due, [watched.evaluation().name()]);
        }
        assert!(EVALUATIONS.iter().all(|e| e.every(&EvalConfig::default()) == 0));
    }
}
