//! `[stability]`: what bad steps lead to.

use serde::{Deserialize, Serialize};

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

/// `[stability]`: the ladder from a skipped step over a rollback to the end of the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StabilityConfig {
    /// Steps between two looks at losses and gradient norms. Looks are at multiples of this and before scheduled checkpoints; between them no step
    /// waits for the device.
    pub check_every_steps: u64,
    /// Skipped non-finite steps in a row that lead to a rollback.
    pub nonfinite_run: u32,
    /// Skipped steps among the latest `window` that lead to a rollback.
    pub nonfinite_count: u32,
    /// Latest steps that are remembered.
    pub window: u32,
    /// Rollbacks within `rollback_window` of which the last one is a stop with exit code 76; 1 = never roll back.
    pub rollback_limit: u32,
    /// Steps (repeated ones included) over which rollbacks are counted.
    pub rollback_window: u64,
    /// Standard deviations above the mean of the window at which a loss is a spike; 0 = none is.
    pub spike_sigma: f64,
    /// Times the window's median that the gradient norm of a spike must exceed.
    pub spike_norm: f64,
    /// What a spike leads to.
    pub spike_action: SpikeAction,
}

impl Default for StabilityConfig {
    fn default() -> Self {
        Self {
            check_every_steps: 10,
            nonfinite_run: 5,
            nonfinite_count: 10,
            window: 200,
            rollback_limit: 3,
            rollback_window: 1000,
            spike_sigma: 6.0,
            spike_norm: 10.0,
            spike_action: SpikeAction::Warn,
        }
    }
}

impl StabilityConfig {
    /// Checks ranges; answers (key, value, what is allowed) of the first violation.
    ///
    /// # Errors
    /// The offending key.
    pub fn validate(&self) -> Result<(), (&'static str, String, String)> {
        let window = u64::from(self.window);
        let whole: [(&'static str, u64, u64, u64); 6] = [
            ("stability.check_every_steps", self.check_every_steps, 1, 1000),
            ("stability.window", window, 10, 10_000),
            ("stability.nonfinite_run", self.nonfinite_run.into(), 1, window),
            ("stability.nonfinite_count", self.nonfinite_count.into(), 1, window),
            ("stability.rollback_limit", self.rollback_limit.into(), 1, 1000),
            ("stability.rollback_window", self.rollback_window, 1, u64::MAX),
        ];
        for (key, value, low, high) in whole {
            if !(low..=high).contains(&value) {
                let allowed = if high == u64::MAX {
                    format!("at least {low}")
                } else {
                    format!("{low} to {high}")
                };
                return Err((key, value.to_string(), allowed));
            }
        }
        if !(self.spike_sigma == 0.0 || self.spike_sigma >= 1.0 && self.spike_sigma.is_finite()) {
            return Err((
                "stability.spike_sigma",
                self.spike_sigma.to_string(),
                "0 (off) or at least 1".into(),
            ));
        }
        if !(self.spike_norm >= 1.0 && self.spike_norm.is_finite()) {
            return Err(("stability.spike_norm", self.spike_norm.to_string(), "at least 1".into()));
        }
        Ok(())
    }
}
