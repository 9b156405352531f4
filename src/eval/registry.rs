//! What can be measured of an encoder. An evaluation is one file of this folder and one row in [`EVALUATIONS`]; the trainer's hook, the verbs of
//! `splitmask eval` and the curves go through the rows and name none of them.

use super::classify::Classify;
use super::config::Watched;
use super::detect::Detect;
use super::evaluation::Evaluation;
use super::knn::Knn;
use super::linear::Linear;
use super::loss::ValidationLoss;
use super::segment::Segment;
use super::spread::Spread;

/// All evaluations, in the order in which those that are due at one step are made.
pub static EVALUATIONS: &[&dyn Evaluation] = &[&Knn, &ValidationLoss, &Classify, &Segment, &Detect, &Linear, &Spread];

/// The evaluation of a name.
#[must_use]
pub fn evaluation(name: &str) -> Option<&'static dyn Evaluation> {
    EVALUATIONS.iter().copied().find(|e| e.name() == name)
}

impl Watched {
    /// Its row.
    #[must_use]
    pub fn evaluation(self) -> &'static dyn Evaluation {
        match self {
            Self::Knn => &Knn,
            Self::Loss => &ValidationLoss,
            Self::Classify => &Classify,
            Self::Segment => &Segment,
            Self::Detect => &Detect,
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;
    use crate::eval::config::EvalConfig;
    use crate::objective::Better;
    use crate::telemetry::metrics::TrainMetrics;

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
            }
            for number in e.beside() {
                assert_ne!(number.name, e.number());
            }
        }
        let gauges: Vec<_> = EVALUATIONS
            .iter()
            .flat_map(|e| std::iter::once(e.gauge(&metrics)).chain(e.beside().iter().map(|number| (number.gauge)(&metrics))))
            .collect();
        for gauge in &gauges {
            gauges.iter().for_each(|g| g.set(0.0));
            gauge.set(1.0);
            assert_eq!(gauges.iter().filter(|g| g.get() == 1.0).count(), 1, "two numbers share a gauge");
        }
        assert!(evaluation("dice").is_none());
    }

    #[test]
    fn one_evaluation_is_watched_at_a_time_and_none_without_an_interval() {
        for watched in [Watched::Knn, Watched::Loss, Watched::Classify, Watched::Segment, Watched::Detect] {
            let config = EvalConfig {
                every_steps: 7,
                watch: watched,
                ..EvalConfig::default()
            };
            let due: Vec<&str> = EVALUATIONS.iter().filter(|e| e.every(&config) == 7).map(|e| e.name()).collect();
            assert_eq!(
                due,
                [watched.evaluation().name(), "spread"],
                "the spread costs hardly more where features are made anyway"
            );
            let apart = EvalConfig {
                spread_every_steps: 3,
                ..config
            };
            assert_eq!(Spread.every(&apart), 3);
        }
        assert!(EVALUATIONS.iter().all(|e| e.every(&EvalConfig::default()) == 0));
    }
}
