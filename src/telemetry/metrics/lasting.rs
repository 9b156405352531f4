//! Counters that belong to the run rather than to the process: they go into checkpoints and come back.

use std::collections::BTreeMap;

use prometheus::core::Collector;
use prometheus::{Counter, IntCounter};

use super::{Phase, TrainMetrics};

impl TrainMetrics {
    /// Values of the counters that belong to the run rather than to the process, by series name; stored in each checkpoint.
    #[must_use]
    pub fn snapshot(&self) -> BTreeMap<String, f64> {
        let whole = self.run_counters().map(|(name, counter)| (name, counter.get() as f64));
        let seconds = self.run_seconds().map(|(name, counter)| (name, counter.get()));
        whole.chain(seconds).collect()
    }

    /// Raises the run's counters to the values of a [`TrainMetrics::snapshot`]. Call it before the first scrape: a counter seen at 0
    /// and then at its old value reads as a burst.
    ///
    /// Unknown names are ignored (a checkpoint of another version), as are values that no counter can have.
    pub fn restore(&self, values: &BTreeMap<String, f64>) {
        let saved = |name: &str| values.get(name).copied().filter(|v| v.is_finite() && *v > 0.0).unwrap_or(0.0);
        for (name, counter) in self.run_counters() {
            counter.inc_by((saved(&name) as u64).saturating_sub(counter.get()));
        }
        for (name, counter) in self.run_seconds() {
            counter.inc_by((saved(&name) - counter.get()).max(0.0));
        }
    }

    /// As [`TrainMetrics::restore`] for a rank that others share the run with: what all count alike (steps, epochs, skipped steps), and neither images nor
    /// times, which are each rank's own.
    pub fn restore_alike(&self, values: &BTreeMap<String, f64>) {
        let images = self.images_name();
        let alike: Vec<String> = self.run_counters().map(|(name, _)| name).filter(|name| *name != images).collect();
        self.restore(
            &values
                .iter()
                .filter(|(name, _)| alike.contains(name))
                .map(|(n, v)| (n.clone(), *v))
                .collect(),
        );
    }

    /// Under which name a snapshot holds the images.
    #[must_use]
    pub fn images_name(&self) -> String {
        self.images.desc()[0].fq_name.clone()
    }

    fn run_counters(&self) -> impl Iterator<Item = (String, &IntCounter)> {
        [
            &self.steps,
            &self.images,
            &self.epochs,
            &self.nonfinite_steps,
            &self.rollbacks,
            &self.loss_spikes,
            &self.memory_splits,
        ]
        .into_iter()
        .map(|c| (c.desc()[0].fq_name.clone(), c))
    }

    fn run_seconds(&self) -> impl Iterator<Item = (String, &Counter)> {
        Phase::ALL.iter().map(|&p| {
            let counter = self.phase(p);
            (format!("{}{{phase=\"{}\"}}", counter.desc()[0].fq_name, p.label()), counter)
        })
    }
}
