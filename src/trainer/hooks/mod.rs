//! What is done at a step boundary. Every hook is asked at every boundary whether it is due; those that are run in this order:
//!
//! 1. [`StabilityCheck`]: may send the run back, and nothing else is done then. First, so that nothing tells of steps that are taken back.
//! 2. [`Log`]: the line of the interval.
//! 3. [`Evaluate`]: a new best asks for a checkpoint at this boundary.
//! 4. [`Pictures`].
//! 5. [`WriteCheckpoint`]: last, so that what the others did to the state is in it.
//!
//! 3 and 4 are fenced (`side_work`): whatever they answer or panic, the hooks behind them run.

mod boundary;
mod checkpoint;
mod checkpoint_writer;
mod collapse;
mod evaluate;
mod log;
mod overfitting;
mod pictures;
mod side_work;

use std::time::Duration;

use super::outlets::{Outlets, Telemetry};
use super::setup::Setup;
use super::stability::StabilityCheck;
use super::state::RunState;
use crate::checkpoint::Policy;
pub(super) use boundary::{Boundary, Flow, Hook};
use checkpoint::WriteCheckpoint;
use evaluate::Evaluate;
use log::Log;
use pictures::Pictures;

/// All hooks of a run.
pub(super) struct Hooks {
    stability: StabilityCheck,
    log: Log,
    evaluate: Evaluate,
    pub(super) pictures: Pictures,
    pub(super) checkpoint: WriteCheckpoint,
}

impl Hooks {
    /// For a run that goes on from the checkpoint of step `resumed`.
    pub(super) fn new(setup: &Setup, telemetry: &Telemetry, resumed: Option<u64>) -> Self {
        Self {
            stability: StabilityCheck,
            log: Log::new(setup, telemetry),
            evaluate: Evaluate,
            pictures: Pictures,
            checkpoint: WriteCheckpoint::new(&setup.spec, telemetry, resumed),
        }
    }

    /// In the order in which they run.
    pub(super) fn in_order(&mut self) -> [&mut dyn Hook; 5] {
        [
            &mut self.stability,
            &mut self.log,
            &mut self.evaluate,
            &mut self.pictures,
            &mut self.checkpoint,
        ]
    }

    /// A trainer begins: what a resumed run knows is shown.
    pub(super) fn begin(&self, state: &RunState, setup: &Setup, out: &Outlets) {
        overfitting::show(state, setup, out);
        collapse::begin(state, setup, out);
    }

    /// Training stood still for `pause`, which is no time of the log interval that it fell into.
    pub(super) fn leave_out(&mut self, pause: Duration) {
        self.log.leave_out(pause);
    }

    /// A reload took effect; `kept` is the policy of before.
    pub(super) fn reconfigured(&mut self, kept: &Policy, state: &RunState, setup: &Setup, out: &Outlets) {
        self.checkpoint.outdate();
        let policy = setup.retention(state);
        if policy != *kept && setup.first() {
            // Now, not at the next checkpoint: a full disk may be why they are to be fewer.
            self.checkpoint.prune(&policy);
        }
        overfitting::show(state, setup, out);
    }
}
