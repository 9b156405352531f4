//! Samples → workers → batches → queue, on threads of their own.

use std::sync::Arc;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::budget::FailureBudget;
use super::{Dataset, Labels};
use crate::batch::{BatchPool, Batcher};
use crate::config::PipelineConfig;
use crate::cursor::Cursor;
use crate::error::{PipelineError, SampleError};
use crate::metrics::{PipelineMetrics, Progress, Stage};
use crate::request::SampleRequest;
use crate::shard::samples::Rejected;
use crate::shard::window::{Order, Positioned};
use crate::stage::ordered_map::{self, Claim, OrderedMap, ordered_map};
use crate::stage::queue::{Bounds, Consumer, Level, Producer, bounded};
use crate::stage::{Meter, Stop};
use crate::types::{Batch, RawSample, Sample, SampleId, StageTimes};

/// Turns an undecoded sample into views, words and sets; the buffers of the [`Sample`] are recycled and hold old content.
pub type Worker = Box<dyn FnMut(&RawSample, &mut Sample) -> Result<StageTimes, SampleError> + Send>;

/// Which batches to make.
#[derive(Debug, Clone)]
pub struct BatchSpec {
    /// Order of the samples.
    pub order: Order,
    /// What a sample turns into; fixes the sizes of all buffers.
    pub request: Arc<SampleRequest>,
    /// Samples in a batch.
    pub batch: usize,
    /// Whether the last batch of a single pass may be short; else it is left out.
    pub last_partial: bool,
}

/// What a worker made of one sample.
struct Made {
    id: SampleId,
    cursor: Cursor,
    outcome: Result<(Sample, StageTimes), Rejected>,
    /// Set for a sample that took too long: its name and time.
    slow: Option<(String, Duration)>,
}

/// Blocking stream of batches. It ends after an error. Dropping it stops and joins all its threads.
pub struct BatchStream {
    pub(super) queue: Option<Consumer<Result<Batch, PipelineError>>>,
    pub(super) pool: BatchPool,
    pub(super) metrics: PipelineMetrics,
    pub(super) stop: Stop,
    pub(super) thread: Option<JoinHandle<()>>,
}

/// The two ends of a stream's queue.
type Ends = (Producer<Result<Batch, PipelineError>>, Consumer<Result<Batch, PipelineError>>);

/// The queue between the pipeline and its consumer, as the settings bound it.
pub(super) fn queue(settings: &PipelineConfig, metrics: &PipelineMetrics) -> Ends {
    let bounds = Bounds {
        items: settings.queue_batches,
        weight: settings.queue_mib << 20,
    };
    metrics.queue_capacity_batches.set(bounds.items as f64);
    metrics.queue_capacity_bytes.set(bounds.weight as f64);
    let level = Level {
        items: metrics.queue_batches.clone(),
        weight: metrics.queue_bytes.clone(),
    };
    bounded(bounds, meter(metrics, Stage::Batch), meter(metrics, Stage::Consume), level)
}

