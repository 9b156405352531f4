//! The trainer as the daemon sees it.

use std::sync::mpsc::Receiver;

use crate::trainer::control::{Command, Failure, Outcome, StatusBoard};
use crate::trainer::spec::TrainerSpec;

/// A trainer as the daemon sees it: blocks until done, obeys commands, keeps the status board; `splitmask::trainer::run` or a fake one.
pub trait Train: Fn(TrainerSpec, Receiver<Command>, StatusBoard) -> Result<Outcome, Failure> + Send + Sync + 'static {}

impl<F: Fn(TrainerSpec, Receiver<Command>, StatusBoard) -> Result<Outcome, Failure> + Send + Sync + 'static> Train for F {}
