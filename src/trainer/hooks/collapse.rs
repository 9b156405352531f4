//! Ways in which a run goes on and learns nothing, judged by the rules of its objective.

use std::collections::BTreeMap;

use prometheus::Gauge;

use super::Boundary;
use crate::objective::Judged;
use crate::telemetry::metrics::TrainMetrics;

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

/// Judges a log interval by the means of its numbers. The warm-up is left out: models begin collapsed.
pub(super) fn watch(means: &BTreeMap<String, f64>, at: &Boundary<'_>, m: &TrainMetrics) {
    let spec = &at.setup.spec;
    let scope = spec.scope(at.setup.words.len());
    let chance = |number: &str| spec.objective.chance(number, &scope);
    let judged = Judged { means, chance: &chance };
    let warm = at.step > spec.optim.warmup_steps;
    for rule in spec.objective.kind().collapse {
        let row = m.objective.collapsed(rule.name);
        if count(&row, warm && (rule.holds)(&judged)) {
            let (help, remedy) = (rule.help, rule.remedy);
            tracing::warn!(
                step = at.step,
                rule = rule.name,
                "for {INTERVALS} log intervals, {help}; look for {remedy}"
            );
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
