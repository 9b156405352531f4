//! `[ranks]`: how the processes of a run on several devices come together.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use torch_ext::ranks::Backend;

use crate::setting::{Findings, settings};

/// Who moves tensors between ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum RanksBackend {
    /// NCCL for CUDA devices, gloo for the CPU.
    #[default]
    Auto,
    /// NCCL.
    Nccl,
    /// gloo: everywhere, and slowly on GPUs.
    Gloo,
}

impl From<RanksBackend> for Backend {
    fn from(backend: RanksBackend) -> Self {
        match backend {
            RanksBackend::Auto => Self::Auto,
            RanksBackend::Nccl => Self::Nccl,
            RanksBackend::Gloo => Self::Gloo,
        }
    }
}

settings! {
    /// `[ranks]`: how the processes of a run on several devices come together, and how long they wait for each other. One process reads none of it.
    pub struct RanksConfig in "ranks" {
        /// Who moves gradients between ranks: `auto` (NCCL for CUDA devices, gloo for the CPU), `nccl` or `gloo`.
        Restart backend: RanksBackend = RanksBackend::Auto,
        /// Seconds that the ranks wait for each other at the start.
        Restart join_timeout_s: f64 = 1800.0,
        /// Seconds that gradients and losses may be on their way; then the ranks end.
        Restart step_timeout_s: f64 = 300.0,
        /// Seconds that the ranks wait between two steps for one that evaluates, writes or says nothing; then they end (data is waited for without end).
        Restart control_timeout_s: f64 = 1800.0,
    }
}

impl RanksConfig {
    /// Checks ranges.
    pub fn check(&self, found: &mut Findings) {
        for (key, value) in [
            ("ranks.join_timeout_s", self.join_timeout_s),
            ("ranks.step_timeout_s", self.step_timeout_s),
            ("ranks.control_timeout_s", self.control_timeout_s),
        ] {
            found.need((1.0..=604_800.0).contains(&value), key, value, "1 to 604800 seconds");
        }
    }

    pub(super) fn timeouts(&self) -> [Duration; 3] {
        [self.join_timeout_s, self.step_timeout_s, self.control_timeout_s].map(Duration::from_secs_f64)
    }
}
