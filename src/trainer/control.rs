//! The seam between the daemon and the trainer thread: commands in, a status snapshot out. No tensors cross it.

use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::exit::CliError;
use crate::trainer::spec::TrainerSpec;

/// Stack of the trainer's thread, bytes.
const STACK: usize = 16 << 20;

/// The thread that a training runs on, in the daemon and where a step is measured: glibc has one growing memory for a program's first thread, and heaps of
/// 64 MiB for each other one, which costs a step another time.
pub fn trainer_thread() -> std::thread::Builder {
    std::thread::Builder::new().name("trainer".into()).stack_size(STACK)
}

/// How far a reconfiguration reaches inside a running trainer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Schedules, weights, intervals: taken over at the step boundary.
    Live,
    /// The pipeline is also rebuilt from the cursor of the last consumed batch; on failure the old one is rebuilt and the error answered.
    Rebuild,
}

/// Where a command is answered: a function, called by the trainer's thread, which must not wait in it.
pub struct Reply<T>(Option<Box<dyn FnOnce(Result<T, String>) + Send>>);

impl<T> Reply<T> {
    /// Calls `answer` once: with what the trainer says, or with an error if it ends without a word.
    pub fn new(answer: impl FnOnce(Result<T, String>) + Send + 'static) -> Self {
        Self(Some(Box::new(answer)))
    }

    /// Answers.
    pub fn send(mut self, answer: Result<T, String>) {
        if let Some(reply) = self.0.take() {
            reply(answer);
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        if let Some(reply) = self.0.take() {
            reply(Err("the trainer ended before it answered".into()));
        }
    }
}

impl<T> std::fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reply")
    }
}

/// How a trainer failed, as far as the daemon must know.
#[derive(Debug)]
pub struct Failure {
    /// What is told, and the exit code.
    pub error: CliError,
    /// What in the config is to blame, if anything is.
    pub blame: Option<Blame>,
    /// The bucket does not answer. Nothing says that its address is wrong: the same start may succeed later.
    pub away: bool,
}

/// A setting that a failure goes back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blame {
    /// The key.
    Key(String),
    /// The value, where several keys can hold it: an address of shards.
    Address(String),
}

impl From<CliError> for Failure {
    fn from(error: CliError) -> Self {
        Self {
            error,
            blame: None,
            away: false,
        }
    }
}

/// What the daemon asks of the trainer; handled between two steps, and while waiting for data.
#[derive(Debug)]
pub enum Command {
    /// Take over a changed spec.
    Reconfigure {
        /// The whole new spec.
        spec: Box<TrainerSpec>,
        /// How far it reaches.
        reach: Reach,
        /// Answers the step at whose boundary it took effect, or why it did not.
        reply: Reply<u64>,
    },
    /// Write a checkpoint now; answers (path, step).
    Checkpoint {
        /// Where to answer.
        reply: Reply<(PathBuf, u64)>,
    },
    /// Write a checkpoint and take no more steps until [`Command::Resume`]; a run that is paused so already only answers.
    Pause {
        /// Answers where it stands.
        reply: Reply<PausedAt>,
    },
    /// End the pause that [`Command::Pause`] began, if there is one.
    Resume {
        /// Answers the step, and why the run is paused even so, if it is.
        reply: Reply<ResumedAt>,
    },
    /// Finish the step, write a checkpoint, return [`Outcome::Stopped`].
    Stop,
}

/// Where a run that was asked to pause stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PausedAt {
    /// Optimizer steps done.
    pub step: u64,
    /// The checkpoint of this step; none while the disk refuses it.
    pub checkpoint: Option<PathBuf>,
    /// Why there is none; it is tried again.
    pub error: Option<String>,
}

/// Where a run that was asked to go on stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ResumedAt {
    /// Optimizer steps done.
    pub step: u64,
    /// Why it is paused even so: nobody asked for that, and asking does not end it.
    pub paused: Option<String>,
}

/// How a trainer ended. Failures are `Err(TrainError)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// `optim.total_steps` reached; the last checkpoint and pictures are written.
    Finished {
        /// Last step.
        step: u64,
    },
    /// A [`Command::Stop`] was obeyed after a checkpoint.
    Stopped {
        /// Last step.
        step: u64,
    },
}

/// What the trainer is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Building model and pipeline, restoring a checkpoint.
    #[default]
    Starting,
    /// Taking steps.
    Training,
    /// The queue has been empty for over a second.
    WaitingForData,
    /// Writing a checkpoint.
    Checkpointing,
    /// Measuring k-NN accuracy or drawing pictures.
    Evaluating,
    /// Taking no steps: too many samples failed, the bucket refuses the credentials, or somebody asked for it. [`Status::paused`] says why.
    Paused,
    /// Finishing after a stop.
    Draining,
    /// Done.
    Finished,
}

