//! Ways in which a run goes on and learns nothing, judged by the rules of its objective.

use std::collections::BTreeMap;

use super::Boundary;
use crate::objective::{CollapseRule, Judged};
use crate::telemetry::metrics::TrainMetrics;
use crate::trainer::control::Collapsed;
use crate::trainer::outlets::Outlets;
use crate::trainer::setup::Setup;
use crate::trainer::state::RunState;

/// Log intervals in a row that are told as a collapse; the alert ObjectiveCollapse has the same number.
const INTERVALS: u64 = 20;

/// Counts an interval that is bad in a row of such, by the name of a rule; whether the row has just become a collapse.
fn count(rows: &mut BTreeMap<String, u64>, rule: &str, bad: bool) -> bool {
    if !bad {
        rows.remove(rule);
        return false;
    }
    let row = rows.entry(rule.to_owned()).or_default();
    *row += 1;
    *row == INTERVALS
}

/// What of a rule is told once its row is long enough.
fn told(rule: &CollapseRule, intervals: u64) -> Collapsed {
    Collapsed {
        rule: rule.name,
        intervals,
        help: rule.help,
        remedy: rule.remedy,
    }
}

/// Puts the rows that a checkpoint knows where they are looked at, and tells of those that are long.
pub(super) fn begin(state: &RunState, setup: &Setup, out: &Outlets) {
    let mut long = Vec::new();
    for rule in setup.spec.objective.kind().collapse {
        let intervals = state.collapsed.get(rule.name).copied().unwrap_or(0);
        out.telemetry.train.objective.collapsed(rule.name).set(intervals as f64);
        if intervals >= INTERVALS {
            let (help, remedy) = (rule.help, rule.remedy);
            tracing::warn!(
                step = state.step,
                rule = rule.name,
                "for {intervals} log intervals before this start, {help}; look for {remedy}"
            );
            long.push(told(rule, intervals));
        }
    }
    out.board().collapsed = long;
}

/// Judges a log interval by the means of its numbers, and goes on with the rows of bad ones before it; answers the rows that are long enough to be told. The
/// warm-up is left out: models begin collapsed.
pub(super) fn watch(
    means: &BTreeMap<String, f64>,
    rows: &mut BTreeMap<String, u64>,
    at: &Boundary<'_>,
    m: &TrainMetrics,
) -> Vec<Collapsed> {
    let mut long = Vec::new();
    let spec = &at.setup.spec;
    let scope = spec.scope(at.setup.words.len());
    let chance = |number: &str| spec.objective.chance(number, &scope);
    let judged = Judged { means, chance: &chance };
    let warm = at.step > spec.optim.warmup_steps;
    for rule in spec.objective.kind().collapse {
        let collapsed = count(rows, rule.name, warm && (rule.holds)(&judged));
        let intervals = rows.get(rule.name).copied().unwrap_or(0);
        m.objective.collapsed(rule.name).set(intervals as f64);
        if collapsed {
            let (help, remedy) = (rule.help, rule.remedy);
            tracing::warn!(
                step = at.step,
                rule = rule.name,
                "for {INTERVALS} log intervals, {help}; look for {remedy}"
            );
        }
        if intervals >= INTERVALS {
            long.push(told(rule, intervals));
        }
    }
    long
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_told_once_and_broken_by_one_good_interval() {
        let mut rows = BTreeMap::new();
        let told: Vec<bool> = (0..30).map(|_| count(&mut rows, "flat", true)).collect();
        assert_eq!(told.iter().filter(|t| **t).count(), 1);
        assert!(told[19], "{told:?}");
        assert!(!count(&mut rows, "flat", false) && rows.is_empty());
        assert!((0..19).all(|_| !count(&mut rows, "flat", true)) && count(&mut rows, "flat", true));
    }
}