impl BatchStream {
    pub(super) fn start(dataset: &Dataset, spec: BatchSpec, make_worker: impl Fn() -> Worker) -> Result<Self, PipelineError> {
        if spec.batch == 0 || spec.request.views.is_empty() {
            return Err(PipelineError::BadSetting {
                key: "batch".into(),
                value: spec.batch.to_string(),
                detail: "at least one sample and one view".into(),
            });
        }
        let metrics = dataset.metrics.clone();
        let items = dataset.positioned(
            spec.order,
            Labels {
                maps: spec.request.map.is_some(),
                objects: spec.request.objects.is_some(),
            },
        )?;
        let stop = items.stopper();
        let threads = dataset.pipeline.worker_threads();
        let (spare_sender, spare) = unbounded::<Sample>();
        let decode = meter(&metrics, Stage::Decode);
        let slow = Duration::from_secs_f64(dataset.pipeline.slow_sample_s);
        // Enough that a slow sample does not stall the others, little enough that raw and made samples stay few.
        let ahead = ordered_map::Bounds {
            threads,
            items: threads * 4,
            bytes: u64::MAX,
        };
        let made = ordered_map("decode", items, ahead, decode, || mapper(make_worker(), spare.clone(), slow))?;
        let (producer, consumer) = queue(&dataset.pipeline, &metrics);
        let pool = BatchPool::default();
        let collector = Collector {
            batcher: Batcher::new(Arc::clone(&spec.request), spec.batch, pool.clone()),
            budget: FailureBudget::new(dataset.data.failure_budget, metrics.clone()),
            spec,
            spare: spare_sender,
            metrics: metrics.clone(),
            stop: stop.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("batch".into())
            .spawn(move || collector.run(made, &producer))
            .map_err(|source| PipelineError::Io {
                path: "thread batch".into(),
                source,
            })?;
        Ok(Self {
            queue: Some(consumer),
            pool,
            metrics,
            stop,
            thread: Some(thread),
        })
    }

    /// The next batch; waits for it. `None` at the end of a single pass and after an error.
    #[expect(
        clippy::should_implement_trait,
        reason = "batches are given back with `recycle`; an iterator would invite collecting them"
    )]
    pub fn next(&mut self) -> Option<Result<Batch, PipelineError>> {
        let next = self.queue.as_ref()?.get();
        self.consumed(next)
    }

    /// As [`BatchStream::next`], but `Pending` when nothing came in time.
    pub fn next_timeout(&mut self, timeout: Duration) -> Poll<Option<Result<Batch, PipelineError>>> {
        let Some(queue) = &self.queue else {
            return Poll::Ready(None);
        };
        match queue.get_timeout(timeout) {
            Poll::Ready(next) => Poll::Ready(self.consumed(next)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn consumed(&mut self, next: Option<Result<Batch, PipelineError>>) -> Option<Result<Batch, PipelineError>> {
        match &next {
            Some(Ok(batch)) => self.metrics.samples.of(Progress::Consumed).inc_by(batch.len as u64),
            Some(Err(_)) => {}
            None => {
                // The thread has ended; if it did so by a panic, that is this stream's last word.
                if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
                    return Some(Err(PipelineError::Panicked {
                        stage: "batch",
                        detail: crate::stage::panic_text(&*panic),
                    }));
                }
            }
        }
        next
    }

    /// Batches and bytes waiting.
    #[must_use]
    pub fn queue_level(&self) -> (usize, usize) {
        self.queue.as_ref().map_or((0, 0), Consumer::level)
    }

    /// Gives a batch's buffers back.
    pub fn recycle(&self, batch: Batch) {
        self.pool.recycle(batch);
    }

    /// Stops all threads and waits for them. Batches in the queue are lost; the last consumed batch's cursor is where to go on.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for BatchStream {
    fn drop(&mut self) {
        self.stop.trigger();
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn meter(metrics: &PipelineMetrics, stage: Stage) -> Meter {
    Meter {
        blocked_get: metrics.blocked_get.of(stage).clone(),
        blocked_put: metrics.blocked_put.of(stage).clone(),
    }
}

fn mapper(
    mut worker: Worker,
    spare: Receiver<Sample>,
    slow: Duration,
) -> impl FnMut(Result<Positioned, PipelineError>, &mut Claim<'_>) -> Result<Made, PipelineError> + Send + 'static {
    move |item, _| {
        let Positioned { sample, cursor } = item?;
        let raw = match sample {
            Ok(raw) => raw,
            Err(rejected) => {
                return Ok(Made {
                    id: rejected.id,
                    cursor,
                    outcome: Err(rejected),
                    slow: None,
                });
            }
        };
        let mut sample = spare.try_recv().unwrap_or_default();
        sample.id = Some(raw.id);
        sample.label = raw.label.map_or(-1, i64::from);
        let id = raw.id;
        let start = Instant::now();
        let made = worker(&raw, &mut sample);
        let took = start.elapsed();
        let slow = (took > slow).then(|| (format!("{}:{}", raw.shard.escape_debug(), raw.key), took));
        let outcome = match made {
            Ok(times) => Ok((sample, times)),
            Err(error) => Err(Rejected {
                id,
                shard: raw.shard,
                key: raw.key,
                error,
            }),
        };
        Ok(Made { id, cursor, outcome, slow })
    }
}

struct Collector {
    spec: BatchSpec,
    batcher: Batcher,
    budget: FailureBudget,
    spare: Sender<Sample>,
    metrics: PipelineMetrics,
    stop: Stop,
}

impl Collector {
    fn run<It>(mut self, mut made: OrderedMap<It, Result<Made, PipelineError>>, queue: &Producer<Result<Batch, PipelineError>>)
    where
        It: Iterator + Send + 'static,
    {
        let result = self.collect(&mut made, queue);
        // Wakes the workers that still wait for input, so that they can be joined.
        self.stop.trigger();
        drop(made);
        if let Err(error) = result {
            // Fails when the consumer is gone, who then does not want to know.
            let _ = queue.put(Err(error), 0);
        }
    }

    fn collect<It>(
        &mut self,
        made: &mut OrderedMap<It, Result<Made, PipelineError>>,
        queue: &Producer<Result<Batch, PipelineError>>,
    ) -> Result<(), PipelineError>
    where
        It: Iterator + Send + 'static,
    {
        loop {
            let waiting = Instant::now();
            let next = made.next();
            self.metrics.blocked_get.add(Stage::Batch, waiting.elapsed());
            let Some(next) = next else { break };
            let Made { id, cursor, outcome, slow } = next??;
            if let Some((name, took)) = slow {
                self.metrics.slow_samples.inc();
                tracing::warn!(sample = %name, seconds = took.as_secs_f64(), "slow_sample: it took longer than pipeline.slow_sample_s");
            }
            match outcome {
                Err(rejected) => self.budget.lost(&rejected)?,
                Ok((sample, times)) => {
                    if let Some(batch) = self.add(sample, times, id, cursor)?
                        && !self.put(batch, queue)
                    {
                        return Ok(());
                    }
                }
            }
        }
        if self.stop.is_triggered() {
            return Ok(());
        }
        self.budget.check()?;
        if let Some(batch) = self.batcher.finish().filter(|_| self.spec.last_partial) {
            self.put(batch, queue);
        }
        Ok(())
    }

    fn add(&mut self, sample: Sample, times: StageTimes, id: SampleId, cursor: Cursor) -> Result<Option<Batch>, PipelineError> {
        self.budget.good();
        let m = &self.metrics;
        m.samples.of(Progress::Decoded).inc();
        m.samples.of(Progress::Augmented).inc();
        m.stage_time(Stage::Decode, times.decode);
        m.truncated_kept.inc_by(u64::from(times.truncated));
        m.stage_time(Stage::Augment, times.augment);
        m.count_objects(times.objects);
        let request = &self.spec.request;
        if request.words.is_some() || request.mask.is_some() || request.hidden.is_some() {
            m.samples.of(Progress::Tokenized).inc();
            m.stage_time(Stage::Tokenize, times.tokenize);
        }
        let start = Instant::now();
        let full = self
            .batcher
            .push(&sample, id, cursor)
            .map_err(|detail| PipelineError::Broken { stage: "batch", detail })?;
        m.busy.add(Stage::Batch, start.elapsed());
        m.samples.of(Progress::Batched).inc();
        // The receiver lives in the workers; when they are gone, so is the need.
        let _ = self.spare.send(sample);
        Ok(full)
    }

    fn put(&self, batch: Batch, queue: &Producer<Result<Batch, PipelineError>>) -> bool {
        let bytes = batch.bytes();
        queue.put(Ok(batch), bytes).is_ok()
    }
}
