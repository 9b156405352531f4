//! The checkpoint thread: tensors are copied at the step boundary, written while training goes on.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::checkpoint::{self, CheckpointError, Snapshot, folder_of, surplus};
use crate::telemetry::metrics::{TrainMetrics, unix_seconds};

/// Writes checkpoints one at a time and keeps the number of old ones bounded.
pub(super) struct Keeper {
    root: PathBuf,
    metrics: TrainMetrics,
    writing: Option<JoinHandle<Result<(PathBuf, u64), CheckpointError>>>,
    last_step: Option<u64>,
}

impl Keeper {
    /// For the run in `run_dir`, whose newest checkpoint is of `last_step`.
    pub(super) fn new(run_dir: &Path, metrics: TrainMetrics, last_step: Option<u64>) -> Self {
        if let Some(step) = last_step {
            metrics.checkpoint_last_step.set(step as f64);
        }
        Self {
            root: folder_of(run_dir),
            metrics,
            writing: None,
            last_step,
        }
    }

    /// Step of the newest complete checkpoint.
    pub(super) fn last_step(&self) -> Option<u64> {
        self.last_step
    }

    /// Starts writing; waits for the previous one first. A failure of that one is counted and logged here: training goes on.
    pub(super) fn begin(&mut self, snapshot: Snapshot, keep: u32, keep_every: u64) {
        self.settle();
        let (root, metrics) = (self.root.clone(), self.metrics.clone());
        let best = snapshot.progress.watch.best.map(|(_, step)| step);
        let write = move || {
            let began = Instant::now();
            let step = snapshot.progress.step;
            let path = checkpoint::save(&root, &snapshot)?;
            metrics.checkpoint_duration.observe(began.elapsed().as_secs_f64());
            metrics.checkpoint_last_success_timestamp.set(unix_seconds());
            metrics.checkpoint_last_step.set(step as f64);
            metrics.checkpoint_bytes.set(folder_bytes(&path) as f64);
            if best == Some(step) {
                checkpoint::mark_best(&root, step)?;
            }
            let existing = checkpoint::list(&root);
            let steps: Vec<u64> = existing.iter().map(|(s, _)| *s).collect();
            let old = surplus(&steps, keep, keep_every, best);
            for (_, folder) in existing.iter().filter(|(s, _)| old.contains(s)) {
                if let Err(e) = std::fs::remove_dir_all(folder) {
                    tracing::warn!(folder = %folder.display(), error = %e, "an old checkpoint could not be deleted");
                }
            }
            tracing::info!(step, path = %path.display(), seconds = began.elapsed().as_secs_f64(), "checkpoint");
            Ok((path, step))
        };
        let thread = std::thread::Builder::new().name("checkpoint".into()).spawn(write);
        self.writing = Some(thread.expect("a thread can be started"));
    }

    /// Notices a write that has ended.
    pub(super) fn poll(&mut self) {
        if self.writing.as_ref().is_some_and(JoinHandle::is_finished) {
            self.settle();
        }
    }

    fn settle(&mut self) {
        if let Err(e) = self.wait() {
            tracing::error!(error = %e, "a checkpoint could not be written; training goes on, the older one stands");
        }
    }

    /// Waits for the write under way, if any; answers its folder.
    ///
    /// # Errors
    /// Why it failed; the failure is counted.
    pub(super) fn wait(&mut self) -> Result<Option<PathBuf>, CheckpointError> {
        let Some(thread) = self.writing.take() else { return Ok(None) };
        let done = thread.join().unwrap_or_else(|_| {
            Err(CheckpointError::Damaged {
                path: self.root.clone(),
                detail: "the checkpoint thread panicked; the log holds the place".into(),
            })
        });
        match done {
            Ok((path, step)) => {
                self.last_step = Some(step);
                Ok(Some(path))
            }
            Err(e) => {
                self.metrics.checkpoint_failures.inc();
                Err(e)
            }
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Err(e) = self.wait() {
            tracing::error!(error = %e, "the last checkpoint could not be written");
        }
    }
}

fn folder_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|e| e.metadata().ok()).map(|m| m.len()).sum()
}
