//! The checkpoint thread: tensors are copied at the step boundary, written while training goes on.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::checkpoint::{self, CheckpointError, Policy, Snapshot, folder_of};
use crate::exit::panic_text;
use crate::held_lock::HeldLock;
use crate::telemetry::metrics::{TrainMetrics, unix_seconds};

/// Writes checkpoints one at a time and keeps the number of old ones bounded.
pub(super) struct CheckpointWriter {
    root: PathBuf,
    /// Asked before anything is written or deleted.
    lock: Option<HeldLock>,
    metrics: TrainMetrics,
    writing: Option<JoinHandle<Result<(PathBuf, u64), CheckpointError>>>,
    /// Why the last write could not even begin.
    refused: Option<CheckpointError>,
    last_step: Option<u64>,
    /// The newest that this writer wrote, while nothing but steps has changed what a checkpoint holds.
    written: Option<(PathBuf, u64)>,
    /// Whether the write under way holds the config in force.
    current: bool,
}

impl CheckpointWriter {
    /// For the run in `run_dir`, recognised by `lock`, whose newest checkpoint is of `last_step`.
    pub(super) fn new(run_dir: &Path, lock: Option<HeldLock>, metrics: TrainMetrics, last_step: Option<u64>) -> Self {
        if let Some(step) = last_step {
            metrics.checkpoint_last_step.set(step as f64);
        }
        Self {
            root: folder_of(run_dir),
            lock,
            metrics,
            writing: None,
            refused: None,
            last_step,
            written: None,
            current: true,
        }
    }

    /// Step of the newest complete checkpoint.
    pub(super) fn last_step(&self) -> Option<u64> {
        self.last_step
    }

    /// The folder written for `step`, if that is the newest and holds the config in force; waits for a write under way.
    pub(super) fn written_at(&mut self, step: u64) -> Option<PathBuf> {
        self.settle();
        let (folder, _) = self.written.as_ref().filter(|(folder, of)| *of == step && folder.is_dir())?;
        Some(folder.clone())
    }

    /// The config changed: what was written holds the one of before.
    pub(super) fn outdate(&mut self) {
        (self.written, self.current) = (None, false);
    }

    /// Starts writing; waits for the previous one first. A failure of that one is counted and logged here: training goes on.
    pub(super) fn begin(&mut self, snapshot: Snapshot, policy: Policy) {
        self.settle();
        self.current = true;
        let (root, metrics, lock) = (self.root.clone(), self.metrics.clone(), self.lock.clone());
        let ours = move || lock.as_ref().map_or(Ok(()), HeldLock::check);
        let write = move || {
            let began = Instant::now();
            let step = snapshot.progress.step;
            ours()?;
            // What the policy does not keep any more may be what fills the disk.
            prune(&root, &policy, None);
            let path = save(&root, &snapshot, &policy)?;
            ours()?;
            metrics.checkpoint_duration.observe(began.elapsed().as_secs_f64());
            metrics.checkpoint_last_success_timestamp.set(unix_seconds());
            metrics.checkpoint_last_step.set(step as f64);
            metrics.checkpoint_bytes.set(folder_bytes(&path) as f64);
            if policy.best == Some(step)
                && let Err(error) = checkpoint::mark_best(&root, step)
            {
                tracing::error!(step, %error, "the link checkpoints/best could not be set; the checkpoint itself is whole");
            }
            prune(&root, &policy, Some(step));
            tracing::info!(step, path = %path.display(), seconds = began.elapsed().as_secs_f64(), "checkpoint");
            Ok((path, step))
        };
        match std::thread::Builder::new().name("checkpoint".into()).spawn(write) {
            Ok(thread) => self.writing = Some(thread),
            Err(source) => {
                self.refused = Some(CheckpointError::Io {
                    path: "thread checkpoint".into(),
                    source,
                });
            }
        }
    }

    /// Deletes what `policy` does not keep, now; the newest good checkpoint stays.
    pub(super) fn prune(&mut self, policy: &Policy) {
        self.settle();
        match self.lock.as_ref().map_or(Ok(()), HeldLock::check) {
            Ok(()) => prune(&self.root, policy, None),
            Err(error) => tracing::error!(%error, "no old checkpoint is deleted"),
        }
    }

    /// Notices a write that has ended.
    pub(super) fn poll(&mut self) {
        if self.writing.as_ref().is_some_and(JoinHandle::is_finished) {
            self.settle();
        }
    }

    /// Waits for the write under way, if any; a failure is logged: training goes on.
    pub(super) fn settle(&mut self) {
        if let Err(e) = self.wait() {
            tracing::error!(error = %e, "a checkpoint could not be written; training goes on; an older one, if there is any, stands");
        }
    }

    /// Waits for the write under way, if any; answers its folder.
    ///
    /// # Errors
    /// Why it failed; the failure is counted.
    pub(super) fn wait(&mut self) -> Result<Option<PathBuf>, CheckpointError> {
        let done = match (self.writing.take(), self.refused.take()) {
            (Some(thread), _) => thread.join().unwrap_or_else(|panic| {
                Err(CheckpointError::Panicked {
                    path: self.root.clone(),
                    detail: panic_text(&*panic),
                })
            }),
            (None, Some(refused)) => Err(refused),
            (None, None) => return Ok(None),
        };
        match done {
            Ok((path, step)) => {
                self.last_step = Some(step);
                self.written = self.current.then(|| (path.clone(), step));
                Ok(Some(path))
            }
            Err(e) => {
                self.metrics.checkpoint_failures.of(e.failure()).inc();
                Err(e)
            }
        }
    }
}

impl Drop for CheckpointWriter {
    fn drop(&mut self) {
        if let Err(e) = self.wait() {
            tracing::error!(error = %e, "the last checkpoint could not be written");
        }
    }
}

/// Writes a checkpoint; where the disk has no room for it, the oldest go first that would go after it.
fn save(root: &Path, snapshot: &Snapshot, policy: &Policy) -> Result<PathBuf, CheckpointError> {
    let saved = checkpoint::save(root, snapshot);
    if !saved.as_ref().is_err_and(CheckpointError::no_space) {
        return saved;
    }
    let fewer = Policy {
        keep: policy.keep.saturating_sub(1),
        ..*policy
    };
    match checkpoint::prune(root, &fewer, None) {
        Ok(deleted) if !deleted.is_empty() => {
            tracing::warn!(steps = ?deleted, "no room for a checkpoint: the oldest made way");
            checkpoint::save(root, snapshot)
        }
        _ => saved,
    }
}

fn prune(root: &Path, policy: &Policy, good: Option<u64>) {
    // What an earlier deletion could not remove, on a disk that failed for a while, takes room until somebody does. Nothing is being written now.
    checkpoint::sweep(root);
    match checkpoint::prune(root, policy, good) {
        Ok(deleted) if deleted.is_empty() => {}
        Ok(deleted) => tracing::debug!(steps = ?deleted, "old checkpoints were deleted"),
        Err(error) => tracing::warn!(%error, "old checkpoints could not be looked through"),
    }
}

fn folder_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|e| e.metadata().ok()).map(|m| m.len()).sum()
}
