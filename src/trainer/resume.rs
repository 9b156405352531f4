//! Where a run goes on from: its newest good checkpoint, put in place.

use std::path::{Path, PathBuf};

use splitmask_pipeline::bucket::location::redact;
use tch::nn;

use super::control::{StatusBoard, held};
use super::error::TrainError;
use super::spec::TrainerSpec;
use crate::checkpoint::{self, Bad, CheckpointError, Found, Snapshot, folder_of};
use crate::optim::{AdamW, OptimError};
use crate::telemetry::metrics::TrainMetrics;
use crate::words::Words;

/// The newest checkpoint of the run that can be read, with its folder. Newer ones that cannot are set aside, and told.
///
/// # Errors
/// The folder of the checkpoints cannot be listed, or is a link to nowhere.
pub(super) fn newest(run_dir: &Path, metrics: &TrainMetrics, status: &StatusBoard) -> Result<Option<(PathBuf, Snapshot)>, TrainError> {
    let root = folder_of(run_dir);
    if root.is_symlink() && !root.exists() {
        return Err(TrainError::BadSetting {
            key: "run.dir".into(),
            value: run_dir.display().to_string(),
            detail: "its checkpoints/ is a link to a place that is not there".into(),
            hint: Some("is its disk mounted? mount it, or remove the link to begin anew".into()),
        });
    }
    checkpoint::sweep(&root);
    let set_aside = |bad: &Bad| {
        let done = match bad.set_aside() {
            Ok(aside) => format!("it was set aside as {}", aside.display()),
            Err(e) => format!("it is passed over, and could not be set aside: {e}"),
        };
        tracing::error!(
            step = bad.step,
            reason = bad.reason,
            "a checkpoint is damaged; {done}; the next older one is taken, if there is one"
        );
        metrics.checkpoint_damaged.inc();
        held(status).note_failure("checkpoint", bad.step, format!("{}; {done}", bad.reason));
    };
    let mut end = u64::MAX;
    loop {
        let Found { good, bad } = checkpoint::newest_good_before(&root, end)?;
        bad.iter().for_each(set_aside);
        let Some(good) = good else { return Ok(None) };
        let (folder, step) = (good.folder.clone(), good.progress.step);
        match good.with_tensors() {
            Ok(snapshot) => return Ok(Some((folder, snapshot))),
            // It was whole a moment ago: the disk fails.
            Err(e) => set_aside(&Bad {
                step,
                folder,
                reason: e.to_string(),
            }),
        }
        end = step;
    }
}

/// A checkpoint of another model.
pub(super) fn mismatch(folder: &Path, detail: String) -> TrainError {
    TrainError::from(CheckpointError::Mismatch {
        path: folder.to_owned(),
        detail,
    })
}

/// Moments or averages of a checkpoint that cannot be put in place.
pub(super) fn unfit(folder: &Path, e: OptimError) -> TrainError {
    match e {
        e @ (OptimError::Torch(_) | OptimError::Tch(_)) => e.into(),
        other => mismatch(folder, other.to_string()),
    }
}

/// Refuses a checkpoint whose head tells other classes apart than `spec` has.
fn check_classes(folder: &Path, learnt: &[String], spec: &TrainerSpec) -> Result<(), TrainError> {
    let now = &spec.labels.names;
    if learnt == now {
        return Ok(());
    }
    let told = |names: &[String]| match names {
        [] => "no names".to_owned(),
        [first, ..] => format!("{} names, from {first:?}", names.len()),
    };
    let place = redact(spec.data.first_place());
    Err(mismatch(
        folder,
        format!(
            "it learnt other classes ({}) than those of data.train = {place} ({}), or the same in another order",
            told(learnt),
            told(now)
        ),
    ))
}

/// Puts a checkpoint's tensors in place.
///
/// # Errors
/// [`CheckpointError::Mismatch`] saying what differs.
pub(super) fn restore(
    folder: &Path,
    snapshot: &Snapshot,
    vars: &nn::VarStore,
    optimizer: &mut AdamW,
    words: &Words,
    spec: &TrainerSpec,
) -> Result<(), TrainError> {
    if snapshot.progress.codebook != words.id() {
        return Err(mismatch(folder, "it was trained with another codebook (codebook.path)".into()));
    }
    check_classes(folder, &snapshot.progress.classes, spec)?;
    checkpoint::put_weights(folder, &snapshot.model, vars)?;
    let state = snapshot.optimizer.iter().map(|(name, t)| (name.clone(), t.shallow_clone()));
    optimizer.load_state(state).map_err(|e| unfit(folder, e))
}
