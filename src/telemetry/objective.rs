//! The series of what an objective declares: one family for each sort of number, so that panels and alerts hold for every objective.

use std::collections::BTreeMap;

use prometheus::{Gauge, GaugeVec, Opts, Registry};

use super::number::{Number, Role, Unit};
use super::register::register;

/// Gauges by the name of a number or rule. All that a kind declares are there, at 0, from [`ObjectiveMetrics::declare`] on; a clone shares the values.
#[derive(Clone)]
pub struct ObjectiveMetrics {
    loss: GaugeVec,
    ratio: GaugeVec,
    value: GaugeVec,
    collapsed: GaugeVec,
}

impl ObjectiveMetrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let family = |name: &str, help: &str, label| register(registry, GaugeVec::new(Opts::new(name, help), &[label])?);
        let metrics = Self {
            loss: family(
                "splitmask_train_loss",
                "Loss by term at the last log step; in nats, where it is a cross-entropy.",
                "term",
            )?,
            ratio: family(
                "splitmask_train_objective_ratio",
                "Shares that the objective measures, 0 to 1, mean of the last log interval; docs/monitoring.md says of what.",
                "number",
            )?,
            value: family(
                "splitmask_train_objective_value",
                "Other numbers that the objective measures, mean of the last log interval; docs/monitoring.md says of what.",
                "number",
            )?,
            collapsed: family(
                "splitmask_train_collapsed_intervals",
                "Log intervals in a row, after the warm-up, in which the model learnt nothing by this rule of its objective.",
                "rule",
            )?,
        };
        metrics.loss.with_label_values(&["total"]);
        Ok(metrics)
    }

    fn gauge(&self, number: &Number) -> Gauge {
        let family = match (number.role, number.unit) {
            (Role::Term, _) => &self.loss,
            (Role::Measure, Unit::Share) => &self.ratio,
            (Role::Measure, Unit::Nats | Unit::Count | Unit::Plain) => &self.value,
        };
        family.with_label_values(&[number.name])
    }

    /// Makes the series of an objective. Declaring one again changes nothing.
    pub fn declare(&self, numbers: &[Number], rules: impl IntoIterator<Item = &'static str>) {
        for number in numbers {
            self.gauge(number);
        }
        for rule in rules {
            let _ = self.collapsed(rule);
        }
    }

    /// Sets the objective's numbers, and the total loss, to the means of a log interval; one that is not among them becomes 0. Of an interval without a total
    /// no image counted in the losses: its numbers stay what they were, besides those that it has.
    pub fn set(&self, numbers: &[Number], means: &BTreeMap<String, f64>) {
        let absent = means.contains_key("total").then_some(0.0);
        let mean = |name: &str| means.get(name).copied().or(absent);
        if let Some(total) = mean("total") {
            self.loss.with_label_values(&["total"]).set(total);
        }
        for number in numbers {
            if let Some(value) = mean(number.name) {
                self.gauge(number).set(value);
            }
        }
    }

    /// Log intervals in a row for which a rule of collapse has held.
    #[must_use]
    pub fn collapsed(&self, rule: &str) -> Gauge {
        self.collapsed.with_label_values(&[rule])
    }
}

#[cfg(test)]
mod tests {
    use super::super::number::Better;
    use super::*;

    #[test]
    fn each_sort_of_number_has_a_family_and_begins_at_0() {
        let registry = Registry::new();
        let metrics = ObjectiveMetrics::new(&registry).unwrap();
        let number = |name, role, unit| Number {
            name,
            help: "",
            role,
            unit,
            better: Better::Lower,
            baseline: None,
        };
        let numbers = [
            number("reconstruct", Role::Term, Unit::Plain),
            number("hits", Role::Measure, Unit::Share),
            number("teacher_entropy", Role::Measure, Unit::Nats),
        ];
        let lines = || -> Vec<String> {
            let text = crate::telemetry::metrics::render(&registry).unwrap();
            text.lines().filter(|l| !l.starts_with('#')).map(str::to_owned).collect()
        };
        metrics.declare(&numbers, ["flat"]);
        let begun = lines();
        assert_eq!(begun.len(), 5, "{begun:?}");
        assert!(begun.iter().all(|l| l.ends_with(" 0")), "{begun:?}");
        let means = [("total", 3.0), ("reconstruct", 2.0), ("hits", 0.5)].map(|(k, v)| (k.to_owned(), v));
        metrics.set(&numbers, &means.into());
        metrics.declare(&numbers, ["flat"]);
        metrics.collapsed("flat").inc();
        let mut want = [
            "splitmask_train_loss{term=\"total\"} 3",
            "splitmask_train_loss{term=\"reconstruct\"} 2",
            "splitmask_train_objective_ratio{number=\"hits\"} 0.5",
            "splitmask_train_objective_value{number=\"teacher_entropy\"} 0",
            "splitmask_train_collapsed_intervals{rule=\"flat\"} 1",
        ]
        .map(str::to_owned)
        .to_vec();
        let mut have = lines();
        want.sort();
        have.sort();
        assert_eq!(have, want);
    }
}
