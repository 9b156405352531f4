//! The trainer: one thread that owns every tensor.
//!
//! A step boundary is the only place where anything changes: commands are obeyed there, lines logged, pictures drawn, checkpoints written. The loop is
//! in `run`, a step in `step`, what is done at a boundary in `hooks`, and in which order. What a run is lies in one struct, `state::RunState`;
//! what it is taken with in `setup::Setup`; where it tells in `outlets::Outlets`. Nothing else is shared between the files.

mod assemble;
mod class_remarks;
mod config;
pub mod control;
mod epochs;
mod error;
mod fault_injection;
mod feed;
mod gpu;
mod hooks;
mod initial_weights;
mod labels;
mod last_checkpoint;
mod meter;
pub mod metrics_log;
mod outlets;
mod pause;
pub mod ranks;
mod reading_labels;
mod resume;
mod run;
mod setup;
pub mod spec;
mod speed;
mod stability;
mod standing_still;
mod state;
mod step;
mod tensorboard;
mod together;

use splitmask_pipeline::bucket::location::redact;
use splitmask_pipeline::run::Dataset;
use splitmask_pipeline::types::Batch;

pub use epochs::batch_exceeds;
pub use error::TrainError;
pub use outlets::Telemetry;
pub use stability::replay;

use std::rc::Rc;

use assemble::{Company, assemble};
use control::{Commands, Outcome, StatusBoard};
use feed::Supply;
use ranks::launching::Launching;
use run::{Ended, Trainer};
use spec::TrainerSpec;
use stability::roll_back;
use together::Asked;

/// What a start would say of the classes of its sets; `val`: `data.val`, if there is one that can be opened.
///
/// # Errors
/// Why it would refuse them.
pub fn of_classes(mut spec: TrainerSpec, val: Option<&Dataset>) -> Result<Vec<String>, TrainError> {
    spec.take_labels(reading_labels::labels_of(&spec, &Supply::Bucket)?);
    let train = class_remarks::of_training(&spec.labels, spec.objective.classes_of());
    let val = val
        .map(|val| class_remarks::of_validation(&spec, val))
        .transpose()?
        .unwrap_or_default();
    let told = |place: String, lines: Vec<String>| lines.into_iter().map(move |line| format!("{place}: {line}"));
    let train = told(format!("data.train = {}", redact(spec.data.first_place())), train);
    Ok(train.chain(told(format!("data.val = {}", redact(&spec.data.val)), val)).collect())
}

/// Trains until the schedule ends, a stop is commanded, or something fails for good. Goes on from the newest checkpoint of the run folder. With
/// several ranks, all of them together; the process ends with this trainer then, for who has left does not come back.
///
/// # Errors
/// [`TrainError`]; where a model exists by then, a checkpoint was written first, but for several ranks of which one is lost.
pub fn run(
    spec: TrainerSpec,
    commands: &Commands,
    status: StatusBoard,
    telemetry: Telemetry,
    launching: &Launching,
) -> Result<Outcome, TrainError> {
    let company = Company::meet(&spec, launching)?;
    let peers = company.peers.clone();
    let done = assemble(spec, Supply::Bucket, status, telemetry, company, None).and_then(|trainer| train(trainer, commands));
    match (peers.map(Rc::try_unwrap), &done) {
        (Some(Ok(peers)), Ok(_)) => peers.leave()?,
        (Some(Ok(peers)), Err(error)) => peers.fail(&error.to_string()),
        (Some(Err(_)), _) => unreachable!("the trainer is gone, and what it shared with it"),
        (None, _) => {}
    }
    done
}

/// As [`run`], on batches that were made before instead of `spec.data`, in turn and without end: for measuring the loop by itself.
///
/// # Errors
/// As [`run`]; a batch that does not fit the objective.
pub fn run_prepared(
    spec: TrainerSpec,
    batches: Vec<Batch>,
    commands: &Commands,
    status: StatusBoard,
    telemetry: Telemetry,
) -> Result<Outcome, TrainError> {
    let alone = Company {
        launching: Launching::alone(),
        peers: None,
    };
    train(
        assemble(spec, Supply::Prepared(batches.into()), status, telemetry, alone, None)?,
        commands,
    )
}

/// Trains, and goes back and on as often as steps go wrong and the ladder allows.
fn train(mut trainer: Trainer, commands: &Commands) -> Result<Outcome, TrainError> {
    let mut asked = Asked::default();
    loop {
        let ended = match trainer.setup.peers.is_some() {
            true => trainer.train_together(commands, &mut asked),
            false => trainer.train(commands),
        };
        match ended? {
            Ended::Done(outcome) => return Ok(outcome),
            Ended::Unstable(run, instability) => trainer = roll_back(*run, &instability)?,
        }
    }
}
