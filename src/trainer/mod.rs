//! The training loop: one thread that owns every tensor.
//!
//! A step boundary is the only place where anything changes: commands are obeyed there, lines logged, pictures drawn, checkpoints written.

mod assemble;
mod checkpoint_writer;
mod collapse;
pub mod control;
mod error;
mod feed;
mod initial_weights;
mod inject;
mod memory;
mod meter;
pub mod metrics_log;
mod pass;
mod pause;
mod probe;
mod record;
pub mod replay;
mod resume;
mod rollback;
mod side_work;
pub mod spec;
mod speed;
mod stability;
mod step;
mod survey;
mod watch;
mod words;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

use splitmask_pipeline::metrics::PipelineMetrics;
use splitmask_pipeline::request::SampleRequest;
use splitmask_pipeline::types::Batch;

pub use error::TrainError;
pub use probe::{ProbeStage, linear};
pub use resume::put_weights;
pub use survey::knn;
pub use words::Words;

use crate::telemetry::metrics::{Phase, TrainMetrics};
use assemble::{Trainer, fit_schedule};
use control::{Command, Commands, Outcome, Reach, State, StatusBoard};
use feed::{Fed, Feed, Staged, Supply};
use spec::TrainerSpec;
use stability::Trouble;

/// Where a trainer reports to.
#[derive(Clone)]
pub struct Telemetry {
    /// The trainer's own metrics.
    pub train: TrainMetrics,
    /// Those of the pipeline it feeds from.
    pub pipeline: PipelineMetrics,
}

/// Trains until the schedule ends, a stop is commanded, or something fails for good. Goes on from the newest checkpoint of the run folder.
///
/// # Errors
/// [`TrainError`]; where a model exists by then, a checkpoint was written first.
pub fn run(spec: TrainerSpec, commands: &Commands, status: StatusBoard, telemetry: Telemetry) -> Result<Outcome, TrainError> {
    Trainer::assemble(spec, Supply::Bucket, status, telemetry, None)?.train(commands)
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
    Trainer::assemble(spec, Supply::Prepared(batches.into()), status, telemetry, None)?.train(commands)
}

/// Longest time for which commands go unheard while a batch is awaited.
const PATIENCE: Duration = Duration::from_millis(50);

impl Trainer {
    fn train(mut self, commands: &Commands) -> Result<Outcome, TrainError> {
        self.show_watch();
        self.set_state(State::Training);
        while self.step < self.spec.optim.total_steps {
            if self.obey(commands) {
                self.set_state(State::Draining);
                self.checkpoint()?;
                return Ok(Outcome::Stopped { step: self.step });
            }
            self.clock.switch(Phase::DataWait);
            if self.paused.is_some() {
                self.stay_paused();
                continue;
            }
            match self.feed.next(PATIENCE) {
                Ok(Fed::Batch(staged)) => {
                    self.waiting_since = None;
                    match self.boundary(staged) {
                        Ok(None) => {}
                        Ok(Some(trouble)) => self = self.roll_back(&trouble)?,
                        // The step was not taken; the weights are those of the one before.
                        Err(e @ TrainError::OutOfMemory { .. }) => {
                            if let Err(error) = self.checkpoint() {
                                tracing::error!(%error, "no checkpoint could be written; the older one stands");
                            }
                            return Err(e);
                        }
                        Err(e) => return Err(e),
                    }
                }
                Ok(Fed::Waiting) => {
                    let since = *self.waiting_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > Duration::from_secs(1) {
                        self.set_state(State::WaitingForData);
                    }
                }
                Err(e) => {
                    let Some(why) = self.may_pause(&e) else {
                        self.checkpoint()?;
                        return Err(e.into());
                    };
                    self.pause(why, &e);
                }
            }
        }
        if self.checkpoints.last_step() != Some(self.step) {
            self.checkpoint()?;
        }
        self.pictures();
        self.set_state(State::Finished);
        Ok(Outcome::Finished { step: self.step })
    }