/// Work beside training that failed; training went on. Put onto the board by the trainer, into the journal by the daemon.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SideFailure {
    /// Counts those of this trainer, from 1.
    pub number: u64,
    /// What could not be done.
    pub task: &'static str,
    /// After so many optimizer steps.
    pub step: u64,
    /// Why.
    pub error: String,
}

/// Failures that a status holds at most.
const SIDE_FAILURES: usize = 10;

impl Status {
    /// Notes a failure of work beside training; the oldest goes where there are many.
    pub fn note_failure(&mut self, task: &'static str, step: u64, error: String) {
        let number = self.side_failures.last().map_or(1, |last| last.number + 1);
        self.side_failures.push(SideFailure { number, task, step, error });
        let surplus = self.side_failures.len().saturating_sub(SIDE_FAILURES);
        self.side_failures.drain(..surplus);
    }
}

/// A rule of the objective by which the run has learnt nothing for so long that it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Collapsed {
    /// Name of the rule, the label of `splitmask_train_collapsed_intervals`.
    pub rule: &'static str,
    /// Log intervals in a row.
    pub intervals: u64,
    /// What it says.
    pub help: &'static str,
    /// What to look at and what to change.
    pub remedy: &'static str,
}

/// Snapshot for `/api/v1/status`, the status page and the progress line. Written by the trainer, read by anyone.
#[derive(Debug, Clone, Serialize, Default)]
pub struct Status {
    /// What it is doing.
    pub state: State,
    /// Optimizer steps done.
    pub step: u64,
    /// Steps of the schedule.
    pub total_steps: u64,
    /// Epoch of the last consumed batch.
    pub epoch: u32,
    /// Position after the last consumed batch.
    pub cursor: splitmask_pipeline::cursor::Cursor,
    /// Images per second over the last log interval.
    pub images_per_second: f64,
    /// Share of wall time spent waiting for batches, over the last log interval.
    pub data_wait_ratio: f64,
    /// Loss terms by name at the last log step.
    pub losses: Vec<(String, f64)>,
    /// Entropy of the words' marginal distribution, nats.
    pub token_entropy: f64,
    /// Learning rate of the next step.
    pub learning_rate: f64,
    /// Gradient norm at the last log step.
    pub grad_norm: f64,
    /// Newest checkpoint's step, if any.
    pub last_checkpoint_step: Option<u64>,
    /// The last return to an older checkpoint, if any by this trainer.
    pub last_rollback: Option<crate::checkpoint::Rollback>,
    /// Last evaluation by task: (task, its number, step).
    pub evaluations: Vec<(String, f64, u64)>,
    /// Best evaluation so far: (measure, value, step).
    pub best: Option<(String, f64, u64)>,
    /// Whether `eval.patience` evaluations have passed without a better one.
    pub overfitting: bool,
    /// The latest failures of evaluations, pictures and the like, oldest first.
    pub side_failures: Vec<SideFailure>,
    /// Rules of collapse that have held for long, with what to do about them.
    pub collapsed: Vec<Collapsed>,
    /// Lines of `metrics.jsonl` that wait for room on the disk.
    pub unwritten_lines: usize,
    /// Samples dropped by reason.
    pub sample_errors: Vec<(String, u64)>,
    /// (batches, capacity) of the queue.
    pub queue: (usize, usize),
    /// What guessing would score in numbers of the objective, where it is known: (number, score).
    pub chance: Vec<(String, f64)>,
    /// Why the run is paused, with what to do about it.
    pub paused: Option<String>,
    /// Whether somebody asked for a pause ([`Command::Pause`]), and not yet for its end.
    pub pause_asked: bool,
    /// Why the checkpoint that the run is to end with is not written yet; it is tried again.
    pub unsaved: Option<String>,
    /// Whether the first batch was consumed, i.e. the daemon is ready.
    pub ready: bool,
    /// Monotonic seconds since the process started at the last sign of progress (a step, or a named slow phase).
    pub last_progress_s: f64,
}

/// Shared, lock-held-briefly status.
pub type StatusBoard = Arc<Mutex<Status>>;

/// A status board, held for a moment; whoever panicked with it in hand left whole values.
pub(super) fn held(status: &StatusBoard) -> MutexGuard<'_, Status> {
    status.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The trainer's end of the command channel.
pub type Commands = Receiver<Command>;

/// Monotonic seconds since the first call in this process; the clock of [`Status::last_progress_s`].
#[must_use]
pub fn uptime_s() -> f64 {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    START.get_or_init(std::time::Instant::now).elapsed().as_secs_f64()
}
