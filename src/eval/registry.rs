//! What can be measured of an encoder. An evaluation is one file of this folder and one row in [`EVALUATIONS`]; the trainer's hook, the verbs of
//! `splitmask eval` and the curves go through the rows and name none of them.

use super::classify::CLASSIFY;
use super::config::Watched;
use super::detect::DETECT;
use super::evaluation::Evaluation;
use super::knn::KNN;
use super::linear::LINEAR;
use super::loss::VALIDATION_LOSS;
use super::segment::SEGMENT;
use super::spread::SPREAD;

/// All evaluations, in the order in which those that are due at one step are made.
pub static EVALUATIONS: &[&Evaluation] = &[&KNN, &VALIDATION_LOSS, &CLASSIFY, &SEGMENT, &DETECT, &LINEAR, &SPREAD];

/// The evaluation of a name.
#[must_use]
pub fn evaluation(name: &str) -> Option<&'static Evaluation> {
    EVALUATIONS.iter().copied().find(|e| e.name == name)
}

impl Watched {
    /// Its row.
    #[must_use]
    pub fn evaluation(self) -> &'static Evaluation {
        match self {
            Self::Knn => &KNN,
            Self::Loss => &VALIDATION_LOSS,
            Self::Classify => &CLASSIFY,
            Self::Segment => &SEGMENT,
            Self::Detect => &DETECT,
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
            assert_eq!(evaluation(e.name).unwrap().number.name, e.number.name);
            assert_eq!(e.task.label(), e.name, "failures are counted under its name");
            assert!(e.better != Better::Neither, "{}: the best one could not be told", e.name);
            assert!(e.doc.ends_with('.'), "{}", e.doc);
            for other in &EVALUATIONS[..n] {
                assert!(other.name != e.name && other.number.name != e.number.name);
            }
            for number in e.beside {
                assert_ne!(number.name, e.number.name);
            }
        }
        let gauges: Vec<_> = EVALUATIONS
            .iter()
            .flat_map(|e| e.numbers().map(|number| (number.gauge)(&metrics)))
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
            let due: Vec<&str> = EVALUATIONS.iter().filter(|e| (e.every)(&config) == 7).map(|e| e.name).collect();
            assert_eq!(
                due,
                [watched.evaluation().name, "spread"],
                "the spread costs hardly more where features are made anyway"
            );
            let apart = EvalConfig {
                spread_every_steps: 3,
                ..config
            };
            assert_eq!((SPREAD.every)(&apart), 3);
        }
        assert!(EVALUATIONS.iter().all(|e| (e.every)(&EvalConfig::default()) == 0));
    }
}
