//! The first hook of a boundary: reads losses and norms from the device and judges the steps since the last check.

use crate::trainer::error::TrainError;
use crate::trainer::hooks::{Boundary, Flow, Hook};
use crate::trainer::outlets::Outlets;
use crate::trainer::spec::StabilityConfig;
use crate::trainer::state::RunState;

/// Stateless: what it remembers lies in the run's ladder.
pub(in crate::trainer) struct StabilityCheck;

impl Hook for StabilityCheck {
    /// Also before a scheduled checkpoint and at the end: no checkpoint of the schedule holds steps that nobody judged.
    fn due(&self, at: &Boundary<'_>) -> bool {
        let spec = &at.setup.spec;
        at.is_multiple_of(spec.stability.check_every_steps) || at.is_multiple_of(spec.checkpoint.every_steps) || at.last
    }

    fn run(&mut self, state: &mut RunState, at: &Boundary<'_>, out: &mut Outlets) -> Result<Flow, TrainError> {
        let config = &at.setup.spec.stability;
        read_ladder(state, config, out)?;
        let finding = state.ladder.judge(config);
        for spike in &finding.spikes {
            out.telemetry.train.loss_spikes.inc();
            tracing::warn!(
                step = state.step_of(spike.consumed),
                loss = spike.loss,
                grad_norm = spike.norm,
                "loss spike: the window has a loss of {:.4} ± {:.4} and a median norm of {:.3}",
                spike.mean,
                spike.sigma,
                spike.median_norm
            );
        }
        Ok(finding.instability.map_or(Flow::GoOn, Flow::RollBack))
    }
}

/// Reads the losses and norms that are on the device; skipped steps are counted and logged.
///
/// # Errors
/// What libtorch said.
pub(in crate::trainer) fn read_ladder(state: &mut RunState, config: &StabilityConfig, out: &Outlets) -> Result<(), TrainError> {
    for consumed in state.ladder.read(config.window)? {
        out.telemetry.train.nonfinite_steps.inc();
        tracing::warn!(
            step = state.step_of(consumed),
            "loss or gradient was not finite: the step was skipped"
        );
    }
    Ok(())
}
