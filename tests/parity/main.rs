//! Numbers against PyTorch, and what every objective must do. One binary, because linking libtorch is the cost.

mod against_pytorch;
mod bf16;
mod classify;
mod conformance;
mod determinism;
mod dino;
mod dinov2;
mod dvae;
mod extending;
mod fixture;
mod mae;
mod mask_rcnn;
mod mask_rcnn_parts;
mod moco_v3;
#[allow(unreachable_pub, reason = "it is written as it stands in the tree")]
mod rotation;
mod segment;
mod simclr;
mod splitmask_objective;
mod subjects;
mod supervised;
mod upernet;

use std::sync::{Mutex, MutexGuard, PoisonError};

use splitmask::objective::StepContext;

/// A training step over a whole batch.
fn training(step: u64) -> StepContext {
    StepContext {
        train: true,
        step,
        ..evaluation()
    }
}

/// A pass that draws nothing.
fn evaluation() -> StepContext {
    StepContext::evaluation(0, 100, 1)
}

/// libtorch's random generator is one per process: tests that seed it take turns.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    // Tiny models: more threads only wait for each other.
    tch::set_num_threads(1);
    turn
}
