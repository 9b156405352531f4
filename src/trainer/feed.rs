//! The trainer's end of the pipeline: opens it at a cursor, waits for batches, rebuilds it when its settings change.

use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use splitmask_pipeline::bucket::location::{is_same_place, redact};
use splitmask_pipeline::config::PipelineConfig;
use splitmask_pipeline::cursor::Cursor;
use splitmask_pipeline::error::PipelineError;
use splitmask_pipeline::metrics::PipelineMetrics;
use splitmask_pipeline::request::SampleRequest;
use splitmask_pipeline::run::{BatchStream, Dataset, Making, Order};
use splitmask_pipeline::sample::ViewMode;
use splitmask_pipeline::tokenize::Tokenizer;
use splitmask_pipeline::types::Batch;
use tch::Device;
use torch_ext::aside;

use super::class_remarks;
use super::epochs::EpochCount;
use super::error::{TrainError, device_panics_caught};
use super::spec::TrainerSpec;
use crate::tensor::{SentBatch, TensorError};
use crate::words::Words;

/// Longest time for which commands go unheard while a batch is awaited.
pub(super) const PATIENCE: Duration = Duration::from_millis(50);

/// Longest time for which opening `data.val` is retried at a start, seconds.
const OPENING_VAL_S: f64 = 5.0;

/// Where batches come from.
#[derive(Clone)]
pub(super) enum Supply {
    /// The training data of the spec, through the whole pipeline.
    Bucket,
    /// Made before; nothing but the queue is the pipeline's.
    Prepared(Arc<[Batch]>),
}

/// Which samples this process takes: every `world`-th, from the `rank`-th on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    pub(super) rank: u32,
    pub(super) world: u32,
    /// Processes on this host that decode at the same time.
    pub(super) sharing: usize,
}

impl Share {
    /// All of them.
    pub(super) const WHOLE: Self = Self {
        rank: 0,
        world: 1,
        sharing: 1,
    };

    /// `[pipeline]` with this process's share of the processors, where they are not numbered there.
    pub(super) fn pipeline(&self, pipeline: &PipelineConfig) -> PipelineConfig {
        let mut own = pipeline.clone();
        if self.sharing > 1 && own.workers == 0 {
            own.workers = (own.worker_threads() / self.sharing).max(1);
        }
        own
    }
}

/// A running stream of training batches, one of them staged ahead of its step.
///
/// The staged batch belongs to the stream: a feed that takes this one's place begins behind the last batch that was *trained*, so it makes the
/// staged one again, by its own settings.
pub(super) struct Feed {
    stream: BatchStream,
    samples: Option<u64>,
    /// Tells apart lists of shards.
    shards: String,
    device: Device,
    words: Rc<Words>,
    ahead: Option<Result<Staged, PipelineError>>,
    epoch: EpochCount,
}

/// A batch, and its copy on the device or on the way there.
pub(super) struct Staged {
    pub(super) batch: Batch,
    /// None if there was no room for a whole batch: then the step sends it part by part.
    pub(super) sent: Option<SentBatch>,
}

impl Feed {
    /// Starts the stream of `spec` at `start`; its batches go to `device`.
    ///
    /// # Errors
    /// Any [`PipelineError`] of opening the bucket; nothing is left running then.
    pub(super) fn open(
        supply: &Supply,
        spec: &TrainerSpec,
        request: &Arc<SampleRequest>,
        words: &Rc<Words>,
        start: Cursor,
        share: Share,
        device: Device,
        metrics: &PipelineMetrics,
    ) -> Result<Self, PipelineError> {
        let (stream, samples, shards) = match supply {
            Supply::Bucket => Self::open_bucket(spec, request, words.tokenizer(), start, share, metrics)?,
            Supply::Prepared(batches) => {
                let stream = BatchStream::prepared(Arc::clone(batches), start, &spec.pipeline, metrics.clone())?;
                (stream, None, String::new())
            }
        };
        Ok(Self {
            stream,
            samples,
            shards,
            device,
            words: Rc::clone(words),
            ahead: None,
            epoch: EpochCount::default(),
        })
    }

    /// Whether a feed of `spec` could be opened now, and how many samples an epoch has; leaves nothing behind.
    ///
    /// # Errors
    /// As [`Feed::open`].
    pub(super) fn try_opening(supply: &Supply, spec: &TrainerSpec) -> Result<Option<u64>, PipelineError> {
        match supply {
            Supply::Bucket => {
                let dataset = Dataset::open_training(&spec.data, &spec.pipeline, &PipelineMetrics::default())?;
                Ok(dataset.samples_of_a_pass(spec.data.fraction))
            }
            Supply::Prepared(_) => Ok(None),
        }
    }

    fn open_bucket(
        spec: &TrainerSpec,
        request: &Arc<SampleRequest>,
        tokenizer: Option<&Arc<Tokenizer>>,
        start: Cursor,
        share: Share,
        metrics: &PipelineMetrics,
    ) -> Result<(BatchStream, Option<u64>, String), PipelineError> {
        let dataset = Dataset::open_training(&spec.data, &share.pipeline(&spec.pipeline), metrics)?;
        let stream = dataset.make(Making {
            order: Order::Shuffled {
                seed: spec.seed,
                start,
                rank: share.rank,
                world: share.world,
            },
            request,
            mode: ViewMode::Train,
            batch: (spec.train.batch / share.world) as usize,
            seed: spec.seed,
            tokenizer,
        })?;
        Ok((stream, dataset.samples_of_a_pass(spec.data.fraction), dataset.digest()))
    }

