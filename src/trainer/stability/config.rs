//! `[stability]`: what bad steps lead to.

use serde::{Deserialize, Serialize};

use crate::setting::{Findings, settings};

/// What a loss spike leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum SpikeAction {
    /// A warning and a count.
    #[default]
    Warn,
    /// Also a return to the checkpoint before it, leaving its data out.
    Rollback,
}

settings! {
    /// `[stability]`: the ladder from a skipped step over a rollback to the end of the run.
    pub struct StabilityConfig in "stability" {
        /// Steps between two looks at losses and gradient norms; between them no step waits for the device.
        Live check_every_steps: u64 = 10,
        /// Skipped non-finite steps in a row that lead to a rollback.
        Live nonfinite_run: u32 = 5,
        /// Skipped steps among the last stability.window that lead to a rollback.
        Live nonfinite_count: u32 = 10,
        /// Latest steps that are remembered.
        Live window: u32 = 200,
        /// Rollbacks within stability.rollback_window of which the last one is a stop with exit code 76; 1 = never roll back.
        Live rollback_limit: u32 = 3,
        /// Steps over which rollbacks are counted.
        Live rollback_window: u64 = 1000,
        /// Standard deviations above the window's mean at which a loss is a spike; 0 = none is.
        Live spike_sigma: f64 = 6.0,
        /// Times the window's median that the gradient norm of a spike must exceed.
        Live spike_norm: f64 = 10.0,
        /// What a loss spike leads to: `warn` or `rollback`.
        Live spike_action: SpikeAction = SpikeAction::Warn,
    }
}

impl StabilityConfig {
    /// Checks ranges.
    pub fn check(&self, found: &mut Findings) {
        let window = u64::from(self.window);
        for (key, value, low, high) in [
            ("stability.check_every_steps", self.check_every_steps, 1, 1000),
            ("stability.window", window, 10, 10_000),
            ("stability.nonfinite_run", self.nonfinite_run.into(), 1, window),
            ("stability.nonfinite_count", self.nonfinite_count.into(), 1, window),
            ("stability.rollback_limit", self.rollback_limit.into(), 1, 1000),
        ] {
            found.need((low..=high).contains(&value), key, value, format!("{low} to {high}"));
        }
        found.need(
            self.rollback_window >= 1,
            "stability.rollback_window",
            self.rollback_window,
            "at least 1",
        );
        found.need(
            self.spike_sigma == 0.0 || self.spike_sigma >= 1.0 && self.spike_sigma.is_finite(),
            "stability.spike_sigma",
            self.spike_sigma,
            "0 (off) or at least 1",
        );
        found.need(
            self.spike_norm >= 1.0 && self.spike_norm.is_finite(),
            "stability.spike_norm",
            self.spike_norm,
            "at least 1",
        );
    }
}
