//! `[log]`: the step log.

use crate::setting::{Findings, settings};

settings! {
    /// `[log]`: the step log.
    pub struct LogConfig in "log" {
        /// Steps between lines of metrics.jsonl and updates of the loss gauges.
        Live every_steps: u64 = 10,
        /// Write TensorBoard's event files into RUN/tensorboard: every number of metrics.jsonl, and the pictures.
        Restart tensorboard: bool = false,
        /// Filter of the log, as RUST_LOG (which wins).
        Live filter: String = "info".into(),
    }
}

impl LogConfig {
    /// Checks ranges, and that the filter can be read.
    pub fn check(&self, found: &mut Findings) {
        found.need(self.every_steps >= 1, "log.every_steps", self.every_steps, "at least 1 step");
        if let Err(e) = tracing_subscriber::EnvFilter::try_new(&self.filter) {
            found.need_or(
                false,
                "log.filter",
                format!("{:?}", self.filter),
                format!("a filter as RUST_LOG: {e}"),
                "for example \"info,splitmask_pipeline=debug\"",
            );
        }
    }
}
