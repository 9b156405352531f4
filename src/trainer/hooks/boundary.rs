//! The moment behind a step, and what may be done there.

use crate::trainer::error::TrainError;
use crate::trainer::outlets::Outlets;
use crate::trainer::setup::Setup;
use crate::trainer::stability::Instability;
use crate::trainer::state::RunState;

/// A boundary: the moment behind a step.
pub(in crate::trainer) struct Boundary<'a> {
    pub(in crate::trainer) setup: &'a Setup,
    /// Optimizer steps done.
    pub(in crate::trainer) step: u64,
    /// Whether the schedule ends here.
    pub(in crate::trainer) last: bool,
    /// Whether a hook asked for a checkpoint at this boundary.
    pub(in crate::trainer) checkpoint_asked: bool,
}

impl<'a> Boundary<'a> {
    /// The boundary behind the last step.
    pub(in crate::trainer) fn behind(state: &RunState, setup: &'a Setup) -> Self {
        Self {
            setup,
            step: state.step,
            last: state.step == setup.spec.optim.total_steps,
            checkpoint_asked: false,
        }
    }

    /// Whether something that is done every so many steps (0 = never) is due.
    pub(in crate::trainer) fn is_multiple_of(&self, every: u64) -> bool {
        every > 0 && self.step.is_multiple_of(every)
    }
}

/// What follows from a hook.
pub(in crate::trainer) enum Flow {
    /// Nothing.
    GoOn,
    /// A checkpoint at this boundary, though none may be due.
    Checkpoint,
    /// A return to an older checkpoint, at once.
    RollBack(Instability),
}

/// Something that is done at step boundaries.
pub(in crate::trainer) trait Hook {
    /// Whether it is to run at a boundary.
    fn due(&self, at: &Boundary<'_>) -> bool;

    /// Whether it only measures and shows, so that rank 0 does it for all while the others wait.
    fn beside_training(&self) -> bool {
        false
    }

    /// What the other ranks do while rank 0 runs it: nothing, unless it asks for their help.
    ///
    /// # Errors
    /// What ends the run.
    fn help(&mut self, state: &mut RunState, at: &Boundary<'_>, out: &mut Outlets) -> Result<(), TrainError> {
        let _ = (state, at, out);
        Ok(())
    }

    /// Runs.
    ///
    /// # Errors
    /// What ends the run.
    fn run(&mut self, state: &mut RunState, at: &Boundary<'_>, out: &mut Outlets) -> Result<Flow, TrainError>;
}
