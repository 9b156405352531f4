//! Ways in which a run goes on and learns nothing, judged by the rules of its objective.

use std::collections::BTreeMap;

use prometheus::Gauge;

use super::assemble::Trainer;
use crate::objective::Judged;

/// Log intervals in a row that are told as a collapse; the alert ObjectiveCollapse has the same number.
const INTERVALS: f64 = 20.0;

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
    /// Judges a log interval by the means of its numbers. The warm-up is left out: models begin collapsed.
    pub(super) fn watch_collapse(&self, means: &BTreeMap<String, f64>) {
        let scope = self.spec.scope(self.words.len());
        let chance = |number: &str| self.spec.objective.chance(number, &scope);
        let judged = Judged { means, chance: &chance };
        let warm = self.step > self.spec.optim.warmup_steps;
        for rule in self.spec.objective.kind().collapse {
            let row = self.telemetry.train.objective.collapsed(rule.name);
            if count(&row, warm && (rule.holds)(&judged)) {
                let (help, remedy) = (rule.help, rule.remedy);
                tracing::warn!(
                    step = self.step,
                    rule = rule.name,
                    "for {INTERVALS} log intervals, {help}; look for {remedy}"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
