//! The trainer as the daemon sees it.

use std::sync::mpsc::Receiver;

use crate::exit::{CliError, ExitCode, panic_text};
use crate::trainer::TrainError;
use crate::trainer::control::{Command, Failure, Outcome, StatusBoard};
use crate::trainer::spec::TrainerSpec;

/// A trainer as the daemon sees it: blocks until done, obeys commands, keeps the status board; `splitmask::trainer::run` or a fake one.
pub trait Train: Fn(TrainerSpec, Receiver<Command>, StatusBoard) -> Result<Outcome, Failure> + Send + Sync + 'static {}

impl<F: Fn(TrainerSpec, Receiver<Command>, StatusBoard) -> Result<Outcome, Failure> + Send + Sync + 'static> Train for F {}

/// A trainer whose thread panicked.
pub(super) fn panicked(panic: &(dyn std::any::Any + Send)) -> Failure {
    let text = panic_text(panic);
    // tch panics where libtorch finds no memory, also where no step is taken.
    if let Some(error) = TrainError::of_device(&text) {
        return error.into();
    }
    Failure::from(CliError {
        code: ExitCode::Internal,
        message: format!("the trainer panicked: {text}"),
        hint: Some("this is a bug; the log holds the place".into()),
    })
}
