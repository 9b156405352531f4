//! Patience with a run that does not get better: the best evaluation so far, and how many came after it.

use serde::{Deserialize, Serialize};

use super::config::Watched;
use super::pool::Pool;
use crate::objective::Better;
use crate::optim::Weights;

/// The best evaluation so far. Part of the checkpoint (its field `watch`), so a resumed run warns when an undisturbed one would.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Patience {
    /// What the scores are of; another one begins anew.
    pub watched: Watched,
    /// How they are measured; another way begins anew, too.
    #[serde(default)]
    pub way: Way,
    /// Best value and its step.
    #[serde(with = "crate::exact")]
    pub best: Option<(f64, u64)>,
    /// Evaluations since then.
    pub since: u32,
}

/// How a score is measured, as far as it changes what the number says. The default is that of checkpoints that do not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Way {
    /// What of the tokens is a feature; the default for scores that look at none.
    pub pool: Pool,
    /// Of which weights.
    pub weights: Weights,
    /// Of views that are drawn, instead of the same centre crop for each.
    pub drawn_views: bool,
    /// By these images and settings: the first bytes of their digest. 0 is that of a checkpoint which does not tell, and taken for the same.
    #[serde(default)]
    pub settings: u64,
}

/// What an evaluation means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Better than all before.
    Best,
    /// Not better, within the patience.
    Waiting,
    /// The patience is used up by this very evaluation: worth a warning, once.
    Overfitting,
    /// It was used up before.
    StillOverfitting,
}

impl Patience {
    /// Takes over from `way` what the checkpoint of a former version does not tell.
    pub fn complete(&mut self, way: Way) {
        if self.way.settings == 0 {
            self.way.settings = way.settings;
            // It told a pool of scores that look at no feature, too.
            if self.watched != Watched::Knn {
                self.way.pool = way.pool;
            }
        }
    }

    /// Takes an evaluation in. `patience` = evaluations without a new best until the warning; 0 = never. A value that is not finite is
    /// worse than any.
    pub fn observe(&mut self, (watched, way): (Watched, Way), value: f64, step: u64, patience: u32) -> Verdict {
        self.complete(way);
        if (self.watched, self.way) != (watched, way) {
            *self = Self {
                watched,
                way,
                ..Self::default()
            };
        }
        let better = match (self.best, watched.evaluation().better) {
            (None, _) => value.is_finite(),
            (Some((best, _)), Better::Lower) => value < best,
            (Some((best, _)), _) => value > best,
        };
        if better {
            self.best = Some((value, step));
            self.since = 0;
            return Verdict::Best;
        }
        self.since += 1;
        match patience {
            0 => Verdict::Waiting,
            p if self.since < p => Verdict::Waiting,
            p if self.since == p => Verdict::Overfitting,
            _ => Verdict::StillOverfitting,
        }
    }

    /// Whether the patience is used up.
    #[must_use]
    pub fn overfitting(&self, patience: u32) -> bool {
        patience > 0 && self.since >= patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(watched: Watched, values: &[f64], patience: u32) -> Vec<Verdict> {
        let mut so_far = Patience::default();
        let observed = values.iter().enumerate();
        observed
            .map(|(i, v)| so_far.observe((watched, Way::default()), *v, i as u64, patience))
            .collect()
    }

    #[test]
    fn warns_once_when_the_patience_is_used_up() {
        use Verdict::{Best, Overfitting, StillOverfitting, Waiting};
        let accuracy = [0.2, 0.3, 0.29, 0.30, 0.25, 0.31, 0.1];
        let want = [Best, Best, Waiting, Overfitting, StillOverfitting, Best, Waiting];
        assert_eq!(verdicts(Watched::Knn, &accuracy, 2), want);
        let loss: Vec<f64> = accuracy.iter().map(|a| 1.0 - a).collect();
        assert_eq!(verdicts(Watched::Loss, &loss, 2), want);
        assert!(!verdicts(Watched::Knn, &accuracy, 0).contains(&Overfitting));
    }

    #[test]
    fn not_a_number_is_never_the_best_and_another_measure_begins_anew() {
        let mut so_far = Patience::default();
        assert_eq!(
            so_far.observe((Watched::Loss, Way::default()), f64::NAN, 1, 1),
            Verdict::Overfitting
        );
        assert_eq!(so_far.observe((Watched::Loss, Way::default()), 2.0, 2, 1), Verdict::Best);
        assert_eq!(
            so_far.observe((Watched::Loss, Way::default()), f64::NAN, 3, 1),
            Verdict::Overfitting
        );
        assert_eq!(so_far.observe((Watched::Knn, Way::default()), 0.1, 4, 1), Verdict::Best);
        // The number of another pool is another number.
        let of_class_token = Way {
            pool: Pool::Cls,
            ..Way::default()
        };
        assert_eq!(so_far.observe((Watched::Knn, of_class_token), 0.05, 5, 1), Verdict::Best);
        assert_eq!(so_far.best, Some((0.05, 5)));
        // So is a loss by other settings, but not by those that a checkpoint of before did not tell.
        let by = |settings| Way {
            settings,
            ..Way::default()
        };
        assert_eq!(so_far.observe((Watched::Loss, by(0)), 2.0, 6, 1), Verdict::Best);
        assert_eq!(so_far.observe((Watched::Loss, by(1)), 3.0, 7, 2), Verdict::Waiting);
        assert_eq!(so_far.observe((Watched::Loss, by(2)), 4.0, 8, 1), Verdict::Best);
    }
}