    /// The staged batch; or waits for one, but not longer than `patience`, so that commands are heard while the bucket is slow.
    ///
    /// # Errors
    /// The stream's last words; it yields nothing after them.
    pub(super) fn next(&mut self, patience: Duration) -> Result<Poll<Staged>, PipelineError> {
        match self.ahead.take() {
            Some(staged) => staged.map(Poll::Ready),
            None => self.take(patience),
        }
    }

    /// Sends the next batch on its way to the device if it is there already; waits for nothing. What goes wrong is told by [`Feed::next`].
    pub(super) fn stage(&mut self) {
        if self.ahead.is_none() {
            self.ahead = match self.take(Duration::ZERO) {
                Ok(Poll::Ready(staged)) => Some(Ok(staged)),
                Ok(Poll::Pending) => None,
                Err(error) => Some(Err(error)),
            };
        }
    }

    /// Waits for a batch, but not longer than `patience`, and keeps it for [`Feed::next`]; whether there is one.
    ///
    /// # Errors
    /// The stream's last words, told here and not again by [`Feed::next`].
    pub(super) fn fetch(&mut self, patience: Duration) -> Result<bool, PipelineError> {
        match self.next(patience)? {
            Poll::Ready(staged) => {
                self.ahead = Some(Ok(staged));
                Ok(true)
            }
            Poll::Pending => Ok(false),
        }
    }

    /// Tells apart lists of shards; empty for batches that were made before.
    #[must_use]
    pub(super) fn shards(&self) -> &str {
        &self.shards
    }

    /// Whether a batch is staged.
    #[must_use]
    pub(super) fn has_staged(&self) -> bool {
        matches!(self.ahead, Some(Ok(_)))
    }

    fn take(&mut self, patience: Duration) -> Result<Poll<Staged>, PipelineError> {
        match self.stream.next_timeout(patience) {
            Poll::Ready(Some(batch)) => {
                let batch = batch?;
                // A mixture's sources have epochs of their own.
                if self.samples.is_none() && batch.cursor.sources.is_empty() {
                    self.epoch.add(&batch.ids).inspect(|warning| tracing::warn!("{warning}"));
                }
                // What is wrong with a batch or with the device is met again, and told, by its step.
                let sent = device_panics_caught(|| Ok(self.send(&batch)?)).ok();
                Ok(Poll::Ready(Staged { batch, sent }))
            }
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(None) => Err(PipelineError::Broken {
                stage: "batch",
                detail: "the endless stream ended".into(),
            }),
        }
    }

    /// Sends a batch to the device and finds its words there, if that is where they are found, beside the step that the device is at.
    fn send(&self, batch: &Batch) -> Result<SentBatch, TensorError> {
        let launch = || {
            let mut sent = SentBatch::send(batch, 0..batch.len, self.device)?;
            self.words.find(&mut sent)?;
            Ok(sent)
        };
        aside(self.device, launch, SentBatch::tensors)
    }

    /// Gives a consumed batch's buffers back.
    pub(super) fn recycle(&self, batch: Batch) {
        self.stream.recycle(batch);
    }

    /// Batches waiting.
    #[must_use]
    pub(super) fn level(&self) -> usize {
        self.stream.queue_level().0
    }

    /// Samples of one epoch, as [`Dataset::samples_of_a_pass`] tells them.
    #[must_use]
    pub(super) fn samples(&self) -> Option<u64> {
        self.samples
    }
}

/// Opens `data.val` once, so that a wrong place is told before the run begins and not at its first evaluation. A place that is merely away is
/// warned of: it may be back by then. So is what of its classes cannot be judged.
///
/// # Errors
/// [`TrainError::BadSetting`] naming `data.val`.
pub(super) fn check_val(spec: &TrainerSpec) -> Result<(), TrainError> {
    let val = &spec.data.val;
    if val.is_empty() {
        return Ok(());
    }
    if is_same_place(val, &spec.data.train) {
        tracing::warn!(
            "data.val is data.train: evaluations measure the images that were trained on, and a nearest neighbour may be the image itself"
        );
    }
    let pipeline = PipelineConfig {
        retry_budget_s: spec.pipeline.retry_budget_s.min(OPENING_VAL_S),
        cache_dir: String::new(),
        ..spec.pipeline.clone()
    };
    match Dataset::open(val, &spec.data, &pipeline, PipelineMetrics::default()) {
        Ok(set) => {
            for told in class_remarks::of_validation(spec, &set)? {
                tracing::warn!("data.val = {}: {told}", redact(val));
            }
            Ok(())
        }
        Err(error @ PipelineError::Unreachable { .. }) => {
            tracing::warn!("data.val cannot be reached now, evaluations will try again: {error}");
            Ok(())
        }
        Err(error) => Err(TrainError::BadSetting {
            key: "data.val".into(),
            value: redact(val),
            detail: error.to_string(),
            hint: error.hint(),
        }),
    }
}
