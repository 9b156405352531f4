//! Ways in which a run goes on and learns nothing, as data: each kind names its own, the trainer counts.

use std::collections::BTreeMap;
use std::fmt;

/// A log interval as a rule sees it: means of its numbers by name, and what guessing would score.
pub struct Judged<'a> {
    /// Means over the interval, those of the visual words (`token_entropy`, `codebook_perplexity`) among them.
    pub means: &'a BTreeMap<String, f64>,
    /// [`super::Plan::chance`] of a number.
    pub chance: &'a dyn Fn(&str) -> Option<f64>,
}

impl Judged<'_> {
    /// A number of the interval, where the objective reports it.
    #[must_use]
    pub fn mean(&self, name: &str) -> Option<f64> {
        self.means.get(name).copied()
    }

    /// Whether the loss `term` is hardly below what a guess pays that sees no image, the number `guess`: nothing is learnt.
    pub(super) fn is_a_guess(&self, term: &str, guess: &str) -> bool {
        let guess = self.mean(guess).filter(|guess| *guess > 0.0);
        guess.is_some_and(|guess| self.mean(term).is_some_and(|loss| loss > LEARNT_NOTHING * guess))
    }
}

/// Share of a guess's loss above which nothing was learnt.
const LEARNT_NOTHING: f64 = 0.98;

/// One way to collapse. Log intervals in a row that it holds for, after the warm-up, are the gauge `splitmask_train_collapsed_intervals{rule="NAME"}`.
#[derive(Clone, Copy)]
pub struct CollapseRule {
    /// Name of the rule.
    pub name: &'static str,
    /// For which intervals it holds and what that says; in the log once a row is long enough, and in docs/monitoring.md.
    pub help: &'static str,
    /// What to look at and what to change.
    pub remedy: &'static str,
    /// Whether an interval is one of them. One that lacks the number, or whose number is not finite, never is.
    pub holds: fn(&Judged<'_>) -> bool,
}

impl fmt::Debug for CollapseRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CollapseRule").field("name", &self.name).finish_non_exhaustive()
    }
}