    /// One step and what is due after it. Answers why to go back, if so.
    fn boundary(&mut self, staged: Staged) -> Result<Option<Trouble>, TrainError> {
        self.checkpoints.poll();
        self.set_state(State::Training);
        self.take_step(&staged)?;
        self.feed.recycle(staged.batch);
        let last = self.step == self.spec.optim.total_steps;
        if !last {
            // The device is busy with this step, and nothing has asked it for a number yet.
            self.clock.switch(Phase::Copy);
            self.feed.stage();
            self.clock.switch(Phase::Other);
        }
        let due = |every: u64| every > 0 && self.step.is_multiple_of(every);
        let (log, picture, eval, linear, mut checkpoint) = (
            due(self.spec.log.every_steps) || last,
            due(self.spec.picture.every_steps) && !last,
            due(self.spec.eval.every_steps),
            due(self.spec.eval.linear_every_steps),
            due(self.spec.checkpoint.every_steps),
        );
        if (due(self.spec.stability.check_every_steps) || checkpoint || last)
            && let Some(trouble) = self.look()?
        {
            return Ok(Some(trouble));
        }
        if log {
            self.record();
        }
        if eval {
            // The best one so far is worth a checkpoint of its own.
            checkpoint |= self.evaluate();
        }
        if linear {
            self.evaluate_linear();
        }
        if picture {
            self.pictures();
        }
        if checkpoint {
            self.checkpoint_in_background()?;
        }
        self.clock.switch(Phase::Other);
        Ok(None)
    }

    /// Handles waiting commands; answers whether to stop.
    fn obey(&mut self, commands: &Commands) -> bool {
        loop {
            match commands.try_recv() {
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return true,
                Err(TryRecvError::Empty) => return false,
                Ok(Command::Checkpoint { reply }) => {
                    let done = self.checkpoint().map(|path| (path, self.step)).map_err(|e| e.to_string());
                    reply.send(done);
                }
                Ok(Command::Reconfigure { spec, reach, reply }) => {
                    self.clock.switch(Phase::Reload);
                    let done = self.reconfigure(*spec, reach).map(|()| self.step).map_err(|e| e.to_string());
                    reply.send(done);
                    self.clock.switch(Phase::Other);
                }
            }
        }
    }

    /// Takes over a changed spec at this boundary: all or nothing. Everything new is built first, beside what runs; then it takes its place.
    ///
    /// # Errors
    /// Nothing has changed, and training goes on as if nothing had been asked.
    fn reconfigure(&mut self, mut spec: TrainerSpec, reach: Reach) -> Result<(), TrainError> {
        let samples = match reach {
            Reach::Live => self.feed.samples(),
            // Before a pipeline is started that would have to be stopped again.
            Reach::Rebuild => Feed::look(&self.supply, &spec)?,
        };
        fit_schedule(&mut spec, samples)?;
        let pipeline = match reach {
            Reach::Live => None,
            Reach::Rebuild => {
                let plan = Arc::new(self.words.request(spec.objective.request(&spec.scope(self.words.len()))));
                let (tokenizer, metrics) = (self.words.tokenizer(), &self.telemetry.pipeline);
                let feed = Feed::open(&self.supply, &spec, &plan, tokenizer, self.cursor, self.device, metrics)?;
                Some((feed, plan))
            }
        };
        // The last step that can fail; it changes nothing then.
        self.objective.take_live(spec.objective.plan())?;
        self.commit(spec, pipeline);
        Ok(())
    }

    fn commit(&mut self, spec: TrainerSpec, pipeline: Option<(Feed, Arc<SampleRequest>)>) {
        if let Some((feed, plan)) = pipeline {
            tracing::debug!(
                staged = self.feed.has_staged(),
                "the pipeline begins anew behind the last trained batch"
            );
            (self.feed, self.plan) = (feed, plan);
            self.resume();
        }
        self.optimizer.reconfigure(&spec.optim);
        let kept = self.retention();
        self.spec = spec;
        if self.retention() != kept {
            // Now, not at the next checkpoint: a full disk may be why they are to be fewer.
            self.checkpoints.prune(&self.retention());
        }
        self.show_watch();
    }

    /// Writes a checkpoint and waits until it is safe on disk.
    fn checkpoint(&mut self) -> Result<PathBuf, TrainError> {
        self.checkpoint_in_background()?;
        self.clock.switch(Phase::Checkpoint);
        let path = self.checkpoints.wait().map_err(TrainError::from)?;
        self.clock.switch(Phase::Other);
        path.ok_or_else(|| TrainError::Io {
            path: self.spec.run_dir.clone(),
            source: std::io::Error::other("the writer of checkpoints ended without an answer"),
        })
    }
}
