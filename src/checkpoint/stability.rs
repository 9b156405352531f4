//! What a run remembers of its bad steps. Part of each checkpoint, so that a resumed run decides as the undisturbed one.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use splitmask_pipeline::cursor::Cursor;

/// One return to an older checkpoint, and the data that was left out by it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollback {
    /// Batches that the run had consumed by then.
    pub consumed: u64,
    /// Step at which it was decided.
    pub from_step: u64,
    /// Step of the checkpoint that training went on from; 0 = from the start.
    pub to_step: u64,
    /// First bad step of those that led to it.
    pub first_bad_step: u64,
    /// Why, for people.
    pub reason: String,
    /// Data from here …
    pub skipped_from: Cursor,
    /// … to here is not seen again.
    pub skipped_to: Cursor,
}

/// The recent steps and all rollbacks of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stability {
    /// Batches consumed since the start of the run; never goes back, where the step does.
    pub consumed: u64,
    /// How many of them were judged already.
    pub judged: u64,
    /// (total loss, gradient norm) of the latest steps, oldest first; `None` = it was not finite and was skipped.
    #[serde(with = "crate::exact")]
    pub recent: VecDeque<Option<(f64, f64)>>,
    /// All rollbacks, oldest first.
    pub rollbacks: Vec<Rollback>,
}
