//! Two ways in which a run goes on and learns nothing: all images get one descriptor, or all patches one word.

use prometheus::Gauge;

use super::assemble::Trainer;

/// Log intervals in a row that are told as a collapse; the alerts MatchCollapse and InpaintCollapse have the same number.
const INTERVALS: f64 = 20.0;
/// Predicted words, effectively, under which the model says the same whatever it sees: a model that knows only frequencies predicts one.
const FEW_PREDICTED: f64 = 2.0;
/// Target words, effectively, under which few predicted ones say nothing of the model; below it CodebookCollapse speaks.
const FEW_TARGETS: f64 = 8.0;

/// Whether a match accuracy is about that of guessing among a batch.
#[must_use]
fn at_chance(accuracy: f64, batch: u32) -> bool {
    accuracy < 2.0 / f64::from(batch)
}

/// Whether predictions of that perplexity are too few for targets of that one.
#[must_use]
fn few_words(predicted: f64, targets: f64) -> bool {
    predicted < FEW_PREDICTED && targets >= FEW_TARGETS
}

/// Counts an interval that is bad in a row of such; whether the row has just become a collapse.
fn count(row: &Gauge, bad: bool) -> bool {
    if !bad {
        row.set(0.0);
        return false;
    }
    row.inc();
    row.get() == INTERVALS
}

impl Trainer {
    /// Judges a log interval by its mean match accuracy and perplexity of the predicted words, where the objective has them. The warm-up is left out:
    /// both begin collapsed.
    pub(super) fn watch_collapse(&mut self, accuracy: Option<f64>, predicted: Option<f64>) {
        let m = &self.telemetry.train;
        let warm = self.step > self.spec.optim.warmup_steps;
        let batch = self.spec.train.batch;
        if count(&m.match_at_chance, warm && accuracy.is_some_and(|a| at_chance(a, batch))) {
            tracing::warn!(
                step = self.step,
                accuracy,
                guessing = 1.0 / f64::from(batch),
                "the match accuracy has been that of guessing for {INTERVALS} log intervals: the descriptors have collapsed"
            );
        }
        let targets = self.usage.perplexity();
        if count(&m.inpaint_collapsed, warm && predicted.is_some_and(|p| few_words(p, targets))) {
            tracing::warn!(
                step = self.step,
                predicted,
                targets,
                "the model has predicted hardly more than one word for {INTERVALS} log intervals: the inpainting has collapsed"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_for_all_patches_is_a_collapse_unless_the_targets_are_few_too() {
        assert!(few_words(1.0, 300.0) && few_words(1.99, 8.0));
        assert!(!few_words(2.0, 300.0) && !few_words(1.0, 7.9));
        assert!(!few_words(f64::NAN, 300.0), "a step that was not finite has an alert of its own");
    }

    #[test]
    fn twice_the_accuracy_of_guessing_is_no_collapse() {
        assert!(at_chance(1.9 / 128.0, 128) && !at_chance(2.0 / 128.0, 128));
    }

    #[test]
    fn a_row_is_told_once_and_broken_by_one_good_interval() {
        let row = Gauge::new("row", "Row.").unwrap();
        let told: Vec<bool> = (0..30).map(|_| count(&row, true)).collect();
        assert_eq!(told.iter().filter(|t| **t).count(), 1);
        assert!(told[19], "{told:?}");
        assert!(!count(&row, false) && row.get() == 0.0);
        assert!((0..19).all(|_| !count(&row, true)) && count(&row, true));
    }
}
